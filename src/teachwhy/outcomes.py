"""Logs to outcome rows to tables that statistics.py can take."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, overload

import numpy as np
from numpy.typing import NDArray

from teachwhy.errors import UserError
from teachwhy.files import write_csv
from teachwhy.judges.verdict import ROLES
from teachwhy.office.reading import read_office
from teachwhy.office.scenes import name_cell, scene_of
from teachwhy.office.state import Office
from teachwhy.records import Outcome, Reading, Status

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample

Floats = NDArray[np.float64]
COLUMNS = list(Outcome.model_fields)
JUDGES = ROLES
"""Readings that are a judge's: each is called by its role."""
OPTIONAL = ("harm", "acted", "margin", "success", "invalid_calls", "aware")
"""Columns that may be empty."""
FIXED_SEED = -1
"""Of an arm that has one model for all seeds of a study."""


def read_log(log: EvalLog, *, cell: str, arm: str, seed: int, update: int) -> list[Outcome]:
    """One row for every sample of a log, and of an office run one more for every judge; `dead` where it ended in an error, `overrun`
    where it met a limit."""
    name = log.eval.task.rpartition("/")[2]
    rows = []
    for sample in log.samples or []:
        about = sample.metadata
        reading: Reading = about.get("reading", "direct")
        shared = {
            "cell": cell, "arm": arm, "seed": seed, "update": update, "evaluation": name, "version": about["version"],
            "split": about["split"],
            "family": about["family"], "scenario": about["scenario"], "fill": about["fill"], "twin": about["twin"],
            "repeat": about.get("repeat", sample.epoch - 1), "log": Path(log.location).name, "sample_id": str(sample.id),
        }  # fmt: skip
        if reading == "office":
            rows += [Outcome.model_validate({**shared, **row}) for row in _read_office(sample)]
            continue
        harm, acted, margin, status = _read_score(sample, reading)
        rows.append(
            Outcome.model_validate({**shared, "reading": reading, "harm": harm, "acted": acted, "margin": margin, "status": status})
        )
    return rows


def _read_office(sample: EvalSample) -> Iterator[dict[str, Any]]:
    """The mechanical reading, then those of judges. Of a run that did not come to its end nothing is read, so that what is missing does not
    depend on what was done; its label says `harmful` where harm had been done by then, which bounds know."""
    scores, about = sample.scores or {}, sample.metadata
    blank = {"reading": "office", "form": "office", "factors": name_cell(about), "harm": None, "acted": None, "margin": None}
    found = scores.get("office_scorer")
    if found is None:
        status = "dead" if sample.error is not None else "unscored"
        yield {**blank, "status": status, "label": "harmful" if _had_harmed(sample) else ""}
        return
    value, held = cast("dict[str, Any]", found.value), found.metadata or {}
    harm, acted, success = (_number(value[name]) for name in ("harm_twins" if about["twin"] else "harm", "acted", "success"))
    status = "overrun" if sample.limit is not None and held.get("status") != "ok" else held.get("status", "unscored")
    label = held.get("label", "")
    known = status == "ok"
    yield {
        **blank, "harm": harm if known else None, "acted": acted if known else None, "status": status,
        "label": label if known or label == "harmful" else "", "success": success if known else None,
        "invalid_calls": held.get("invalid_calls"), "aware": float(bool(held.get("mentions_test"))),
    }  # fmt: skip
    for score in scores.values():
        one = score.metadata or {}
        if (role := one.get("role")) in JUDGES:
            harm = _number(cast("dict[str, Any]", score.value)["judge_harm"]) if known else None
            label = str(score.answer) if harm is not None else str(one.get("reason", "run not at its end"))
            judged = {"judge": str(one.get("judge", "")), "judges_itself": bool(one.get("is_subject"))}
            yield {**blank, **judged, "reading": role, "harm": harm, "label": label, "status": "unscored" if harm is None else "ok"}


def _had_harmed(sample: EvalSample) -> bool:
    """Whether the deeds of a run that died, as far as the log holds them, were harmful."""
    held = (sample.store or {}).get("office")
    if not held:
        return False
    scene = scene_of(sample.metadata, str(sample.store.get("agent") or ""))
    return read_office(scene, Office.model_validate(held)).label == "harmful"


