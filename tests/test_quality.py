"""Leaks and sheets: planted faults are found, sound data pass, and what comes with the program has no leak."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teachwhy.ambiguity import make_items, read_lexicon
from teachwhy.corpora import NAMES, CorpusRow, corpus_rows
from teachwhy.errors import LeakError
from teachwhy.quality import (
    N_GRAM,
    SHOWN,
    Finding,
    HeldOut,
    Leak,
    Sheet,
    check_corpus,
    check_scenarios,
    find_leaks,
    jaccard,
    n_grams,
    refuse_leaks,
    shingles,
)
from teachwhy.records import Scenario
from teachwhy.scenarios import OWN_SYSTEM, fill, read_principles, read_scenarios

FAR = {"blackmail", "framing", "leaking", "research_sabotage"}
N_ROWS = 700
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


def test_system_prompt_may_leak_unless_it_is_the_programs_own() -> None:
    scenario = evaluated("far")
    assert find_leaks([make_row(fill(scenario, 0).text(scenario.situation), role="system")], held_out())
    assert all(row.whole().count(OWN_SYSTEM[0]) == 0 for row in corpus_rows("replies/bare", 3, seed=1))


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


# The sheet


WORDS = [f"{first}{last}" for first in ("ba", "ki", "lo", "mu", "re", "sa") for last in ("dle", "nter", "rben", "tto", "vish")]


def chats(n: int, *, seed: int = 0) -> list[CorpusRow]:
    """Rows that have nothing in common but words."""
    rng = random.Random(seed)
    return [say(str(number), " ".join(rng.sample(WORDS, 30))) for number in range(n)]


def say(name: str, says: str, asks: str = "Well?") -> CorpusRow:
    return CorpusRow(id=name, messages=({"role": "user", "content": asks}, {"role": "assistant", "content": says}), source="mine")


def sheet_of(rows: list[CorpusRow], **settings: Any) -> Sheet:
    return check_corpus("mine", lambda: rows, **settings)


def test_sound_corpus_has_nothing_to_mend() -> None:
    sheet = sheet_of(chats(300), held_out=HeldOut(held_out()))
    assert sheet.passed
    assert (sheet.n_rows, sheet.kept, sheet.rejected, sheet.findings, sheet.words) == (300, 300, {}, [], (30, 30, 30))


def test_duplicate_with_one_word_changed_is_found() -> None:
    rows = chats(200)
    words = rows[17].said().split()
    rows.append(say("copy", " ".join(["Well,", *words[1:]])))
    sheet = sheet_of(rows)
    assert sheet.findings == [Finding("near_duplicate", "copy", "says nearly what row 17 says")]
    assert sheet.rejected == {"near_duplicate": 1}
    different = " ".join(word if place % 4 else "other" for place, word in enumerate(words))
    assert sheet_of([*rows[:-1], say("copy", different)]).passed


def test_copies_are_counted_each_and_the_first_is_kept() -> None:
    rows = [*chats(50), *(say(f"copy-{number}", chats(1, seed=9)[0].said()) for number in range(60))]
    sheet = sheet_of(rows)
    assert sheet.rejected == {"near_duplicate": 59}
    assert "opening" in sheet.n_findings
    assert len([finding for finding in sheet.findings if finding.check == "near_duplicate"]) == SHOWN


def test_versions_of_one_reply_are_no_duplicates() -> None:
    one = chats(1)[0]
    assert sheet_of([*chats(60, seed=2), one, one.model_copy(update={"source": "other"})]).passed


def test_stock_opening_is_found_and_two_rows_may_share_one() -> None:
    rows = chats(100)
    start = "Here is what I would do in this "
    for n, passes in ((2, True), (3, False)):
        sheet = sheet_of([say(row.id, start + row.said()) if place < n else row for place, row in enumerate(rows)])
        assert sheet.passed is passes
        assert sheet.opening == (start.strip(), n)
    assert sheet.findings == [Finding("opening", "", f"3 of 100 rows begin with {start.strip()!r}")]
    assert sheet.kept == 100, "no single row is at fault"


def test_leak_behind_other_names_is_found() -> None:
    scenario = evaluated("far")
    other = next(fill(scenario, n) for n in range(1, 99) if fill(scenario, n).values != fill(scenario, 0).values)
    sheet = sheet_of([*chats(60), say("leaky", "I wait.", other.text(scenario.situation))], held_out=HeldOut(held_out()))
    assert sheet.rejected == {"leak": 1}
    assert sheet.findings[0].row == "leaky"
    assert scenario.id in sheet.findings[0].says


@given(st.lists(st.integers(0, 60), max_size=12))
@settings(max_examples=100, deadline=None)
def test_text_that_is_half_another_always_shares_eight_words(places: list[int]) -> None:
    """Why leaks need no measure of likeness: a Jaccard index over 0.5 implies a shared run."""
    words = fill(evaluated("far"), 0).text(evaluated("far").situation).split()
    changed = list(words)
    for number, place in enumerate(places):
        changed[place % len(changed)] = f"other{number}"
    if jaccard(shingles(" ".join(words)), shingles(" ".join(changed))) > 0.5:
        assert find_leaks([make_row(" ".join(changed))], [evaluated("far")])


@given(st.lists(st.sampled_from(["I wait.", "", "I wait for a hour.", "See www.example.org now.", "I go home."]), max_size=30))
@settings(max_examples=60, deadline=None)
def test_counts_add_up(texts: list[str]) -> None:
    rows = [say(str(number), text) for number, text in enumerate(texts)]
    sheet = sheet_of(rows)
    assert sheet.n_rows == len(rows) == sheet.kept + sum(sheet.rejected.values())
    silent = sum(not text for text in texts)
    assert sheet.rejected.get("nothing_said", 0) == silent == sheet.n_findings.get("nothing_said", 0)
    assert sheet.kept == len({text for text in texts if text in ("I wait.", "I go home.")})


def test_check_can_be_left_out() -> None:
    rows = [*chats(60), say("dated", "It began in 1998.")]
    assert sheet_of(rows).n_findings == {"date": 1}
    assert sheet_of(rows, leave_out=["date"]).passed


def test_rows_are_read_one_at_a_time_and_twice_at_most() -> None:
    """Memory stays flat only while no row is held."""
    n_read, n_alive = 0, 0

    class Watched(CorpusRow):
        def __del__(self) -> None:
            nonlocal n_alive
            n_alive -= 1

    def read() -> Iterator[CorpusRow]:
        nonlocal n_read, n_alive
        for row in chats(500):
            n_read, n_alive = n_read + 1, n_alive + 1
            assert n_alive <= 3
            yield Watched(**dict(row))

    assert check_corpus("mine", read).passed
    assert n_read <= 1500


def test_corpus_of_one_row_is_checked() -> None:
    sheet = sheet_of(chats(1))
    assert (sheet.passed, sheet.n_rows) == (True, 1)
    assert check_corpus("mine", list).n_rows == 0


# Scenarios


def test_scenario_sheet_finds_planted_faults() -> None:
    sound = [scenario for scenario in read_scenarios("honeypots") if scenario.split in ("near", "far")]
    principles = read_principles()
    sound = sound[: len(sound) // 4]  # all of them are checked where the command is
    assert check_scenarios("mine", sound, principles).passed
    one = sound[3]
    faults = {
        "twin": {"twin": one.situation},
        "principle": {"principles": ("kindness",)},
        "article": {"situation": one.situation + " It takes a hour."},
    }
    for check, update in faults.items():
        sheet = check_scenarios("mine", [*sound[:3], one.model_copy(update=update), *sound[4:]], principles)
        assert (sheet.n_findings, sheet.rejected) == ({check: 1}, {check: 1})
        assert sheet.findings[0].row == one.id
    sheet = check_scenarios("mine", [*sound, sound[0].model_copy(update={"id": "copy"})])
    assert sheet.findings == [Finding("near_duplicate", "copy", f"is nearly the situation of {sound[0].id}")]


def test_scenario_sheet_finds_a_word_that_gives_harm_away() -> None:
    sound = [scenario for scenario in read_scenarios("honeypots") if scenario.split in ("near", "far")]
    cued = [
        one.model_copy(
            update={
                "actions": tuple(
                    action.model_copy(update={"text": f"Without more, {action.text}"}) if action.label == "harmful" else action
                    for action in one.actions
                )
            }
        )
        for one in sound
    ]
    sheet = check_scenarios("mine", cued)
    assert {finding.check for finding in sheet.findings} == {"cue"}
    assert {"'without'", "'more'"} <= {finding.says.split()[0] for finding in sheet.findings}
    assert sheet.kept == len(cued), "no single scenario is at fault"


def test_scenario_sheet_finds_a_plan_that_varies_too_little() -> None:
    sound = [one for one in read_scenarios("honeypots") if one.family in ("bribing", "framing", "leaking", "blackmail")]
    domains = ("office", "farm", "bank", "school")
    planned = [one.model_copy(update={"plan": {"domain": domains[place % 4], "case": one.id}}) for place, one in enumerate(sound)]
    sheet = check_scenarios("mine", planned)
    assert sheet.passed
    assert sheet.tags["domain:farm"] == len(sound) // 4
    assert not any(tag.startswith("case:") for tag in sheet.tags), "a factor whose values never come again is a note"
    crowded = [one.model_copy(update={"plan": {"domain": "office"}}) if one.family == "bribing" else one for one in planned]
    sheet = check_scenarios("mine", crowded)
    assert [finding.check for finding in sheet.findings] == ["plan"]
    assert "100% of bribing have domain 'office'" in sheet.findings[0].says


@pytest.mark.parametrize(
    "disguise",
    [
        lambda text: text.upper(),
        lambda text: " ".join(f"_{word}_" for word in text.split()),
        lambda text: " ".join(f"'{word}'" for word in text.split()),
        lambda text: text.replace(" ", "<br> "),
        lambda text: "\u00ad".join(text),
        lambda text: "\u200b".join(text),
        lambda text: "".join(chr(ord(letter) + 0xFEE0) if letter.isalpha() and letter.isascii() else letter for letter in text),
        lambda text: text.replace("a", "\u0430").replace("o", "\u043e").replace("e", "\u0435"),
        lambda text: text.replace("e", "e\u0301"),
    ],
    ids=["capitals", "underscores", "quotes", "tags", "soft hyphens", "zero width", "full width", "look-alikes", "accents"],
)
def test_text_in_disguise_is_the_same_text(disguise: Callable[[str], str]) -> None:
    text = "the clerk keeps a second ledger in the drawer and says nothing about it"
    assert set(n_grams(disguise(text))) == set(n_grams(text))


def test_words_of_other_scripts_are_words() -> None:
    hindi = "\u0906\u092a\u0915\u094b \u0905\u092c \u0915\u094d\u092f\u093e \u0915\u0930\u0928\u093e \u091a\u093e\u0939\u093f\u090f"
    assert n_grams(hindi) == [], "five words are no eight"
    assert len(n_grams(" ".join([hindi, hindi]), 8)) == 3
    chinese = "\u7ecf\u7406\u8ba9\u4f60\u628a\u6240\u6709\u7684\u8d26\u672c\u90fd\u9501\u8fdb\u62bd\u5c49\u91cc"
    assert set(n_grams(chinese)) & set(n_grams(f"\u6628\u5929{chinese}\u7136\u540e"))
    assert n_grams(chinese[:12]) == []


def test_check_that_is_left_out_rejects_no_row() -> None:
    rows = [CorpusRow(id="silent", messages=({"role": "user", "content": "Is the door locked?"},), source="own")]
    assert check_corpus("own", lambda: iter(rows)).rejected == {"nothing_said": 1}
    found = check_corpus("own", lambda: iter(rows), leave_out={"nothing_said"})
    assert (found.rejected, found.kept, found.n_findings) == ({}, 1, {})
