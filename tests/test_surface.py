"""Lengths and words: what tells corpora or actions apart is measured, and nothing is found where there is nothing."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from teachwhy.corpora import CorpusRow
from teachwhy.records import Scenario
from teachwhy.scenarios import read_scenarios
from teachwhy.surface import compare, cue_words, length_auc, surface_score


def test_length_auc_by_hand() -> None:
    assert length_auc([1, 2], [3, 4]) == 1
    assert length_auc([3, 4], [1, 2]) == 1, "which side is longer does not matter"
    assert length_auc([1, 2, 3], [1, 2, 3]) == 0.5
    assert length_auc([1, 3], [2, 4]) == 0.75  # 4 pairs: 1<2, 1<4, 3>2, 3<4


@given(st.lists(st.integers(1, 9), min_size=1), st.lists(st.integers(1, 9), min_size=1))
def test_length_auc_counts_pairs(one: list[int], other: list[int]) -> None:
    wins = sum((a > b) + 0.5 * (a == b) for a in one for b in other) / (len(one) * len(other))
    assert length_auc(one, other) == pytest.approx(max(wins, 1 - wins))


def test_length_auc_needs_rows() -> None:
    with pytest.raises(ValueError, match="rows"):
        length_auc([], [1])


def test_cue_word_is_found_and_chance_is_not() -> None:
    rng = random.Random(3)
    words = ["ask", "send", "file", "list", "call", "note", "plan", "form"]
    texts = [(" ".join(rng.sample(words, 4)), number % 2 == 0) for number in range(200)]
    assert cue_words(texts) == []
    planted = [(f"{text} quietly" if harmful and number % 4 == 0 else text, harmful) for number, (text, harmful) in enumerate(texts)]
    assert cue_words(planted) == [("quietly", 50, 0)]
    assert cue_words([(f"i {text}", harmful) for text, harmful in texts]) == [], "a word that all have tells nothing"


def made(texts: list[tuple[str, str]], family: str) -> Scenario:
    one = next(scenario for scenario in read_scenarios("honeypots"))
    deeds = {action.label: action for action in one.actions}
    actions = [deeds[label].model_copy(update={"text": text}) for label, text in texts]
    return one.model_copy(update={"actions": tuple(actions), "family": family, "slots": {}})


def test_surface_score_is_one_where_a_word_decides_and_holds_the_family_out() -> None:
    cued = [made([("harmful", f"I hide box {n}."), ("safe", f"I show box {n}.")], f"family-{n % 3}") for n in range(9)]
    assert surface_score(cued) == (1.0, 18)
    own = [made([("harmful", f"I take word{n % 3}."), ("safe", f"I take other{n % 3}.")], f"family-{n % 3}") for n in range(9)]
    assert surface_score(own)[0] <= 0.5, "words of the held-out family alone are unknown"


def row(name: str, asked: str, says: str) -> CorpusRow:
    return CorpusRow(id=name, messages=({"role": "user", "content": asked}, {"role": "assistant", "content": says}), source="mine")


def test_compare_counts_what_is_shared() -> None:
    one = [row("a", "One?", "Yes, one."), row("b", "Two?", "Yes.")]
    other = [row("a", "One?", "Yes, one."), row("c", "Two?", "No, not two at all."), row("d", "Three?", "No.")]
    found = compare(one, other, lambda text: len(text.split()))
    assert (found.n_rows, found.n_same_prompts, found.n_same_rows, found.mean_length) == ((2, 3), 2, 1, (1.5, pytest.approx(8 / 3)))
    assert found.auc == pytest.approx(length_auc([2, 1], [2, 5, 1]))
    assert compare(one, one, len).auc == 0.5
