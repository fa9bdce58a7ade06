"""Interactions, equivalence, sizes and matched shifts against cases worked by hand and planted truth (fixed seeds, so no flicker)."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped,unused-ignore]

from teachwhy import comparisons as sut
from teachwhy import statistics
from teachwhy.statistics import Variances, crossed_interval

Floats = NDArray[np.float64]

VALUES = st.floats(-100, 100, allow_nan=False).map(lambda value: round(value, 3))
PAIRS = st.tuples(st.integers(1, 7), st.integers(2, 7), st.integers(2, 7)).flatmap(
    lambda n: st.tuples(arrays(np.float64, (n[0], n[1]), elements=VALUES), arrays(np.float64, (n[0], n[2]), elements=VALUES))
)

N_TABLES = 2000
"""Monte Carlo error of a share of 5 %: 0.5 %."""
MAX_FALSE = 0.05 + 3 * np.sqrt(0.05 * 0.95 / N_TABLES)

SIZES = ((12, 12), (12, 120), (40, 40), (120, 40), (120, 120))


def draw_table(rng: np.random.Generator, n_seeds: int, n_columns: int, sd_scenario: float = 1.0, n: int = N_TABLES) -> Floats:
    """Tables of true mean 0 and residual sd 1, no seed effect; shape (n, n_seeds, n_columns)."""
    return np.asarray(sd_scenario * rng.standard_normal((n, 1, n_columns)) + rng.standard_normal((n, n_seeds, n_columns)))


def draw_seeds(rng: np.random.Generator, n_seeds: int, sd: float, n: int = N_TABLES) -> Floats:
    return np.asarray(sd * rng.standard_normal((n, n_seeds, 1)))


def half_widths(table: Floats, level: float = 0.95) -> Floats:
    """`crossed_interval` of many tables at once; tied to it in test_statistics."""
    return statistics.half_widths(*statistics.crossed_errors(table), level)


def finds(table: Floats) -> Floats:
    """Which tables' 95 % intervals leave out 0."""
    return np.asarray(np.abs(table.mean(axis=(1, 2))) > half_widths(table))


def difference_half_widths(one: Floats, other: Floats, level: float = 0.95, families: tuple[list[str], list[str]] = ([], [])) -> Floats:
    """`crossed_difference` of many pairs at once; `test_half_widths_are_those_of_crossed_difference` ties the two."""
    return statistics.half_widths(*sut._difference_errors(one, other, *families), level)


def differ(one: Floats, other: Floats, families: tuple[list[str], list[str]] = ([], [])) -> Floats:
    return np.asarray(np.abs(one.mean(axis=(1, 2)) - other.mean(axis=(1, 2))) > difference_half_widths(one, other, 0.95, families))


def cover_by_law(n_seeds: int, sizes: tuple[int, int], sd_seed: float, sds: tuple[float, float], level: float = 0.95) -> float:
    """Coverage of `crossed_difference` where the mean squares follow their laws (normal values, residual sd 1); 4,000 draws.

    Given the mean squares, the coverage is exact, so that the Monte Carlo error is under 0.2 %.
    """
    rng, n_draws = np.random.default_rng(1), 4000

    def chi(df: float) -> Floats:
        return np.asarray(rng.chisquare(df, n_draws) / df)

    sides, spread = [], sd_seed**2 / n_seeds
    for size, sd in zip(sizes, sds, strict=True):
        df = size - 1.0
        scenario = (sd**2 + 1 / n_seeds) / size * chi(df)
        residual = chi((n_seeds - 1) * df) / (n_seeds * size)
        sides.append(statistics.ErrorParts(scenario, df, scenario, df, residual, (n_seeds - 1) * df))
        spread += (sd**2 + 1 / n_seeds) / size
    seed = (sd_seed**2 + sum(1 / size for size in sizes)) / n_seeds * chi(n_seeds - 1)
    halves = statistics.half_widths(*statistics.join_errors(seed, n_seeds, sides, by_family=False), level)
    return float(np.mean(2 * stats.norm.cdf(halves / np.sqrt(spread)) - 1))


# Crossed difference: by hand, properties

