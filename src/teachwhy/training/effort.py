"""Equal effort: the same updates and the same supervised tokens for every arm of a study.

Each update holds the arm's own rows and, where these have fewer supervised tokens than the arm with the most, neutral
rows. So arms that share prompts see them in the same updates, and each supervised token has the same weight everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from teachwhy.errors import UserError

MAX_DIFFERENCE = 0.02
"""Largest difference in supervised tokens between arms, as a share of the most."""


class Sized(NamedTuple):
    """A row by its number in its corpus, with its tokens and how many of them carry loss."""

    row: int
    n_tokens: int
    n_supervised: int


class Update(NamedTuple):
    """Rows of one update: the arm's own, and neutral ones on top."""

    own: list[Sized]
    neutral: list[Sized]


class Effort(NamedTuple):
    """What an arm is given in one stage."""

    n_updates: int
    n_rows: int
    n_neutral_rows: int
    n_tokens: int
    n_supervised: int


def share_effort(arms: Mapping[str, Sequence[Sized]], neutral: Sequence[Sized], n_updates: int) -> dict[str, list[Update]]:
    """Updates for every arm. `arms` maps an arm to its own rows in order; `neutral` is gone through again and again.

    Own rows are spread evenly over the updates; neutral rows fill the gap to the arm with the most supervised tokens as it
    opens, update by update. Raises UserError when the arms still differ by more than 2 %.
    """
    target = max(sum(row.n_supervised for row in rows) for rows in arms.values())
    found = {}
    for arm, rows in arms.items():
        padding = _pad(target - sum(row.n_supervised for row in rows), neutral, n_updates)
        own = [list(rows[len(rows) * number // n_updates : len(rows) * (number + 1) // n_updates]) for number in range(n_updates)]
        found[arm] = [Update(*parts) for parts in zip(own, padding, strict=True)]
    totals = {arm: measure_effort(updates).n_supervised for arm, updates in found.items()}
    if min(totals.values()) < (1 - MAX_DIFFERENCE) * max(totals.values()):
        shown = ", ".join(f"{arm} {total}" for arm, total in totals.items())
        raise UserError(
            f"the arms' supervised tokens differ by more than {MAX_DIFFERENCE:.0%}: {shown}",
            hint="Name a neutral corpus to pad with, or use more updates.",
        )
    return found


def _pad(gap: int, neutral: Sequence[Sized], n_updates: int) -> list[list[Sized]]:
    """Neutral rows for each update, in their order, as the gap opens; a last row is chosen to fit what is left of it."""
    padding: list[list[Sized]] = [[] for _ in range(n_updates)]
    given = place = 0
    for number in range(n_updates):
        while neutral and given + neutral[place % len(neutral)].n_supervised <= gap * (number + 1) / n_updates:
            padding[number].append(neutral[place % len(neutral)])
            given += padding[number][-1].n_supervised
            place += 1
    if neutral:
        best = min(neutral, key=lambda row: abs(gap - given - row.n_supervised))
        if abs(gap - given - best.n_supervised) < gap - given:
            padding[-1].append(best)
    return padding


def measure_effort(updates: Sequence[Update]) -> Effort:
    """Sums over a stage's updates."""
    rows = [row for update in updates for row in (*update.own, *update.neutral)]
    return Effort(
        len(updates),
        len(rows),
        sum(len(update.neutral) for update in updates),
        sum(row.n_tokens for row in rows),
        sum(row.n_supervised for row in rows),
    )
