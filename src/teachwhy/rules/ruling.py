"""What is advised for a rule, from counts under each condition: the first ruling that holds."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from teachwhy.files import derive_seed
from teachwhy.sequential import (
    Design,
    RateInterval,
    Rates,
    betting_sequence,
    compare_rates,
    interval_at,
    stage_p,
    standard_error,
    statistic,
)
from teachwhy.statistics import Interval, wilson_bounds

Floats = NDArray[np.float64]
Kind = Literal[
    "perhaps needless",
    "leave",
    "add reason",
    "keep reason",
    "add reason, make a hook",
    "keep reason, make a hook",
    "make a hook",
    "need more",
    "no ruling",
]
TOLERANCE = 0.02
ACTS = 0.8
"""Share of histories in which a subject must take a step that a rule could be about."""
Z = 1.959964
MOST = 100_000
"""Sessions beyond which no number is advised."""


class Counted(NamedTuple):
    """One rule under one condition: arrays over histories."""

    broken: Floats
    n: Floats
    """Steps that were read."""
    acted: int
    """Steps that were an opportunity: the rule was kept or broken. `acted` of outcomes.csv is whether any command was run."""
    missing: int = 0
    """Steps that were not read: dead or cut off."""
    marks: Mapping[str, int] = {}
    """Unit (round, history, wording, number) -> whether the step broke the rule, of the steps that were read."""

    @property
    def total(self) -> int:
        """Steps that were read."""
        return int(self.n.sum())

    @property
    def rate(self) -> float:
        """Broken steps of those that were read."""
        return float(self.broken.sum() / self.n.sum()) if self.total else math.nan


class Comparison(NamedTuple):
    """Two conditions of one rule, the first less the second; positive: the first breaks it more often."""

    first: str
    second: str
    difference: float
    error: float
    """Standard error."""
    low: float
    high: float
    ratio: float
    """First over second."""
    ratio_low: float
    ratio_high: float
    p: float | None
    """Two-sided, looks in their order; None without looks."""


class Ruling(NamedTuple):
    """What is advised."""

    kind: Kind
    says: str
    more: int | None = None
    """Sessions a condition that are wanting."""


def rate_interval(counted: Counted, z: float) -> Interval:
    """Of one condition's rate, as wide as the look asks: Wilson's, of as many steps as the histories are worth. Where histories differ in
    the rate by more than counting explains, steps of one history say less (design effect: Kish 1965, Survey Sampling, section 8.2)."""
    return Interval(counted.rate, *wilson_bounds(counted.rate, counted.total / design_effect(counted), z), counted.total)


def design_effect(counted: Counted) -> float:
    """How many times larger the variance of a rate is than counting alone says; at least 1."""
    n = counted.n[counted.n > 0]
    broken = counted.broken[counted.n > 0]
    counting = counted.rate * (1 - counted.rate) / counted.total
    if len(n) < 2 or counting == 0:
        return 1.0
    clustered = float(((broken - counted.rate * n) ** 2).sum()) * len(n) / (len(n) - 1) / counted.total**2
    return max(1.0, clustered / counting)


def pair_rates(counts: Mapping[str, Counted], first: str, second: str) -> Rates:
    """Two conditions over the histories that both have."""
    one, other = counts[first], counts[second]
    return compare_rates(one.broken, one.n, other.broken, other.n)


def compare(counts: Mapping[str, Counted], first: str, second: str, z: float, design: Design | None = None, look: int = 0) -> Comparison:
    """Two conditions with an interval of this width; with a design, p after stopping at its look."""
    rates = pair_rates(counts, first, second)
    found: RateInterval = interval_at(rates, z)
    p = stage_p(design, look, float(statistic(rates))) if design else None
    low, high, ratio_low, ratio_high = (float(one) for one in (found.low, found.high, found.ratio_low, found.ratio_high))
    error = float(standard_error(rates))
    return Comparison(first, second, float(found.difference), error, low, high, _ratio(rates), ratio_low, ratio_high, p)


def _ratio(rates: Rates) -> float:
    return float(rates.first / rates.second) if rates.second > 0 else math.inf if rates.first > 0 else math.nan


class Looks(NamedTuple):
    """How wide intervals are under planned looks: at the bound of the one at which the run stopped; z without any."""

    z: float
    design: Design | None = None
    look: int = 0

    def compare(self, counts: Mapping[str, Counted], first: str, second: str) -> Comparison:
        """Two conditions."""
        return compare(counts, first, second, self.z, self.design, self.look)

    def rate(self, counted: Counted) -> Interval:
        """One condition."""
        return rate_interval(counted, self.z)


class AnyTime(NamedTuple):
    """Intervals that hold at every moment at once, by betting on pairs (and, of a rate, on steps) in an order that was drawn."""

    seed: int
    alpha: float = 0.05

    def compare(self, counts: Mapping[str, Counted], first: str, second: str) -> Comparison:
        """Two conditions; no p and no interval of the ratio."""
        one, other = counts[first].marks, counts[second].marks
        held = betting_sequence([one[unit] - other[unit] for unit in self._order(one.keys() & other.keys())], self.alpha)
        rates = pair_rates(counts, first, second)
        low, high = float(held.low[-1]), float(held.high[-1])
        error = float(standard_error(rates))
        return Comparison(first, second, float(rates.difference), error, low, high, _ratio(rates), 0.0, math.inf, None)

    def rate(self, counted: Counted) -> Interval:
        """One condition."""
        held = betting_sequence([counted.marks[unit] for unit in self._order(counted.marks.keys())], self.alpha)
        return Interval(counted.rate, max(0.0, float(held.low[-1])), float(held.high[-1]), counted.total)

    def _order(self, units: Collection[str]) -> list[str]:
        """By round, drawn inside each: what came earlier stays where it was."""
        return sorted(units, key=lambda unit: (unit.partition("|")[0], derive_seed(self.seed, "order", unit)))


def rule_on(
    counts: Mapping[str, Counted],
    measure: Looks | AnyTime,
    design: Design,
    *,
    has_reason: bool,
    destructive: bool,
    tolerance: float = TOLERANCE,
) -> Ruling:
    """The first ruling that holds. counts: none and bare from the screen, and bare, filler and reason where it was confirmed."""
    none, bare = counts.get("none"), counts["bare"]
    if none and none.total and not destructive and (high := measure.rate(none).high) <= tolerance:
        says = f"Without it at most {high:.1%} of steps break it; whole sessions must tell before it is taken away."
        return Ruling("perhaps needless", says)
    if bare.total and (high := measure.rate(bare).high) <= tolerance:
        return Ruling("leave", f"As a bare rule it is broken in at most {high:.1%} of steps.")
    confirmed = [name for name in ("bare", "filler", "reason") if name in counts and counts[name].total]
    if "reason" in confirmed:
        found = measure.compare(counts, "bare", "reason")
        against = measure.compare(counts, "filler", "reason") if "filler" in confirmed else None
        if found.low > 0 and not (against and against.high < 0):
            return _reason_helps(found, against, measure.rate(counts["reason"]).low, has_reason=has_reason, tolerance=tolerance)
    best = min(confirmed, key=lambda name: counts[name].rate)
    if (low := measure.rate(counts[best]).low) > tolerance:
        return Ruling("make a hook", f"However it is said, it is broken in at least {low:.1%} of steps ({best}).")
    if isinstance(measure, AnyTime):
        return Ruling("need more", "More steps are wanting; under --stop any it cannot be said how many.")
    more = sessions_wanting(counts, design, tolerance)
    if not more:
        return Ruling("need more", "No number of steps that can be advised would tell.")
    option, have = ("--sessions", counts["reason"].total) if "reason" in confirmed else ("--screen", bare.total)
    return Ruling("need more", f"{more:,} more steps a condition are wanting: {option} {have + more} if the rates stay as they are.", more)


def _reason_helps(found: Comparison, against: Comparison | None, low: float, *, has_reason: bool, tolerance: float) -> Ruling:
    """low: lower limit of the rate with the reason."""
    says = f"With its reason it is broken less often, by {_points(found)}"
    if against:
        says += f"; against a filler by {_points(against)}"
    if low > tolerance:
        return Ruling("keep reason, make a hook" if has_reason else "add reason, make a hook", f"{says}; and still at least {low:.1%} do.")
    return Ruling("keep reason" if has_reason else "add reason", f"{says}.")


def _points(found: Comparison) -> str:
    return f"{100 * found.difference:.1f} percentage points ({100 * found.low:.1f} to {100 * found.high:.1f})"


def sessions_wanting(counts: Mapping[str, Counted], design: Design, tolerance: float) -> int | None:
    """Steps a condition beyond those there are, after which some ruling would stand if the rates stay as they are; None: over MOST."""
    needed = []
    bare = counts["bare"]
    confirmed = "reason" in counts and bool(counts["reason"].total)
    if confirmed:
        rates = pair_rates(counts, "bare", "reason")
        p1, p2, difference = float(rates.first), float(rates.second), float(rates.difference)
        if difference > 0:
            needed.append((design.drift / difference) ** 2 * (p1 * (1 - p1) + p2 * (1 - p2)) * float(rates.spread))
    if bare.rate < tolerance:
        needed.append(_steps_until(bare.rate, design.upper[-1] if confirmed else Z, tolerance))
    least = min(needed, default=math.inf)
    have = min(counts[name].total for name in ("bare", "reason") if name in counts)
    return max(1, math.ceil(least - have)) if least < MOST else None


def _steps_until(rate: float, z: float, tolerance: float) -> float:
    """Steps after which Wilson's upper limit is the tolerance: the quadratic in n that puts it there."""
    gap = tolerance - rate
    return z**2 * tolerance * (1 - tolerance) / gap**2
