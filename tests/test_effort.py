"""Equal effort: as many updates and supervised tokens for every arm, and shared prompts in the same updates."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from teachwhy.errors import UserError
from teachwhy.training import effort as sut
from teachwhy.training.effort import Sized, Update, share_effort

MAX_NEUTRAL = 20


def sized(n_supervised: list[int], prompt: int = 30) -> list[Sized]:
    return [Sized(row, prompt + n, n) for row, n in enumerate(n_supervised)]


def own_rows(updates: list[Update]) -> list[Sized]:
    return [row for update in updates for row in update.own]


def tokens(updates: list[Update]) -> int:
    return sum(row.n_supervised for update in updates for row in (*update.own, *update.neutral))


@st.composite
def studies(draw: st.DrawFn) -> tuple[dict[str, list[Sized]], list[Sized], int]:
    """Arms of any lengths, the longest with at least fifty times the longest neutral row: two per cent are one row then."""
    n_updates = draw(st.integers(1, 12))
    lengths = st.lists(st.integers(1, 90), min_size=n_updates, max_size=40)
    arms = {f"arm {number}": sized(row) for number, row in enumerate(draw(st.lists(lengths, min_size=1, max_size=4)))}
    arms["longest"] = sized([draw(st.integers(100, 300)) for _ in range(draw(st.integers(max(10, n_updates), 30)))])
    neutral = sized(draw(st.lists(st.integers(1, MAX_NEUTRAL), min_size=1, max_size=15)))
    return arms, neutral, n_updates


@settings(max_examples=80, deadline=None)
@given(studies())
def test_every_arm_gets_the_same_updates_and_supervised_tokens(study: tuple[dict[str, list[Sized]], list[Sized], int]) -> None:
    arms, neutral, n_updates = study
    found = share_effort(arms, neutral, n_updates)
    assert list(found) == list(arms)
    assert {len(updates) for updates in found.values()} == {n_updates}
    totals = [tokens(updates) for updates in found.values()]
    assert min(totals) >= (1 - sut.MAX_DIFFERENCE) * max(totals)


@settings(max_examples=80, deadline=None)
@given(studies())
def test_own_rows_are_all_there_in_order_and_spread_evenly(study: tuple[dict[str, list[Sized]], list[Sized], int]) -> None:
    arms, neutral, n_updates = study
    for arm, updates in share_effort(arms, neutral, n_updates).items():
        assert own_rows(updates) == arms[arm]
        n_own = [len(update.own) for update in updates]
        assert max(n_own) - min(n_own) <= 1
        assert all(row in neutral for update in updates for row in update.neutral)


@settings(max_examples=80, deadline=None)
@given(studies())
def test_counts_add_up(study: tuple[dict[str, list[Sized]], list[Sized], int]) -> None:
    arms, neutral, n_updates = study
    for arm, updates in share_effort(arms, neutral, n_updates).items():
        found = sut.measure_effort(updates)
        padding = [row for update in updates for row in update.neutral]
        assert found.n_updates == n_updates
        assert (found.n_rows, found.n_neutral_rows) == (len(arms[arm]) + len(padding), len(padding))
        assert found.n_tokens == sum(row.n_tokens for row in (*arms[arm], *padding))
        assert found.n_supervised == tokens(updates)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_arms_with_equally_many_rows_see_them_in_the_same_updates(data: st.DataObject) -> None:
    n_rows = data.draw(st.integers(20, 40))
    n_updates = data.draw(st.integers(1, 20))
    lengths = st.lists(st.integers(50, 120), min_size=n_rows, max_size=n_rows)
    found = share_effort({"a": sized(data.draw(lengths)), "b": sized(data.draw(lengths))}, sized([5, 11, 20]), n_updates)
    for a, b in zip(found["a"], found["b"], strict=True):
        assert [row.row for row in a.own] == [row.row for row in b.own]


def test_padding_comes_as_the_gap_opens_and_not_at_the_end() -> None:
    updates = share_effort({"long": sized([40] * 20), "short": sized([20] * 20)}, sized([10]), 10)["short"]
    assert [len(update.neutral) for update in updates] == [4] * 10
    assert not any(update.neutral for update in share_effort({"long": sized([40] * 20)}, sized([10]), 10)["long"])


def test_neutral_rows_are_gone_through_again_and_again() -> None:
    updates = share_effort({"long": sized([100] * 4), "short": sized([70] * 4)}, sized([10, 20, 30]), 4)["short"]
    assert [row.row for update in updates for row in update.neutral] == [0, 1, 2] * 2


def test_unequal_arms_without_a_neutral_corpus_are_refused() -> None:
    with pytest.raises(UserError, match=r"differ by more than 2%: long 400, short 200") as caught:
        share_effort({"long": sized([40] * 10), "short": sized([20] * 10)}, [], 5)
    assert "neutral corpus" in caught.value.hint


def test_almost_equal_arms_need_no_neutral_corpus() -> None:
    found = share_effort({"a": sized([100] * 10), "b": sized([99] * 10)}, [], 5)
    assert [tokens(updates) for updates in found.values()] == [1000, 990]


def test_neutral_rows_too_long_to_fit_are_refused() -> None:
    with pytest.raises(UserError, match="long 100, short 60"):
        share_effort({"long": sized([50, 50]), "short": sized([30, 30])}, sized([500]), 2)
