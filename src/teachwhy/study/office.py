"""What a study's page says of office runs: by family, by factor, and where the mechanical reading and judges differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from teachwhy.outcomes import JUDGES
from teachwhy.records import Outcome
from teachwhy.report.numbers import ABSENT, format_count, format_interval, format_plain
from teachwhy.report.page import Block, Callout, Column, Prose, Table
from teachwhy.statistics import corrected_rate
from teachwhy.study.view import OfficeView, StudyView

MOST_LISTED = 40
"""Disagreements that a page lists; all of them are counted."""


def draw_office(view: StudyView) -> list[Block]:
    """Nothing where no office was met."""
    if view.office is None:
        return []
    rows = [row for row in view.office.rows if row.reading == "office"]
    says = "Each run is one agent in one simulated office, read by what it did. Harm that was done before a run died or was cut off counts;"
    says += " what such a run had not done is unknown and in the bounds. Intervals are over scenarios."
    blocks: list[Block] = [Prose(says), _by_family(rows), _by_factor(rows)]
    return [*blocks, *_judged(view.office)]


def _rate(rows: Sequence[Outcome], value: Callable[[Outcome], float | None]) -> str:
    """A share with its interval over scenarios, of the rows that have one."""
    held = [(share, row.scenario) for row in rows if (share := value(row)) is not None]
    if not held:
        return ABSENT
    found = corrected_rate([one for one, _ in held], [None] * len(held), [1.0] * len(held), [scenario for _, scenario in held])
    return f"{format_plain(found.estimate)} ({format_interval(found.low, found.high)})"


def _bounds(rows: Sequence[Outcome]) -> str:
    """Harm, if nothing and if all of what was not read had been harmful."""
    known = sum(row.harm or 0.0 for row in rows)
    unknown = sum(row.harm is None for row in rows)
    return format_interval(known / len(rows), (known + unknown) / len(rows)) if unknown else ABSENT


def _by_family(rows: Sequence[Outcome]) -> Block:
    found = []
    for arm in dict.fromkeys(row.arm for row in rows):
        for family in [*sorted({row.family for row in rows}), ""]:
            for twin in (False, True):
                held = [row for row in rows if row.arm == arm and row.twin is twin and family in ("", row.family)]
                if not held:
                    continue
                good = sum(row.label == "admirable" for row in held)
                statuses = [sum(row.status == status for row in held) for status in ("truncated", "overrun", "dead", "unscored")]
                found.append((
                    arm, family.replace("_", " ") or "all", "twins" if twin else "scenarios", _rate(held, lambda row: row.harm),
                    _bounds(held),
                    _rate(held, lambda row: row.acted), _rate(held, lambda row: row.success), format_count(good),
                    format_count(sum(row.invalid_calls or 0 for row in held)), " / ".join(map(str, statuses)),
                    format_count(sum(bool(row.aware) for row in held)), format_count(len(held)),
                ))  # fmt: skip
    names = ("arm", "family", "", "harm", "harm, best to worst case", "acted", "errand done", "admirable", "calls refused",
             "cut off / overrun / dead / unscored", "said that it is a test", "n runs")  # fmt: skip
    kinds = ("", "", "", *["measure"] * 4, *["count"] * 2, "measure", "count", "n")
    columns = tuple(Column(name, kind) for name, kind in zip(names, kinds, strict=True))  # type: ignore[arg-type]
    return Table(columns, tuple(found), "Office runs by family; twins are the same without temptation.")


def _by_factor(rows: Sequence[Outcome]) -> Block:
    found = []
    for place, factor in enumerate(("conflict of goals", "threat to the agent", "the agent's name")):
        levels = sorted({row.factors.split("/")[place] for row in rows if row.factors.count("/") == 2})
        for level in levels:
            for arm in dict.fromkeys(row.arm for row in rows):
                held = [row for row in rows if row.arm == arm and not row.twin and row.factors.split("/")[place : place + 1] == [level]]
                if held:
                    found.append((factor, level, arm, _rate(held, lambda row: row.harm), format_count(len(held))))
    columns = (Column("factor", "wide"), Column("level"), Column("arm"), Column("harm", "measure"), Column("n runs", "n"))
    return Table(columns, tuple(found), "Harm by the factors of the design, scenarios alone; exploratory.")


def _judged(office: OfficeView) -> list[Block]:
    """Judges beside the mechanical reading: agreement, then each run on which they differ."""
    mechanical = {(row.cell, row.sample_id, row.repeat): row for row in office.rows if row.reading == "office"}
    found, differ = [], []
    for role in JUDGES:
        for arm in dict.fromkeys(row.arm for row in office.rows if row.reading == role):
            rows = [row for row in office.rows if row.reading == role and row.arm == arm]
            pairs = [(mechanical[key], row) for row in rows if (key := (row.cell, row.sample_id, row.repeat)) in mechanical]
            read = [(one, other) for one, other in pairs if one.harm is not None and other.harm is not None]
            odd = [(one, other) for one, other in read if one.harm != other.harm]
            unread = sum(row.harm is None for row in rows)
            counts = (sum(one.harm == 1 for one, _ in odd), sum(one.harm == 0 for one, _ in odd), unread, len(rows))
            found.append((role, office.judges.get(role, ""), arm, _rate(rows, lambda row: row.harm), *map(format_count, counts)))
            differ += [(role, arm, one.scenario, one.label, other.label, f"{one.log}, {one.sample_id}") for one, other in odd]
    if not found:
        return [Callout("note", "No judge read these runs: the mechanical reading stands alone. Add judges: [MODEL] under office.")]
    names = ("role", "judge", "arm", "harm, by the judge", "mechanical alone says harm", "judge alone says harm", "unscored", "n runs")
    kinds = ("", "wide", "", "measure", "count", "count", "count", "n")
    blocks: list[Block] = [
        Callout("note", f"The judge {judge} reads runs of its own: judges favour themselves.") for judge in office.own_judges
    ]
    blocks.append(Table(tuple(Column(name, kind) for name, kind in zip(names, kinds, strict=True)), tuple(found),  # type: ignore[arg-type]
                        "Judges beside the mechanical reading, which is the one that is reported."))  # fmt: skip
    if differ:
        columns = tuple(Column(name, "wide" if name in ("scenario", "log and sample") else "text")
                        for name in ("role", "arm", "scenario", "mechanical", "judge", "log and sample"))  # fmt: skip
        more = f" The first {MOST_LISTED} of {len(differ)}." if len(differ) > MOST_LISTED else ""
        blocks.append(Table(columns, tuple(differ[:MOST_LISTED]), f"Where they differ: open the log with inspect view.{more}"))
    return blocks
