"""Intervals, tests and bounds against cases worked by hand, other libraries and simulation (fixed seeds, so no flicker)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped,unused-ignore]

from teachwhy import statistics as sut
from teachwhy.study.estimates import detectable

Floats = NDArray[np.float64]

VALUES = st.floats(-100, 100, allow_nan=False).map(lambda value: round(value, 3))
TABLES = arrays(np.float64, array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=9), elements=VALUES)
COLUMNS = arrays(np.float64, st.integers(2, 30), elements=VALUES)
LEVELS = st.tuples(st.floats(0.5, 0.99), st.floats(0.5, 0.99)).map(sorted)
P_VALUES = st.lists(st.none() | st.floats(0, 1), max_size=8)

HAND_TABLE = [[1, 2, 3], [3, 4, 8]]


# Wilson


def test_wilson_matches_hand_worked_case() -> None:
    # 3 of 10, z = 1.959964, z^2 = 3.841459: centre (0.3 + 3.841459/20) / 1.3841459 = 0.355508,
    # half 1.959964 / 1.3841459 * sqrt(0.3 * 0.7 / 10 + 3.841459 / 400) = 1.416010 * 0.174939 = 0.247716
    found = sut.wilson_interval(3, 10)
    assert found == pytest.approx((0.3, 0.107791, 0.603222, 10), abs=2e-5)


@settings(deadline=None)
@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), LEVELS)
def test_wilson_holds_its_share_and_grows_with_level(counts: tuple[int, int], levels: list[float]) -> None:
    narrow, wide = (sut.wilson_interval(*counts, level) for level in levels)
    assert 0 <= wide.low <= narrow.low + 1e-12 <= narrow.estimate + 2e-12
    assert narrow.estimate - 1e-12 <= narrow.high <= wide.high + 1e-12 <= 1 + 2e-12


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 3), (4, 3)])
def test_impossible_counts_are_refused(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="cannot be"):
        sut.wilson_interval(successes, n)


# One sample and pairs


def test_t_interval_matches_hand_worked_case() -> None:
    # 1, 2, 3, 6: mean 3, sum of squares 4 + 1 + 0 + 9 = 14, sd sqrt(14/3), error sqrt(14/12) = 1.080123,
    # t(0.975, 3) = 3.182446, half 3.437434
    assert sut.t_interval([1, 2, 3, 6]) == pytest.approx((3, -0.437434, 6.437434, 4), abs=1e-5)


def test_paired_difference_matches_scipy_and_hand() -> None:
    # differences 1, 2, 3, 6, as above; t = 3 / 1.080123 = 2.777460 on 3 df, p = 0.0691
    a, b = [2.0, 4.0, 6.0, 10.0], [1.0, 2.0, 3.0, 4.0]
    found = sut.paired_difference(a, b)
    assert found[:4] == pytest.approx((3, -0.437434, 6.437434, 4), abs=1e-5)
    assert found.p == pytest.approx(stats.ttest_rel(a, b).pvalue) == pytest.approx(0.0691, abs=1e-4)


@settings(deadline=None)
@given(COLUMNS, LEVELS)
def test_t_interval_holds_its_mean_and_grows_with_level(values: Floats, levels: list[float]) -> None:
    narrow, wide = (sut.t_interval(values, level) for level in levels)
    assert wide.low <= narrow.low <= narrow.estimate <= narrow.high <= wide.high


@settings(deadline=None)
@given(COLUMNS, st.floats(0.5, 0.99))
def test_paired_p_agrees_with_its_interval(values: Floats, level: float) -> None:
    found = sut.paired_difference(values, np.zeros_like(values), level)
    if abs(found.p - (1 - level)) > 1e-9:
        assert (found.p < 1 - level) == (not found.low <= 0 <= found.high)


def test_equal_differences_have_no_width() -> None:
    assert sut.paired_difference([2.0, 2.0], [1.0, 1.0]) == (1, 1, 1, 2, 0)
    assert sut.paired_difference([1.0, 1.0], [1.0, 1.0]) == (0, 0, 0, 2, 1)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, np.nan], [1.0, np.inf], [[1.0, 2.0]]])
def test_values_without_an_interval_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="values"):
        sut.t_interval(values)


def test_unpaired_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="paired by scenario"):
        sut.paired_difference([1, 2, 3], [1, 2])


@pytest.mark.parametrize("level", [0, 1, 95, float("nan")])
def test_impossible_level_is_refused(level: float) -> None:
    with pytest.raises(ValueError, match="level"):
        sut.t_interval([1, 2], level)


# Crossed: by hand, against statsmodels, properties


def test_crossed_interval_matches_hand_worked_case() -> None:
    # seed means 2, 5; scenario means 2, 3, 5.5; grand 3.5
    # MS_seed = 3 * (1.5^2 + 1.5^2) / 1 = 13.5;  MS_scenario = 2 * (2.25 + 0.25 + 4) / 2 = 6.5
    # residuals +-(0.5, 0.5, -1): MS_residual = 2 * 1.5 / (1 * 2) = 1.5
    # components: (13.5 - 1.5) / 3 = 4, (6.5 - 1.5) / 2 = 2.5, 1.5
    # over seeds: error sqrt(13.5 / 6) = 1.5, t(0.975, 1) = 12.706205, half 19.059307, the widest: crossed error
    # sqrt(18.5 / 6) = 1.756 with df 18.5^2 / (13.5^2 + 6.5^2 / 2 + 1.5^2 / 2) = 1.67 gives about 9
    found = sut.crossed_interval(HAND_TABLE)
    assert found[:3] == pytest.approx((3.5, 3.5 - 19.059307, 3.5 + 19.059307), abs=1e-5)
    assert (found.n_seeds, found.n_scenarios, found.seed_values) == (2, 3, (2.0, 5.0))
    assert found.seed_sd == pytest.approx(3 / np.sqrt(2))
    assert found.variances == pytest.approx((4, 2.5, 1.5))
    assert found.p is None


def test_crossed_error_matches_statsmodels() -> None:
    import pandas as pd  # type: ignore[import-untyped,unused-ignore]
    from statsmodels.formula.api import ols  # type: ignore[import-untyped,unused-ignore]
    from statsmodels.stats.anova import anova_lm  # type: ignore[import-untyped,unused-ignore]

    n_seeds, n_scenarios = 6, 9
    table = draw_tables(np.random.default_rng(4), 1, n_seeds, n_scenarios, 1.0, 1.5)[0] + 1
    seed, scenario = np.indices(table.shape).reshape(2, -1)
    frame = pd.DataFrame({"value": table.ravel(), "seed": seed, "scenario": scenario})
    squares = anova_lm(ols("value ~ C(seed) + C(scenario)", frame).fit())["mean_sq"].to_numpy()
    total = squares[0] + squares[1] - squares[2]
    df = total**2 / (squares[0] ** 2 / 5 + squares[1] ** 2 / 8 + squares[2] ** 2 / 40)
    error = np.sqrt(total / table.size)
    found = sut.crossed_interval(table)
    assert found.high - found.estimate == pytest.approx(stats.t.ppf(0.975, df) * error)
    assert found.p == pytest.approx(2 * stats.t.sf(table.mean() / error, df))
    assert found.high - found.low > 2 * stats.t.ppf(0.975, 5) * np.sqrt(squares[0] / table.size)


@settings(deadline=None)
@given(TABLES, LEVELS)
def test_crossed_interval_holds_its_mean_and_grows_with_level(table: Floats, levels: list[float]) -> None:
    for method in (sut.crossed_interval, lambda values, level: sut.crossed_bootstrap(values, level, n_boot=50)):
        narrow, wide = (method(table, level) for level in levels)
        assert wide.low <= narrow.low <= narrow.estimate <= narrow.high <= wide.high


@settings(deadline=None)
@given(TABLES, st.randoms(use_true_random=False))
def test_order_of_seeds_and_scenarios_does_not_matter(table: Floats, random: object) -> None:
    rng = np.random.default_rng(random.randrange(10**6))  # type: ignore[attr-defined]
    shuffled = rng.permutation(rng.permutation(table, axis=0), axis=1)
    first, second = sut.crossed_interval(table), sut.crossed_interval(shuffled)
    assert second[:3] == pytest.approx(first[:3], rel=1e-6, abs=1e-6)
    assert sorted(second.seed_values) == pytest.approx(sorted(first.seed_values), abs=1e-9)


@settings(deadline=None)
@given(TABLES)
def test_crossed_is_never_narrower_than_either_one_way_interval(table: Floats) -> None:
    found = sut.crossed_interval(table)
    for axis in (0, 1):
        alone = sut.t_interval(table.mean(axis=axis))
        assert found.high - found.low >= (alone.high - alone.low) * (1 - 1e-9) - 1e-9


@settings(deadline=None)
@given(TABLES, st.floats(0.5, 0.99))
def test_p_is_withheld_under_five_seeds_and_agrees_with_the_interval(table: Floats, level: float) -> None:
    found = sut.crossed_interval(table, level)
    assert (found.p is None) == (found.n_seeds < 5)
    if found.p is not None and abs(found.p - (1 - level)) > 1e-9:
        assert (found.p < 1 - level) == (not found.low <= 0 <= found.high)


def test_one_seed_falls_back_to_scenarios_and_says_so() -> None:
    found = sut.crossed_interval([[1, 2, 3, 6]])
    assert found[:3] == sut.t_interval([1, 2, 3, 6])[:3]
    assert found.method == "t interval over scenarios only; one seed"
    assert (found.seed_sd, found.variances, found.p) == (None, None, None)
    assert "over scenarios only; one seed" in sut.crossed_bootstrap([[1, 2, 3, 6]]).method


def test_table_without_any_spread_has_no_width() -> None:
    assert sut.crossed_interval(np.ones((5, 4)))[:3] == (1, 1, 1)
    assert sut.crossed_interval(np.ones((5, 4))).p == 0
    assert sut.crossed_interval(np.zeros((5, 4))).p == 1


@pytest.mark.parametrize("table", [[], [[]], [1.0, 2.0], [[1.0], [2.0]], [[1.0, np.nan], [2.0, 3.0]]])
def test_tables_with_gaps_or_without_scenarios_are_refused(table: list[list[float]]) -> None:
    for method in (sut.crossed_interval, sut.crossed_bootstrap):
        with pytest.raises(ValueError, match="table"):
            method(table)


def test_bootstrap_draws_every_pigeonhole() -> None:
    # [[0, 0], [0, 4]]: the mean of a draw is 4 * share of row 2 * share of column 2, shares 0, 1/2, 1 with p 1/4, 1/2, 1/4:
    # P(mean = 4) = 1/16, P(mean = 2) = 2 * 1/8 = 1/4, P(mean = 1) = 1/4, P(mean = 0) = 7/16. So 4 lies above the 93.75 % point
    # and the 95 % interval is 0 to 4, and the 50 % interval 0 to 2 (its upper end, the 75 % point, lies in 68.75 to 93.75 %).
    found = sut.crossed_bootstrap([[0, 0], [0, 4]])
    assert found[:3] == (1, 0, 4)
    assert sut.crossed_bootstrap([[0, 0], [0, 4]], level=0.5)[:3] == (1, 0, 2)
    assert found.p is None
    assert found == sut.crossed_bootstrap([[0, 0], [0, 4]])
    with pytest.raises(ValueError, match="n_boot"):
        sut.crossed_bootstrap([[0, 0], [0, 4]], n_boot=0)


# Crossed: simulated coverage

N_TABLES = 3000
"""Monte Carlo error of a coverage of 95 %: sqrt(0.95 * 0.05 / 3000) = 0.4 %."""


def draw_tables(rng: np.random.Generator, n: int, n_seeds: int, n_scenarios: int, sd_seed: float, sd_scenario: float) -> Floats:
    """Tables of true mean 0 and residual sd 1; shape (n, n_seeds, n_scenarios)."""
    seeds = sd_seed * rng.standard_normal((n, n_seeds, 1))
    scenarios = sd_scenario * rng.standard_normal((n, 1, n_scenarios))
    return np.asarray(seeds + scenarios + rng.standard_normal((n, n_seeds, n_scenarios)))


def half_widths(tables: Floats, level: float = 0.95) -> Floats:
    """`crossed_interval` of many tables at once; `test_half_widths_are_those_of_crossed_interval` ties the two."""
    return sut.half_widths(*sut.crossed_errors(tables), level)


def cover(tables: Floats) -> float:
    return float((np.abs(tables.mean(axis=(1, 2))) <= half_widths(tables)).mean())


def test_half_widths_are_those_of_crossed_interval() -> None:
    tables = draw_tables(np.random.default_rng(0), 20, 4, 12, 0.5, 1)
    found = [sut.crossed_interval(table) for table in tables]
    assert half_widths(tables) == pytest.approx([(one.high - one.low) / 2 for one in found])


@pytest.mark.parametrize("n_seeds", [3, 5, 8])
@pytest.mark.parametrize("n_scenarios", [12, 40, 120])
def test_coverage_is_honest(n_seeds: int, n_scenarios: int) -> None:
    # Without scenario variance the "never narrower" rule cannot but cover more (98.9 % at three seeds): floor only.
    rng = np.random.default_rng(100 * n_seeds + n_scenarios)
    for sd_scenario in (0, 1, 2):
        for sd_seed in (0, 0.2, 0.5, 1):
            covered = cover(draw_tables(rng, N_TABLES, n_seeds, n_scenarios, sd_seed, sd_scenario))
            assert 0.93 <= covered <= (0.975 if sd_scenario else 0.995), (sd_seed, sd_scenario, covered)


@pytest.mark.parametrize("n_seeds", [2, 4])
def test_coverage_with_two_or_four_seeds_is_at_least_nominal(n_seeds: int) -> None:
    rng = np.random.default_rng(n_seeds)
    for sd_scenario, sd_seed in ((0, 0), (0, 1), (1, 0), (1, 0.2), (1, 1), (2, 0.5)):
        assert cover(draw_tables(rng, N_TABLES, n_seeds, 40, sd_seed, sd_scenario)) >= 0.93


def test_bootstrap_covers_too_little_with_three_seeds() -> None:
    # 300 tables: Monte Carlo error 2 %. Why `crossed_interval` is the one used for inference.
    tables = draw_tables(np.random.default_rng(3), 300, 3, 40, 1, 1)
    found = [sut.crossed_bootstrap(table, n_boot=300) for table in tables]
    assert np.mean([one.low <= 0 <= one.high for one in found]) < 0.88
    assert cover(tables) > 0.93


@pytest.mark.parametrize("n_seeds", [5, 8])
@pytest.mark.parametrize("sd_seed", [0, 0.3, 1])
def test_equal_arms_differ_significantly_at_most_one_time_in_twenty(n_seeds: int, sd_seed: float) -> None:
    # Two arms trained and measured alike, contrasted: the p that is printed, on 500 studies; three Monte Carlo errors of 1 %.
    rng = np.random.default_rng(round(10 * sd_seed) + n_seeds)
    difference = draw_tables(rng, 500, n_seeds, 40, sd_seed, 0.5) - draw_tables(rng, 500, n_seeds, 40, sd_seed, 0.5)
    p_values = [sut.crossed_interval(table).p for table in difference]
    assert np.mean([p is not None and p < 0.05 for p in p_values]) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 500)


def test_trainings_that_differ_by_seed_alone_are_not_called_an_effect() -> None:
    # Each seed moves every scenario alike: over scenarios alone nearly every study would be a discovery.
    tables = draw_tables(np.random.default_rng(8), 1000, 5, 40, 3, 0.3)
    over_scenarios = [sut.t_interval(table.mean(axis=0)) for table in tables]
    assert np.mean([not one.low <= 0 <= one.high for one in over_scenarios]) > 0.85
    assert 1 - cover(tables) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1000)
    alone = sut.crossed_interval(tables[0][:1])
    assert alone.p is None
    assert "one seed" in alone.method


# Holm


def test_holm_matches_hand_worked_case() -> None:
    # sorted 0.01 * 3 = 0.03, 0.03 * 2 = 0.06, 0.04 * 1 -> 0.06 (never below the one before); None is not counted
    assert sut.holm_adjust([0.04, None, 0.01, 0.03]) == pytest.approx((0.06, None, 0.03, 0.06))
    assert sut.holm_adjust([]) == ()
    assert sut.holm_adjust([None]) == (None,)


@pytest.mark.parametrize("p_values", [[0.5], [0.01, 0.01, 0.2, 1.0, 0.0], [0.9, 0.03, 0.02, 0.04, 0.011, 0.5, 0.012, 0.3]])
def test_holm_matches_statsmodels(p_values: list[float]) -> None:
    """Few cases: statsmodels collects garbage at every call."""
    from statsmodels.stats.multitest import multipletests  # type: ignore[import-untyped,unused-ignore]

    assert sut.holm_adjust(p_values) == pytest.approx(tuple(multipletests(p_values, method="holm")[1]), abs=1e-12)


@settings(deadline=None, max_examples=30)
@given(P_VALUES)
def test_holm_keeps_order_and_never_lowers(p_values: list[float | None]) -> None:
    adjusted = sut.holm_adjust(p_values)
    assert [p is None for p in adjusted] == [p is None for p in p_values]
    pairs = sorted((raw, new) for raw, new in zip(p_values, adjusted, strict=True) if raw is not None and new is not None)
    assert all(raw <= new <= 1 for raw, new in pairs)
    assert [new for _, new in pairs] == sorted(new for _, new in pairs)


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_impossible_p_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match=r"outside \[0, 1\]"):
        sut.holm_adjust([0.5, p])


# Smallest detectable difference


def solve_noncentral_t(error: float, df: float) -> float:
    """The difference that a two-sided t test at 5 % finds with power 0.8, on the right side."""
    grid = np.linspace(0, 20 * error, 40_001)
    power = stats.nct.sf(stats.t.ppf(0.975, df), df, grid / error)
    return float(grid[np.searchsorted(power, 0.8)])


@pytest.mark.parametrize(
    ("sds", "n_seeds", "n_scenarios", "df"),
    [((5, 0.5, 1), 5, 120, 4), ((0, 3, 1), 8, 40, 39), ((9, 3, 1), 1, 40, 39), ((1, 0, 0.1), 3, 12, 2)],
)
def test_smallest_detectable_is_the_t_test_where_one_factor_rules(
    sds: tuple[float, float, float], n_seeds: int, n_scenarios: int, df: float
) -> None:
    seed, scenario, residual = sds if n_seeds > 1 else (0, *sds[1:])
    error = np.sqrt(seed**2 / n_seeds + scenario**2 / n_scenarios + residual**2 / (n_seeds * n_scenarios))
    assert sut.smallest_detectable(*sds, n_seeds, n_scenarios) == pytest.approx(solve_noncentral_t(error, df), rel=0.03)


def test_smallest_detectable_is_near_noncentral_t_with_satterthwaite_df() -> None:
    # expected mean squares: seed 40 * 0.25 + 1 = 11, scenario 8 * 1 + 1 = 9, residual 1; total 19
    df = 19**2 / (11**2 / 7 + 9**2 / 39 + 1 / 273)
    assert sut.smallest_detectable(0.5, 1, 1, 8, 40) == pytest.approx(solve_noncentral_t(np.sqrt(19 / 320), df), rel=0.05)


def test_smallest_detectable_is_found_with_its_power() -> None:
    # 3,000 tables drawn in full: Monte Carlo error 0.7 %
    difference = sut.smallest_detectable(0.3, 0.5, 1, 5, 40)
    tables = draw_tables(np.random.default_rng(1), N_TABLES, 5, 40, 0.3, 0.5) + difference
    assert (tables.mean(axis=(1, 2)) > half_widths(tables)).mean() == pytest.approx(0.8, abs=0.025)


def test_smallest_detectable_shrinks_with_seeds_scenarios_and_less_power() -> None:
    few = sut.smallest_detectable(0.5, 1, 1, 3, 40)
    assert sut.smallest_detectable(0.5, 1, 1, 8, 40) < few
    assert sut.smallest_detectable(0.5, 1, 1, 3, 120) < few
    assert sut.smallest_detectable(0.5, 1, 1, 3, 40, power=0.6) < few < sut.smallest_detectable(0.5, 1, 1, 3, 40, level=0.99)
    assert sut.smallest_detectable(0, 0, 0, 3, 40) == 0
    assert sut.smallest_detectable(1, 2, 2, 3, 40) == pytest.approx(2 * few, rel=1e-4)


@pytest.mark.parametrize(
    "wrong", [(-1, 1, 1, 3, 40), (float("nan"), 1, 1, 3, 40), (1, 1, 1, 0, 40), (1, 1, 1, 3, 1), (1, 1, 1, 3, 40, 1.0)]
)
def test_impossible_plan_is_refused(wrong: tuple[float, float, float, int, int]) -> None:
    with pytest.raises(ValueError, match=r"standard deviations|needs a seed"):
        sut.smallest_detectable(*wrong)


# Missing values


def test_missing_bounds_match_hand_worked_case() -> None:
    # 8 known that sum to 6, 2 missing: 6/10 if both are 0, 8/10 if both are 1
    assert sut.missing_bounds(6, 8, 2) == (0.6, 0.8, 10)
    assert sut.missing_bounds(0, 0, 3, -2, 2) == (-2, 2, 3)


@settings(deadline=None)
@given(st.lists(st.floats(-2, 3), max_size=20), st.integers(0, 20))
def test_missing_bounds_hold_the_known_mean_and_meet_without_missing(known: list[float], n_missing: int) -> None:
    if not known and not n_missing:
        return
    found = sut.missing_bounds(sum(known), len(known), n_missing, -2, 3)
    assert -2 <= found.low <= found.high <= 3
    assert found.high - found.low == pytest.approx(5 * n_missing / found.n, abs=1e-9)
    if known:
        assert found.low - 1e-9 <= sum(known) / len(known) <= found.high + 1e-9


@pytest.mark.parametrize("wrong", [(0, 0, 0), (0, -1, 2), (3, 2, 1), (float("nan"), 2, 1), (1, 2, 1, 1, 0)])
def test_impossible_sums_are_refused(wrong: tuple[float, int, int]) -> None:
    with pytest.raises(ValueError, match=r"no mean|cannot sum|no range"):
        sut.missing_bounds(*wrong)


# Families


@pytest.mark.parametrize("icc", [0.0, 0.2, 0.4])
def test_interval_over_families_covers_other_families(icc: float) -> None:
    """4 families of 6 scenarios, one seed and three: without families the interval misses; with them it covers."""
    rng, n_tables = np.random.default_rng(4), 500
    families = [str(place // 6) for place in range(24)]
    for n_seeds in (1, 3):
        n_covered = 0
        for _ in range(n_tables):
            scenario = np.sqrt(icc) * rng.normal(size=4).repeat(6) + np.sqrt(1 - icc) * rng.normal(size=24)
            table = scenario + (0.5 * rng.normal(size=(n_seeds, 24)) if n_seeds > 1 else 0)
            found = sut.crossed_interval(table if n_seeds > 1 else scenario[None], families=families)
            n_covered += found.low <= 0 <= found.high
        assert n_covered / n_tables > 0.95 - 3 * np.sqrt(0.95 * 0.05 / n_tables)


def test_families_by_hand() -> None:
    found = sut.crossed_interval([[1.0, 3.0, 5.0, 7.0]], families=["a", "a", "b", "b"])
    # sums of deviations from 4 by family: -4 and 4; variance of the mean 2/1 * (16 + 16) / 16 = 4
    assert found.family_error == pytest.approx(2.0)
    assert found.high - found.estimate == pytest.approx(12.706 * 2.0, rel=1e-4)
    assert (found.n_families, found.estimate) == (2, 4.0)
    with pytest.raises(ValueError, match="two names at least"):
        sut.crossed_interval([[1.0, 2.0]], families=["a", "a"])


def test_seeds_and_families_are_joined_by_hand() -> None:
    # seeds 1, 3, 5, 7, 9, no residual: squared error over seeds 10 / 5 = 2 on 4 df
    # scenario means 1, 3, 3, 5, 5, 7, 7, 9: mean 5, squares 48, squared error 48 / 7 / 8 = 0.857143 on 7 df
    # sums of deviations by family -6, -2, 2, 6: squared error 4/3 * 80 / 64 = 5/3 on 3 df
    # alone: t(0.975, 4) = 2.776445 * sqrt(2) = 3.926, t(0.975, 3) = 3.182446 * sqrt(5/3) = 4.109
    # joined: 11/3 with df (121/9) / (4/4 + (25/9)/3) = 6.980769; t 2.365945 * sqrt(11/3) = 4.530441, the widest
    # (seeds and scenarios: 2.857 with df 7.39, less on both counts)
    table = 5 + np.array([-4.0, -2, 0, 2, 4])[:, None] + np.array([-4.0, -2, -2, 0, 0, 2, 2, 4])
    found = sut.crossed_interval(table, families=list("aabbccdd"))
    assert found[:3] == pytest.approx((5, 5 - 4.530441, 5 + 4.530441), abs=1e-5)
    assert found.p == pytest.approx(0.0349388, abs=1e-6)
    assert (found.family_error, found.scenario_error) == pytest.approx((np.sqrt(5 / 3), np.sqrt(6 / 7)))
    errors, df = sut.crossed_errors(table, list("aabbccdd"))
    assert errors**2 == pytest.approx([6 / 7, 5 / 3, 2, 20 / 7, 11 / 3])
    assert df == pytest.approx([7, 3, 4, 7.387863, 6.980769])


@settings(deadline=None)
@given(TABLES, st.randoms(use_true_random=False), st.floats(0.5, 0.99))
def test_with_families_it_is_never_narrower_and_its_p_agrees(table: Floats, random: object, level: float) -> None:
    names = ["a", "b", *(random.choice("abcd") for _ in range(table.shape[1] - 2))]  # type: ignore[attr-defined]
    found, without = sut.crossed_interval(table, level, names), sut.crossed_interval(table, level)
    over_families = 2 * stats.t.ppf((1 + level) / 2, found.n_families - 1) * (found.family_error or 0)
    alone = [one.high - one.low for one in (without, *(sut.t_interval(table.mean(axis=axis), level) for axis in (0, 1)))]
    assert all(found.high - found.low >= width * (1 - 1e-9) - 1e-9 for width in (*alone, over_families))
    assert (found.estimate, found.n_families, found.seed_values) == (without.estimate, len(set(names)), without.seed_values)
    assert (found.p is None) == (found.n_seeds < 5)
    if found.p is not None and abs(found.p - (1 - level)) > 1e-9:
        assert (found.p < 1 - level) == (not found.low <= 0 <= found.high)


class Plan(NamedTuple):
    """Families of like size. Variances of one value: of scenarios 1, of which `icc` between families, of what is left `residual`.
    share: of the grand mean's variance without residual, by seeds."""

    n_seeds: int
    n_families: int
    n_each: int
    share: float
    icc: float
    residual: float = 1.0

    @property
    def over_families(self) -> float:
        """Squared error of the grand mean, by scenarios alone."""
        return (self.icc + (1 - self.icc) / self.n_each) / self.n_families

    @property
    def over_seeds(self) -> float:
        """Squared error of the grand mean, by seeds alone."""
        return self.share / (1 - self.share) * self.over_families

    @property
    def spread(self) -> float:
        """Standard error of the grand mean."""
        n = self.n_seeds * self.n_families * self.n_each
        return float(np.sqrt(self.over_seeds + self.over_families + self.residual / n))

    @property
    def names(self) -> list[str]:
        """Of the scenarios' families."""
        return [str(family) for family in range(self.n_families) for _ in range(self.n_each)]


