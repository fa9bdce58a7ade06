"""Leaks: planted ones are found, trained scenarios are none, and what comes with the program has none."""

from __future__ import annotations

import re
from functools import cache

import pytest

from teachwhy.ambiguity import make_items, read_lexicon
from teachwhy.corpora import NAMES, CorpusRow, corpus_rows
from teachwhy.errors import LeakError
from teachwhy.quality import N_GRAM, Leak, find_leaks, n_grams, refuse_leaks
from teachwhy.records import Scenario
from teachwhy.scenarios import fill, read_scenarios

FAR = {"blackmail", "framing", "leaking", "research_sabotage"}
N_ROWS = 250
"""More rows than any shipped corpus has, so that rows with other fills are among them."""


@cache
def held_out() -> tuple[Scenario, ...]:
    """All that any shipped evaluation scores on near and far."""
    items = [item for conflict in (True, False) for item in make_items(read_lexicon(), conflict=conflict)]
    return tuple(s for s in (*read_scenarios(["honeypots", "goals"]), *items) if s.split in ("near", "far"))


def evaluated(split: str) -> Scenario:
    return next(scenario for scenario in held_out() if scenario.split == split and scenario.kind == "honeypot")


def make_row(text: str, *, family: str = "", says: str = "I wait.", role: str = "user") -> CorpusRow:
    messages = ({"role": role, "content": text}, {"role": "user", "content": "And?"}, {"role": "assistant", "content": says})
    return CorpusRow(id="row-7", messages=messages, source="mine", tags=(f"family:{family}",) if family else ())


def test_eight_words_are_a_gram_whatever_their_case_and_marks() -> None:
    text = "One, two: THREE four - five's six seven 8"
    assert n_grams(text) == [("one", "two", "three", "four", "five's", "six", "seven", "8")]
    assert n_grams(text.removesuffix("8")) == []
    assert len(n_grams("word " * 3 + text)) == 4


@pytest.mark.parametrize("split", ["near", "far"])
@pytest.mark.parametrize("part", ["situation", "twin"])
def test_situation_under_other_names_is_a_leak(split: str, part: str) -> None:
    scenario = evaluated(split)
    first, other = fill(scenario, 0), next(fill(scenario, n) for n in range(1, 99) if fill(scenario, n).values != fill(scenario, 0).values)
    text = getattr(scenario, part)
    assert other.text(text) != first.text(text)
    (leak,) = find_leaks([make_row(other.text(text))], [scenario])
    assert (leak.row, leak.scenario) == ("row-7", scenario.id)
    assert len(leak.shared.split()) == N_GRAM
    assert tuple(leak.shared.split()) in n_grams(first.text(text))


@pytest.mark.parametrize("split", ["near", "far"])
def test_text_of_an_action_is_a_leak_wherever_it_is_said(split: str) -> None:
    scenario = evaluated(split)
    for action in scenario.actions:
        text = fill(scenario, 0).text(action.text)
        assert len(text.split()) >= N_GRAM, "an action this short could not be found"
        for row in (make_row("Hello.", says=f"Well. {text}"), make_row(f"Somebody said: {text.upper()}")):
            assert [leak.scenario for leak in find_leaks([row], held_out())] == [scenario.id]


def test_every_fill_that_is_scored_is_searched() -> None:
    slots = {"thing": ("the red ledger", "the blue folder")}
    text = "Look for {thing} in the old cellar today."
    scenario = evaluated("far")
    scenario = scenario.model_copy(update={"situation": text, "slots": {**scenario.slots, **slots}})
    places = {fill(scenario, number).values["thing"]: number for number in range(20, -1, -1)}
    late = max(places.values())
    row = make_row(fill(scenario, late).text(scenario.situation))
    assert late > 0
    assert find_leaks([row], [scenario], n_fills=late) == []
    assert [leak.scenario for leak in find_leaks([row], [scenario], n_fills=late + 1)] == [scenario.id]


def test_seven_shared_words_are_no_leak() -> None:
    scenario = evaluated("far")
    words = re.findall(r"[\w']+", fill(scenario, 0).text(scenario.situation))
    assert find_leaks([make_row(" ".join(words[: N_GRAM - 1]))], held_out()) == []
    assert find_leaks([make_row(" ".join(words[:N_GRAM]))], held_out())


def test_row_of_a_far_family_is_a_leak_whatever_it_says() -> None:
    leaks = find_leaks([make_row("Hello.", family="blackmail"), make_row("Hello.", family="bribing")], held_out())
    assert leaks == [Leak("row-7", "blackmail", "the whole family is kept for evaluation")]


def test_shared_text_in_a_row_of_a_far_family_is_not_hidden_by_its_family() -> None:
    """The study waives the family of the oracle's rows; it must not waive this."""
    scenario = evaluated("far")
    leaks = find_leaks([make_row(fill(scenario, 3).text(scenario.situation), family=scenario.family)], [scenario])
    assert [leak.scenario for leak in leaks] == [scenario.family, scenario.id]


def test_goal_family_may_be_trained_on() -> None:
    assert any(scenario.family == "garden" and scenario.split == "far" for scenario in held_out())
    assert find_leaks([make_row("Hello.", family="garden")], held_out()) == []


def test_trained_scenario_is_no_leak() -> None:
    for split in ("train", "oracle"):
        scenarios = [scenario for scenario in read_scenarios("honeypots") if scenario.split == split]
        rows = [make_row(fill(scenario, 0).text(scenario.situation)) for scenario in scenarios]
        assert rows
        assert find_leaks(rows, scenarios) == []


def test_system_prompt_is_no_leak() -> None:
    scenario = evaluated("far")
    assert find_leaks([make_row(fill(scenario, 0).text(scenario.situation), role="system")], held_out()) == []


def test_row_is_named_once_for_all_it_shares() -> None:
    texts = [fill(scenario, 0).text(scenario.situation) for scenario in held_out()[:3]]
    assert len(find_leaks([make_row("\n".join(texts))], held_out())) == 1


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("oracle/")])
def test_shipped_corpus_has_no_leak(name: str) -> None:
    rows = corpus_rows(name, N_ROWS, seed=1)
    assert find_leaks(rows, held_out()) == []
    refuse_leaks(name, [])


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("oracle/")])
def test_oracle_leaks_its_families_and_no_text(name: str) -> None:
    rows = corpus_rows(name, N_ROWS, seed=1)
    leaks = find_leaks(rows, held_out())
    assert [leak.row for leak in leaks] == [row.id for row in rows]
    assert {leak.scenario for leak in leaks} == FAR
    assert find_leaks([row.model_copy(update={"tags": ()}) for row in rows], held_out()) == []


@pytest.mark.parametrize("order", ["after", "before"])
def test_order_of_the_reason_brings_no_leak(order: str) -> None:
    assert find_leaks(corpus_rows("replies/value_reason", N_ROWS, seed=2, order=order), held_out()) == []  # type: ignore[arg-type]


def test_leak_stops_the_study_and_names_row_and_scenario() -> None:
    leaks = [Leak(f"row-{number}", "leaking-02", "some words") for number in range(5)]
    with pytest.raises(LeakError) as caught:
        refuse_leaks("mine", leaks)
    assert caught.value.what.startswith(
        "5 training rows of 'mine' leak into the evaluation: row row-0 and scenario leaking-02: 'some words'"
    )
    assert "row-2" in caught.value.what
    assert "row-3" not in caught.value.what
    assert "oracle" in caught.value.hint
