"""Looks: bounds against published constants and against drawn paths, intervals against a solver, coverage after stopping."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar  # type: ignore[import-untyped,unused-ignore]

from teachwhy import sequential as sut


def test_one_look_is_the_usual_test() -> None:
    design = sut.plan_looks(1)
    assert design.upper == pytest.approx((1.959964,), abs=1e-5)
    assert design.futility == design.upper
    assert design.inflation == pytest.approx(1, abs=1e-6)


def test_bounds_spend_what_they_may() -> None:
    # power family with rho 2 and five looks, two-sided 5 %: .001, .004, .009, .016, .025 are spent on each side after each look
    design = sut.plan_looks(5)
    spent = [sut.stage_p(design, number, design.upper[number]) / 2 for number in range(5)]
    assert spent == pytest.approx([0.025 * t**2 for t in design.fractions], abs=1e-7)
    assert design.upper[0] == pytest.approx(3.0902, abs=1e-4), "the normal quantile of .001"


def test_constant_bounds_are_pococks() -> None:
    """Pocock's constant for five looks is 2.413: with his bounds in the recursion the error is 5 % (Jennison and Turnbull, table 2.1)."""
    spent, density = 0.0, sut._start()
    for _ in range(5):
        spent += sut._above(density, 0.2, 2.413 * np.sqrt(0.2 * (_ + 1)), 0.0)
        density = sut._advance(density, 0.2, -2.413 * np.sqrt(0.2 * (_ + 1)), 2.413 * np.sqrt(0.2 * (_ + 1)), 0.0)
    assert 2 * spent == pytest.approx(0.05, abs=2e-4)


@pytest.mark.parametrize("n_looks", [2, 5, 10])
@pytest.mark.parametrize("power", [0.8, 0.9])
def test_drawn_paths_have_the_errors_and_save_sessions(n_looks: int, power: float) -> None:
    design = sut.plan_looks(n_looks, power=power)
    rng = np.random.default_rng(n_looks)
    times = np.array(design.fractions)
    steps = rng.normal(size=(60_000, n_looks)) / np.sqrt(n_looks)
    found, size = {}, {}
    for drift in (0.0, design.drift):
        z = np.cumsum(steps + drift / n_looks, axis=1) / np.sqrt(times)
        stop = (np.abs(z) >= np.array(design.upper)) | (z < np.array(design.futility))
        stop[:, -1] = True
        at = stop.argmax(axis=1)
        found[drift] = (z[np.arange(len(z)), at] >= np.array(design.upper)[at]).mean()
        size[drift] = (design.inflation * times[at]).mean()
    assert found[0.0] <= 0.025 + 0.002
    assert found[design.drift] == pytest.approx(power, abs=0.006)
    if n_looks >= 5:
        assert size[design.drift] < 0.80, "of one look with the same power, where there is a difference"
        assert size[0.0] < 0.65, "and where there is none"


@given(st.integers(1, 60), st.integers(1, 60), st.floats(0, 1), st.floats(0, 1), st.floats(-0.95, 0.95))
@settings(deadline=None, max_examples=60)
def test_score_is_that_of_the_likeliest_rates(n1: int, n2: int, share1: float, share2: float, difference: float) -> None:
    x1, x2 = round(share1 * n1), round(share2 * n2)

    def unlikely(second: float) -> float:
        rates = np.clip([second + difference, second], 1e-12, 1 - 1e-12)
        counts = ((x1, n1), (x2, n2))
        return -sum(x * np.log(p) + (n - x) * np.log1p(-p) for (x, n), p in zip(counts, rates, strict=True))

    bounds = (max(0.0, -difference), min(1.0, 1 - difference))
    second = minimize_scalar(unlikely, bounds=bounds, method="bounded", options={"xatol": 1e-10}).x
    first = second + difference
    variance = first * (1 - first) / n1 + second * (1 - second) / n2
    found = float(sut.score(difference, x1 / n1, n1, x2 / n2, n2))
    gap = x1 / n1 - x2 / n2 - difference
    if variance > 1e-6:
        assert found == pytest.approx(gap / np.sqrt(variance), rel=1e-3, abs=1e-3)
    else:
        assert np.sign(found) == np.sign(gap) or abs(gap) < 1e-9


def test_nothing_of_many_is_not_nothing() -> None:
    rates = sut.compare_rates([0, 0], [20, 20], [0, 0], [20, 20])
    found = sut.interval_at(rates, 1.96)
    assert (float(found.low), float(found.high)) == pytest.approx((-0.088, 0.088), abs=0.002), "what Wilson's limits of 0 of 40 are"
    assert (float(found.ratio_low), float(found.ratio_high)) == (0.0, np.inf)


def test_histories_that_differ_in_the_difference_widen_the_interval() -> None:
    even = sut.compare_rates([2] * 20, [10] * 20, [1] * 20, [10] * 20)
    odd = sut.compare_rates([4, 0] * 10, [10] * 20, [0, 2] * 10, [10] * 20)
    assert float(even.difference) == float(odd.difference) == pytest.approx(0.1)
    assert (float(even.spread), float(odd.spread) > 1.5) == (1.0, True)
    assert float(sut.interval_at(even, 2).low) > float(sut.interval_at(odd, 2).low)


@pytest.mark.parametrize(
    ("first", "n"), [([3, 1], [2, 2]), ([-1, 0], [2, 2]), ([1, 0], [2, 0])], ids=["more than all", "less than none", "one history"]
)
def test_impossible_counts_are_refused(first: list[int], n: list[int]) -> None:
    with pytest.raises(ValueError, match=r"counts must|two histories"):
        sut.compare_rates(first, n, [0, 0], [2, 2])


@pytest.mark.parametrize("wrong", [{"n_looks": 0}, {"alpha": 0.0}, {"power": 0.01}, {"rho": 0.0}])
def test_impossible_design_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="impossible design"):
        sut.plan_looks(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(("first", "second"), [(0.04, 0.015), (0.15, 0.15), (0.01, 0.01)])
def test_betting_interval_holds_at_every_step_at_once(first: float, second: float) -> None:
    rng = np.random.default_rng(3)
    missed = 0
    for _ in range(150):
        pairs = (rng.random(400) < first).astype(int) - (rng.random(400) < second)
        found = sut.betting_sequence(pairs)
        missed += bool(((found.low > first - second) | (found.high < first - second)).any())
    assert missed / 150 <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 150)


def test_betting_interval_narrows_and_finds_a_large_difference() -> None:
    rng = np.random.default_rng(4)
    pairs = (rng.random(600) < 0.3).astype(int) - (rng.random(600) < 0.1)
    found = sut.betting_sequence(pairs)
    assert np.all(np.diff(found.low) >= -1e-9) and np.all(np.diff(found.high) <= 1e-9)
    assert found.low[-1] > 0
    with pytest.raises(ValueError, match="must lie in"):
        sut.betting_sequence([2.0])
