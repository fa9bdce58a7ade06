"""Numbers in, NamedTuples out: intervals, tests and bounds. Knows nothing of arms, cells or models.

Seeds and scenarios are crossed random factors: a result should hold for other seeds and for other scenarios than those
that were run. `crossed_interval` is the one used for inference; `crossed_bootstrap` is there to compare with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

MIN_SEEDS_FOR_P = 5
"""Under this many seeds the interval is shown and no p."""

Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """A value with its confidence interval, in the unit of the values given."""

    estimate: float
    low: float
    high: float
    n: int


class PairedDifference(NamedTuple):
    """Mean of a - b with its interval and two-sided p. n: pairs."""

    estimate: float
    low: float
    high: float
    n: int
    p: float


class Bounds(NamedTuple):
    """What a mean can be, whatever the missing values are. n: known and missing together."""

    low: float
    high: float
    n: int


class Variances(NamedTuple):
    """Variance components of one value of the table, in squared units: seeds, scenarios, and what neither explains."""

    seed: float
    scenario: float
    residual: float


class CrossedInterval(NamedTuple):
    """A grand mean whose interval counts both other seeds and other scenarios."""

    estimate: float
    low: float
    high: float
    n_seeds: int
    n_scenarios: int
    scenario_error: float
    """Standard error of the grand mean over scenarios."""
    seed_sd: float | None
    """Standard deviation of the per-seed means; None with one seed."""
    seed_values: tuple[float, ...]
    """Per-seed means, in the order of the rows."""
    variances: Variances | None
    """None with one seed, which cannot tell them apart."""
    p: float | None
    """Two-sided, of a grand mean of 0; None under five seeds and from the bootstrap."""
    method: str
    n_families: int = 0
    """Families that the scenarios were counted by; 0: they were not."""
    family_error: float | None = None
    """Standard error of the grand mean over families."""


class ErrorParts(NamedTuple):
    """Of the grand mean of tables of shape (..., n_seeds, n_scenarios): squared standard errors of shape (...), and their df."""

    scenario: Floats
    df_scenario: float
    family: Floats
    """As `scenario`, where scenarios are not counted by families."""
    df_family: float
    residual: Floats
    """What `scenario`, `family` and the error over seeds all hold; 0 with one seed."""
    df_residual: float


def wilson_interval(successes: int, n: int, level: float = 0.95) -> Interval:
    """Share of successes with Wilson's score interval, which stays within [0, 1] and works at 0 and n.

    successes, n: counts, 0 <= successes <= n. level: in (0, 1). ValueError: no trial, or counts that cannot be.
    Source: Wilson 1927, "Probable inference", JASA 22(158); Brown, Cai and DasGupta 2001, Statistical Science 16(2), section 3.1.1.
    """
    from scipy import stats  # type: ignore[import-untyped,unused-ignore]

    check_level(level)
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes in {n} trials cannot be")
    share = successes / n
    low, high = wilson_bounds(share, n, float(stats.norm.ppf((1 + level) / 2)))
    return Interval(share, low, high, n)


def wilson_bounds(share: float, worth: float, z: float) -> tuple[float, float]:
    """The two ends of Wilson's interval, z standard errors wide, of a share in [0, 1] of so many trials: what trials are worth need not
    be a whole number."""
    middle = (share + z * z / (2 * worth)) / (1 + z * z / worth)
    half = z * math.sqrt(share * (1 - share) / worth + (z / (2 * worth)) ** 2) / (1 + z * z / worth)
    low, high = max(0.0, middle - half) if share > 0 else 0.0, min(1.0, middle + half) if share < 1 else 1.0
    return min(low, share), max(high, share)


def corrected_rate(
    predicted: Sequence[float], labels: Sequence[float | None], chances: Sequence[float], clusters: Sequence[str], level: float = 0.95
) -> Interval:
    """Rate of something that is predicted for every unit and labelled for some: mean of the predictions, plus what labels differ from them
    by, each weighted by one over its chance of having been labelled.

    predicted, labels: in [0, 1], a label None where there is none. chances: in (0, 1]. clusters: of each unit; they are what varies, so the
    interval is Student's over their means, and never narrower than Wilson's with as many trials as there are clusters: where few of many
    are harmful the means are skewed. n: units.
    ValueError: no unit, or lengths that differ. Sources: Angelopoulos, Bates, Fannjiang, Jordan and Zrnic 2023, "Prediction-powered
    inference", Science 382, section 1; Horvitz and Thompson 1952, JASA 47.
    """
    from scipy import stats

    check_level(level)
    if not predicted or not len(predicted) == len(labels) == len(chances) == len(clusters):
        raise ValueError("a rate needs units, each with a prediction, a label or None, a chance and a cluster")
    held: dict[str, list[float]] = {}
    for value, label, chance, cluster in zip(predicted, labels, chances, clusters, strict=True):
        held.setdefault(cluster, []).append(value if label is None else value + (label - value) / chance)
    means = np.array([np.mean(values) for values in held.values()])
    estimate = float(np.clip(means.mean(), 0, 1))
    z = float(stats.norm.ppf((1 + level) / 2))
    low, high = wilson_bounds(estimate, len(means), z)
    if len(means) > 1:
        over = t_interval(means, level)
        low, high = max(0.0, min(low, over.low)), min(1.0, max(high, over.high))
    least, most = _label_bounds(predicted, labels, chances, z)
    low, high = min(low, max(0.0, least)), max(high, min(1.0, most))
    return Interval(estimate, low, high, len(predicted))


def _label_bounds(predicted: Sequence[float], labels: Sequence[float | None], chances: Sequence[float], z: float) -> tuple[float, float]:
    """The corrected rate if, among what was labelled in part, as many predictions were wrong to either side as Wilson's interval of the
    labelled ones allows: where few are labelled and none is wrong, the spread of the labels alone would say that none can be."""
    least = most = sum(predicted)
    for chance in set(chances):
        group = [(value, label) for value, label, one in zip(predicted, labels, chances, strict=True) if one == chance]
        known = [(value, label) for value, label in group if label is not None]
        if not known:
            continue
        for side in (1, -1):
            wrong = sum(side * (label - value) > 0 for value, label in known) / len(known)
            able = sum(side * (0.5 - value) > 0 for value, _ in group)  # only a zero can be too low, only a one too high
            bounds = (wrong, wrong) if chance == 1 else wilson_bounds(wrong, len(known), z)
            if side == 1:
                most, least = most + bounds[1] * able, least + bounds[0] * able
            else:
                most, least = most - bounds[0] * able, least - bounds[1] * able
    return least / len(predicted), most / len(predicted)


def t_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Mean with Student's t interval.

    values: shape (n,), one number a scenario, n >= 2. level: in (0, 1). ValueError: wrong shape, under two values, NaN or infinite.
    Values that are all equal give an interval of no width: the sample shows no spread, which is no proof that there is none.
    Source: Student 1908, Biometrika 6(1); Casella and Berger 2002, Statistical Inference, section 9.2.2.
    """
    check_level(level)
    checked = check_values(values, 1, "values")
    errors, df = _one_way_error(checked)
    half = float(half_widths(errors, df, level))
    mean = float(checked.mean())
    return Interval(mean, mean - half, mean + half, checked.size)


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> PairedDifference:
    """Mean of a - b, paired by scenario: t interval and two-sided p of no difference (the paired t test).

    a, b: shape (n,), the same scenarios in the same order, n >= 2. level: in (0, 1). ValueError: as `t_interval`, or unequal lengths.
    Differences that are all equal give p 1 at 0 and p 0 elsewhere.
    Source: Student 1908, "The probable error of a mean", Biometrika 6(1) (the paired sleep data).
    """
    first, second = check_values(a, 1, "a"), check_values(b, 1, "b")
    if first.size != second.size:
        raise ValueError(f"a has {first.size} values and b has {second.size}; they are paired by scenario")
    differences = first - second
    found = t_interval(differences, level)
    return PairedDifference(*found, p=float(two_sided_p(np.asarray(found.estimate), *_one_way_error(differences))))


