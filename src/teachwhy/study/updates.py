"""Trainings scored before their end: how each arm moved, and the far shift at a matched near shift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from teachwhy import comparisons
from teachwhy.outcomes import Floats, Outcomes, contrast_table, measure_table
from teachwhy.records import Outcome, Retention, UpdateSummary
from teachwhy.study.estimates import SPLITS, Study, estimate_interval, select


def summarise_updates(study: Study) -> list[UpdateSummary]:
    """Every trained arm after every number of updates at which the primary's evaluation was scored, split by split."""
    wanted = study.spec.primary
    by_update = _by_update(study)
    if len(by_update) < 2:
        return []
    start = [row for row in study.rows if row.arm == "start"]
    found = []
    tables = {update: Outcomes([*start, *rows]) for update, rows in by_update.items()}
    for arm in study.spec.arms:
        for update, held in tables.items():
            for split in dict.fromkeys(row.split for row in held.select(select(wanted)._replace(splits=SPLITS))):
                selection = select(wanted)._replace(splits=(split,))
                change = estimate_interval(contrast_table(held, selection, [arm], ["start"], study.spec.seeds_of(arm)), selection)
                if change is not None:
                    found.append(
                        UpdateSummary(
                            arm=arm, split=split, update=update, n_scenarios=change.n_scenarios, n_seeds=change.n_seeds,
                            change=change.estimate, low=change.low, high=change.high, seed_values=change.seed_values,
                        )
                    )  # fmt: skip
    return found


def estimate_retention(study: Study) -> Retention | None:
    """Of the primary's two arms: which moved the far families more where both had moved the near scenarios equally far?

    None unless the primary is one arm less another, by margin, and near and far were scored at several updates. Never read between the
    start and a training's first saved update, where nothing was measured and a line would favour the slower arm.
    """
    wanted = study.spec.primary
    by_update = _by_update(study)
    splits = {row.split for rows in by_update.values() for row in rows}
    if wanted.measure != "margin" or len(wanted.plus) != 1 or len(by_update) < 2 or not {"near", "far"} <= splits:
        return None
    level = study.spec.matched_near
    about = {
        "plus": wanted.plus[0],
        "minus": wanted.minus[0],
        "planned": level is not None,
        "near": level,
        "n_seeds": len(study.spec.seeds),
    }
    near, far = (_shifts(study, by_update, split) for split in ("near", "far"))
    if near is None or far is None:
        return Retention.model_validate({**about, "reason": "no scenario was read under every seed and after every number of updates"})
    about |= {"n_near": near.n_scenarios, "n_far": far.n_scenarios}
    found = comparisons.retention((near.one, near.other), (far.one, far.other), at=level)
    if found is None:
        which = "that change" if level is not None else "one and the same change"
        return Retention.model_validate(
            {**about, "reason": f"{which} was not reached by every training between two of the measured updates"}
        )
    shown = {"far_plus": found.one, "far_minus": found.other, "difference": found.difference, "low": found.low, "high": found.high}
    return Retention.model_validate({**about, **shown, "near": found.level})


def _by_update(study: Study) -> dict[int, list[Outcome]]:
    """Updates -> the trained arms' rows of the primary's evaluation, in the order of training."""
    wanted = study.spec.primary
    groups: dict[int, list[Outcome]] = {}
    for row in chain(study.early, study.rows):
        if row.arm in study.spec.arms and (row.evaluation, row.reading) == (wanted.evaluation, wanted.reading):
            groups.setdefault(row.update, []).append(row)
    return dict(sorted(groups.items()))


class _Shifts(NamedTuple):
    """Mean changes from the start of the primary's two arms, each n_seeds x updates."""

    one: Floats
    other: Floats
    n_scenarios: int


def _shifts(study: Study, by_update: Mapping[int, Sequence[Outcome]], split: str) -> _Shifts | None:
    """Over the scenarios of a split that both arms read throughout; None where there are none."""
    wanted, seeds = study.spec.primary, study.spec.seeds
    selection = select(wanted)._replace(splits=(split,))
    scenarios = sorted({row.scenario for row in study.rows.select(selection)})
    known = set(scenarios)
    groups = [Outcomes(row for row in rows if row.scenario in known) for rows in by_update.values()]
    start = measure_table(study.rows, selection, "start", seeds, scenarios)
    arms = [
        np.stack([measure_table(rows, selection, arm, seeds, scenarios) - start for rows in groups])
        for arm in (*wanted.plus, *wanted.minus)
    ]
    whole = ~np.isnan(np.stack(arms)).any(axis=(0, 1, 2))
    if not whole.any():
        return None
    one, other = (table[:, :, whole].mean(axis=2).T for table in arms)
    return _Shifts(one, other, int(whole.sum()))
