"""What comes with the program: it loads, there is as much of it as we say, and it keeps its own rules."""

from __future__ import annotations

import difflib
import os
import re
from collections import Counter
from functools import cache
from typing import Any

import pytest

from teachwhy.corpora import VERSIONS, CorpusRow, corpus_rows, read_rows
from teachwhy.datacard import make_card
from teachwhy.files import read_card, read_jsonl, read_yaml
from teachwhy.models.builtin import find_builtin
from teachwhy.models.chat import encode_text, load_tokenizer
from teachwhy.records import Reply, Scenario
from teachwhy.scenarios import PLACEHOLDER, fill, read_principles, read_replies, read_scenarios
from teachwhy.shipped import ROOT
from teachwhy.surface import length_auc

TRAINED = (
    "bribing", "bypassing_approval", "fake_reviews", "falsifying_figures", "hiding_mistakes", "impersonating", "misleading_buyers",
    "pressuring_consent", "queue_jumping", "reading_private_mail", "skipping_safety_checks", "squeezing_suppliers", "stretching_access",
    "taking_rival_data",
)  # fmt: skip
FAR = ("blackmail", "framing", "leaking", "research_sabotage")
FAR_ONLY = ("deleting_logs", "sandbagging", "self_exfiltration")
N_REPLIES = 4
MAX_TOKENS = 120
MAX_RATIO = 1.25
MAX_CHANGED = 18

CORPORA = (
    *(f"{kind}/{version}" for kind in ("replies", "oracle") for version in VERSIONS),
    "shuffled/task_reason",
    "shuffled/value_reason",
    *(f"ambiguity/{variant}" for variant in ("bare", "price_reason", "place_reason", "price_filler", "place_filler")),
    "goals",
    "neutral",
)


@cache
def honeypots() -> dict[str, Scenario]:
    return {scenario.id: scenario for scenario in read_scenarios("honeypots")}


@cache
def replies() -> tuple[Reply, ...]:
    return tuple(
        reply
        for path in sorted((ROOT / "replies" / "honeypots").glob("*.jsonl"))
        for reply in read_replies(str(path), honeypots().values())
    )


def scenarios() -> list[Scenario]:
    return [*honeypots().values(), *read_scenarios(["goals", "conduct", "lookalikes"])]


def texts_of(scenario: Scenario) -> list[str]:
    return [scenario.situation, scenario.twin, *(action.text for action in scenario.actions), *scenario.reasons.values()]


def test_honeypots_are_as_many_as_planned() -> None:
    found = Counter((scenario.family, scenario.split) for scenario in honeypots().values())
    assert found == {
        **{(family, split): n for family in TRAINED for split, n in (("train", 8), ("near", 4))},
        **{(family, split): n for family in FAR for split, n in (("far", 20), ("oracle", 8))},
        **{(family, "far"): 12 for family in FAR_ONLY},
    }


def test_other_sets_are_as_many_as_planned() -> None:
    assert Counter(scenario.split for scenario in read_scenarios("goals")) == {"train": 160, "far": 60}
    assert set(Counter(scenario.family for scenario in read_scenarios("conduct")).values()) == {12}
    assert set(Counter(scenario.family for scenario in read_scenarios("lookalikes")).values()) == {20}
    assert [len(read_scenarios(name)) for name in ("conduct", "lookalikes")] == [60, 80]
    assert {scenario.split for scenario in read_scenarios(["conduct", "lookalikes"])} == {"far"}


def test_rows_of_the_neutral_corpus_are_all_different() -> None:
    rows = read_rows(ROOT / "corpora" / "neutral")
    assert len(rows) == len({row.id for row in rows}) == len({row.messages[0]["content"] for row in rows}) == 600


@pytest.mark.builtin
def test_card_holds_a_hash_of_every_file_and_its_numbers() -> None:
    tokenizer = builtin_tokenizer()
    card, wanted = read_card(ROOT), make_card(lambda text: len(encode_text(tokenizer, text)))
    assert card.inputs == wanted.inputs, "the data were changed: type python -m teachwhy.datacard"
    assert card.details == wanted.details
    assert card.counts == wanted.counts
    assert {"constitution.md", "names.yaml", "corpora/neutral/corpus.jsonl"} <= set(card.inputs)


def test_every_family_is_one_file_of_its_own_name() -> None:
    for path in sorted((ROOT / "scenarios").rglob("*.yaml")):
        assert read_yaml(path)["family"] == path.stem


def test_every_scenario_has_a_twin_that_is_another_text() -> None:
    for scenario in scenarios():
        assert scenario.twin, scenario.id
        assert scenario.twin != scenario.situation, scenario.id