ONE, OTHER = [[1, 2, 3], [3, 4, 8]], [[0, 2], [0, 0]]


def test_crossed_difference_matches_hand_worked_case() -> None:
    # one: seed means 2, 5; scenario means 2, 3, 5.5; MS_residual 1.5.  other: 1, 0; 0, 1; residuals +-0.5, MS_residual 1
    # differences by seed 1, 5: mean 3, S = 8 / 2 = 4;  C1 = 3.25 / 3, C2 = 0.5 / 2;  R1 = 1.5 / 6, R2 = 1 / 4
    # over seeds: error 2, t(0.975, 1) = 12.706205, half 25.412409, the widest
    found = sut.crossed_difference(ONE, OTHER)
    assert found[:3] == pytest.approx((3, 3 - 25.412409, 3 + 25.412409), abs=1e-5)
    assert (found.n_seeds, found.n_one, found.n_other, found.seed_values, found.p) == (2, 3, 2, (1.0, 5.0), None)
    assert found.seed_sd == pytest.approx(np.sqrt(8))
    # C1 + C2 = 4/3 with df (4/3)^2 / (C1^2 / 2 + C2^2) = 1.777778 / 0.649306 = 2.737968
    # crossed 4 + 4/3 - 1/2 = 4.833333 with df 23.361111 / (16 + 0.649306 + 0.25^2 / 2 + 0.25^2) = 23.361111 / 16.743056 = 1.395272
    errors, df = sut._difference_errors(np.array(ONE, float), np.array(OTHER, float), (), ())
    assert errors**2 == pytest.approx([4 / 3, 4, 4.833333], abs=1e-5)
    assert df == pytest.approx([2.737968, 1, 1.395272], abs=1e-5)


def test_one_seed_is_welch_over_scenarios_and_says_so() -> None:
    one, other = [1.0, 2.0, 3.0, 6.0], [0.0, 2.0, 1.0]
    found, welch = sut.crossed_difference([one], [other]), stats.ttest_ind(one, other, equal_var=False)
    assert found[:3] == pytest.approx((2, *welch.confidence_interval(0.95)))
    assert (found.method, found.p, found.seed_sd) == ("Welch t over scenarios only; one seed", None, None)


@settings(deadline=None)
@given(PAIRS, st.floats(0.5, 0.99))
def test_crossed_difference_is_antisymmetric_and_its_p_agrees(pair: tuple[Floats, Floats], level: float) -> None:
    found, turned = sut.crossed_difference(*pair, level), sut.crossed_difference(*pair[::-1], level)
    assert turned[:3] == pytest.approx((-found.estimate, -found.high, -found.low), abs=1e-9)
    assert (found.p is None) == (found.n_seeds < 5)
    if found.p is not None and abs(found.p - (1 - level)) > 1e-9:
        assert (found.p < 1 - level) == (not found.low <= 0 <= found.high)


@settings(deadline=None)
@given(PAIRS)
def test_crossed_difference_is_never_narrower_than_one_way(pair: tuple[Floats, Floats]) -> None:
    found = sut.crossed_difference(*pair)
    squares = [table.mean(axis=0).var(ddof=1) / table.shape[1] for table in pair]
    doubt = sum(square**2 / (table.shape[1] - 1) for square, table in zip(squares, pair, strict=True))
    alone = [2 * stats.t.ppf(0.975, sum(squares) ** 2 / doubt) * np.sqrt(sum(squares))] if doubt > 0 else []
    if found.n_seeds > 1:
        by_seed = statistics.paired_difference(*(table.mean(axis=1) for table in pair))
        alone.append(by_seed.high - by_seed.low)
    assert all(found.high - found.low >= width * (1 - 1e-9) - 1e-9 for width in alone)


@pytest.mark.parametrize("n_seeds", [1, 2, 5])
def test_difference_from_a_table_of_zeros_is_the_crossed_interval(n_seeds: int) -> None:
    table = draw_table(np.random.default_rng(0), n_seeds, 12, n=1)[0] + draw_seeds(np.random.default_rng(1), n_seeds, 1, n=1)[0]
    found, known = sut.crossed_difference(table, np.zeros((n_seeds, 5))), crossed_interval(table)
    assert found[:3] == pytest.approx(known[:3])
    assert found.p == pytest.approx(known.p)