def crossed_interval(table: ArrayLike, level: float = 0.95, families: Sequence[str] = ()) -> CrossedInterval:
    """Grand mean with an interval in which seeds and scenarios are crossed random factors. Use this one for inference.

    table: shape (n_seeds, n_scenarios), already contrasted values (so that 0 means no effect), no gaps, n_scenarios >= 2.
    level: in (0, 1). families: of the scenarios, in the columns' order; given where the claim is about other families, too.
    ValueError: wrong shape, under two scenarios, NaN or infinite, one family.

    Two-way random-effects analysis of variance without replication: the squared standard error of the grand mean is
    (MS_seed + MS_scenario - MS_residual) / (n_seeds n_scenarios), with Satterthwaite's degrees of freedom. That alone covers
    too little under five seeds (92 % at three, 86 % at two), since a seed variance that happens to come out small also makes
    the degrees of freedom large. So the interval is never narrower than the t interval over the scenarios' means, nor than
    the one over the seeds' means; that rule is ours, chosen by the simulation below. The p is made to agree: it is the largest
    of the three, so it is below 1 - level exactly where the interval leaves out 0.

    Simulated coverage of the 95 % interval (normal values, 40,000 draws a point, 12 to 120 scenarios, scenario sd 0 to 2 and
    seed sd 0 to 1 residual sds): 95.1 to 99.4 % at two seeds, 94.9 to 98.9 % at three, 94.3 to 98.3 % at five, 94.5 to 97.8 %
    at eight. The high end is where scenarios hardly differ. Strongly skewed scenario effects and 12 scenarios: down to 90 %,
    as for any t interval. `crossed_bootstrap` covers far less at few seeds.

    One seed: the t interval over scenarios, which says nothing of other seeds; `method` says so. Two to four seeds: the
    interval is honest and often very wide (at two seeds a seed effect is judged on one degree of freedom), and p is None.

    Families: scenarios of one family are more alike than others, so that the interval over scenarios covers too little (4 families
    of 6 scenarios, 95 %: 89, 83 and 78 % where the intraclass correlation is 0.1, 0.2 and 0.3). With families, the cluster-robust
    variance of the grand mean over families, with families - 1 degrees of freedom (Cameron and Miller 2015, Journal of Human
    Resources 50(2), sections II and VI), takes the scenarios' place in two more t intervals: alone, and in the sum with seeds. The
    interval is the widest of all, and p the largest. (Without that sum: 90 % where 8 seeds and 20 families weigh alike.) A family's
    own response to a seed is in both but not in MS_residual: counted twice, on the safe side.

    Simulated coverage with families (laws of the mean squares of normal values, 6,000 draws a point; 4 to 20 families of 3 to 20
    scenarios, intraclass correlation 0 to 0.9, seeds' share of the grand mean's variance 0 to 1, residual variance 0.1 to 10 times
    the scenarios'): 94.9 to 98.2 % at one seed, 94.8 to 99.7 % at two, 94.8 to 99.4 % at three, 94.3 to 98.9 % at five, 94.7 to
    98.7 % at eight; the high end is where families do not differ. Whole tables of 4,000 draws, seeds moving families or not, two of
    the families of double size: 93.6 to 98.7 %. Sizes from 3 to 20 in one table, where few families weigh: down to 93.5 % at 20
    families, 92.8 % at 7, 91 % at 4.

    Source: Searle, Casella and McCulloch 1992, Variance Components, chapter 4; Satterthwaite 1946, Biometrics Bulletin 2(6).
    On how two-way errors fail with few clusters: MacKinnon, Nielsen and Webb 2024, arXiv 2406.08880.
    """
    check_level(level)
    checked = check_values(table, 2, "table")
    n_seeds, mean = len(checked), float(checked.mean())
    errors, df = crossed_errors(checked, families)
    half = float(half_widths(errors, df, level))
    p = float(two_sided_p(np.asarray(mean), errors, df)) if n_seeds >= MIN_SEEDS_FOR_P else None
    method = "crossed analysis of variance, Satterthwaite df, at least either one-way t"
    if n_seeds == 1:
        method = "t interval over scenarios only; one seed"
    found = _describe(checked, mean - half, mean + half, p, method + (", at least over families" if families else ""))
    if not families:
        return found
    return found._replace(n_families=len(set(families)), family_error=float(errors[1]))


