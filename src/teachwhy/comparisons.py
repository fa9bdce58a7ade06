"""What is asked of several tables or of a plan, numbers in and NamedTuples out: interactions, equivalence, sizes, matched shifts.

Stands on `statistics`, whose tables and rules it keeps: seeds and scenarios are crossed random factors, no p under five seeds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from teachwhy import statistics
from teachwhy.statistics import MIN_SEEDS_FOR_P, CrossedInterval, Floats, Variances

MAX_SEEDS = 40
"""More seeds than this are not suggested."""
MAX_UNITS = 1000
"""More scenarios, or families, than this are not suggested."""
SUGGESTED_SEEDS = (5, 6, 8, 10, 15, 20, 30, 40)
"""The numbers of seeds for which a number of scenarios is looked for."""


class CrossedDifference(NamedTuple):
    """A difference of two grand means whose interval counts other seeds and, on both sides, other scenarios."""

    estimate: float
    low: float
    high: float
    n_seeds: int
    n_one: int
    """Scenarios of the first table."""
    n_other: int
    """Scenarios of the second table."""
    seed_sd: float | None
    """Standard deviation of the per-seed differences; None with one seed."""
    seed_values: tuple[float, ...]
    """Per-seed differences, in the order of the rows."""
    p: float | None
    """Two-sided, of no difference; None under five seeds."""
    method: str
    n_one_families: int = 0
    """Families that the first table's scenarios were counted by; 0: they were not."""
    n_other_families: int = 0


Found = TypeVar("Found", CrossedInterval, CrossedDifference)


class Equivalence(NamedTuple):
    """Whether an effect is shown to be small, and how small."""

    verdict: Literal["equivalent", "different", "small", "undecided", "withheld"]
    """equivalent: within the margin, 0 not excluded; small: within the margin and not 0; different: not 0, not shown to be
    within the margin; undecided: neither; withheld: under five seeds."""
    margin: float
    excluded: float
    """The smallest margin that would have been passed: effects farther from 0 than this, to either side, are excluded."""
    estimate: float
    low: float
    """Of the interval at level 1 - 2 alpha, which the margin is compared with."""
    high: float
    alpha: float


class Sizes(NamedTuple):
    """Numbers of seeds and scenarios with which a wished difference is found with the wished power."""

    n_seeds: int | None
    """Smallest number of seeds (5 to 40) for the given scenarios; None where 40 are too few."""
    n_scenarios: int | None
    """Smallest number of scenarios for the given seeds; None where 1,000 scenarios or families are too few, or seeds under 5."""
    pairs: tuple[tuple[int, int], ...]
    """(n_seeds, n_scenarios) that reach the power, more seeds with fewer scenarios; empty where none does."""
    detectable: float
    """Smallest detectable difference of the given numbers."""


class Retention(NamedTuple):
    """Far shifts of two arms at the same near shift, by seed."""

    level: float
    """The near shift at which both are read."""
    one: tuple[float, ...]
    """Far shift of the first arm there, by seed."""
    other: tuple[float, ...]
    difference: float
    """Mean over seeds of one - other."""
    low: float | None
    """Of the interval over seeds; None with one seed."""
    high: float | None
    n_seeds: int
    p: float | None
    """Of the paired t test over seeds; None under five seeds."""