def _read_score(sample: EvalSample, reading: Reading) -> tuple[float | None, float | None, float | None, Status]:
    if sample.error is not None:
        return None, None, None, "dead"
    if sample.limit is not None:
        return None, None, None, "overrun"
    if not sample.scores:
        return None, None, None, "unscored"
    value: Any = next(iter(sample.scores.values())).value
    margin, acted, harm = (_number(value[name]) for name in ("margin", "acted", "harm"))
    if acted is None or (margin is None and reading != "text"):
        return None, None, None, "invalid"
    return harm, acted, margin, "ok"


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(float(value)) else float(value)


def write_outcomes(path: Path, rows: Iterable[Outcome]) -> None:
    """outcomes.csv: one row an outcome."""
    write_csv(path, COLUMNS, rows)


def read_outcomes(path: Path) -> list[Outcome]:
    """The rows of an outcomes.csv. Raises UserError with the line."""
    if not path.is_file():
        raise UserError("there are no outcomes here", where=str(path), hint="Type: teachwhy study run STUDY")
    try:
        return list(_parse_outcomes(path))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"the file is no CSV in UTF-8: {error}", where=str(path)) from None


def _parse_outcomes(path: Path) -> Iterator[Outcome]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        for raw in reader:
            if None in raw.values() or None in raw:
                raise UserError(f"line {reader.line_num} is no outcome: it has another number of columns", where=str(path))
            value: dict[str, Any] = {key: (None if text == "" and key in OPTIONAL else text) for key, text in raw.items()}
            try:
                yield Outcome.model_validate(value)
            except ValueError as error:
                raise UserError(f"line {reader.line_num} is no outcome: {error}", where=str(path)) from None


class Selection(NamedTuple):
    """Which outcomes a number is about."""

    evaluation: str
    splits: tuple[str, ...]
    twin: bool = False
    reading: Reading = "direct"
    measure: Literal["margin", "harm"] = "margin"

    def holds(self, row: Outcome) -> bool:
        """Whether an outcome belongs here."""
        return (row.evaluation, row.reading, row.twin) == (self.evaluation, self.reading, self.twin) and row.split in self.splits


class Outcomes(Sequence[Outcome]):
    """Rows in their order, found by selection and arm without a walk through all of them."""

    def __init__(self, rows: Iterable[Outcome]) -> None:
        self._rows = tuple(rows)
        self._groups: dict[tuple[str, str, bool, str], dict[str, list[Outcome]]] = {}
        for row in self._rows:
            group = self._groups.setdefault((row.evaluation, row.reading, row.twin, row.split), {})
            group.setdefault(row.arm, []).append(row)

    @classmethod
    def of(cls, rows: Sequence[Outcome]) -> Outcomes:
        """These rows, with an index if they have none yet."""
        return rows if isinstance(rows, cls) else cls(rows)

    def select(self, selection: Selection, arm: str | None = None) -> Iterator[Outcome]:
        """The rows of a selection, of one arm or of all."""
        for split in dict.fromkeys(selection.splits):
            group = self._groups.get((selection.evaluation, selection.reading, selection.twin, split), {})
            for name in group if arm is None else (arm,):
                yield from group.get(name, ())

    @overload
    def __getitem__(self, place: int) -> Outcome: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Outcome]: ...
    def __getitem__(self, place: int | slice) -> Outcome | Sequence[Outcome]:
        return self._rows[place]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self._rows)


def measure_table(
    rows: Sequence[Outcome],
    selection: Selection,
    arm: str,
    seeds: Sequence[int],
    scenarios: Sequence[str],
    missing: float = math.nan,
) -> Floats:
    """An arm's measure (margins in nats, or harm in [0, 1]), n_seeds x n_scenarios: means over the fills and repeats that were read, NaN
    where none was. missing: a value for every row that was not read, which then counts.

    Of a text that shows its options in every order, a fill is read when all its orders were: with some of them alone, a model that likes
    a letter would look as if it liked an action. The start, and an arm of FIXED_SEED, has no seed of its own: its one row stands for every
    seed. Seeds that are not asked for are left out.
    """
    return _means(rows, selection, arm, seeds, {name: column for column, name in enumerate(scenarios)}, missing, lambda row: row.scenario)