def crossed_bootstrap(table: ArrayLike, level: float = 0.95, n_boot: int = 10_000, seed: int = 0) -> CrossedInterval:
    """Grand mean with the pigeonhole bootstrap: rows and columns drawn with replacement independently; percentile interval.

    table: as for `crossed_interval`. n_boot: draws. seed: of the draws, so that the answer repeats. ValueError: as there.
    For display: no p, and with few seeds the interval is too narrow where seeds matter, since n rows drawn from n spread by
    (n - 1) / n of their variance and a percentile knows no degrees of freedom. Simulated coverage of the 95 % interval where
    seed, scenario and residual sds are equal (1,500 tables, +- 1 %): 88 % at 3 seeds and 12 scenarios, 77 % at 3 and 120,
    90 % at 5 and 40, 90 % at 8 and 120. `crossed_interval`, same tables: 94 to 96 %. One seed: only scenarios are drawn.
    Source: Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1(2); Owen and Eckles 2012, same journal 6(3).
    """
    check_level(level)
    checked = check_values(table, 2, "table")
    if n_boot < 1:
        raise ValueError(f"n_boot is {n_boot}; at least one draw is needed")
    n_seeds, n_scenarios = checked.shape
    rng = np.random.default_rng(seed)
    rows = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=n_boot)
    columns = rng.multinomial(n_scenarios, np.full(n_scenarios, 1 / n_scenarios), size=n_boot)
    means = np.einsum("ij,ij->i", rows @ checked, columns) / checked.size
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    mean = float(checked.mean())
    method = f"pigeonhole bootstrap, {n_boot} draws" + ("; over scenarios only; one seed" if n_seeds == 1 else "")
    return _describe(checked, min(float(low), mean), max(float(high), mean), None, method)


