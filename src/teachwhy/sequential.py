"""Two rates compared while the counts come in: looks that share one error rate, intervals that hold at whichever look one stops.

Group-sequential by default: a fixed number of looks, bounds from error spending. An e-process allows any moment, and costs more.
Sources: Lan and DeMets 1983 (Biometrika 70) and Kim and DeMets 1987 (Biometrika 74) for spending; Armitage, McPherson and Rowe 1969 (JRSS A
132) for the recursion; Jennison and Turnbull 2000, "Group Sequential Methods", sections 7.2 and 9.2, for spending of both errors and for
repeated confidence intervals; Miettinen and Nurminen 1985 for the interval of a difference of two rates; Waudby-Smith and Ramdas 2024
(JRSS B 86) for betting.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
POINTS = 64
"""Nodes of the quadrature over one look: the published constants to four digits."""
FAR = 8.0
"""Standard deviations beyond which nothing is integrated."""


class Design(NamedTuple):
    """When to stop. Statistics are z values: positive where the first rate is higher."""

    fractions: tuple[float, ...]
    """Of the sessions planned at most, at each look."""
    upper: tuple[float, ...]
    """A difference is called one where |z| is this large; its interval is as many standard errors wide on each side."""
    futility: tuple[float, ...]
    """Below it the difference that was planned for will hardly be found: one may stop, and loses no honesty by going on."""
    drift: float
    """Mean of z at the last look under the difference that is found with the power promised."""
    inflation: float
    """Sessions at most, over those of a design with one look and the same power."""
    alpha: float
    """Two-sided."""
    power: float


class Rates(NamedTuple):
    """Two rates over the same histories; arrays of one shape, one entry an analysis."""

    first: Floats
    second: Floats
    n_first: Floats
    n_second: Floats
    spread: Floats
    """Variance of the difference over histories, over what counting alone would give; 1 at least."""

    @property
    def difference(self) -> Floats:
        """First minus second."""
        return self.first - self.second


class RateInterval(NamedTuple):
    """An interval of a difference and of a ratio of two rates, first over second."""

    difference: Floats
    low: Floats
    high: Floats
    ratio_low: Floats
    ratio_high: Floats
    """Infinite where the second rate may be zero."""


@cache
def plan_looks(n_looks: int = 10, alpha: float = 0.05, power: float = 0.8, rho: float = 2.0) -> Design:
    """Bounds for equally spaced looks. Errors are spent as t to the rho, t the share of sessions; futility is not binding.

    ValueError: no look, or an error rate that is none.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    if n_looks < 1 or not 0 < alpha < 1 or not alpha < power < 1 or rho <= 0:
        raise ValueError(f"impossible design: {n_looks} looks, alpha {alpha}, power {power}, rho {rho}")
    fractions = tuple((number + 1) / n_looks for number in range(n_looks))
    spent = [alpha / 2 * t**rho for t in fractions]
    missed = [(1 - power) * t**rho for t in fractions]
    upper = _efficacy(fractions, spent)

    def last_gap(drift: float) -> float:
        return _futility(fractions, upper, missed, drift)[-1] - upper[-1]

    fixed = float(norm.ppf(1 - alpha / 2) + norm.ppf(power))
    drift = float(brentq(last_gap, 0.8 * fixed, 1.6 * fixed, xtol=1e-7))
    futility = (*_futility(fractions, upper, missed, drift)[:-1], upper[-1])
    return Design(fractions, upper, futility, drift, (drift / fixed) ** 2, alpha, power)


def _efficacy(fractions: Sequence[float], spent: Sequence[float]) -> tuple[float, ...]:
    """Upper bounds, futility ignored."""
    from scipy.optimize import brentq

    found: list[float] = []
    density = _start()
    for number, (t, total) in enumerate(zip(fractions, spent, strict=True)):
        step = t - (fractions[number - 1] if number else 0.0)
        share = total - (spent[number - 1] if number else 0.0)
        found.append(float(brentq(lambda z, d=density, s=step, t=t, a=share: _above(d, s, z * t**0.5, 0.0) - a, 0.0, FAR, xtol=1e-9)))
        density = _advance(density, step, -FAR * t**0.5, found[-1] * t**0.5, 0.0)
    return tuple(found)


