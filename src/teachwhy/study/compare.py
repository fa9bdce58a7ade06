"""Two runs side by side, and a run's contrasts as a table for other programs."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from teachwhy.records import Contrast, StudyReport
from teachwhy.study.gather import read_run
from teachwhy.study.schema import StudySpec

COLUMNS = (
    "name", "evaluation", "split", "reading", "unit", "difference", "low", "high", "p", "p_holm", "n_scenarios", "n_families", "n_seeds",
    "exploratory",
)  # fmt: skip


def contrast_rows(run_dir: Path) -> list[dict[str, Any]]:
    """A run's contrasts, the primary first."""
    _, report, _ = read_run(run_dir)
    ordered = sorted(report.contrasts, key=lambda one: one.exploratory)
    return [{column: getattr(one, column) for column in COLUMNS} for one in ordered]


def render_table(rows: list[dict[str, Any]], format_: str) -> str:
    """As `csv`, `json` or `latex` (a tabular for booktabs, numbers to two places)."""
    if format_ == "json":
        return json.dumps(rows, indent=2, ensure_ascii=False)
    if format_ == "csv":
        out = io.StringIO()
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: "" if value is None else value for key, value in row.items()} for row in rows)
        return out.getvalue().rstrip("\n")
    lines = [r"\begin{tabular}{llrrr}", r"\toprule", r"contrast & on & difference & 95\,\% interval & $p$ (Holm) \\", r"\midrule"]
    for row in rows:
        p = "--" if row["p_holm"] is None else f"{row['p_holm']:.3f}"
        numbers = f"${row['difference']:+.2f}$ & ${row['low']:+.2f}$ to ${row['high']:+.2f}$ & {p}"
        lines.append(rf"{_escape(row['name'])} & {_escape(row['split'])} & {numbers} \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def _escape(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(letter, f"\\{letter}" if letter in "&%$#_{}" else letter) for letter in text)


def compare_runs(one: Path, other: Path) -> list[tuple[str, str, str]]:
    """(what, of the first run, of the second): answers, settings that differ, contrasts that both have."""
    (spec_a, report_a, plan_a), (spec_b, report_b, plan_b) = read_run(one), read_run(other)
    rows = [("study", spec_a.name, spec_b.name), ("answer", report_a.answer.verdict, report_b.answer.verdict)]
    settings = spec_a.settings.model_dump(), spec_b.settings.model_dump()
    rows += [(f"settings.{key}", str(value), str(settings[1][key])) for key, value in settings[0].items() if settings[1][key] != value]
    for what, a, b in (
        ("start", spec_a.start.model, spec_b.start.model),
        ("seeds", ", ".join(map(str, spec_a.seeds)), ", ".join(map(str, spec_b.seeds))),
        ("arms", ", ".join(spec_a.names), ", ".join(spec_b.names)),
        *_evaluations(spec_a, spec_b),
        *((f"corpora of {arm}", _corpora(spec_a, arm), _corpora(spec_b, arm)) for arm in spec_a.names if arm in spec_b.names),
        ("primary", _say_primary(spec_a), _say_primary(spec_b)),
        ("study and data", str(plan_a["study"])[:16], str(plan_b["study"])[:16]),
    ):
        if a != b:
            rows.append((what, a, b))
    return rows + _shared_contrasts(report_a, report_b)


def _evaluations(one: StudySpec, other: StudySpec) -> list[tuple[str, str, str]]:
    held = [{each.label: each.model_dump(exclude_defaults=True, exclude={"name"}) for each in spec.evaluations} for spec in (one, other)]
    said = [{label: _plainly(each) or "as it comes" for label, each in one.items()} for one in held]
    return [(f"evaluation {label}", said[0].get(label, "none"), said[1].get(label, "none")) for label in said[0] | said[1]]


def _plainly(value: Any) -> str:
    """A setting in words: `limit near 6, far 8; updates 10, 20`."""
    if isinstance(value, dict):
        parted = "; " if any(isinstance(part, dict | list | tuple) for part in value.values()) else ", "
        return parted.join(f"{name} {_plainly(part)}" for name, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plainly, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _corpora(spec: StudySpec, arm: str) -> str:
    return ", ".join(f"{name} {share:g}" for stage in spec.arms.get(arm, ()) for name, share in stage.corpora.items()) or "from outside"


def _say_primary(spec: StudySpec) -> str:
    one = spec.primary
    return f"{' + '.join(one.plus)} - {' - '.join(one.minus)}, {one.evaluation} by {one.reading} {one.measure}, {' + '.join(one.splits)}"


def _shared_contrasts(one: StudyReport, other: StudyReport) -> list[tuple[str, str, str]]:
    held = {_key(row): row for row in other.contrasts}
    rows = []
    for row in sorted(one.contrasts, key=lambda row: row.exploratory):
        twin = held.get(_key(row))
        if twin is not None:
            rows.append((f"{row.name} [{row.split}]", _say_contrast(row), _say_contrast(twin)))
    return rows or [("contrasts", "none is of the same arms,", "evaluation, split and reading")]


def _key(one: Contrast) -> tuple[object, ...]:
    """What a contrast is of, however it is called; those of the study's own (near less far, less twins) are told by their names' ends."""
    return tuple(sorted(one.a)), tuple(sorted(one.b)), one.evaluation, one.split, one.reading, one.unit, one.name.partition(": ")[2]


def _say_contrast(one: Contrast) -> str:
    return f"{one.difference:+.2f} {one.unit} ({one.low:+.2f} to {one.high:+.2f}), {one.n_scenarios} scenarios, {one.n_seeds} seeds"