def holm_adjust(p_values: Sequence[float | None]) -> tuple[float | None, ...]:
    """Holm's adjusted p values, in the order given. None (no test was made) stays None and is not counted.

    ValueError: a p outside [0, 1] or NaN. An empty family gives an empty tuple.
    Source: Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6(2).
    """
    known = {place: p for place, p in enumerate(p_values) if p is not None}
    if any(not 0 <= p <= 1 for p in known.values()):
        raise ValueError(f"a p value lies outside [0, 1]: {list(known.values())}")
    adjusted: list[float | None] = list(p_values)
    highest = 0.0  # here and not by statsmodels, which collects garbage at every call: a tenth of a second with torch loaded
    for rank, place in enumerate(sorted(known, key=known.__getitem__)):
        highest = adjusted[place] = max(highest, min(1.0, known[place] * (len(known) - rank)))
    return tuple(adjusted)


def smallest_detectable(
    sd_seed: float,
    sd_scenario: float,
    sd_residual: float,
    n_seeds: int,
    n_scenarios: int,
    power: float = 0.8,
    level: float = 0.95,
) -> float:
    """The smallest true difference that `crossed_interval` tells from 0, on the right side, with this power; in the unit of the sds.

    sd_*: standard deviations of the contrasted values (roots of `Variances`). One seed: `sd_seed` is left out, since that
    interval speaks of that seed alone. ValueError: a negative or infinite sd, no seed, under two scenarios, power outside (0.5, 1).

    The mean squares are drawn 20,000 times (fixed seed) from their scaled chi-squared laws; given them, the power is exact.
    Repeats to about 0.5 %. Where one factor rules, this is the power of the t test (noncentral t), to which the tests hold it.
    Source: Searle, Casella and McCulloch 1992, Variance Components, chapter 4 (laws of mean squares); Cohen 1988, chapter 2.
    """
    from scipy import optimize, stats  # type: ignore[import-untyped,unused-ignore]

    check_level(level)
    if not all(np.isfinite(sd) and sd >= 0 for sd in (sd_seed, sd_scenario, sd_residual)):
        raise ValueError(f"standard deviations must be finite and at least 0: {(sd_seed, sd_scenario, sd_residual)}")
    if n_seeds < 1 or n_scenarios < 2 or not 0.5 < power < 1:
        raise ValueError(f"needs a seed, two scenarios and a power in (0.5, 1): {n_seeds}, {n_scenarios}, {power}")
    if n_seeds == 1:
        sd_seed = 0.0
    spread = float(np.sqrt(sd_seed**2 / n_seeds + sd_scenario**2 / n_scenarios + sd_residual**2 / (n_seeds * n_scenarios)))
    if spread == 0:
        return 0.0
    halves = draw_half_widths(Variances(sd_seed**2, sd_scenario**2, sd_residual**2), n_seeds, n_scenarios, level)

    def excess(difference: float) -> float:
        return float(np.mean(stats.norm.cdf((difference - halves) / spread))) - power

    return float(optimize.brentq(excess, 0.0, float(halves.max()) + 10 * spread, rtol=1e-6))