def crossed_difference(
    one: ArrayLike, other: ArrayLike, level: float = 0.95, one_families: Sequence[str] = (), other_families: Sequence[str] = ()
) -> CrossedDifference:
    """Grand mean of one table minus that of another, same seeds, different scenarios. For "near but not far", an interaction.

    one, other: shapes (n_seeds, n_one) and (n_seeds, n_other), already contrasted values without gaps, the same seeds in the same
    order, no scenario in both, two at least in each. *_families: of the scenarios, in the columns' order, given where the claim
    is about other families, too; for one side or both. ValueError: wrong shape, unequal seeds, NaN or infinite, one family.

    The squared standard error is S + C1 + C2 - R1 - R2: S = var(per-seed difference) / n_seeds, C = var(a side's scenario means) /
    n_scenarios, R = MS_residual / (n_seeds n_scenarios), which S and C both hold; Satterthwaite's degrees of freedom. As in
    `crossed_interval`, whose reasons hold here, the interval is never narrower than the paired t over seeds (S) nor than Welch's
    over scenarios (C1 + C2), and p is the largest of the three. Taking the difference by seed is what lets a seed that moves near
    and far alike cancel; no correlation is assumed. One seed: Welch over scenarios, which says nothing of other seeds.

    Families: as in `crossed_interval`; for such a side C is the cluster-robust variance over families with families - 1 degrees of
    freedom, in Welch's interval and in the sum with S; never narrower than without.

    Simulated coverage of the 95 % interval (laws of the mean squares of normal values, 20,000 draws a point; 12 to 120 scenarios
    a side, equal or not; scenario sds 0 to 2, sd of the seeds' differences 0 to 2 residual sds): 94.9 to 98.8 % at two seeds, 94.7 to
    96.9 % at three, 94.3 to 95.7 % at five, 94.7 to 95.4 % at eight; where the scenarios of a side do not differ, up to 99 %. So
    equal arms get a p below 5 % in up to 5.7 % of studies. With families on one side (4,000 tables a point; 4 to 20 families of 6,
    their sd up to .7, seeds moving families or not): 93.5 to 98 %.

    Where both sides have n scenarios, `smallest_detectable` of the sd of the seeds' differences and the roots of the sides' summed
    scenario and summed residual variances is the smallest interaction found with its power (a little over, as its df are fewer).
    Source: Welch 1947, Biometrika 34(1-2); Satterthwaite 1946, Biometrics Bulletin 2(6); Searle, Casella and McCulloch 1992,
    Variance Components, chapter 4. On interactions against pairs of verdicts: Gelman and Stern 2006, American Statistician 60(4).
    """
    statistics.check_level(level)
    first, second = statistics.check_values(one, 2, "one"), statistics.check_values(other, 2, "other")
    if len(first) != len(second):
        raise ValueError(f"one has {len(first)} seeds and other has {len(second)}; their rows are paired by seed")
    by_seed = first.mean(axis=1) - second.mean(axis=1)
    n_seeds, estimate = len(first), float(by_seed.mean())
    errors, df = _difference_errors(first, second, one_families, other_families)
    half = float(statistics.half_widths(errors, df, level))
    p = float(statistics.two_sided_p(np.asarray(estimate), errors, df)) if n_seeds >= MIN_SEEDS_FOR_P else None
    method = "crossed difference, Satterthwaite df, at least paired t over seeds and Welch over scenarios"
    if n_seeds == 1:
        method = "Welch t over scenarios only; one seed"
    return CrossedDifference(
        estimate,
        estimate - half,
        estimate + half,
        n_seeds=n_seeds,
        n_one=first.shape[1],
        n_other=second.shape[1],
        seed_sd=float(by_seed.std(ddof=1)) if n_seeds > 1 else None,
        seed_values=tuple(float(value) for value in by_seed),
        p=p,
        method=method + (", at least over families" if one_families or other_families else ""),
        n_one_families=len(set(one_families)),
        n_other_families=len(set(other_families)),
    )