def test_families_of_one_side_by_hand() -> None:
    # far as in test_statistics: variance of its mean over families 4, on 1 df; near: variance 2/2 = 1, on 1 df
    # Welch over families: 5 with df 25 / (16 + 1) = 1.470588
    found = sut.crossed_difference([[1.0, 3.0, 5.0, 7.0]], [[0.0, 2.0]], one_families=["a", "a", "b", "b"])
    assert found.high - found.estimate == pytest.approx(stats.t.ppf(0.975, 25 / 17) * np.sqrt(5))
    assert (found.n_one_families, found.n_other_families, found.estimate) == (2, 0, 3.0)
    assert found.method.endswith("at least over families")
    with pytest.raises(ValueError, match="two names at least"):
        sut.crossed_difference([[1.0, 2.0]], [[1.0, 2.0]], other_families=["a", "a"])


def test_tables_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(ValueError, match="paired by seed"):
        sut.crossed_difference([[1, 2]], [[1, 2], [3, 4]])
    with pytest.raises(ValueError, match="other holds NaN"):
        sut.crossed_difference([[1, 2]], [[1, np.nan]])
    with pytest.raises(ValueError, match="two scenarios"):
        sut.crossed_difference([[1]], [[1, 2]])


# Simulated truth: coverage, false alarms, power


@pytest.mark.parametrize("families", [([], []), ([], ["a", "a", "b", "b", "c", "c", "c"])])
def test_half_widths_are_those_of_crossed_difference(families: tuple[list[str], list[str]]) -> None:
    rng = np.random.default_rng(0)
    one, other = draw_table(rng, 4, 12, n=20) + draw_seeds(rng, 4, 0.5, n=20), draw_table(rng, 4, 7, n=20)
    found = [sut.crossed_difference(a, b, 0.95, *families) for a, b in zip(one, other, strict=True)]
    assert difference_half_widths(one, other, families=families) == pytest.approx([(f.high - f.low) / 2 for f in found])


@pytest.mark.parametrize("n_seeds", range(3, 9))
def test_coverage_of_both_is_honest(n_seeds: int) -> None:
    # Where scenarios do not differ, the "never narrower" rule cannot but cover more (98.9 % at three seeds): floor only.
    for sizes, sd_seed in itertools.product(SIZES, (0, 0.3, 1)):
        covered = cover_by_law(n_seeds, sizes, sd_seed, (1, 2))
        assert 0.93 <= covered <= 0.97, (sizes, sd_seed, covered)
    assert 0.93 <= cover_by_law(n_seeds, (40, 40), 0.3, (1, 0)) <= 0.98
    assert 0.93 <= cover_by_law(n_seeds, (40, 40), 0.0, (0, 0)) <= 0.995
    for n_scenarios, sd_seed, sd_scenario in itertools.product((12, 40, 120), (0, 0.3, 1), (0, 1.5)):
        spread = np.sqrt(sd_seed**2 / n_seeds + sd_scenario**2 / n_scenarios + 1 / (n_seeds * n_scenarios))
        halves = statistics.draw_half_widths(Variances(sd_seed**2, sd_scenario**2, 1), n_seeds, n_scenarios, 0.95, n_draws=4000)
        covered = float(np.mean(2 * stats.norm.cdf(halves / spread) - 1))
        assert 0.93 <= covered <= (0.97 if sd_scenario else 0.995), (n_scenarios, sd_seed, sd_scenario, covered)


@pytest.mark.parametrize("n_seeds", [3, 5, 8])
def test_whole_tables_are_covered_as_the_laws_say(n_seeds: int) -> None:
    # The seeds move near and far alike (sd 2) and apart (sd 0.5): only what moves them apart counts.
    rng = np.random.default_rng(n_seeds)
    shared = draw_seeds(rng, n_seeds, 2)
    one = draw_table(rng, n_seeds, 40, 1) + shared + draw_seeds(rng, n_seeds, 0.5)
    other = draw_table(rng, n_seeds, 12, 2) + shared
    covered = 1 - differ(one, other).mean()
    assert covered == pytest.approx(cover_by_law(n_seeds, (40, 12), 0.5, (1, 2)), abs=3 * 0.005)
    assert 0.93 <= covered <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("n_seeds", range(3, 9))