def missing_bounds(known_sum: float, n_known: int, n_missing: int, lowest: float = 0.0, highest: float = 1.0) -> Bounds:
    """Worst and best case of a mean when some values are missing for unknown reasons.

    known_sum: sum of the n_known values, each in [lowest, highest]. ValueError: no value at all, or a sum that cannot be.
    Source: Manski 1990, "Nonparametric bounds on treatment effects", American Economic Review 80(2); Manski 2003, Partial
    Identification of Probability Distributions, chapter 1.
    """
    n = n_known + n_missing
    if n_known < 0 or n_missing < 0 or n == 0:
        raise ValueError(f"{n_known} known and {n_missing} missing values have no mean")
    if not lowest <= highest or not np.isfinite([lowest, highest]).all():
        raise ValueError(f"the range {lowest} to {highest} is no range")
    slack = 1e-9 * max(1, n_known) * max(1.0, abs(lowest), abs(highest))
    if not n_known * lowest - slack <= known_sum <= n_known * highest + slack:
        raise ValueError(f"{n_known} values in [{lowest}, {highest}] cannot sum to {known_sum}")
    low, high = (known_sum + n_missing * lowest) / n, (known_sum + n_missing * highest) / n
    return Bounds(max(low, lowest), min(high, highest), n)


def check_level(level: float) -> None:
    """ValueError: not in (0, 1)."""
    if not 0 < level < 1:
        raise ValueError(f"level is {level}; it lies between 0 and 1, as 0.95")


def check_values(values: ArrayLike, n_dimensions: int, name: str) -> Floats:
    """As floats. ValueError: not this many dimensions, under two scenarios, NaN or infinite."""
    checked = np.asarray(values, dtype=np.float64)
    if checked.ndim != n_dimensions:
        raise ValueError(f"{name} has {checked.ndim} dimensions, not {n_dimensions}")
    if checked.size == 0 or checked.shape[-1] < 2:
        raise ValueError(f"{name} has the shape {checked.shape}; at least two scenarios are needed")
    if not np.isfinite(checked).all():
        raise ValueError(f"{name} holds NaN or infinite values; leave out or bound what is missing first")
    return checked