def counted_bounds(differences: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Ends of an interval of a mean difference of two rates, from each scenario's difference, in [-1, 1], shape (n_scenarios,).

    Where outcomes are counted a t interval knows too little: none of twelve harmful under either arm gives it a spread of 0, and so
    an interval of no width. Here the mean of what is above 0 and the mean of what is below have Wilson's interval each, of as many
    trials as scenarios are worth, and the two are joined by the squared distances of their ends from what they surround (MOVER).
    ValueError: no scenario, a value outside [-1, 1]. Sources: Newcombe 1998, Statistics in Medicine 17(22), method 10, for paired
    rates; Zou and Donner 2008, Statistics in Medicine 27(10), section 2, with the correlation that two shares of one whole have.
    """
    from scipy import stats

    statistics.check_level(level)
    held = statistics.check_values(differences, 1, "differences")
    if np.abs(held).max() > 1 + 1e-9:
        raise ValueError(f"differences of rates lie within [-1, 1]: {np.abs(held).max()}")
    return _counted_ends(held, float(stats.norm.ppf((1 + level) / 2)))


def _trials(held: Floats) -> float:
    """What scenarios are worth in trials: their number where each holds one run of either arm or none differs; more where each is a mean of
    many, by as much as they spread less than single runs would, and no more than that many times as there are scenarios that differ: where
    one alone does, the others tell nothing of how alike the runs of a scenario are."""
    most = float(np.abs(held).mean() - held.mean() ** 2)
    if held.var() <= 0:
        return float(held.size)
    return held.size * min(max(1.0, most / float(held.var())), max(1, int(np.count_nonzero(held))))


def _counted_ends(held: Floats, z: float) -> tuple[float, float]:
    up, down = float(np.clip(held, 0, 1).mean()), float(np.clip(-held, 0, 1).mean())
    worth = _trials(held)
    (up_low, up_high), (down_low, down_high) = (statistics.wilson_bounds(share, worth, z) for share in (up, down))
    spread = up * (1 - up) * down * (1 - down)
    correlation = -up * down / spread**0.5 if spread > 0 else 0.0

    def joined(one: float, other: float) -> float:
        return float((one**2 - 2 * correlation * one * other + other**2) ** 0.5)

    low, high = up - down - joined(up - up_low, down_high - down), up - down + joined(up_high - up, down - down_low)
    return max(-1.0, low), min(1.0, high)


def at_least_counted(found: Found, tables: Sequence[ArrayLike], level: float = 0.95, reach: int = 1) -> Found:
    """The interval of a table of differences of counted rates, shape (n_seeds, n_scenarios), or of one such table less another, never
    narrower than `counted_bounds`.

    reach: the most that a value of a table can be, 1 where it is one arm less another; the interval lies within that. p, where there is
    one, is that of the wider interval: below 1 - level exactly where it leaves out 0.

    Coverage of the 95 % interval of one table, one run a scenario and arm, exact by summing over all outcomes, at rates of difference
    to either side of 0 to 90 %: 93.1 to 100 % at 8 to 48 scenarios (one point below: 91.9 % at 24, of 90 % to one side and all others
    to the other), 88 % and more at 4. The t interval alone: 38 % at 48 scenarios and a rate of 1 %, 7.7 % at 8. Where scenarios are
    means of 4 to 20 runs and rates differ by scenario (beta, sd up to 0.2; 12 to 58 scenarios, 600 draws a point, +-1 %): 94 to 99 %, and
    rates of 15 to 30 % against 5 to 15 % are told apart as often as by the t interval, within 3 points. A scenario of which all runs turn,
    and of whose kind there is one in twenty, may be in none: that nothing here sees.
    """
    from scipy import stats

    means = [statistics.check_values(table, 2, "table").mean(axis=0) / reach for table in tables]

    def ends_at(z: float) -> tuple[float, float]:
        ends = [_counted_ends(one, z) for one in means]
        if len(ends) == 1:
            return ends[0]
        (one_low, one_high), (other_low, other_high) = ends
        one, other = (float(values.mean()) for values in means)
        low, high = np.hypot(one - one_low, other_high - other), np.hypot(one_high - one, other - other_low)
        return one - other - float(low), one - other + float(high)

    low, high = (reach * end for end in ends_at(float(stats.norm.ppf((1 + level) / 2))))
    most, p = reach * len(means), found.p
    if p is not None:
        out, within = 0.0, 9.0  # z at which 0 lies outside and inside; at 9 p is 1e-19
        while within - out > 1e-6:
            middle = (out + within) / 2
            inside = ends_at(middle)[0] <= 0 <= ends_at(middle)[1]
            out, within = (out, middle) if inside else (middle, within)
        p = max(p, float(2 * stats.norm.sf(within)))
    return found._replace(low=max(-most, min(low, found.low)), high=min(most, max(high, found.high)), p=p)


def equivalence(interval_at: Callable[[float], CrossedInterval | CrossedDifference], margin: float, alpha: float = 0.05) -> Equivalence:
    """Two one-sided tests: is the effect within +-margin? And which effects are excluded, whatever the margin?

    interval_at: the interval of the effect at a level, as `lambda level: crossed_interval(table, level, families)`; a function,
    since the test needs the interval at 1 - 2 alpha (90 %) and an interval does not say its level. margin: in the unit of the
    values, above 0, named before the data are seen. alpha: of each one-sided test, in (0, 0.5). ValueError: otherwise.

    Within the margin exactly where the 1 - 2 alpha interval is, bounds included; "not 0" exactly where the 1 - alpha interval
    leaves out 0. A null that is only "not significant" is undecided, not equivalent. Under five seeds the verdict is withheld, as
    p is elsewhere; `excluded` is still given, as the range's far end, and with one seed speaks of that seed alone.
    Source: Schuirmann 1987, J. Pharmacokinetics and Biopharmaceutics 15(6); Lakens 2017, Social Psychological and Personality
    Science 8(4), figure 1 (the four verdicts).
    """
    if not (np.isfinite(margin) and margin > 0 and 0 < alpha < 0.5):
        raise ValueError(f"margin {margin} must be above 0 and finite, alpha {alpha} in (0, 0.5)")
    inner, outer = interval_at(1 - 2 * alpha), interval_at(1 - alpha)
    excluded = max(-inner.low, inner.high)
    verdict: Literal["equivalent", "different", "small", "undecided", "withheld"]
    if inner.n_seeds < MIN_SEEDS_FOR_P:
        verdict = "withheld"
    elif outer.low <= 0 <= outer.high:
        verdict = "equivalent" if excluded <= margin else "undecided"
    else:
        verdict = "small" if excluded <= margin else "different"
    return Equivalence(verdict, margin, excluded, inner.estimate, inner.low, inner.high, alpha)


def suggest_sizes(
    variances: Variances,
    wished: float,
    n_seeds: int,
    n_scenarios: int,
    power: float = 0.8,
    level: float = 0.95,
    family_sd: float = 0.0,
    n_per_family: int = 1,
) -> Sizes:
    """Numbers of seeds and scenarios that find a true difference of `wished`, on the right side, with this power.

    variances: of the contrasted values, as `CrossedInterval.variances` of a pilot gives them; wished: above 0, in the unit of
    their roots. n_seeds, n_scenarios: the plan at hand; one is held while the other is looked for. Seeds: 5 (p needs them) to 40.
    family_sd, n_per_family: where the claim is about other families: sd between families, and scenarios in each. `variances.scenario`
    is then that *within* families. The family becomes the unit, with family_sd^2 + scenario / n_per_family as its variance and
    residual / n_per_family beside it; the numbers of scenarios given back are whole families. ValueError: a number that cannot be.

    By `smallest_detectable`, to about 1 % in the numbers; a few seconds. A pilot's variances are themselves uncertain: with
    5 seeds the seed sd is known to within a factor of 0.6 to 2.9 (chi-squared, 95 %), so plan for more than the smallest.
    """
    if not (np.isfinite(wished) and wished > 0 and np.isfinite(family_sd) and family_sd >= 0 and n_per_family >= 1):
        raise ValueError(f"wished must be above 0, family_sd at least 0, n_per_family at least 1: {wished}, {family_sd}, {n_per_family}")
    n_units = n_scenarios // n_per_family
    if n_units < 2:
        raise ValueError(f"{n_scenarios} scenarios of {n_per_family} a family are {n_units} families; at least two are needed")
    sds = [float(np.sqrt(v)) for v in (variances.seed, family_sd**2 + variances.scenario / n_per_family, variances.residual / n_per_family)]

    @cache
    def detectable(seeds: int, units: int) -> float:
        return statistics.smallest_detectable(sds[0], sds[1], sds[2], seeds, units, power, level)

    def units_for(seeds: int, most: int) -> int | None:
        if detectable(seeds, most) > wished:
            return None
        return bisect_left(range(2, most), True, key=lambda units: detectable(seeds, units) <= wished) + 2

    seeds = bisect_left(range(MIN_SEEDS_FOR_P, MAX_SEEDS + 1), True, key=lambda seeds: detectable(seeds, n_units) <= wished)
    pairs: list[tuple[int, int]] = []
    for tried in SUGGESTED_SEEDS:
        if not pairs or pairs[-1][1] > 2:
            units = units_for(tried, pairs[-1][1] - 1 if pairs else MAX_UNITS)
            pairs += [(tried, units)] if units else []
    fixed = units_for(n_seeds, MAX_UNITS) if n_seeds >= MIN_SEEDS_FOR_P else None
    return Sizes(
        n_seeds=seeds + MIN_SEEDS_FOR_P if seeds + MIN_SEEDS_FOR_P <= MAX_SEEDS else None,
        n_scenarios=fixed and fixed * n_per_family,
        pairs=tuple((tried, units * n_per_family) for tried, units in pairs),
        detectable=detectable(n_seeds, n_units),
    )


def retention(
    near_shift: tuple[ArrayLike, ArrayLike], far_shift: tuple[ArrayLike, ArrayLike], at: float | None = None, level: float = 0.95
) -> Retention | None:
    """Far shift at matched near shift: of two arms that learnt the trained families equally well, which moved the others more?

    near_shift, far_shift: of two arms, each of shape (n_seeds, n_updates): mean shifts from the start by seed and saved update, in
    the order of training; the arms may have other updates but have the same seeds. Leave the start itself out: the way from it to the
    first update was not measured, and where far is no straight function of near a line along it favours one speed of learning.
    at: the near shift to match, named before the data are seen; None: the one farthest from 0 that every seed of both arms
    reached, which the data choose. ValueError: unequal shapes, under two updates, NaN or infinite.

    Each seed's shifts are joined by straight lines, and its far shift is read where near first reaches the level. Never beyond what
    was reached: None where some seed of an arm did not reach the level, or where no level was reached by all. Leaving such seeds
    out would choose among them. The interval is the paired t over seeds alone, so it speaks of these scenarios. Noise in near
    moves the reading along the curve, and a curve that jitters is read early, so save few updates that lie well apart.
    Source: the reading is ours; the test is that of `statistics.paired_difference`.
    """
    statistics.check_level(level)
    near = [_check_shifts(values, "near_shift") for values in near_shift]
    far = [_check_shifts(values, "far_shift") for values in far_shift]
    if any(a.shape != b.shape for a, b in zip(near, far, strict=True)) or len(near[0]) != len(near[1]):
        shapes = f"near {[v.shape for v in near]}, far {[v.shape for v in far]}"
        raise ValueError(f"{shapes}: the arms need the same seeds, and an arm the same updates near and far")
    low, high = max(float(v.min(axis=1).max()) for v in near), min(float(v.max(axis=1).min()) for v in near)
    if low > high:
        return None
    matched = max(low, high, key=abs) if at is None else float(at)
    if not low <= matched <= high:
        return None
    one, other = (tuple(_far_at(*rows, matched) for rows in zip(n, f, strict=True)) for n, f in zip(near, far, strict=True))
    difference = float(np.mean(np.subtract(one, other)))
    if len(one) == 1:
        return Retention(matched, one, other, difference, None, None, n_seeds=1, p=None)
    found = statistics.paired_difference(one, other, level)
    p = found.p if len(one) >= MIN_SEEDS_FOR_P else None
    return Retention(matched, one, other, difference, found.low, found.high, n_seeds=len(one), p=p)


def _difference_errors(one: Floats, other: Floats, one_families: Sequence[str], other_families: Sequence[str]) -> tuple[Floats, Floats]:
    """As `statistics.join_errors`, of tables of shape (..., n_seeds, n_one) and (..., n_seeds, n_other)."""
    n_seeds = one.shape[-2]
    sides = statistics.measure_errors(one, one_families), statistics.measure_errors(other, other_families)
    differences = one.mean(axis=-1) - other.mean(axis=-1)
    seed = np.asarray(differences.var(axis=-1, ddof=1) / n_seeds) if n_seeds > 1 else None
    return statistics.join_errors(seed, n_seeds, sides, by_family=bool(one_families or other_families))


def _check_shifts(values: ArrayLike, name: str) -> Floats:
    checked = np.asarray(values, dtype=np.float64)
    if checked.ndim != 2 or checked.shape[0] < 1 or checked.shape[1] < 2 or not np.isfinite(checked).all():
        raise ValueError(f"{name} has the shape {checked.shape}; finite numbers of shape (n_seeds, n_updates), two updates at least")
    return checked


def _far_at(near: Floats, far: Floats, matched: float) -> float:
    """Far where near first reaches a level that lies within its range; each of shape (n_updates,)."""
    before = int(np.argmax((near[:-1] - matched) * (near[1:] - matched) <= 0))
    step = near[before + 1] - near[before]
    share = (matched - near[before]) / step if step else 0.0
    return float(far[before] + share * (far[before + 1] - far[before]))
