"""What a study's page says of office runs: by family, by factor, and where the mechanical reading and judges differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import get_args

from teachwhy.office.scenes import Label
from teachwhy.outcomes import JUDGES
from teachwhy.records import Outcome
from teachwhy.report.numbers import ABSENT, format_count, format_plain, format_range
from teachwhy.report.page import Block, Callout, Column, Details, Prose, Table, Transcript
from teachwhy.statistics import corrected_rate
from teachwhy.study.view import DisputeView, OfficeView, StudyView

MOST_LISTED = 40
"""Disagreements that a page lists; all of them are counted."""


def draw_office(view: StudyView) -> list[Block]:
    """Nothing where no office was met."""
    if view.office is None:
        return []
    rows = [row for row in view.office.rows if row.reading == "office"]
    says = "Each run is one agent in one simulated office, read by what it did. Runs that died or were cut off are missing whatever they "
    says += "had done by then, so that what is missing does not depend on harm; the bounds know of harm that was done. Intervals are over "
    says += "scenarios."
    blocks: list[Block] = [Prose(says), _by_family(rows), _counts(rows), _by_factor(rows)]
    return [*blocks, *_corrected(view.office), *_judged(view.office)]


def _corrected(office: OfficeView) -> list[Block]:
    """Rates by a person's labels beside the raw ones."""
    if not office.rates:
        return []
    rows = tuple(
        (one.arm, "twins" if one.twin else "scenarios", *(f"{format_plain(part.estimate)} ({format_range(part.low, part.high)})"
         for part in (one.raw, one.corrected)), format_count(one.n_labelled), format_count(one.n_wrong), format_count(one.n))
        for one in office.rates
    )  # fmt: skip
    columns = (
        Column("arm"), Column(""), Column("harm as read", "measure"), Column("corrected", "measure"), Column("labelled", "count"),
        Column("labels differ", "count"), Column("n runs", "n"),
    )  # fmt: skip
    caption = "Harm as it was read, and as labels by a person, blind to arms, correct it (docs/evaluations.md, Judges)."
    return [Table(columns, rows, caption)]


def _rate(rows: Sequence[Outcome], value: Callable[[Outcome], float | None]) -> str:
    """A share with its interval over scenarios, of the rows that have one."""
    held = [(share, row.scenario) for row in rows if (share := value(row)) is not None]
    if not held:
        return ABSENT
    found = corrected_rate([one for one, _ in held], [None] * len(held), [1.0] * len(held), [scenario for _, scenario in held])
    return f"{format_plain(found.estimate)} ({format_range(found.low, found.high)})"


def _bounds(rows: Sequence[Outcome]) -> str:
    """Harm, if nothing and if all of what was not read had been harmful."""
    done = sum(row.harm is None and row.label == "harmful" for row in rows)  # before the run was cut off
    known = sum(row.harm or 0.0 for row in rows) + done
    unknown = sum(row.harm is None for row in rows) - done
    return format_range(known / len(rows), (known + unknown) / len(rows)) if unknown + done else ABSENT


def _groups(rows: Sequence[Outcome], families: Sequence[str]) -> Iterator[tuple[tuple[str, str, str], list[Outcome]]]:
    """Runs of each arm and family ("": all), scenarios and twins apart, with their names."""
    for arm in dict.fromkeys(row.arm for row in rows):
        for family in families:
            for twin in (False, True):
                held = [row for row in rows if row.arm == arm and row.twin is twin and family in ("", row.family)]
                if held:
                    yield (arm, family.replace("_", " ") or "all", "twins" if twin else "scenarios"), held


def _by_family(rows: Sequence[Outcome]) -> Block:
    found = [
        (*names, _rate(held, lambda row: row.harm), _bounds(held), _rate(held, lambda row: row.acted), _rate(held, lambda row: row.success),
         format_count(len(held)))
        for names, held in _groups(rows, [*sorted({row.family for row in rows}), ""])
    ]  # fmt: skip
    columns = (
        Column("arm"), Column("family"), Column(""), Column("harm", "measure"), Column("harm, best to worst case", "measure"),
        Column("acted", "measure"), Column("errand done", "measure"), Column("n runs", "n"),
    )  # fmt: skip
    return Table(columns, tuple(found), "Office runs by family; twins are the same without temptation. In brackets 95 % intervals.")


_ENDS = ("truncated", "overrun", "dead", "unscored")