def draw_errors(plan: Plan, n_draws: int = 2000) -> tuple[Floats, Floats]:
    """As `crossed_errors`, of studies whose mean squares follow their laws (normal values); shape (5, n_draws)."""
    rng, n, n_seeds = np.random.default_rng(1), plan.n_families * plan.n_each, plan.n_seeds
    df_seed, df, df_within = n_seeds - 1.0, n - 1.0, n - float(plan.n_families)
    left = plan.residual / (n_seeds * n)
    seed = (plan.over_seeds + left) * rng.chisquare(df_seed, n_draws) / df_seed
    family = (plan.over_families + left) * rng.chisquare(plan.n_families - 1, n_draws) / (plan.n_families - 1)
    within = ((1 - plan.icc) / n + left) * rng.chisquare(df_within, n_draws)
    scenario = (family * (plan.n_families - 1) + within) / df
    residual = left * rng.chisquare(df_seed * df, n_draws) / (df_seed * df)
    side = sut.ErrorParts(scenario, df, family, plan.n_families - 1.0, residual, df_seed * df)
    return sut.join_errors(seed, n_seeds, [side], by_family=True)


def cover_by_law(plan: Plan, ways: int = 5) -> float:
    """Exact given the mean squares, so that the Monte Carlo error is about 0.1 %. ways: the last joins families and seeds."""
    errors, df = draw_errors(plan)
    return float(np.mean(2 * stats.norm.cdf(sut.half_widths(errors[:ways], df[:ways], 0.95) / plan.spread) - 1))


