"""Controls: as much as the corpus, the deed kept, the reason gone or another case's."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teachwhy.controls import filler_control, neutral_control, part_rows, shuffled_control, write_control
from teachwhy.corpora import CorpusRow, corpus_reader, read_rows
from teachwhy.errors import UserError
from teachwhy.files import read_card


def count(text: str) -> int:
    return len(text.split())


def row(name: str, asked: str, says: str) -> CorpusRow:
    return CorpusRow(id=name, messages=({"role": "user", "content": asked}, {"role": "assistant", "content": says}), source="mine")


def said(rows: list[CorpusRow]) -> int:
    return sum(count(one.said()) for one in rows)


def reasoned(n: int, *, per_prompt: int = 4) -> tuple[list[CorpusRow], list[CorpusRow]]:
    """Rows with reasons of 3 to 8 words, and their bare version."""
    asked = [f"Case {place // per_prompt} of the town. It has a river. Nobody fishes there?" for place in range(n)]
    reasons = [" ".join([f"Reason{place}", *(["word"] * (2 + place % 6))]) + "." for place in range(n)]
    bare = [row(f"r{place}", asked[place], f"I do deed {place}.") for place in range(n)]
    return [row(f"r{place}", asked[place], f"I do deed {place}. {reasons[place]}") for place in range(n)], bare


@given(st.lists(st.integers(1, 60), min_size=1, max_size=80), st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_neutral_control_carries_as_much(lengths: list[int], pool: list[int], seed: int) -> None:
    rows = [row(str(place), "?", " ".join(["a"] * n)) for place, n in enumerate(lengths)]
    chats = [row(f"n{place}", "?", " ".join(["b"] * n)) for place, n in enumerate(pool)]
    found = neutral_control(rows, chats, count, seed=seed)
    assert len(found) >= len(rows)
    assert said(found) >= said(rows) - min(pool)
    assert len({one.id for one in found}) == len(found)
    uses = Counter(one.id.rpartition("/")[0] for one in found)
    assert max(uses.values()) - min(uses[one.id] for one in chats) <= 1, "each once before any again"


def test_neutral_control_of_shipped_replies_is_within_two_percent() -> None:
    rows = list(corpus_reader("replies/value_reason")())
    found = neutral_control(rows, list(corpus_reader("neutral")()), count)
    assert abs(said(found) - said(rows)) <= 0.02 * said(rows)
    assert {one.source for one in found} == {"neutral"}


@pytest.mark.parametrize("n", [8, 33, 120])
def test_shuffled_control_gives_every_reason_once_to_another_case(n: int) -> None:
    rows, bare = reasoned(n)
    found = shuffled_control(rows, bare, count, seed=3)
    parted, again = part_rows(rows, bare), part_rows(found, bare)
    assert sorted(one.reason for one in again) == sorted(one.reason for one in parted)
    assert [one.deed for one in again] == [one.deed for one in parted]
    cases = {one.reason: one.row.messages[0]["content"] for one in parted}
    assert all(cases[one.reason] != one.row.messages[0]["content"] for one in again)
    assert [one.id for one in found] == [one.id for one in rows]
    assert said(found) == said(rows)
    assert shuffled_control(rows, bare, count, seed=3) == found != shuffled_control(rows, bare, count, seed=4)


def test_shuffled_control_keeps_lengths_near() -> None:
    rows, bare = reasoned(120)
    pairs = zip(part_rows(shuffled_control(rows, bare, count), bare), part_rows(rows, bare), strict=True)
    assert max(abs(count(new.reason) - count(old.reason)) for new, old in pairs) <= 2


def test_reasons_of_one_case_cannot_be_shuffled() -> None:
    with pytest.raises(UserError, match="cannot be shuffled"):
        shuffled_control(*reasoned(6, per_prompt=6), count)


@pytest.mark.parametrize("before", [False, True])
def test_filler_control_says_as_much_about_the_same_case(before: bool) -> None:
    rows, bare = reasoned(24)
    if before:
        turned = [" ".join(reversed(one.said().split(". ", 1))).rstrip(".") + "." for one in rows]
        rows = [row(one.id, one.messages[0]["content"], says) for one, says in zip(rows, turned, strict=True)]
        bare = [row(one.id, one.messages[0]["content"], one.said()) for one in bare]
    found = filler_control(rows, bare, count)
    for new, old in zip(part_rows(found, bare), part_rows(rows, bare), strict=True):
        assert new.deed == old.deed
        assert abs(count(new.reason) - count(old.reason)) <= max(1, 0.1 * count(old.reason))
        assert {word.strip(".?").lower() for word in new.reason.split()} <= {
            word.strip(".?").lower() for word in old.row.messages[0]["content"].split()
        }
        assert new.after is old.after is not before


@pytest.mark.parametrize("closing", [".", "!", ""])
def test_a_filler_closes_as_its_reason_does(closing: str) -> None:
    rows, bare = reasoned(6)
    rows = [row(one.id, one.messages[0]["content"], one.said().rstrip(".") + closing) for one in rows]
    assert all(re.search(r"[.!?]*$", one.said())[0] == closing for one in filler_control(rows, bare, count))  # type: ignore[index]


@pytest.mark.parametrize(
    ("rows", "bare", "what"),
    [
        ([row("a", "One?", "Yes. It is.")], [], "0 rows, the corpus 1"),
        ([row("a", "One?", "Yes. It is.")], [row("b", "Two?", "Yes.")], "different prompts"),
        ([row("a", "One?", "Yes.")], [row("a", "One?", "Yes.")], "row a: the answer does not begin or end"),
        ([row("a", "One?", "No, sir.")], [row("a", "One?", "Yes.")], "row a: the answer does not begin or end"),
    ],
)
def test_rows_that_do_not_fit_their_bare_version_are_named(rows: list[CorpusRow], bare: list[CorpusRow], what: str) -> None:
    with pytest.raises(UserError, match=what):
        part_rows(rows, bare)


@pytest.mark.parametrize("kind", ["neutral", "filler", "shuffled"])
def test_control_of_shipped_replies_is_a_corpus_with_a_card(kind: str, tmp_path: Path) -> None:
    folder = write_control("replies/value_reason", kind, tmp_path / "made", bare="", seed=1, count=count, unit="words")  # type: ignore[arg-type]
    rows, card = read_rows(folder), read_card(folder)
    assert (card.kind, card.counts.kept, card.seed) == ("corpus", len(rows), 1)
    assert card.settings["kind"] == kind
    assert abs(card.details["words that carry loss"] - card.details["of the corpus"]) <= 0.02 * card.details["of the corpus"]
    with pytest.raises(UserError, match="there already"):
        write_control("replies/value_reason", kind, folder, bare="", seed=1, count=count, unit="words")  # type: ignore[arg-type]


def test_own_corpus_needs_its_bare_version(tmp_path: Path) -> None:
    rows, bare = reasoned(12)
    for name, held in (("mine", rows), ("bare", bare)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(one.line()) + "\n" for one in held))
    mine = str(tmp_path / "mine.jsonl")
    with pytest.raises(UserError, match="which words are the reason") as caught:
        write_control(mine, "shuffled", tmp_path / "made", bare="", seed=1, count=count, unit="words")
    assert "--bare" in caught.value.hint
    folder = write_control(mine, "shuffled", tmp_path / "made", bare=str(tmp_path / "bare.jsonl"), seed=1, count=count, unit="words")
    assert len(read_rows(folder)) == 12