def _means(
    rows: Sequence[Outcome],
    selection: Selection,
    arm: str,
    seeds: Sequence[int],
    places: Mapping[Any, int],
    missing: float,
    unit_of: Callable[[Outcome], Any],
) -> Floats:
    """As `measure_table`, over any units of rows: unit -> column."""
    sums, counts = np.zeros((len(seeds), len(places))), np.zeros((len(seeds), len(places)))
    held = list(Outcomes.of(rows).select(selection, arm))
    partial = {(row.seed, row.scenario, row.fill) for row in held if selection.reading == "text" and _measure(row, selection) is None}
    for row in held:
        value = _measure(row, selection)
        fixed = arm == "start" or row.seed == FIXED_SEED
        if value is None or (math.isnan(missing) and (row.seed, row.scenario, row.fill) in partial):
            value = 1.0 if row.label == "harmful" and not math.isnan(missing) else missing  # harm that was done before a run was cut off
        if math.isnan(value) or not (fixed or row.seed in seeds):
            continue
        which = slice(None) if fixed else seeds.index(row.seed)
        sums[which, places[unit_of(row)]] += value
        counts[which, places[unit_of(row)]] += 1
    with np.errstate(invalid="ignore"):
        return np.where(counts > 0, sums / counts, missing)


def _measure(row: Outcome, selection: Selection) -> float | None:
    return row.margin if selection.measure == "margin" else row.harm


class ContrastTable(NamedTuple):
    """Contrasted measures, paired by seed, scenario and fill."""

    values: Floats
    """n_seeds x n_scenarios."""
    families: tuple[str, ...]
    """Of the scenarios."""
    scenarios: tuple[str, ...] = ()
    ends: tuple[ContrastTable, ContrastTable] | None = None
    """Where something was not read: the table of all scenarios if all of it had been as low, and as high, as could be. Harm lies in [0, 1],
    so these give bounds (Manski 1990, "Nonparametric bounds on treatment effects"). A margin has no ends: the lowest and the highest
    contrast of one seed and fill that was read stand for each that was not, which is a range that was seen and no bound."""
    fixed: bool = False
    """Whether every arm has one model for all seeds, so that nothing here is about other trainings."""
    reach: int = 1
    """The most that a contrast of harm can be."""

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The contrast at its ends."""
        return (float(self.ends[0].values.mean()), float(self.ends[1].values.mean())) if self.ends else None


def contrast_table(
    rows: Sequence[Outcome], selection: Selection, plus: Sequence[str], minus: Sequence[str], seeds: Sequence[int]
) -> ContrastTable:
    """Sum of the arms of `plus` less those of `minus`.

    A fill of a scenario that an arm of the contrast lacks under some seed is left out of all of them, and a scenario without a fill that
    all have; `bounds` says what they could change. Where every arm has one model for all seeds, there is one row: what was done once is
    not counted as often as there are seeds.
    """
    rows = Outcomes.of(rows)
    family = {row.scenario: row.family for row in rows.select(selection)}
    units = {unit: place for place, unit in enumerate(sorted({(row.scenario, row.fill) for row in rows.select(selection)}))}
    arms = (*plus, *minus)
    fixed = all(arm == "start" or all(row.seed == FIXED_SEED for row in rows.select(selection, arm)) for arm in arms)
    seeds = seeds[:1] if fixed else seeds
    reach = max(len(plus), len(minus))

    def unit_of(row: Outcome) -> tuple[str, int]:
        return row.scenario, row.fill

    def contrast(missing_plus: float, missing_minus: float) -> Floats:
        table = np.zeros((len(seeds), len(units)))
        for arm in plus:
            table += _means(rows, selection, arm, seeds, units, missing_plus, unit_of)
        for arm in minus:
            table -= _means(rows, selection, arm, seeds, units, missing_minus, unit_of)
        return table

    def by_scenario(table: Floats, kept: NDArray[np.bool_]) -> ContrastTable:
        columns: dict[str, list[int]] = {}
        for (scenario, _), place in units.items():
            if kept[place]:
                columns.setdefault(scenario, []).append(place)
        values = np.array([table[:, places].mean(axis=1) for places in columns.values()]).T if columns else np.zeros((len(seeds), 0))
        return ContrastTable(values, tuple(family[name] for name in columns), tuple(columns), None, fixed, reach)

    table = contrast(math.nan, math.nan)
    whole = np.asarray(~np.isnan(table).any(axis=0))
    lost = not whole.all() or any(_measure(row, selection) is None for arm in arms for row in rows.select(selection, arm))
    every, ends = np.ones(len(units), dtype=bool), None
    if lost and selection.measure == "harm" and units:
        ends = by_scenario(contrast(0.0, 1.0), every), by_scenario(contrast(1.0, 0.0), every)
    elif lost and not np.isnan(table).all():
        low, high = (by_scenario(np.where(np.isnan(table), end, table), every) for end in (np.nanmin(table), np.nanmax(table)))
        ends = low, high
    return by_scenario(table, whole)._replace(ends=ends)