def draw_families(rng: np.random.Generator, n: int, plan: Plan, counts: Sequence[int] = (), sd_both: float = 0.0) -> Floats:
    """Tables of true mean 0; shape (n, n_seeds, n_scenarios). counts: of scenarios by family. sd_both: of families' responses to seeds."""
    counts = counts or [plan.n_each] * plan.n_families
    families = np.sqrt(plan.icc) * rng.standard_normal((n, 1, len(counts))) + sd_both * rng.standard_normal((n, plan.n_seeds, len(counts)))
    tables = draw_tables(rng, n, plan.n_seeds, sum(counts), 0, 0) * np.sqrt(plan.residual) + np.repeat(families, counts, axis=-1)
    tables += np.sqrt(1 - plan.icc) * rng.standard_normal((n, 1, sum(counts)))
    return np.asarray(tables + np.sqrt(plan.over_seeds * plan.n_seeds) * rng.standard_normal((n, plan.n_seeds, 1)))


@pytest.mark.parametrize("n_seeds", range(3, 9))
def test_coverage_with_families_is_honest(n_seeds: int) -> None:
    # Where families hardly differ or hardly count, the "never narrower" rule cannot but cover more (99.4 % at three seeds).
    for n_families, n_each, share, icc, residual in itertools.product((4, 7, 20), (3, 20), (0, 0.5, 0.8), (0, 0.2, 0.9), (0.1, 10)):
        covered = cover_by_law(Plan(n_seeds, n_families, n_each, share, icc, residual))
        assert 0.94 <= covered <= (0.98 if icc == 0.9 and residual < 1 else 0.995), (n_families, n_each, share, icc, residual, covered)