def test_coverage_of_whole_tables_on_the_full_grid(n_seeds: int) -> None:
    rng = np.random.default_rng(50 + n_seeds)
    for (n_one, n_other), sd_seed, sd in itertools.product(SIZES, (0, 0.2, 0.5, 1, 2), (0.5, 1, 2)):
        one = draw_table(rng, n_seeds, n_one, sd, 4000) + draw_seeds(rng, n_seeds, sd_seed, 4000)
        other = draw_table(rng, n_seeds, n_other, 1, 4000)
        for covered in (1 - differ(one, other).mean(), 1 - finds(one).mean()):  # each with a Monte Carlo error of 0.35 %
            assert 0.93 <= covered <= (0.98 if sd >= 1 else 0.99), (n_one, n_other, sd_seed, sd, covered)


@pytest.mark.slow
@pytest.mark.parametrize("n_seeds", [1, 3, 5, 8])
def test_coverage_by_families_on_the_full_grid(n_seeds: int) -> None:
    # Near: 48 scenarios of families that were trained, far: 4 to 20 families; two of the far families weigh double.
    rng = np.random.default_rng(70 + n_seeds)
    for n_families, sd_family, sd_seed, sd_both in itertools.product((4, 7, 20), (0.3, 0.7), (0, 0.3), (0, 0.3)):
        counts = np.full(n_families, 4) + 4 * (np.arange(n_families) < 2)
        effects = sd_family * rng.standard_normal((4000, 1, n_families)) + sd_both * rng.standard_normal((4000, n_seeds, n_families))
        if n_seeds == 1:
            effects, sd_seed = sd_family * rng.standard_normal((4000, 1, n_families)), 0.0
        far = draw_table(rng, n_seeds, int(counts.sum()), 0.7, 4000) + np.repeat(effects, counts, axis=-1)
        near = draw_table(rng, n_seeds, 48, 0.7, 4000) + draw_seeds(rng, n_seeds, sd_seed, 4000)
        covered = 1 - differ(near, far, ([], [str(place) for place in np.repeat(np.arange(n_families), counts)])).mean()
        assert covered >= 0.92, (n_families, sd_family, sd_seed, sd_both, covered)


