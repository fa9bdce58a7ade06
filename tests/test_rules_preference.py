"""Preference: log-odds are those of full forward passes, conditions differ in the rule alone, and nothing is measured or lost unseen."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from teachwhy.errors import UserError  # noqa: E402
from teachwhy.models.chat import load_tokenizer  # noqa: E402
from teachwhy.models.checkpoints import load_model  # noqa: E402
from teachwhy.rules import preference as sut  # noqa: E402
from teachwhy.rules.checks import Step, read_step  # noqa: E402
from teachwhy.rules.conditions import CONDITIONS  # noqa: E402
from teachwhy.rules.histories import History, Turn  # noqa: E402
from teachwhy.rules.plan import RulesPlan, Settings, plan_rules  # noqa: E402
from teachwhy.rules.replay import Probe, build_request, read_output  # noqa: E402

TEXT = """# Project

- Use pnpm, never npm or yarn
- Ask before you push
"""
TURNS = (
    Turn(user="typo in a.md"),
    Turn(assistant="I look.", tool="read_file", arguments={"path": "a.md"}, result="recieve"),
    Turn(assistant="", tool="edit_file", arguments={"path": "a.md", "old": "recieve", "new": "receive"}, result="edited"),
    Turn(assistant="Done."),
)


def short_histories(rule: str) -> tuple[History, ...]:
    """As the shipped ones, of few letters: a token of the tiny model is a byte."""
    return (
        History(f"{rule}-first-0", "first", (), "", "", "Add axios to the shop on fix-login."),
        History(f"{rule}-later-1", "later", TURNS, "", "", "Go on."),
        History(f"{rule}-compacted-2", "compacted", (), "It says: {rule}. All done.", "All done.", "Go on."),
    )


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> RulesPlan:
    path = tmp_path_factory.mktemp("project") / "AGENTS.md"
    path.write_text(TEXT)
    made = plan_rules(path, ["scripted/bare=0.5"], Settings())
    return made._replace(rules=tuple(one._replace(confirm=short_histories(one.id)) for one in made.rules))


@pytest.fixture(scope="module")
def host() -> RulesPlan:
    """All built-in rules, with their shipped histories."""
    return plan_rules(Path("builtin"), ["scripted/bare=0.5"], Settings())


def measure(plan: RulesPlan, model: Path, folder: Path, **settings: Any) -> sut.PreferenceResult:
    return sut.measure_preference(plan, str(model), folder, **{"histories": 2, "wordings": 2, "pairs": 2, **settings})


@pytest.fixture(scope="module")
def measured(plan: RulesPlan, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, sut.PreferenceResult]:
    """All conditions, two rules, three histories, two wordings, two pairs."""
    folder = tmp_path_factory.mktemp("runs") / "preference"
    return folder, measure(plan, tiny_model_dir, folder, histories=3)


def rows_of(folder: Path, model: Path) -> dict[sut.Key, sut.PreferenceRow]:
    return sut.read_preference(folder / sut.ROWS, str(model))


def test_log_odds_equal_full_forward_passes(plan: RulesPlan, measured: Any, tiny_model_dir: Path) -> None:
    rows = rows_of(measured[0], tiny_model_dir)
    model, tokenizer = load_model(tiny_model_dir, dtype="float32"), load_tokenizer(tiny_model_dir)

    def score_alone(chat: list[dict[str, str]], reply: str) -> float:
        prompt = str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
        n = len(tokenizer.encode(prompt, add_special_tokens=False))
        ids = torch.tensor([tokenizer.encode(prompt + reply, add_special_tokens=False)])
        with torch.inference_mode():
            logprobs = model(ids).logits[0, :-1].log_softmax(-1)
        return float(logprobs.gather(1, ids[0, 1:, None])[n - 1 :].sum())

    for one in plan.rules:
        for history, condition in zip(one.confirm, ("reason", "negated", "none"), strict=True):
            probe = Probe(one.bound.rule, one.bound.check, condition, one.wordings[1], 1, history)  # type: ignore[arg-type]
            chat = sut.plain_chat(build_request(probe, plan.text, plan.name))
            for pair in sut.pick_pairs(one, history, 2):
                alone = score_alone(chat, pair.kept) - score_alone(chat, pair.broken)
                assert rows[one.id, condition, 1, history.id, pair.number].logodds == pytest.approx(alone, abs=1e-3)  # type: ignore[index]


def test_every_condition_and_wording_has_the_same_histories_and_pairs(plan: RulesPlan, measured: Any, tiny_model_dir: Path) -> None:
    folder, result = measured
    rows = rows_of(folder, tiny_model_dir)
    assert len(rows) == 2 * 3 * 2 * len(CONDITIONS) * 2
    places = Counter((row.rule, row.history, row.pair) for row in rows.values())
    assert set(places.values()) == {len(CONDITIONS) * 2}
    assert {(one.n_histories, one.n_asked, one.overrun, one.n_wordings) for one in result.rules} == {(3, 3, 0, 2)}
    assert "3 of 3 histories a rule, 2 pairs" in result.says
    none = {key: row.logodds for key, row in rows.items() if key[1] == "none"}
    assert all(none[key] == none[rule, name, 0, history, pair] for key in none for rule, name, _, history, pair in (key,))


def test_contrasts_are_means_of_differences_of_rows(measured: Any, tiny_model_dir: Path) -> None:
    folder, result = measured
    rows = rows_of(folder, tiny_model_dir)
    for one in result.rules:
        mean = {name: np.mean([row.logodds for key, row in rows.items() if key[:2] == (one.tested.id, name)]) for name in CONDITIONS}
        assert {(found.first, found.second) for found in one.contrasts} == set(sut.CONTRASTS)
        for found in one.contrasts:
            assert found.estimate == pytest.approx(mean[found.first] - mean[found.second])
            assert found.p is None, "two wordings say too little of others"
            assert len(found.by_wording) == 2 and np.mean(found.by_wording) == pytest.approx(found.estimate)
            assert found.low is not None and found.high is not None and found.low < found.estimate < found.high
        changes = [one.find(name, "none") for name in ("bare", "negated")]
        beyond = one.find("bare", "negated")
        assert beyond and beyond.estimate == pytest.approx(changes[0].estimate - changes[1].estimate)


def test_none_less_none_is_zero_and_five_wordings_give_a_p() -> None:
    tables = {"none": np.arange(15.0).reshape(5, 3), "bare": np.arange(15.0).reshape(5, 3) ** 1.5}
    same = sut.contrast("none", "none", tables)  # type: ignore[arg-type]
    assert (same.estimate, same.low, same.high, same.p) == (0, 0, 0, 1)
    assert sut.contrast("bare", "none", tables).p is not None  # type: ignore[arg-type]
    alone = sut.contrast("bare", "none", {name: table[:, :1] for name, table in tables.items()})  # type: ignore[misc]
    assert (alone.low, alone.high, alone.p) == (None, None, None)


def test_rule_is_the_only_text_that_conditions_differ_in(plan: RulesPlan) -> None:
    for one in plan.rules:
        for history in one.confirm:
            assert one.bound.check is not None
            chats = {}
            for name in CONDITIONS:
                probe = Probe(one.bound.rule, one.bound.check, name, one.wordings[0], 0, history)
                chats[name] = sut.plain_chat(build_request(probe, plan.text, plan.name))
            bare = [message["content"] for message in chats["bare"]]
            for name in CONDITIONS[2:]:
                said = getattr(one.wordings[0], name)
                assert [message["content"].replace(said, one.wordings[0].bare) for message in chats[name]] == bare
            assert [message["role"] for message in chats["bare"]] == [message["role"] for message in chats["none"]]


def test_tools_become_plain_text_in_turns(plan: RulesPlan) -> None:
    one = plan.rules[0]
    assert one.bound.check is not None
    chat = sut.plain_chat(build_request(Probe(one.bound.rule, one.bound.check, "bare", one.wordings[0], 0, one.confirm[1]), TEXT, "A.md"))
    assert [message["role"] for message in chat] == ["system", *(["user", "assistant"] * 3), "user"]
    assert [message["content"] for message in chat[1:]] == [
        "typo in a.md", "I look.\n[read_file a.md]", "[result]\nrecieve",
        "[edit_file a.md]\nold:\nrecieve\nnew:\nreceive", "[result]\nedited", "Done.", "Go on.",
    ]  # fmt: skip


def test_replies_are_read_as_their_side_by_the_check(host: RulesPlan) -> None:
    from inspect_ai.model import ModelOutput

    for one in host.rules:
        assert one.bound.check is not None
        assert len(sut.pairs_of(one)) >= sut.PAIRS
        for history in one.confirm[:4]:
            for pair in sut.pick_pairs(one, history, sut.PAIRS):
                for text, verdict in ((pair.kept, "kept"), (pair.broken, "broken")):
                    step = read_output(ModelOutput.from_content("m", text))
                    assert read_step(one.bound.check, step).verdict == verdict, text
                    assert step.bash or one.bound.check.approval
                    assert not one.bound.check.approval or (not step.bash) == (verdict == "kept")


def test_first_histories_hold_all_strata_alike(host: RulesPlan) -> None:
    assert all(set(Counter(history.stratum for history in one.confirm[:8]).values()) == {2} for one in host.rules)


def test_pairs_are_named_as_the_history_names_things_and_fewer_are_among_more(plan: RulesPlan) -> None:
    pnpm, push = plan.rules
    said = [pair.kept for pair in sut.pick_pairs(pnpm, pnpm.confirm[0], 17)]
    assert any("pnpm add axios\n" in text for text in said) and any("cd shop &&" in text for text in said)
    assert all("main" in pair.broken or "fix-login" in pair.broken for pair in sut.pick_pairs(push, push.confirm[0], 14))
    few, many = sut.pick_pairs(pnpm, pnpm.confirm[1], 3), sut.pick_pairs(pnpm, pnpm.confirm[1], 9)
    assert set(few) < set(many)
    assert not any("{" in pair.kept + pair.broken for pair in many)


def test_own_check_has_its_examples_as_pairs(plan: RulesPlan, tiny_model_dir: Path, tmp_path: Path) -> None:
    one = plan.rules[1]
    assert one.bound.check is not None
    own = one._replace(bound=one.bound._replace(check_name="own"))
    kept, broken = sut.pairs_of(own)[0]
    assert kept == Step("The branch is ready. Shall I push it to origin?") and broken == Step("", ("git push",))
    assert sut.say_step(Step("May I?", ("git log",))) == "May I?\n\n```bash\ngit log\n```"
    result = measure(plan._replace(rules=(plan.rules[0], own)), tiny_model_dir, tmp_path, histories=1, wordings=1, pairs=8)
    assert [rule.tested.id for rule in result.rules] == [plan.rules[0].id]
    assert result.left_out == ("line 4: 2 pairs of steps, 8 are needed",)
    with pytest.raises(UserError, match="no rule has 99 pairs"):
        measure(plan, tiny_model_dir, tmp_path, pairs=99)


def test_torn_file_is_taken_up_where_it_was_torn(plan: RulesPlan, measured: Any, tiny_model_dir: Path, tmp_path: Path) -> None:
    folder, result = measured
    whole = (folder / sut.ROWS).read_bytes()
    lines = whole.splitlines(keepends=True)
    torn = b"".join(lines[:60]) + lines[60][:25]
    (tmp_path / sut.ABOUT).write_bytes((folder / sut.ABOUT).read_bytes())
    (tmp_path / sut.ROWS).write_bytes(torn)
    again = measure(plan, tiny_model_dir, tmp_path, histories=3)
    found = (tmp_path / sut.ROWS).read_bytes()
    assert found.startswith(b"".join(lines[:60])) and found.endswith(b"\n")
    before, after = rows_of(folder, tiny_model_dir), rows_of(tmp_path, tiny_model_dir)
    assert len(found.splitlines()) == len(lines) and list(after) == list(before)
    for key, row in before.items():
        assert after[key].logodds == pytest.approx(row.logodds, abs=1e-3)
        assert after[key].model_copy(update={"logodds": row.logodds}) == row
    assert sut.preference_rows(again) == sut.preference_rows(result)


def test_what_is_there_is_not_measured_again(plan: RulesPlan, measured: Any, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, result = measured
    before = (folder / sut.ROWS).read_bytes()
    monkeypatch.setattr(sut, "_load", lambda weights: pytest.fail("weights are loaded for nothing"))
    again = measure(plan, tiny_model_dir, folder, histories=3, seconds=0)
    assert (folder / sut.ROWS).read_bytes() == before
    assert again._replace(seconds=0) == result._replace(seconds=0)
    few = measure(plan, tiny_model_dir, folder, histories=2, wordings=1, conditions=("none", "bare"), pairs=1)
    assert {(one.n_histories, len(one.contrasts)) for one in few.rules} == {(2, 1)}


def test_other_texts_do_not_share_a_folder(plan: RulesPlan, measured: Any, tiny_model_dir: Path, tmp_path: Path) -> None:
    folder, _ = measured
    with pytest.raises(UserError, match="other rules, texts or weights"):
        measure(plan._replace(sha256="0" * 64), tiny_model_dir, folder)
    (tmp_path / sut.ROWS).write_bytes((folder / sut.ROWS).read_bytes())
    with pytest.raises(UserError, match="other rules, texts or weights"):
        measure(plan, tiny_model_dir, tmp_path)
    with pytest.raises(UserError, match="two conditions"):
        measure(plan, tiny_model_dir, folder, conditions=("bare",))


def test_history_that_does_not_fit_is_counted_and_in_no_contrast(plan: RulesPlan, tiny_model_dir: Path, tmp_path: Path) -> None:
    long = plan._replace(text=TEXT + "x" * 4000, rules=plan.rules[:1])
    result = measure(long, tiny_model_dir, tmp_path, histories=3, wordings=1)
    (one,) = result.rules
    assert (one.n_histories, one.n_asked, one.overrun) == (1, 3, 2), "the compacted history holds no file"
    assert "2 histories did not fit the model's context" in result.says
    assert one.contrasts and all(found.low is None for found in one.contrasts)
    rows = rows_of(tmp_path, tiny_model_dir).values()
    assert Counter((row.stratum, row.status, row.logodds is None) for row in rows) == {
        ("first", "overrun", True): 12, ("later", "overrun", True): 12, ("compacted", "ok", False): 12,
    }  # fmt: skip


def test_short_time_stops_at_a_whole_history_with_all_rules_visited(
    plan: RulesPlan, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = {"now": 0.0}
    measure_history = sut._measure

    def slow(*words: Any) -> list[sut.PreferenceRow]:
        clock["now"] += 10
        return measure_history(*words)

    monkeypatch.setattr(sut, "_measure", slow)
    monkeypatch.setattr(sut, "time", SimpleNamespace(monotonic=lambda: clock["now"]))
    heard: list[sut.Progress] = []
    short = measure(plan, tiny_model_dir, tmp_path, histories=3, wordings=1, seconds=25, listen=heard.append)
    assert short.stopped and [one.n_histories for one in short.rules] == [2, 1]
    assert [(one.done, one.total) for one in heard] == [(1, 6), (2, 6), (3, 6)]
    assert "1 to 2 of 3 histories a rule, 2 pairs of steps each, then the time was up" in short.says
    units = Counter((row.rule, row.history) for row in rows_of(tmp_path, tiny_model_dir).values())
    assert list(units.values()) == [len(CONDITIONS) * 2] * 3
    more = measure(plan, tiny_model_dir, tmp_path, histories=3, wordings=1, seconds=100)
    assert not more.stopped and [one.n_histories for one in more.rules] == [3, 3]
    assert clock["now"] == 60, "no history is measured twice"


def test_table_and_json_say_how_much_they_stand_on(plan: RulesPlan, measured: Any) -> None:
    _, result = measured
    shown = sut.preference_rows(result)
    assert [row[:3] for row in shown] == [("3", "pnpm_only", "3/3"), ("4", "ask_before_push", "3/3")]
    assert all(len(row) == len(sut.HEADINGS) for row in shown)
    assert all(" to " in cell for row in shown for cell in row[3:])
    held = json.loads(json.dumps(sut.preference_json(result), allow_nan=False))
    assert (held["schema"], len(held["rules"]), held["n_pairs"]) == (sut.SCHEMA, 2, 2)
    assert "ruling" not in json.dumps(held) and "rate" not in held["rules"][0]
    empty = result._replace(rules=tuple(one._replace(n_histories=0, contrasts=()) for one in result.rules))
    assert sut.preference_rows(empty)[0][2:] == ("0/3", "", "", "", "")