def _counts(rows: Sequence[Outcome]) -> Block:
    found = [
        (arm, kind, *(format_count(sum(row.label == label and row.status == "ok" for row in held)) for label in get_args(Label)),
         *(format_count(sum(row.status == status for row in held)) for status in _ENDS),
         format_count(sum(row.invalid_calls or 0 for row in held)), format_count(sum(bool(row.aware) for row in held)),
         format_count(len(held)))
        for (arm, _, kind), held in _groups(rows, [""])
    ]  # fmt: skip
    names = (*get_args(Label), *_ENDS, "calls refused", "said it is a test")
    columns = (Column("arm"), Column(""), *(Column(name, "count") for name in names), Column("n runs", "n"))
    caption = "How runs ended. Overrun: its turns, its context or its time were at an end; dead: the provider's error."
    return Table(columns, tuple(found), caption)


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


def find_disputes(rows: Sequence[Outcome]) -> list[tuple[Outcome, Outcome]]:
    """(mechanical reading, judge's reading) of the runs on which they differ: by judge, by arm, in the order of the log."""
    mechanical = {(row.cell, row.sample_id, row.repeat): row for row in rows if row.reading == "office"}
    places = {arm: place for place, arm in enumerate(dict.fromkeys(row.arm for row in rows))}
    judged = sorted((row for row in rows if row.reading in JUDGES), key=lambda row: (JUDGES.index(row.reading), places[row.arm]))
    pairs = [(mechanical[key], row) for row in judged if (key := (row.cell, row.sample_id, row.repeat)) in mechanical]
    return [(one, other) for one, other in pairs if one.harm is not None and other.harm is not None and one.harm != other.harm]


def _judged(office: OfficeView) -> list[Block]:
    """Judges beside the mechanical reading: agreement, then each run on which they differ."""
    disputes = find_disputes(office.rows)
    found = []
    for role in JUDGES:
        for arm in dict.fromkeys(row.arm for row in office.rows if row.reading == role):
            rows = [row for row in office.rows if row.reading == role and row.arm == arm]
            odd = [(one, other) for one, other in disputes if (other.reading, other.arm) == (role, arm)]
            unread = sum(row.harm is None for row in rows)
            counts = (sum(one.harm == 1 for one, _ in odd), sum(one.harm == 0 for one, _ in odd), unread, len(rows))
            found.append(
                (
                    role,
                    ", ".join(dict.fromkeys(row.judge for row in rows if row.judge)),
                    arm,
                    _rate(rows, lambda row: row.harm),
                    *map(format_count, counts),
                )
            )
    if not found:
        return [Callout("note", "No judge read these runs: the mechanical reading stands alone. Add judges: [MODEL] under office.")]
    names = ("role", "judge", "arm", "harm, by the judge", "mechanical alone says harm", "judge alone says harm", "unscored", "n runs")
    kinds = ("", "wide", "", "measure", "count", "count", "count", "n")
    blocks: list[Block] = [
        Callout("note", f"The judge {judge} reads runs of its own: judges favour themselves.") for judge in office.own_judges
    ]
    blocks.append(Table(tuple(Column(name, kind) for name, kind in zip(names, kinds, strict=True)), tuple(found),  # type: ignore[arg-type]
                        "Judges beside the mechanical reading, which is the one that is reported."))  # fmt: skip
    if disputes:
        columns = (Column("role"), Column("arm"), Column("run", "wide"), Column("mechanical"), Column("judge"))
        differ = tuple((other.reading, one.arm, one.sample_id, one.label, other.label) for one, other in disputes)
        more = f" The first {MOST_LISTED} of {len(differ)}." if len(differ) > MOST_LISTED else ""
        blocks.append(Table(columns, differ[:MOST_LISTED], f"Runs on which they differ, by judge and arm.{more}"))
        blocks += [_dispute(one) for one in office.disputes]
        logs = dict.fromkeys(f"{row.arm}: cells/office-{row.cell}/logs/{row.log}" for row in office.rows)
        rest = "The others are" if len(office.disputes) < len(differ) else "All of a run is"
        blocks.append(Prose(f"{rest} in the logs: inspect view --log-dir, with the folder of the arm's log. {'; '.join(logs)}."))
    return blocks


def _dispute(one: DisputeView) -> Block:
    return Details(one.title, (Transcript((*one.reads.items(), ("What was done", one.deeds))),))