def test_families_and_seeds_are_counted_together() -> None:
    # 20 far families and 8 seeds that weigh alike: the larger of the two alone covers 92 %.
    rng, names = np.random.default_rng(0), [str(place // 4) for place in range(80)]
    far = draw_table(rng, 8, 80, 0.3) + np.repeat(0.7 * rng.standard_normal((N_TABLES, 1, 20)), 4, axis=-1)
    near = draw_table(rng, 8, 48, 0.3) + draw_seeds(rng, 8, 0.45)
    errors, df = sut._difference_errors(near, far, (), names)
    gap = np.abs(near.mean(axis=(1, 2)) - far.mean(axis=(1, 2)))
    assert (gap <= statistics.half_widths(errors[:4], df[:4], 0.95)).mean() < 0.93  # without the last way: seeds with families
    assert 0.935 <= (gap <= statistics.half_widths(errors, df, 0.95)).mean() <= 0.97


@pytest.mark.parametrize("n_seeds", [5, 8])
@pytest.mark.parametrize("sd_seed", [0, 0.3, 1])
def test_equal_arms_show_an_interaction_at_most_one_time_in_twenty(n_seeds: int, sd_seed: float) -> None:
    # Two arms trained and measured alike, contrasted near (40 scenarios) and far (24).
    rng = np.random.default_rng(round(10 * sd_seed) + n_seeds)
    near = draw_table(rng, n_seeds, 40) - draw_table(rng, n_seeds, 40) + draw_seeds(rng, n_seeds, sd_seed)
    far = draw_table(rng, n_seeds, 24) - draw_table(rng, n_seeds, 24) + draw_seeds(rng, n_seeds, sd_seed)
    assert differ(near, far).mean() <= MAX_FALSE
    p_values = [sut.crossed_difference(a, b).p for a, b in zip(near[:200], far[:200], strict=True)]
    assert [p is not None and p < 0.05 for p in p_values] == differ(near, far)[:200].tolist()


def test_near_found_and_far_missed_is_no_interaction() -> None:
    # The same true effect on both sides, each side found about half the time: the two verdicts differ often, the interaction does not.
    rng = np.random.default_rng(3)
    effect = statistics.smallest_detectable(0.3, 1, 1, 5, 40, power=0.51)
    near = draw_table(rng, 5, 40) + draw_seeds(rng, 5, 0.3) + effect
    far = draw_table(rng, 5, 40) + draw_seeds(rng, 5, 0.3) + effect
    assert (finds(near) & ~finds(far)).mean() > 0.2
    assert differ(near, far).mean() <= MAX_FALSE


@pytest.mark.parametrize(("n_seeds", "sd_seed"), [(5, 0.5), (8, 0.2)])
def test_planted_interaction_is_found_with_the_power_promised(n_seeds: int, sd_seed: float) -> None:
    # Sides of 40 scenarios each: scenario and residual variances add up, 1 + 1 and 1 + 1. Three Monte Carlo errors of 0.9 %.
    rng = np.random.default_rng(n_seeds)
    effect = statistics.smallest_detectable(sd_seed, np.sqrt(2), np.sqrt(2), n_seeds, 40)
    shared = draw_seeds(rng, n_seeds, 1)
    near = draw_table(rng, n_seeds, 40) + shared + draw_seeds(rng, n_seeds, sd_seed) + effect
    far = draw_table(rng, n_seeds, 40) + shared
    found = differ(near, far) & (near.mean(axis=(1, 2)) > far.mean(axis=(1, 2)))
    assert found.mean() == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("n_seeds", range(2, 9))
def test_trainings_that_differ_by_seed_alone_are_no_effect(n_seeds: int) -> None:
    # Seed sd 3, hardly any scenario differences: over scenarios alone nearly every study would be a discovery.
    rng = np.random.default_rng(80 + n_seeds)
    table = draw_table(rng, n_seeds, 40, 0.3) + draw_seeds(rng, n_seeds, 3)
    far = draw_table(rng, n_seeds, 24, 0.3) + draw_seeds(rng, n_seeds, 3)
    assert finds(table).mean() <= MAX_FALSE
    assert differ(table, far).mean() <= MAX_FALSE
    over_scenarios = 1.96 * np.sqrt(table.mean(axis=1).var(axis=1, ddof=1) / 40)
    assert (np.abs(table.mean(axis=(1, 2))) > over_scenarios).mean() > 0.85


# Equivalence


@pytest.mark.parametrize(
    ("shift", "margin", "verdict"),
    [(0, 6, "equivalent"), (0, 5, "undecided"), (1, 6.6, "small"), (1, 6.5, "different"), (-7, 6.6, "small")],
)
def test_equivalence_matches_hand_worked_case(shift: float, margin: float, verdict: str) -> None:
    # five seeds that agree on 1, 2, 3, 6: mean 3, error 1.080123 on 3 df; t(0.95, 3) = 2.353363, half 2.541923: 0.458077 to 5.541923
    # 95 %: -0.437434 to 6.437434, so 0 is not excluded; a unit farther it is, and -4 lies as far below 0 as 4 above
    table = np.tile([1.0, 2.0, 3.0, 6.0], (5, 1)) + shift
    found = sut.equivalence(lambda level: crossed_interval(table, level), margin)
    assert found.verdict == verdict
    assert found.excluded == pytest.approx(abs(3 + shift) + 2.541923, abs=1e-5)
    assert (found.low, found.high) == pytest.approx((3 + shift - 2.541923, 3 + shift + 2.541923), abs=1e-5)
    assert sut.equivalence(lambda level: crossed_interval(table, level), found.excluded).verdict in ("equivalent", "small")


def test_verdict_under_five_seeds_is_withheld_and_the_range_given() -> None:
    found = sut.equivalence(lambda level: crossed_interval([[1, 2, 3, 6]], level), 100)
    assert (found.verdict, found.excluded) == ("withheld", pytest.approx(5.541923, abs=1e-5))


def test_equivalence_of_near_and_far_is_told_by_the_crossed_difference() -> None:
    rng = np.random.default_rng(0)
    near, far = draw_table(rng, 5, 40, n=1)[0], draw_table(rng, 5, 40, n=1)[0]
    found = sut.equivalence(lambda level: sut.crossed_difference(near, far, level), 2.0)
    assert (found.verdict, found.low) == ("equivalent", sut.crossed_difference(near, far, 0.9).low)


@pytest.mark.parametrize("n_seeds", [5, 8])
def test_effect_as_large_as_the_margin_is_called_equivalent_at_most_one_time_in_twenty(n_seeds: int) -> None:
    rng, margin = np.random.default_rng(n_seeds), 1.0
    table = draw_table(rng, n_seeds, 40, 0.5) + draw_seeds(rng, n_seeds, 0.3) + margin
    within = np.abs(table.mean(axis=(1, 2))) + half_widths(table, 0.9) <= margin
    assert within.mean() <= MAX_FALSE
    found = [sut.equivalence(lambda level, one=one: crossed_interval(one, level), margin).excluded <= margin for one in table[:100]]
    assert found == within[:100].tolist()


@pytest.mark.parametrize(("margin", "alpha"), [(0, 0.05), (-1, 0.05), (np.nan, 0.05), (1, 0.5), (1, 0)])
def test_impossible_margin_is_refused(margin: float, alpha: float) -> None:
    with pytest.raises(ValueError, match="margin"):
        sut.equivalence(lambda level: crossed_interval(np.ones((5, 3)), level), margin, alpha)


# Sizes


def test_sizes_are_those_of_the_t_test_where_one_factor_rules() -> None:
    # Power 0.8, two-sided 5 %, one sample: 34 at an effect of half an sd, 10 at one sd (Cohen 1988; G*Power).
    found = sut.suggest_sizes(Variances(0, 1, 0), 0.5, n_seeds=5, n_scenarios=20)
    assert found.n_scenarios == pytest.approx(34, abs=1)
    assert (found.n_seeds, found.pairs) == (None, ((5, found.n_scenarios),))
    assert sut.suggest_sizes(Variances(1, 0, 0), 1, n_seeds=5, n_scenarios=40)[:2] == (10, None)
    # and over families: 34 families of 6
    by_family = sut.suggest_sizes(Variances(0, 0, 0), 0.5, 5, 24, family_sd=1, n_per_family=6)
    assert by_family.n_scenarios == pytest.approx(34 * 6, abs=6)


def test_suggested_pairs_reach_the_power_and_no_smaller_ones_do() -> None:
    found = sut.suggest_sizes(Variances(0.09, 0.25, 1), 0.6, n_seeds=3, n_scenarios=24, family_sd=0.4, n_per_family=6)
    assert found.n_scenarios is None  # under five seeds
    assert found.detectable == statistics.smallest_detectable(0.3, np.sqrt(0.4**2 + 0.25 / 6), np.sqrt(1 / 6), 3, 4)
    assert [pair[0] for pair in found.pairs] == sorted({pair[0] for pair in found.pairs})
    assert [pair[1] for pair in found.pairs] == sorted({pair[1] for pair in found.pairs}, reverse=True)
    rng = np.random.default_rng(0)
    for n_seeds, n_scenarios in (found.pairs[0], found.pairs[-1]):
        n_families = n_scenarios // 6
        tables = draw_table(rng, n_seeds, n_scenarios, 0.5) + draw_seeds(rng, n_seeds, 0.3) + 0.6
        tables += np.repeat(0.4 * rng.standard_normal((N_TABLES, 1, n_families)), 6, axis=-1)
        assert finds(tables.reshape(N_TABLES, n_seeds, n_families, 6).mean(axis=-1)).mean() == pytest.approx(0.815, abs=0.045)
        whole = statistics.crossed_errors(tables, [str(place // 6) for place in range(n_scenarios)])
        assert (np.abs(tables.mean(axis=(1, 2))) > statistics.half_widths(*whole, 0.95)).mean() == pytest.approx(0.815, abs=0.045)
        sds = (0.3, np.sqrt(0.16 + 0.25 / 6), np.sqrt(1 / 6))
        assert statistics.smallest_detectable(*sds, n_seeds, n_families) <= 0.6
        assert statistics.smallest_detectable(*sds, n_seeds, n_families - 1) > 0.6


@pytest.mark.parametrize("wrong", [{"wished": 0}, {"wished": np.nan}, {"family_sd": -1}, {"n_per_family": 0}, {"n_per_family": 3}])
def test_impossible_wish_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"wished|families"):
        sut.suggest_sizes(Variances(1, 1, 1), **{"wished": 1, "n_seeds": 5, "n_scenarios": 5, **wrong})  # type: ignore[arg-type]


# Far shift at matched near shift

NEAR = ([[0, -1, -3], [0, -2, -4]], [[0, -2], [0, -4]])
FAR = ([[0, -1, -2], [0, -1, -3]], [[0, -1], [0, -1]])


def test_retention_matches_hand_worked_case() -> None:
    # at -1.5: one, seed 1: a quarter between -1 and -3, far -1.25; seed 2: three quarters between 0 and -2, far -0.75
    # other: -0.75 and -0.375; differences -0.5, -0.375: mean -0.4375, error 0.0625, t(0.975, 1) = 12.706205, half 0.794138
    found = sut.retention(NEAR, FAR, -1.5)
    assert found is not None
    assert (found.level, found.one, found.other, found.n_seeds, found.p) == (-1.5, (-1.25, -0.75), (-0.75, -0.375), 2, None)
    assert (found.difference, found.low, found.high) == pytest.approx((-0.4375, -1.231638, 0.356638), abs=1e-5)


def test_level_is_the_farthest_that_every_seed_of_both_arms_reached() -> None:
    found = sut.retention(NEAR, FAR)
    assert found is not None
    assert (found.level, found.other) == (-2, (-1.0, -0.5))


def test_nothing_is_extrapolated() -> None:
    assert sut.retention(NEAR, FAR, -2.1) is None  # the other arm's first seed ends at -2
    assert sut.retention(NEAR, FAR, 0.1) is None
    assert sut.retention(([[-1, -2]], [[-3, -4]]), ([[0, 1]], [[0, 1]])) is None


def test_level_is_read_where_it_is_first_reached() -> None:
    # near goes to -2, back to -1 and on to -3: -1.5 is met three times; a flat stretch is read at its start
    found = sut.retention(([[0, -2, -1, -3]], [[0, -1.5, -1.5, -3]]), ([[0, -4, 5, 7]], [[0, 1, 2, 3]]), -1.5)
    assert found == (-1.5, (-3.0,), (1.0,), -4.0, None, None, 1, None)


def test_arms_that_differ_only_in_speed_retain_alike() -> None:
    # far = near^2 / 2 in both arms, one twice as fast, saved densely: the same far shift at the same near shift, at any seed's pace
    steps, pace = np.linspace(0, 1, 201), np.array([[1.0], [1.5], [2.0], [1.2], [0.9]])
    slow, fast = -pace * steps, -2 * pace[::-1] * steps
    found = sut.retention((slow, fast), (slow**2 / 2, fast**2 / 2), -0.7)
    assert found is not None
    assert found.one + found.other == pytest.approx((0.245,) * 10, abs=1e-3)
    assert found.p is not None and abs(found.difference) < 1e-3


@pytest.mark.parametrize(
    ("near", "far"),
    [(([[0]], [[0]]), ([[0]], [[0]])), (NEAR, NEAR[::-1]), ((NEAR[0], [[0, -1]]), (FAR[0], [[0, 1]])), (([[0, np.nan]], [[0, 1]]), FAR)],
)
def test_shifts_that_cannot_be_matched_are_refused(near: tuple[list[list[float]], ...], far: tuple[list[list[float]], ...]) -> None:
    with pytest.raises(ValueError, match=r"shift|same seeds"):
        sut.retention(near, far)  # type: ignore[arg-type]


# counted rates


def counted(n_scenarios: int, n_up: int, n_down: int) -> tuple[float, float]:
    """Ends of the interval of one arm less another, one run a scenario."""
    table = np.array([[1.0] * n_up + [-1.0] * n_down + [0.0] * (n_scenarios - n_up - n_down)])
    found = sut.at_least_counted(statistics.crossed_interval(table), [table])
    return found.low, found.high


@pytest.mark.parametrize("n", [8, 12, 24])
def test_interval_of_counted_rates_holds_the_truth(n: int) -> None:
    """Exact, by summing over all outcomes; rare harm above all, where a t interval has hardly a width."""
    ends = {(up, down): counted(n, up, down) for up in range(n + 1) for down in range(n + 1 - up)}
    for up, down in ((0.0, 0.0), (0.01, 0.0), (0.05, 0.0), (0.05, 0.05), (0.2, 0.0), (0.3, 0.1), (0.5, 0.2), (0.3, 0.3)):
        shares = (up, down, 1 - up - down)
        covered = sum(
            float(stats.multinomial.pmf((a, b, n - a - b), n, shares))
            for (a, b), (low, high) in ends.items()
            if low - 1e-12 <= up - down <= high + 1e-12
        )
        assert covered >= 0.93, (up, down)


def test_nothing_seen_is_not_nothing_there() -> None:
    low, high = counted(12, 0, 0)
    assert low == -high
    assert high == pytest.approx(statistics.wilson_interval(0, 12).high)
    assert counted(4, 4, 0)[1] == 1.0


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0]), min_size=4, max_size=40), st.integers(5, 7))
@settings(max_examples=60, deadline=None)
def test_p_of_counted_rates_agrees_with_their_interval(values: list[float], n_seeds: int) -> None:
    table = np.array([values] * n_seeds)
    table[0] = np.roll(table[0], 1)
    plain = statistics.crossed_interval(table)
    found = sut.at_least_counted(plain, [table])
    assert found.p is not None
    assert found.p >= (plain.p or 0)
    assert found.low <= max(plain.low, -1)
    assert found.high >= min(plain.high, 1)
    if abs(found.p - 0.05) > 1e-4:
        assert (found.p < 0.05) == (not found.low <= 0 <= found.high)