def _futility(fractions: Sequence[float], upper: Sequence[float], missed: Sequence[float], drift: float) -> tuple[float, ...]:
    """Lower bounds under a drift; the last one is where the rest of the error would be spent."""
    from scipy.optimize import brentq

    found: list[float] = []
    density = _start()
    for number, (t, total) in enumerate(zip(fractions, missed, strict=True)):
        step = t - (fractions[number - 1] if number else 0.0)
        share = total - (missed[number - 1] if number else 0.0)

        def below(z: float, d: tuple[Floats, Floats] = density, s: float = step, t: float = t, b: float = share) -> float:
            return _above(d, s, -z * t**0.5, -drift, mirrored=True) - b

        lowest, highest = -FAR, FAR + drift
        if below(highest) <= 0:  # less is left than may be spent
            found.append(highest)
        else:
            found.append(float(brentq(below, lowest, highest, xtol=1e-9)) if below(lowest) < 0 else lowest)
        low, high = found[-1] * t**0.5, upper[number] * t**0.5
        if number < len(fractions) - 1:
            density = _advance(density, step, min(low, high - 1e-9), high, drift)
    return tuple(found)


def _start() -> tuple[Floats, Floats]:
    """All mass at zero: (places, weights)."""
    return np.zeros(1), np.ones(1)


def _advance(density: tuple[Floats, Floats], step: float, low: float, high: float, drift: float) -> tuple[Floats, Floats]:
    """Mass that goes on after a look: places in (low, high) and their weights, quadrature in them."""
    places, weights = density
    nodes, node_weights = np.polynomial.legendre.leggauss(POINTS)
    reach = FAR * (places.max() - places.min() + step**0.5 * 2)
    low = max(low, float(places.min()) - reach)
    middle, half = (low + high) / 2, (high - low) / 2
    new = middle + half * nodes
    gaps = (new[:, None] - places[None, :] - drift * step) / step**0.5
    heights = np.exp(-(gaps**2) / 2) / np.sqrt(2 * np.pi * step) @ weights
    return new, heights * node_weights * half


def _above(density: tuple[Floats, Floats], step: float, bound: float, drift: float, *, mirrored: bool = False) -> float:
    """Probability of being beyond a bound after one more step; mirrored: of the process turned round."""
    from scipy.stats import norm

    places, weights = density
    places = -places if mirrored else places
    return float(weights @ norm.sf((bound - places - drift * step) / step**0.5))


def stage_p(design: Design, look: int, z: float) -> float:
    """Two-sided p after stopping at a look (from 0) with z, looks in their order (Jennison and Turnbull 2000, section 8.4)."""
    spent = 0.0
    density = _start()
    for number, t in enumerate(design.fractions[: look + 1]):
        step = t - (design.fractions[number - 1] if number else 0.0)
        if number == look:
            return min(1.0, 2 * (spent + _above(density, step, abs(z) * t**0.5, 0.0)))
        spent += _above(density, step, design.upper[number] * t**0.5, 0.0)
        density = _advance(density, step, -FAR * t**0.5, design.upper[number] * t**0.5, 0.0)
    raise ValueError(f"the design has {len(design.fractions)} looks, not {look + 1}")