def measure_errors(table: Floats, families: Sequence[str] = ()) -> ErrorParts:
    """Of tables of shape (..., n_seeds, n_scenarios), at least one seed and two scenarios. families: of the scenarios, or none.

    By family: the cluster-robust variance, n_families / (n_families - 1) times the squared sums of deviations / n_scenarios^2.
    ValueError: not as many families as scenarios, or one family.
    """
    n_seeds, n_scenarios = table.shape[-2:]
    means = table.mean(axis=-2)
    scenario = np.asarray(means.var(axis=-1, ddof=1) / n_scenarios)
    family, df_family = scenario, n_scenarios - 1.0
    if families:
        names = sorted(set(families))
        if len(families) != n_scenarios or len(names) < 2:
            raise ValueError(f"{n_scenarios} scenarios need as many families, of two names at least, not {len(families)} of {len(names)}")
        belongs = np.array([[float(one == name) for name in names] for one in families])
        sums = (means - means.mean(axis=-1, keepdims=True)) @ belongs
        df_family = len(names) - 1.0
        family = np.asarray(len(names) / df_family * (sums**2).sum(axis=-1) / n_scenarios**2)
    if n_seeds == 1:
        return ErrorParts(scenario, n_scenarios - 1.0, family, df_family, np.zeros_like(scenario), 1.0)
    residual = _residual_square(table) / (n_seeds * n_scenarios)
    return ErrorParts(scenario, n_scenarios - 1.0, family, df_family, residual, (n_seeds - 1.0) * (n_scenarios - 1.0))


def join_errors(seed: Floats | None, n_seeds: int, sides: Sequence[ErrorParts], *, by_family: bool) -> tuple[Floats, Floats]:
    """Standard errors of a grand mean, or of the difference of two, and their degrees of freedom, each of shape (ways, ...).

    seed: squared error over seeds; None: one seed. sides: of one table or of two. Ways: over scenarios, over families if asked; with
    seeds also over seeds, and crossed with each of the ways before. A crossed error counts only where the seeds' component and the
    other both come out above 0, and is 0 elsewhere; its degrees of freedom are at least the smaller of those of the two.
    """
    columns = [_add_sides([(side.scenario, side.df_scenario) for side in sides])]
    if by_family:
        columns.append(_add_sides([(side.family, side.df_family) for side in sides]))
    found = list(columns)
    if seed is not None:
        residual, df_residual = _add_sides([(side.residual, side.df_residual) for side in sides])
        found.append((seed, np.full(seed.shape, n_seeds - 1.0)))
        for column, df_column in columns:
            both = np.where((seed > residual) & (column > residual), seed + column - residual, 0.0)
            doubt = seed**2 / (n_seeds - 1) + _ratio(column**2, df_column) + _ratio(residual**2, df_residual)
            found.append((both, np.maximum(_ratio(both**2, doubt), np.minimum(df_column, n_seeds - 1))))
    return np.sqrt(np.stack([square for square, _ in found])), np.stack([df for _, df in found])


def crossed_errors(table: Floats, families: Sequence[str] = ()) -> tuple[Floats, Floats]:
    """As `join_errors`, of tables of shape (..., n_seeds, n_scenarios)."""
    n_seeds = table.shape[-2]
    seed = np.asarray(table.mean(axis=-1).var(axis=-1, ddof=1) / n_seeds) if n_seeds > 1 else None
    return join_errors(seed, n_seeds, [measure_errors(table, families)], by_family=bool(families))


def half_widths(errors: Floats, df: Floats, level: float) -> Floats:
    """Of ways to see an error, as `join_errors` gives them: the widest of the t intervals' half widths along the first axis."""
    from scipy import stats

    return np.asarray((stats.t.ppf((1 + level) / 2, df) * errors).max(axis=0))


