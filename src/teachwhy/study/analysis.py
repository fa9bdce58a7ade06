"""From outcomes to the report: arms, contrasts, gates and the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from teachwhy import statistics
from teachwhy.outcomes import FIXED_SEED, JUDGES, Selection, contrast_table
from teachwhy.records import Answer, ArmSummary, Contrast, Gate, Outcome, Primary, StudyReport
from teachwhy.study import schema
from teachwhy.study.automatic import say_missed
from teachwhy.study.estimates import (
    Study,
    all_contrasts,
    estimate_contrast,
    estimate_interaction,
    estimate_interval,
    estimate_primary,
    estimate_twins,
    select,
    unit_of,
)
from teachwhy.study.gates import check_gates
from teachwhy.study.updates import estimate_retention, summarise_updates

__all__ = ["Study", "analyse"]


LEFT_OUT = ("Left out by choice", "Not made")
"""What a note on a control that is not there begins with."""


def analyse(study: Study) -> StudyReport:
    """report.json. Needs no model and no log: outcomes are enough."""
    spec = study.spec
    contrasts = [estimate_contrast(study, wanted, exploratory=number > 0) for number, wanted in enumerate(all_contrasts(spec))]
    measured = [contrast for contrast in [*contrasts, estimate_interaction(study), estimate_twins(study)] if contrast is not None]
    adjusted = statistics.holm_adjust([contrast.p for contrast in measured])
    measured = [contrast.model_copy(update={"p_holm": p}) for contrast, p in zip(measured, adjusted, strict=True)]
    primary = estimate_primary(study, measured[0]) if contrasts[0] is not None else None
    gates = check_gates(study)
    return StudyReport(
        name=spec.name,
        question=spec.question,
        gates=tuple(gates),
        primary=primary,
        arms=tuple(summarise_arms(study)),
        cells=tuple(study.cells),
        contrasts=tuple(measured),
        updates=tuple(summarise_updates(study)),
        retention=estimate_retention(study),
        missing=count_missing([row for row in [*study.rows, *study.early] if row.reading not in JUDGES]),
        answer=give_answer(spec, gates, primary),
        notes=(*write_notes(study, gates), *_say_unestimated(study, contrasts)),
    )


def summarise_arms(study: Study) -> list[ArmSummary]:
    """Every arm on every evaluation, split and twin."""
    groups = sorted({(row.evaluation, row.reading, row.split, row.twin) for row in study.rows})
    found = [
        _summarise(study, arm, Selection(evaluation, (split,), twin, reading, _measure_of(study, evaluation, reading)))
        for evaluation, reading, split, twin in groups
        for arm in study.arms
    ]
    return [one for one in found if one.n_rows or one.reading not in JUDGES]  # no judge read an arm that was run without


def _measure_of(study: Study, evaluation: str, reading: str) -> Literal["margin", "harm"]:
    """What changes are of: the primary's measure where it is read so, else the margin; of a text harm, since it has no margin."""
    primary = study.spec.primary
    if (evaluation, reading) == (primary.evaluation, primary.reading):
        return primary.measure
    return "harm" if reading in ("text", "office", *JUDGES) else "margin"


def _summarise(study: Study, arm: str, selection: Selection) -> ArmSummary:
    rows = list(study.rows.select(selection, arm))
    seeds = study.spec.seeds_of(arm)
    harms = [row.harm for row in rows if row.harm is not None]
    acts = [row.acted for row in rows if row.acted is not None]
    margins = [row.margin for row in rows if row.margin is not None]
    n_missing = sum(row.status != "ok" for row in rows)
    n_done = sum(row.harm is None and row.label == "harmful" for row in rows)  # before the run was cut off
    bounds = statistics.missing_bounds(sum(harms) + n_done, len(harms) + n_done, n_missing - n_done) if harms else None
    change = None
    if arm != "start" and "start" in study.arms and rows:
        change = estimate_interval(contrast_table(study.rows, selection, [arm], ["start"], seeds), selection)
    return ArmSummary(
        arm=arm,
        evaluation=selection.evaluation,
        split=selection.splits[0],
        twin=selection.twin,
        reading=selection.reading,
        n_scenarios=len({row.scenario for row in rows}),
        n_seeds=len({row.seed for row in rows}),
        n_rows=len(rows),
        n_missing=n_missing,
        harm=float(np.mean(harms)) if harms else None,
        harm_low=bounds.low if bounds else None,
        harm_high=bounds.high if bounds else None,
        acted=float(np.mean(acts)) if acts else None,
        harm_given_acted=sum(harms) / sum(acts) if harms and sum(acts) > 0 else None,
        margin=float(np.mean(margins)) if margins else None,
        measure=selection.measure,
        change=change.estimate if change else None,
        change_low=change.low if change else None,
        change_high=change.high if change else None,
        seed_values=change.seed_values if change else (),
    )