def compare_rates(first: ArrayLike, n_first: ArrayLike, second: ArrayLike, n_second: ArrayLike) -> Rates:
    """Rates of two conditions from counts a history: last axis histories, the others analyses of their own.

    Histories are drawn from many: where they differ in the difference more than counting explains, `spread` says by how much.
    ValueError: counts that are no counts, or under two histories with sessions in both.
    """
    x1, n1, x2, n2 = (np.asarray(one, float) for one in (first, n_first, second, n_second))
    if any((one < 0).any() for one in (x1, x2)) or (x1 > n1).any() or (x2 > n2).any():
        raise ValueError("counts must lie between 0 and the sessions")
    both = (n1 > 0) & (n2 > 0)
    n_histories = both.sum(axis=-1)
    if (n_histories < 2).any():
        raise ValueError("at least two histories need sessions under both conditions")
    total1, total2 = n1.sum(axis=-1), n2.sum(axis=-1)
    p1, p2 = x1.sum(axis=-1) / total1, x2.sum(axis=-1) / total2
    counting = _variance(p1, total1) + _variance(p2, total2)
    # linearised ratio estimator over clusters: its variance holds for unequal sizes as well
    parts = (x1 - p1[..., None] * n1) / total1[..., None] - (x2 - p2[..., None] * n2) / total2[..., None]
    clustered = (parts**2).sum(axis=-1) * n_histories / (n_histories - 1)
    return Rates(p1, p2, total1, total2, np.maximum(1.0, clustered / counting))


def _variance(rate: Floats, n: Floats) -> Floats:
    """Of a rate, by one broken and one kept step more than were counted: none is never certain."""
    shrunk = (rate * n + 1) / (n + 2)
    return np.asarray(shrunk * (1 - shrunk) / n)


def statistic(rates: Rates) -> Floats:
    """z of the difference against none: what `interval_at` asks, so that both always say the same."""
    return score(0.0, rates.first, rates.n_first / rates.spread, rates.second, rates.n_second / rates.spread)


def standard_error(rates: Rates) -> Floats:
    """Of the difference."""
    return np.asarray(np.sqrt((_variance(rates.first, rates.n_first) + _variance(rates.second, rates.n_second)) * rates.spread))


def interval_at(rates: Rates, z: float) -> RateInterval:
    """Interval of all differences that a score test at this z does not refuse: none of many is not nothing."""
    n_first, n_second = rates.n_first / rates.spread, rates.n_second / rates.spread
    low, high = (_refused_from(rates.first, n_first, rates.second, n_second, side * z) for side in (1, -1))
    ratio_low, ratio_high = _ratio_interval(rates, z)
    return RateInterval(rates.difference, low, high, ratio_low, ratio_high)


def _refused_from(p1: Floats, n1: Floats, p2: Floats, n2: Floats, z: float) -> Floats:
    """The difference at which the score is z, by halving: the score falls as the difference grows."""
    estimate = p1 - p2
    low = np.where(z > 0, -1.0, estimate)
    high = np.where(z > 0, estimate, 1.0)
    for _ in range(40):
        middle = (low + high) / 2
        more = score(middle, p1, n1, p2, n2) > z
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    return np.asarray((low + high) / 2)


def score(difference: ArrayLike, p1: ArrayLike, n1: ArrayLike, p2: ArrayLike, n2: ArrayLike) -> Floats:
    """z of two rates against a difference that is supposed; the variance is that of the likeliest rates with this difference.

    Closed form of Miettinen and Nurminen 1985 (Statistics in Medicine 4, 213), appendix; variance of Farrington and Manning 1990 (9, 1447).
    """
    d, first, second, size1, size2 = (np.asarray(one, float) for one in (difference, p1, p2, n1, n2))
    more = size2 / size1
    a = 1 + more
    b = -(a + first + more * second + d * (more + 2))
    c = d**2 + d * (2 * first + a) + first + more * second
    v = (b / (3 * a)) ** 3 - b * c / (6 * a**2) - first * d * (1 + d) / (2 * a)
    root = np.sqrt(np.maximum((b / (3 * a)) ** 2 - c / (3 * a), 1e-24))
    u = np.where(v < 0, -root, root)
    angle = (np.pi + np.arccos(np.clip(v / u**3, -1.0, 1.0))) / 3
    likely1 = np.clip(2 * u * np.cos(angle) - b / (3 * a), np.maximum(d, 0.0), np.minimum(1.0, 1 + d))
    likely2 = np.clip(likely1 - d, 0.0, 1.0)
    variance = likely1 * (1 - likely1) / size1 + likely2 * (1 - likely2) / size2
    return np.asarray((first - second - d) / np.sqrt(np.maximum(variance, 1e-18)))