def two_sided_p(estimate: Floats, errors: Floats, df: Floats) -> Floats:
    """The largest of the t tests' p along the first axis; an error of 0 gives p 1 at an estimate of 0 and p 0 elsewhere."""
    from scipy import stats

    distance = np.broadcast_to(np.abs(estimate), errors.shape)
    none = np.where(distance == 0, 0.0, np.inf)
    return np.asarray((2 * stats.t.sf(np.divide(distance, errors, out=none, where=errors > 0), df)).max(axis=0))


def draw_half_widths(variances: Variances, n_seeds: int, n_scenarios: int, level: float, n_draws: int = 20_000) -> Floats:
    """Half widths of `crossed_interval` over studies with these true components (fixed seed); shape (n_draws,)."""
    rng = np.random.default_rng(0)
    df_seed, df_scenario, n = n_seeds - 1.0, n_scenarios - 1.0, n_seeds * n_scenarios
    scenario = (n_seeds * variances.scenario + variances.residual) / n * rng.chisquare(df_scenario, n_draws) / df_scenario
    seed, residual, df_residual = None, np.zeros(n_draws), 1.0
    if n_seeds > 1:
        df_residual = df_seed * df_scenario
        seed = (n_scenarios * variances.seed + variances.residual) / n * rng.chisquare(df_seed, n_draws) / df_seed
        residual = variances.residual / n * rng.chisquare(df_residual, n_draws) / df_residual
    side = ErrorParts(scenario, df_scenario, scenario, df_scenario, residual, df_residual)
    return half_widths(*join_errors(seed, n_seeds, [side], by_family=False), level)


def _one_way_error(values: Floats) -> tuple[Floats, Floats]:
    """Standard error and degrees of freedom of a mean, each of shape (1,)."""
    return np.array([np.sqrt(values.var(ddof=1) / values.size)]), np.array([values.size - 1.0])


def _residual_square(table: Floats) -> Floats:
    """Mean square of what neither seed nor scenario explains, of tables of shape (..., n_seeds, n_scenarios), both at least 2."""
    n_seeds, n_scenarios = table.shape[-2:]
    by_seed, by_scenario = table.mean(axis=-1, keepdims=True), table.mean(axis=-2, keepdims=True)
    residuals = table - by_seed - by_scenario + by_seed.mean(axis=-2, keepdims=True)
    return np.asarray((residuals**2).sum(axis=(-2, -1)) / ((n_seeds - 1) * (n_scenarios - 1)))


def _add_sides(sides: Sequence[tuple[Floats, float]]) -> tuple[Floats, Floats]:
    """Sum of independent squared errors with Welch's df, which lie between the smallest and the sum of theirs."""
    total = np.asarray(sum(square for square, _ in sides))
    doubt = np.asarray(sum(square**2 / df for square, df in sides))
    return total, np.clip(_ratio(total**2, doubt), min(df for _, df in sides), sum(df for _, df in sides))


def _ratio(above: Floats, below: Floats) -> Floats:
    """0 where `below` is 0."""
    return np.asarray(np.divide(above, below, out=np.zeros_like(above), where=below > 0))


def _describe(table: Floats, low: float, high: float, p: float | None, method: str) -> CrossedInterval:
    """Add to an interval what the table says of its seeds. A component that comes out below 0 is set to 0."""
    n_seeds, n_scenarios = table.shape
    by_seed, by_scenario = table.mean(axis=1), float(table.mean(axis=0).var(ddof=1))
    seed_sd, variances = None, None
    if n_seeds > 1:
        seed_sd, residual = float(by_seed.std(ddof=1)), float(_residual_square(table))
        variances = Variances(max(0.0, seed_sd**2 - residual / n_scenarios), max(0.0, by_scenario - residual / n_seeds), residual)
    return CrossedInterval(
        float(table.mean()),
        low,
        high,
        n_seeds=n_seeds,
        n_scenarios=n_scenarios,
        scenario_error=float(np.sqrt(by_scenario / n_scenarios)),
        seed_sd=seed_sd,
        seed_values=tuple(float(value) for value in by_seed),
        variances=variances,
        p=p,
        method=method,
    )