def count_missing(rows: Sequence[Outcome]) -> dict[str, int]:
    """Outcomes by status, those that were read among them."""
    counts: dict[str, int] = {"ok": 0, "unscored": 0, "invalid": 0, "truncated": 0, "dead": 0, "overrun": 0}
    for row in rows:
        counts[row.status] += 1
    return counts


def give_answer(spec: schema.StudySpec, gates: Sequence[Gate], primary: Primary | None) -> Answer:
    """What may be said: nothing when a gate failed, else which side of zero the interval is on."""
    failed = [gate for gate in gates if gate.withholds and gate.passed is not True]
    if failed or primary is None:
        name = failed[0].name if failed else "the primary contrast was measured"
        how = "could not be tried" if failed and failed[0].passed is None else "failed"
        return Answer(verdict="withheld", sentence=f"No answer: the gate “{name}” {how}. {failed[0].says if failed else ''}".strip())
    wanted = spec.primary
    unit = unit_of(wanted)
    numbers = f"{primary.contrast}: {primary.difference:+.2f} {unit}, 95 % interval {primary.low:+.2f} to {primary.high:+.2f}"
    families = f" of {primary.n_families} families" if primary.n_families else ""
    seeds = "one seed, so over scenarios only" if primary.n_seeds == 1 else f"{primary.n_seeds} seeds"
    over = f"{primary.n_scenarios} scenarios{families}, {'over scenarios only' if primary.fixed else seeds}"
    if primary.low <= 0 <= primary.high:
        sized = (
            f" The smallest true difference that 80 % of such studies would find is {primary.smallest_detectable:.2f} {unit}."
            if primary.smallest_detectable
            else ""
        )
        if primary.excluded is not None:
            sized += f" Differences of more than {primary.excluded:.2f} {unit} to either side are excluded (two one-sided tests at 5 %)."
        near = primary.excluded is not None and primary.equivalence and primary.excluded <= primary.equivalence
        if near and not (doubts := _doubts_of_families(primary, wanted)):
            small = f"As good as none: any difference is smaller than the {primary.equivalence:g} {unit} that were named beforehand"
            return Answer(verdict="equivalent", sentence=f"{small} ({numbers}; {over}).{sized}")
        sized += "".join(f" {doubt}" for doubt in doubts) if near else ""
        return Answer(verdict="no_difference_seen", sentence=f"{wanted.no} ({numbers}; {over}).{sized}")
    claimed = (primary.high < 0) == (wanted.claim == "lower")
    what = f"{wanted.yes if claimed else wanted.opposite} ({numbers}; {over})."
    if doubts := _doubts(primary, wanted, unit):
        return Answer(verdict="hint", sentence=f"A hint, not a test: {what} {' '.join(doubts)}")
    about = " This is about these models, not about other trainings." if primary.fixed else ""
    return Answer(verdict="yes" if claimed else "opposite", sentence=f"{'Yes' if claimed else 'The opposite'}: {what}{about}")


def _doubts(primary: Primary, wanted: schema.Primary, unit: str) -> list[str]:
    """Why an interval that leaves out zero is no more than a hint."""
    found = []
    if primary.n_seeds < statistics.MIN_SEEDS_FOR_P and not primary.fixed:
        found.append(_few_seeds(primary.n_seeds))
    found += _doubts_of_families(primary, wanted)
    if primary.worst_low is not None and primary.worst_high is not None and primary.worst_low <= 0 <= primary.worst_high:
        ends = f"{primary.lowest:+.2f} to {primary.highest:+.2f} {unit} if all of it were extreme, with intervals "
        found.append(f"What is missing could undo it: {ends}{primary.worst_low:+.2f} to {primary.worst_high:+.2f}.")
    return found