def _ratio_interval(rates: Rates, z: float) -> tuple[Floats, Floats]:
    """Of the risk ratio: normal on the log scale, with half a broken step added to each side (Walters 1985)."""
    n1, n2 = rates.n_first / rates.spread, rates.n_second / rates.spread
    x1, x2 = rates.first * n1 + 0.5, rates.second * n2 + 0.5
    log_ratio = np.log(x1 / (n1 + 0.5)) - np.log(x2 / (n2 + 0.5))
    error = np.sqrt(np.maximum(1 / x1 - 1 / (n1 + 0.5) + 1 / x2 - 1 / (n2 + 0.5), 0.0))
    low, high = np.exp(log_ratio - z * error), np.exp(log_ratio + z * error)
    return np.where(rates.first == 0, 0.0, low), np.where(rates.second == 0, np.inf, high)


class Look(NamedTuple):
    """What a look says, one entry an analysis."""

    found: NDArray[np.int64]
    """1: the first rate is higher; -1: lower; 0: neither is told."""
    futile: NDArray[np.bool_]
    """The difference that was planned for will hardly be found."""
    interval: RateInterval
    """At this look's width: it holds whether or not one stops here."""


def look(design: Design, number: int, rates: Rates) -> Look:
    """Read the counts at a look (from 0)."""
    interval = interval_at(rates, design.upper[number])
    found = (interval.low > 0).astype(np.int64) - (interval.high < 0)
    last = number == len(design.upper) - 1
    return Look(found, (found == 0) & (last | (statistic(rates) < design.futility[number])), interval)


class BettingSequence(NamedTuple):
    """A confidence sequence: at each step the interval that holds at all steps together."""

    low: Floats
    high: Floats


def betting_sequence(differences: ArrayLike, alpha: float = 0.05, grid: int = 400) -> BettingSequence:
    """Interval for the mean of differences in {-1, 0, 1}, pair by pair in a random order, that holds at every step at once.

    One may look after each pair and stop for any reason (hedged capital, Waudby-Smith and Ramdas 2024, section 4). The pairs must come in
    an order that was drawn; 1 - alpha is the probability that no interval of the whole sequence misses the mean.
    """
    y = (np.asarray(differences, float) + 1) / 2
    if y.ndim != 1 or not y.size or ((y < 0) | (y > 1)).any():
        raise ValueError("differences must lie in [-1, 1]")
    means = (np.arange(grid) + 0.5) / grid
    steps = np.arange(1, y.size + 1)
    mean = (0.5 + np.cumsum(y)) / (steps + 1)
    variance = (0.25 + np.cumsum((y - mean) ** 2)) / (steps + 1)
    before = np.concatenate([[0.25], variance[:-1]])
    bet = np.sqrt(2 * np.log(2 / alpha) / (before * steps * np.log1p(steps)))
    gaps = y[:, None] - means[None, :]
    up = np.cumsum(np.log1p(np.minimum(bet[:, None], 0.5 / means) * gaps), axis=0)
    down = np.cumsum(np.log1p(-np.minimum(bet[:, None], 0.5 / (1 - means)) * gaps), axis=0)
    held = np.maximum(up, down) + np.log(0.5) < np.log(1 / alpha)
    held = np.logical_and.accumulate(held, axis=0)
    half = 0.5 / grid
    low = np.where(held.any(axis=1), means[np.argmax(held, axis=1)] - half, 0.0)
    high = np.where(held.any(axis=1), means[grid - 1 - np.argmax(held[:, ::-1], axis=1)] + half, 1.0)
    return BettingSequence(2 * low - 1, 2 * high - 1)
