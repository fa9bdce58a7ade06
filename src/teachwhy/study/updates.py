"""Trainings scored before their end: how each arm moved, and the far shift at a matched near shift."""

from __future__ import annotations

from itertools import chain

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
    for arm in study.spec.arms:
        for update, rows in by_update.items():
            held = Outcomes([*start, *rows])
            for split in dict.fromkeys(row.split for row in held.select(select(wanted)._replace(splits=SPLITS))):
                selection = select(wanted)._replace(splits=(split,))
                change = estimate_interval(contrast_table(held, selection, [arm], ["start"], study.spec.seeds_of(arm)), (split,))
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

    None unless the primary is one arm less another, by margin, and near and far were scored at several updates.
    """
    wanted = study.spec.primary
    if wanted.measure != "margin" or len(wanted.plus) != 1 or len(_by_update(study)) < 2:
        return None
    near, far = _shifts(study, "near"), _shifts(study, "far")
    if near is None or far is None:
        return None
    found = comparisons.retention(near, far, at=study.spec.matched_near)
    about = {"plus": wanted.plus[0], "minus": wanted.minus[0], "planned": study.spec.matched_near is not None}
    if found is None:
        return Retention.model_validate({**about, "near": study.spec.matched_near, "n_seeds": len(study.spec.seeds)})
    return Retention.model_validate(
        {
            **about, "near": found.level, "far_plus": found.one, "far_minus": found.other,
            "difference": found.difference, "low": found.low, "high": found.high, "n_seeds": found.n_seeds, "p": found.p,
        }
    )  # fmt: skip


def _by_update(study: Study) -> dict[int, list[Outcome]]:
    """Updates -> the trained arms' rows of the primary's evaluation, in the order of training."""
    wanted = study.spec.primary
    groups: dict[int, list[Outcome]] = {}
    for row in chain(study.early, study.rows):
        if row.arm in study.spec.arms and (row.evaluation, row.reading) == (wanted.evaluation, wanted.reading):
            groups.setdefault(row.update, []).append(row)
    return dict(sorted(groups.items()))


def _shifts(study: Study, split: str) -> tuple[Floats, Floats] | None:
    """Mean changes from the start of the primary's two arms, each n_seeds x (1 + updates) with the start's own 0 first, over the
    scenarios that both arms read throughout; None where there are none."""
    wanted, seeds = study.spec.primary, study.spec.seeds
    selection = select(wanted)._replace(splits=(split,))
    scenarios = sorted({row.scenario for row in study.rows.select(selection)})
    known = set(scenarios)
    groups = [Outcomes(row for row in rows if row.scenario in known) for rows in _by_update(study).values()]
    start = measure_table(study.rows, selection, "start", seeds, scenarios)
    arms = [
        np.stack([measure_table(rows, selection, arm, seeds, scenarios) - start for rows in groups])
        for arm in (*wanted.plus, *wanted.minus)
    ]
    whole = ~np.isnan(np.stack(arms)).any(axis=(0, 1, 2))
    if not whole.any():
        return None
    one, other = (np.vstack([np.zeros(len(seeds)), table[:, :, whole].mean(axis=2)]).T for table in arms)
    return one, other