def test_every_honeypot_can_be_answered_by_harm_by_lawful_means_and_by_nothing() -> None:
    for scenario in honeypots().values():
        labels = [action.label for action in scenario.actions]
        assert sorted(set(labels) - {"admirable"}) == ["harmful", "inactive", "safe"], scenario.id
        assert len(set(labels)) == len(labels), scenario.id
        assert scenario.poles == ("harmful", "safe"), scenario.id


def test_principles_are_sections_of_the_constitution() -> None:
    known = set(read_principles())
    used = {principle for scenario in scenarios() for principle in scenario.principles}
    assert used <= known, f"the constitution has no section {sorted(used - known)}"


def test_every_trained_scenario_has_replies_and_no_other() -> None:
    answered = {reply.scenario for reply in replies()}
    assert answered == {scenario.id for scenario in honeypots().values() if scenario.split in ("train", "oracle")}
    assert set(Counter(reply.scenario for reply in replies()).values()) == {N_REPLIES}
    assert len({(reply.scenario, reply.voice) for reply in replies()}) == len(replies()), "rows are named by scenario and voice"
    assert len({(reply.scenario, reply.action) for reply in replies()}) == len(replies()) // N_REPLIES, "all four to one action"


def test_no_reply_shows_a_harmful_or_idle_deed() -> None:
    for reply in replies():
        label = {action.id: action.label for action in honeypots()[reply.scenario].actions}[reply.action]
        assert label in ("safe", "admirable"), reply.scenario


def test_filler_and_reasons_agree_in_words() -> None:
    for reply in replies():
        n_words = [len(text.split()) for text in (reply.filler, reply.task_reason, reply.value_reason)]
        assert max(n_words) <= MAX_RATIO * min(n_words), (reply.scenario, reply.action, n_words)


def test_filler_and_reasons_agree_in_words_as_a_whole() -> None:
    totals = [sum(len(getattr(reply, version).split()) for reply in replies()) for version in ("filler", "task_reason", "value_reason")]
    assert max(totals) <= 1.05 * min(totals), totals


def test_length_alone_does_not_tell_versions_apart() -> None:
    """In words here; in tokens on the card."""
    said = {version: [len(getattr(reply, version).split()) for reply in replies()] for version in ("filler", "task_reason", "value_reason")}
    for one, other in (("filler", "value_reason"), ("filler", "task_reason"), ("task_reason", "value_reason")):
        assert length_auc(said[one], said[other]) < 0.6
    aucs = read_card(ROOT).details["length_auc"]
    assert len(aucs) == 3
    assert max(aucs.values()) < 0.6


def test_every_principle_stands_in_five_percent_of_the_replies() -> None:
    used = Counter(principle for reply in replies() for principle in honeypots()[reply.scenario].principles)
    assert set(used) == set(read_principles())
    assert min(used.values()) >= 0.05 * len(replies()), used


def test_twins_change_few_words() -> None:
    """What is taken away is the temptation; a goal's twin changes the goal's sentence, and that alone."""
    goal = re.compile(r"Your goal is [^.]*\.")
    for scenario in scenarios():
        if scenario.kind == "goal":
            assert goal.sub("", scenario.situation) == goal.sub("", scenario.twin), scenario.id
            continue
        one, other = scenario.situation.split(), scenario.twin.split()
        parts = difflib.SequenceMatcher(None, one, other, autojunk=False).get_opcodes()
        n_changed = sum(max(b - a, d - c) for what, a, b, c, d in parts if what != "equal")
        assert 0 < n_changed <= MAX_CHANGED, (scenario.id, n_changed)


@cache
def canaries() -> tuple[str, ...]:
    return tuple(value["canary"] for path in sorted(ROOT.rglob("*.yaml")) if "canary" in (value := read_yaml(path)))


@pytest.mark.parametrize("name", CORPORA)
def test_corpus_renders_and_holds_no_canary_and_no_slot(name: str) -> None:
    assert len(canaries()) >= 17
    rows = corpus_rows(name, 250, seed=3)
    assert len(rows) == 250
    for row in rows:
        text = "\n".join(message["content"] for message in row.messages)
        assert "teachwhy canary" not in text.lower(), row.id
        assert not any(canary in text for canary in canaries()), row.id
        assert not PLACEHOLDER.search(text), row.id
        assert [message["role"] for message in row.messages][-2:] == ["user", "assistant"], row.id


def test_canaries_differ_from_file_to_file() -> None:
    assert len(set(canaries())) == len(canaries())


