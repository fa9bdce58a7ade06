"""What a comparison of two conditions would find if the rates were known: planted rates through the code that reads real runs."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from teachwhy.errors import UserError
from teachwhy.sequential import Design, compare_rates, look, plan_looks

Floats = NDArray[np.float64]
BLOCKS = 20
"""Parts that the sessions come in; looks are at multiples, the design with one look is read at each."""
SPREAD = 0.5
"""Standard deviation of the histories' own log-odds."""


class Simulated(NamedTuple):
    """Over all repeats."""

    power: float
    """Share in which the reason's rate was found lower; where the rates are equal, false positives."""
    power_se: float
    """Monte Carlo error of it."""
    opposite: float
    """Share in which it was found higher."""
    coverage: float
    """Share in which the interval at the look that stopped held the true difference."""
    mean_sessions_per_arm: float
    max_sessions_per_arm: int
    fixed_sessions_per_arm: float
    """Of one look with equal power, read from the same draws; where the rates are equal, of one look with the power designed for."""
    saved: float
    """Share of the sessions of one look that were not needed, on average."""
    bare: float
    reason: float
    difference: float
    """The true one, bare less reason."""
    repeats: int
    histories: int
    spread: float
    seed: int


MOST_SPREAD = 5.0
"""Standard deviation of log-odds beyond which histories are all or nothing."""


def simulate(
    bare: float, reason: float, sessions: int, repeats: int, seed: int, *, histories: int = 40, spread: float = SPREAD, looks: int = 10
) -> Simulated:
    """Repeats of one confirm stage. sessions: at most, a condition. spread: sd of the histories' log-odds, drawn anew each time.

    Raises UserError for rates outside (0, 1) and for sizes under which nothing could be seen.
    """
    _refuse(bare, reason, sessions, repeats, histories, spread)
    if looks not in (1, 2, 4, 5, 10):
        raise UserError(f"looks are 1, 2, 4, 5 or 10, not {looks}", where="--looks")
    rng = np.random.default_rng(seed)
    own = rng.normal(0.0, spread, (repeats, histories))
    counts = _share_out(sessions, histories)
    drawn = [_draw(rng, rate, own, counts, spread) for rate in (bare, reason)]
    n = np.broadcast_to(counts.cumsum(axis=0), (repeats, BLOCKS, histories))
    design = plan_looks(looks)
    every = BLOCKS // looks
    kinds = np.zeros(repeats, int)
    stopped = np.full(repeats, -1)
    covered = np.zeros(repeats, bool)
    for number in range(looks):
        at = (number + 1) * every - 1
        seen = look(design, number, compare_rates(drawn[0][:, at], n[:, at], drawn[1][:, at], n[:, at]))
        new = (stopped < 0) & ((seen.found != 0) | seen.futile)
        stopped[new], kinds[new] = at, seen.found[new]
        covered[new] = ((seen.interval.low <= bare - reason) & (seen.interval.high >= bare - reason))[new]
    totals = counts.cumsum(axis=0).sum(axis=1)
    power, mean = float((kinds == 1).mean()), float(totals[stopped].mean())
    fixed = _fixed(drawn, n, totals, power, design) if bare != reason else sessions / design.inflation
    return Simulated(
        power, float((power * (1 - power) / repeats) ** 0.5), float((kinds == -1).mean()), float(covered.mean()), mean, sessions, fixed,
        1 - mean / fixed, bare, reason, bare - reason, repeats, histories, spread, seed,
    )  # fmt: skip


def _refuse(bare: float, reason: float, sessions: int, repeats: int, histories: int, spread: float) -> None:
    for name, rate in (("--bare", bare), ("--reason", reason)):
        if not 0 < rate < 1:
            raise UserError(f"a rate lies between 0 and 1, and {rate:g} does not", where=name, hint="4 % is 0.04.")
    for name, value, least in (("--sessions", sessions, BLOCKS), ("--repeats", repeats, 1), ("--histories", histories, 4)):
        if value < least:
            raise UserError(f"at least {least} are needed, not {value}", where=name)
    if sessions < histories // 2:
        raise UserError(
            f"{sessions} sessions are too few for {histories} histories", where="--sessions", hint="Give more, or fewer --histories."
        )
    if not 0 <= spread <= MOST_SPREAD:
        raise UserError(f"a spread lies between 0 and {MOST_SPREAD:g}", where="--spread", hint="0.5 is the default.")


def _share_out(sessions: int, histories: int) -> NDArray[np.int64]:
    """Sessions of each block and history: (BLOCKS, histories), as even as they can be."""
    order = np.arange(sessions)
    block = order * BLOCKS // sessions
    found = np.zeros((BLOCKS, histories), np.int64)
    np.add.at(found, (block, order % histories), 1)
    return found


def _draw(rng: np.random.Generator, rate: float, own: Floats, counts: NDArray[np.int64], spread: float) -> Floats:
    """Broken sessions so far: (repeats, BLOCKS, histories), around a rate that is the mean over histories."""
    chances = 1 / (1 + np.exp(-(_centre(rate, spread) + own)))
    return rng.binomial(counts[None], chances[:, None, :]).cumsum(axis=1).astype(float)


def _centre(rate: float, spread: float) -> float:
    """Log-odds whose mean rate over histories is the one wished for."""
    from scipy.optimize import brentq

    nodes, weights = np.polynomial.hermite_e.hermegauss(40)

    def gap(centre: float) -> float:
        return float(weights @ (1 / (1 + np.exp(-(centre + spread * nodes))))) / float(weights.sum()) - rate

    return float(brentq(gap, -40, 40))


def _fixed(drawn: list[Floats], n: Floats, totals: NDArray[np.int64], power: float, design: Design) -> float:
    """Sessions at which one look has this power: its share of findings after each block, read where it reaches the power."""
    single = plan_looks(1, design.alpha, design.power)
    found = [0.0]
    for block in range(BLOCKS):
        rates = compare_rates(drawn[0][:, block], n[:, block], drawn[1][:, block], n[:, block])
        found.append(max(found[-1], float((look(single, 0, rates).found == 1).mean())))
    return float(np.interp(power, found, [0, *totals]))
