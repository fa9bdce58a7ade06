"""One rule under each condition: the rest of the file stays to the letter, and the request proves what it holds."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teachwhy.errors import UserError
from teachwhy.rules.bind import Bound, Kept, Wording, bind_rules, read_built_in
from teachwhy.rules.checks import Step, read_step
from teachwhy.rules.conditions import CONDITIONS, find_span, refuse_unproved, render_condition, replace_rule, wordings_of
from teachwhy.rules.histories import DROPPED, EPISODES, PROBED, make_histories, read_stock
from teachwhy.rules.listing import HOST
from teachwhy.rules.read import Rule, parse_rules
from teachwhy.rules.second import read_again

FILE = """# Project

Always write tests. Never push without asking, because a push deploys.

- Use `rg`, not grep
  - grep walks into the build folder
- Use uv, never pip - the image is built from the lock
* [ ] Always use
  NO_COLOR=1 when running commands
1. Keep functions short.
"""


def rule_of(start: str, text: str = FILE) -> Rule:
    return next(rule for rule in parse_rules(text, "AGENTS.md") if rule.bare.startswith(start))


@pytest.mark.parametrize(
    ("start", "gone"),
    [
        ("Use `rg`", "- Use `rg`, not grep\n  - grep walks into the build folder\n"),
        ("Use uv", "- Use uv, never pip - the image is built from the lock\n"),
        ("Always use", "* [ ] Always use\n  NO_COLOR=1 when running commands\n"),
        ("Keep functions", "1. Keep functions short.\n"),
    ],
)
def test_rule_goes_with_its_reason_and_its_item_and_nothing_else(start: str, gone: str) -> None:
    assert replace_rule(FILE, rule_of(start), "") == FILE.replace(gone, "")


def test_sentence_goes_from_its_paragraph() -> None:
    left = replace_rule(FILE, rule_of("Never push"), "")
    assert left == FILE.replace("Never push without asking, because a push deploys.", "")


def test_other_text_stands_where_the_rule_stood() -> None:
    for rule in parse_rules(FILE, "AGENTS.md"):
        start, end = find_span(FILE, rule)
        assert replace_rule(FILE, rule, "Something else") == FILE[:start] + "Something else" + FILE[end:]
        assert FILE[start:end].split()[0] == rule.text.split()[0]


def test_rule_that_stands_there_no_more_is_refused() -> None:
    with pytest.raises(UserError, match="does not stand there any more"):
        find_span(FILE.replace("never pip", "not pip"), rule_of("Use uv"))


WORDS = st.text("abcdef `.-", min_size=1, max_size=30)


@given(st.lists(WORDS, max_size=6), st.lists(WORDS, max_size=6))
def test_whatever_stands_around_a_rule_stays(before: list[str], after: list[str]) -> None:
    text = "\n\n".join([*before, "- Never push to main", *after])
    found = [rule for rule in parse_rules(text, "x") if rule.bare.startswith("Never push to main")]
    for rule in found:
        start, end = find_span(text, rule)
        new = replace_rule(text, rule, "Other")
        assert (new[:start], new[start + 5 :]) == (text[:start], text[end:])


BUILT_IN = read_built_in()


def host_rules() -> tuple[str, list[Bound]]:
    text = HOST.read_text()
    return text, [bound for bound in bind_rules(parse_rules(text, "AGENTS.md"), Kept()) if bound.check]


def test_host_file_holds_every_built_in_rule_bare() -> None:
    _, bound = host_rules()
    assert {one.check_name for one in bound} == set(BUILT_IN)
    assert {one.rule.bare for one in bound} == {rule.rule for rule in BUILT_IN.values()}
    assert not any(one.reason for one in bound)


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_every_wording_under_every_condition_proves_itself(name: str) -> None:
    text, bound = host_rules()
    one = next(each for each in bound if each.check_name == name)
    wordings = wordings_of(one, BUILT_IN)
    assert len(wordings) >= 3
    for wording in wordings:
        shown = {condition: render_condition(text, one.rule, condition, wording) for condition in CONDITIONS}
        assert len(set(shown.values())) == len(CONDITIONS)
        for condition, whole in shown.items():
            refuse_unproved(whole, condition, wording)
            for other in CONDITIONS:
                if {condition, other} & {"none"} and condition != other and other != "none":
                    with pytest.raises(UserError):
                        refuse_unproved(whole, other, wording)


def test_reason_that_is_left_over_is_seen() -> None:
    wording = BUILT_IN["no_color"].wordings[0]
    with pytest.raises(UserError, match="text of 'reason' under 'bare'"):
        refuse_unproved(f"- {wording.reason}", "bare", wording)
    with pytest.raises(UserError, match="under 'none'"):
        refuse_unproved(f"- {wording.bare}", "none", wording)


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_wordings_are_read_as_what_they_are(name: str) -> None:
    rule = BUILT_IN[name]
    assert (rule.wordings[0].bare, rule.wordings[0].reason) == (rule.rule, f"{rule.rule} - {rule.reason}")
    for wording in rule.wordings:
        assert any(re.search(pattern, wording.bare, re.IGNORECASE) for pattern in rule.binds), wording.bare
        for text, has_reason in ((wording.bare, False), (wording.reason, True), (wording.filler, True)):
            (read,) = parse_rules(f"- {text}")
            assert (read.bare, bool(read.reason)) == (wording.bare.rstrip("."), has_reason), text
        assert len({wording.bare, wording.reason, wording.filler, wording.always, wording.negated}) == 5


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_lengths_are_within_three_tokens(name: str, builtin_model_dir: object) -> None:  # counted by its tokenizer
    from teachwhy.rules.conditions import count_lengths

    for wording in BUILT_IN[name].wordings:
        found = count_lengths(wording)
        assert found.tokenizer == "SmolLM2"
        assert found.apart <= 3, wording
        assert abs(found.tokens["negated"] - found.tokens["bare"]) <= 3, wording


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_pairs_are_read_as_they_are_meant_by_both_detectors(name: str) -> None:
    rule = BUILT_IN[name]
    assert len(rule.pairs) >= 8
    longest = max(len(values) for values in rule.slots.values())
    for number in range(longest):
        values = {slot: options[number % len(options)] for slot, options in rule.slots.items()}
        for pair in rule.pairs:
            for verdict, text in (("kept", pair.kept), ("broken", pair.broken)):
                for slot, value in values.items():
                    text = text.replace(f"{{{slot}}}", value)
                said = verdict == "kept" and rule.check.approval
                step = Step(text, ()) if said else Step("", (text,))
                assert read_step(rule.check, step).verdict == read_again(rule.check, step).verdict == verdict, text


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_histories_differ_and_hold_nothing_that_the_rule_is_about(name: str) -> None:
    rule = BUILT_IN[name]
    jobs = [job.ask for job in rule.jobs]
    found = make_histories(name, jobs, rule.slots)
    assert len(found) == len({repr((one.turns, one.summary, one.ask)) for one in found}) == 40
    assert [one.stratum for one in found[:8]] == [*PROBED, *PROBED]
    assert found == make_histories(name, jobs, rule.slots) != make_histories(name, jobs, rule.slots, seed=1)
    for one in found:
        texts = [one.ask, one.summary, *(turn.user or turn.assistant or "" for turn in one.turns)]
        assert not any(re.search(r"\{(?!rule\})[a-z_]+\}", text) for text in texts), texts
        for turn in one.turns:
            assert read_step(rule.check, Step(turn.assistant or "")).verdict == "not_applicable"
        assert ("{rule}" in one.summary) == (one.stratum == "compacted")
        assert (len([turn for turn in one.turns if turn.user]) >= EPISODES) == (one.stratum == "later")
    dropped = make_histories(name, jobs, rule.slots, n=8, strata=(DROPPED,))
    assert all(one.summary == one.without and "{rule}" not in one.summary for one in dropped)


def test_stock_holds_no_command() -> None:
    stock = read_stock()
    assert {turn.tool for episode in stock.work for turn in episode} == {"", "read_file", "edit_file"}
    assert all(not turn.tool for episode in stock.distractors for turn in episode)


def test_rule_without_a_reason_says_what_to_write() -> None:
    from teachwhy.rules.checks import Check

    (rule,) = parse_rules("- Never edit generated/")
    check = Check.model_validate({"forbid": ["touch ..."], "kept": [{"bash": "ls"}], "broken": [{"bash": "touch a"}]})
    with pytest.raises(UserError, match="has no reason"):
        wordings_of(Bound(rule, check, "own", ""), BUILT_IN)
    (one,) = wordings_of(Bound(rule, check, "own", "", reason="it is made by a program"), BUILT_IN)
    assert one.filler == one.tautology, "a tautology stands in for a filler"
    (one,) = wordings_of(Bound(rule, check, "own", "", reason="it is made by a program"), BUILT_IN, filler="it holds a folder a module")
    assert isinstance(one, Wording)
    assert one.reason == "Never edit generated/ - it is made by a program"


def test_own_words_of_a_known_rule_take_its_reason_and_filler() -> None:
    (rule,) = parse_rules("- When running commands, always set NO_COLOR for every shell command")
    (bound,) = bind_rules([rule], Kept())
    (one,) = wordings_of(bound, BUILT_IN)
    assert one.bare == rule.bare
    assert one.reason == f"{rule.bare} - ANSI escape codes waste tokens"
    assert one.filler.startswith(f"{rule.bare} - ") and one.filler != one.reason