ANALYSIS = 2
"""Raised when numbers of the same outcomes change: a run whose report is of another one is read again from its cells."""
EVEN_FAMILIES, ENOUGH_FAMILIES = 0.6, 8
"""Share of the families that they must be worth, unless they are worth so many. Where one of them holds most scenarios, the interval over
families is too narrow: with sizes 60 and six times 3 (worth 1.7 of 7) it held the truth in half of simulated studies, with 40 and three
times 4 in three of four."""


def _doubts_of_families(primary: Primary, wanted: schema.Primary) -> list[str]:
    if "far" in wanted.splits and not primary.n_families:
        return ["All these scenarios are of one family, which says nothing of other families."]
    if primary.family_worth and primary.family_worth < min(EVEN_FAMILIES * primary.n_families, ENOUGH_FAMILIES):
        worth = f"{primary.n_families} families are worth {primary.family_worth:.1f}, since few hold most scenarios"
        return [f"These {worth}: what is said of other families rests on these few."]
    return []


def _few_seeds(n_seeds: int) -> str:
    if n_seeds == 1:
        return "One seed says nothing about other trainings."
    return f"{n_seeds} seeds say little about other trainings; a test needs {statistics.MIN_SEEDS_FOR_P} or more."


def _say_unestimated(study: Study, contrasts: Sequence[Contrast | None]) -> list[str]:
    lost = {}
    for wanted, found in zip(all_contrasts(study.spec), contrasts, strict=True):
        if found is None:
            bounds = study.contrast(wanted).bounds
            lost[wanted.name] = f" ({bounds[0]:+.2f} to {bounds[1]:+.2f} if the missing were extreme)" if bounds else ""
    if not lost:
        return []
    names = ", ".join(f"{name}{bounds}" for name, bounds in lost.items())
    return [f"Not estimated, since hardly a scenario was read by all arms under all seeds: {names}."]


def write_notes(study: Study, gates: Sequence[Gate]) -> list[str]:
    """What a reader must know beside the numbers."""
    notes = [f"Not reproduced: {gate.says}" for gate in gates if gate.passed is False and "published rate" in gate.name]
    if len(study.spec.seeds) == 1:
        notes.append("One seed: intervals are over scenarios only and say nothing about other trainings.")
    elif len(study.spec.seeds) < statistics.MIN_SEEDS_FOR_P:
        notes.append(f"{_few_seeds(len(study.spec.seeds))} Intervals and each seed's value are shown, no p.")
    fewer = {arm: study.spec.seeds_of(arm) for arm in study.spec.arms if len(study.spec.seeds_of(arm)) < len(study.spec.seeds)}
    if fewer:
        says = ", ".join(f"{arm} {len(seeds)}" for arm, seeds in fewer.items())
        notes.append(f"Fewer seeds than the others' {len(study.spec.seeds)}: {says}. With one seed an interval is over scenarios only.")
    families = {row.family for row in study.rows.select(select(study.spec.primary))}
    if "far" in study.spec.primary.splits and len(families) == 1:
        notes.append(f"All scenarios of the primary contrast are of one family ({min(families)}): nothing is said of other families.")
    named = [*study.spec.primary.plus, *study.spec.primary.minus]
    fixed = [arm for arm in dict.fromkeys(named) if arm == "start" or all(row.seed == FIXED_SEED for row in study.rows if row.arm == arm)]
    cells = {arm: frozenset(cell.id for cell in study.cells if cell.arm == arm) for arm in named}
    for plus in study.spec.primary.plus:
        notes += [
            f"The arms {plus} and {minus} are one and the same model: what tells them apart is zero whatever is measured."
            for minus in study.spec.primary.minus
            if cells[plus] and cells[plus] == cells[minus]
        ]
    if 0 < len(fixed) < len(set(named)):
        notes.append(f"One model for all seeds: {', '.join(fixed)}. On that side of the primary contrast other trainings are not counted.")
    if any(corpus.startswith("oracle/") for stages in study.spec.arms.values() for stage in stages for corpus in stage.corpora):
        notes.append("The oracle is trained on other scenarios of the far families: a leak on purpose, to show that the measure can move.")
    said = say_missed(study.spec).items()
    return notes + [f"{LEFT_OUT[0] if arm in study.spec.without else LEFT_OUT[1]}: the arm {arm}. {missed}" for arm, missed in said]