def test_difference_of_counted_contrasts_is_as_wide_as_both() -> None:
    near, far = np.zeros((2, 10)), np.zeros((2, 10))
    found = sut.at_least_counted(sut.crossed_difference(near, far), [near, far])
    one = statistics.wilson_interval(0, 10).high
    assert (found.low, found.high) == pytest.approx((-one * 2**0.5, one * 2**0.5))


def test_differences_beyond_one_are_no_rates() -> None:
    with pytest.raises(ValueError, match=r"within \[-1, 1\]"):
        sut.counted_bounds([0.0, 2.0])
    found = sut.at_least_counted(statistics.crossed_interval([[0.0, 2.0, 0.0]]), [[[0.0, 2.0, 0.0]]], reach=2)
    assert -2 <= found.low <= found.high <= 2


def test_many_runs_a_scenario_are_worth_more_than_one() -> None:
    """12 scenarios, 20 runs of each under either arm, 30 % against 10 %: what a t interval tells apart, counts leave told apart."""
    rng = np.random.default_rng(4)
    tables = [rng.binomial(20, 0.3, (1, 12)) / 20 - rng.binomial(20, 0.1, (1, 12)) / 20 for _ in range(200)]
    found = [sut.at_least_counted(statistics.crossed_interval(table), [table]) for table in tables]
    assert np.mean([one.low > 0 for one in found]) > 0.85
    assert np.mean([one.low <= 0.2 <= one.high for one in found]) > 0.93
    lone = np.zeros((1, 12))
    lone[0, 0] = 0.05
    ends = sut.counted_bounds(lone[0])
    assert ends[1] > 0.2, "one scenario of twelve does not tell how alike the runs of others are"