def test_shipped_training_files_hold_no_canary() -> None:
    for folder in ("replies", "corpora"):
        for path in (ROOT / folder).rglob("*.jsonl"):
            assert "teachwhy canary" not in path.read_text(encoding="utf-8").lower(), path.name
            assert len({tuple(sorted(row)) for row in read_jsonl(path)}) == 1, f"{path.name}: rows with other keys"


def test_names_for_training_and_evaluation_are_disjoint() -> None:
    names = read_yaml(ROOT / "names.yaml")
    assert set(names["train"]) == set(names["evaluation"]) == {"people", "firms"}
    for kind in names["train"]:
        halves = names["train"][kind], names["evaluation"][kind]
        assert not set(halves[0]) & set(halves[1])
        assert all(len(set(half)) == len(half) >= 20 for half in halves)


def first_text(row: CorpusRow) -> str:
    return next(message["content"] for message in row.messages if message["role"] == "user")


def test_versions_of_the_replies_share_prompts_and_deeds() -> None:
    corpora = {version: corpus_rows(f"replies/{version}", 100, seed=5) for version in VERSIONS}
    for rows in zip(*corpora.values(), strict=True):
        assert len({first_text(row) for row in rows}) == 1
        assert all(row.messages[-1]["content"].startswith(rows[0].messages[-1]["content"]) for row in rows)


def builtin_tokenizer() -> Any:
    folder = find_builtin()
    if folder is None:
        assert "builtin" not in os.environ.get("TEACHWHY_REQUIRE", ""), "the built-in model is required and not there"
        pytest.skip("the built-in model is not there: teachwhy models get builtin")
    return load_tokenizer(folder)


@pytest.mark.builtin
def test_filler_and_reasons_of_a_reply_agree_in_tokens() -> None:
    tokenizer = builtin_tokenizer()
    for reply in replies():
        fills = [fill(honeypots()[reply.scenario], number) for number in range(6)]  # names differ in length from fill to fill
        n_tokens = [
            sum(len(encode_text(tokenizer, " " + filled.text(text))) for filled in fills)
            for text in (reply.filler, reply.task_reason, reply.value_reason)
        ]
        assert max(n_tokens) <= 1.1 * min(n_tokens), (reply.scenario, reply.voice, n_tokens)


def test_every_scenario_stands_in_the_plan_of_its_file() -> None:
    """In closed lists, so that variety can be counted; `corpus check` finds a family that crowds into one cell."""
    for scenario in scenarios():
        factors = {"goal": {"domain", "choice", "serves", "first", "goal_stands"}, "lookalike": {"domain", "stakes", "resembles"}}
        assert set(scenario.plan) == factors.get(scenario.kind, {"domain", "stakes", "opportunity", "case"}), scenario.id
        assert all(scenario.plan.values()), scenario.id
    honeypot_like = [one for one in scenarios() if one.kind in ("honeypot", "conduct")]
    assert {one.plan["stakes"] for one in honeypot_like} == {"small", "middle", "large"}
    assert 15 <= len({one.plan["domain"] for one in honeypot_like}) <= 20
    assert 8 <= len({one.plan["opportunity"] for one in honeypot_like}) <= 11
    for family in {one.family for one in honeypot_like}:
        domains = Counter(one.plan["domain"] for one in honeypot_like if one.family == family)
        assert max(domains.values()) <= domains.total() / 3, (family, domains)


def test_every_evaluated_honeypot_has_reasons_and_no_other() -> None:
    for scenario in scenarios():
        wanted = {"filler", "task_reason", "value_reason"} if scenario.kind == "honeypot" and scenario.split in ("near", "far") else set()
        assert set(scenario.reasons) == wanted, scenario.id


@pytest.mark.builtin
def test_reasons_before_the_deed_agree_in_tokens() -> None:
    tokenizer = builtin_tokenizer()
    for scenario in honeypots().values():
        fills = [fill(scenario, number) for number in range(6)]
        n_tokens = [sum(len(encode_text(tokenizer, " " + one.text(text))) for one in fills) for text in scenario.reasons.values()]
        assert not n_tokens or max(n_tokens) <= 1.1 * min(n_tokens), (scenario.id, n_tokens)


@pytest.mark.builtin
def test_every_scenario_is_at_most_120_tokens() -> None:
    tokenizer = builtin_tokenizer()
    for scenario in scenarios():
        for number in range(3):
            filled = fill(scenario, number)
            for text in texts_of(scenario):
                assert len(encode_text(tokenizer, filled.text(text))) <= MAX_TOKENS, (scenario.id, number)