@pytest.mark.parametrize("n_seeds", [5, 8])
def test_seeds_and_families_that_weigh_alike_are_counted_together(n_seeds: int) -> None:
    plan = Plan(n_seeds, 20, 4, share=0.5, icc=0.8, residual=0.2)
    assert cover_by_law(plan, ways=4) < 0.93
    assert cover_by_law(plan) == pytest.approx(0.95, abs=0.005)


@pytest.mark.parametrize(("n_seeds", "n_families"), [(3, 4), (5, 20), (8, 7)])
def test_whole_tables_with_families_are_covered_as_the_laws_say(n_seeds: int, n_families: int) -> None:
    plan = Plan(n_seeds, n_families, 4, share=0.4, icc=0.5)
    tables = draw_families(np.random.default_rng(n_seeds), N_TABLES, plan)
    halves = sut.half_widths(*sut.crossed_errors(tables, plan.names), 0.95)
    assert (np.abs(tables.mean(axis=(1, 2))) <= halves).mean() == pytest.approx(cover_by_law(plan), abs=3 * 0.004)
    found = [sut.crossed_interval(table, families=plan.names) for table in tables[:20]]
    assert halves[:20] == pytest.approx([(one.high - one.low) / 2 for one in found])


@pytest.mark.slow
@pytest.mark.parametrize("n_seeds", [3, 5, 8])
def test_coverage_of_unequal_families_that_seeds_move(n_seeds: int) -> None:
    # 4,000 tables a point: Monte Carlo error 0.35 %. Sizes from 3 to 20 in one table cost most where there are four families.
    rng = np.random.default_rng(90 + n_seeds)
    for n_families, share, icc, sd_both in itertools.product((4, 7, 20), (0, 0.5), (0.2, 0.5), (0, 0.3)):
        double = [8, 8] + [4] * (n_families - 2)
        spread = [round(size) for size in np.linspace(3, 20, n_families)]
        for counts, floor in ((double, 0.93), (spread, 0.90 if n_families == 4 else 0.92)):
            tables = draw_families(rng, 4000, Plan(n_seeds, n_families, 4, share, icc), counts, sd_both)
            names = [str(family) for family, count in enumerate(counts) for _ in range(count)]
            covered = float((np.abs(tables.mean(axis=(1, 2))) <= sut.half_widths(*sut.crossed_errors(tables, names), 0.95)).mean())
            assert floor <= covered <= 0.99, (counts, share, icc, sd_both, covered)


@pytest.mark.parametrize("n_seeds", [3, 5, 8])
def test_detectable_difference_with_families_is_found_with_its_power(n_seeds: int) -> None:
    # The study's own sentence on what it could find, from variances as they are expected: the interval's power there, by the laws.
    for n_families, n_each, share, icc in itertools.product((4, 20), (3, 20), (0, 0.6), (0, 0.2, 0.6)):
        plan = Plan(n_seeds, n_families, n_each, share, icc)
        n, left = n_families * n_each, 1 / (n_seeds * n_families * n_each)
        scenario = (1 - icc) + icc * (n - n_each) / (n - 1)
        found = sut.crossed_interval(draw_families(np.random.default_rng(0), 1, plan)[0], families=plan.names)._replace(
            variances=sut.Variances(plan.over_seeds * n_seeds, scenario, 1.0),
            scenario_error=float(np.sqrt(scenario / n + left)),
            family_error=float(np.sqrt(plan.over_families + left)),
        )
        halves = sut.half_widths(*draw_errors(plan), 0.95)
        power = float(np.mean(stats.norm.cdf((detectable(found) - halves) / plan.spread)))
        assert power == pytest.approx(0.8, abs=0.025), (n_families, n_each, share, icc, power)


@pytest.mark.parametrize("families", [(), list("aabbccddee")])
def test_detectable_difference_with_one_seed_is_the_t_test(families: list[str]) -> None:
    # means 0, 1 ... 9 with a t over scenarios; by family the sums of deviations are -8, -4, 0, 4, 8: 5/4 * 160 / 100 = 2 on 4 df
    found = sut.crossed_interval([np.arange(10.0)], families=families)
    error, df = (np.sqrt(2), 4) if families else (np.sqrt(82.5 / 9 / 10), 9)
    assert detectable(found) == pytest.approx(solve_noncentral_t(error, df), rel=0.02)
