"""The tables of a study's part of the page: contrasts, arms, what is missing, effort, data."""

from __future__ import annotations

from collections.abc import Sequence

from teachwhy.records import ArmSummary, Contrast
from teachwhy.report.numbers import (
    ABSENT,
    MINUS,
    count_noun,
    format_count,
    format_interval,
    format_p,
    format_plain,
    format_range,
    format_signed,
)
from teachwhy.report.page import Block, Column, Prose, Table
from teachwhy.study.view import StudyView

ONE_SEED = "one seed: the interval is over scenarios only"
_MEASURES = (
    "harm",
    "harm, best to worst case",
    "harm on twins",
    "acted",
    "harm given acted",
    "margin",
    "margin on twins",
    "change from start",
    "95 % interval",
)


def draw_contrasts(view: StudyView) -> list[Block]:
    ordered = sorted(view.report.contrasts, key=lambda contrast: contrast.exploratory)
    if not ordered:
        return [Prose("No contrast could be computed.")]
    columns = _columns(
        "contrast",
        "",
        "on",
        "",
        "status",
        "",
        "difference",
        "measure",
        "95 % interval",
        "measure",
        "unit",
        "",
        "n scenarios",
        "n",
        "n seeds",
        "n",
    )
    columns += _columns("each seed", "measure", "p", "measure", "p (Holm)", "measure")
    rows = []
    for one in ordered:
        where = split_words(view, one.split) + ("" if one.reading == "direct" else f", {one.reading.replace('_', ' ')}")
        seeds = ", ".join(format_signed(value) for value in one.seed_values) or ABSENT
        p = format_p(one.p) if one.n_seeds >= 5 else "no p under 5 seeds"
        status = "exploratory" if one.exploratory else "primary"
        numbers = (
            format_signed(one.difference),
            format_interval(one.low, one.high),
            one.unit,
            format_count(one.n_scenarios),
            format_count(one.n_seeds),
        )
        rows.append((with_minus(one.name), where, status, *numbers, seeds, p, format_p(one.p_holm)))
    caption = "The primary contrast first; all others are exploratory." + _seed_note(ordered)
    return [Table(columns, tuple(rows), caption, strong=frozenset(i for i, one in enumerate(ordered) if not one.exploratory))]


def draw_arms(view: StudyView) -> list[Block]:
    arms = [arm for arm in view.report.arms if not is_goal(arm)]
    tables = [_arm_table(view, evaluation, [arm for arm in arms if arm.evaluation == evaluation]) for evaluation in _evaluations(arms)]
    return [*tables] if tables else [Prose("No arm was measured.")]


def draw_goals(view: StudyView) -> list[Block]:
    arms = [arm for arm in view.report.arms if is_goal(arm)]
    if not arms:
        return [Prose("Goal tasks are not part of this study.")]
    return [_arm_table(view, evaluation, [arm for arm in arms if arm.evaluation == evaluation]) for evaluation in _evaluations(arms)]


def _arm_table(view: StudyView, evaluation: str, arms: Sequence[ArmSummary]) -> Table:
    """Every measure with its n; the twin's beside it; columns that are empty throughout are left out."""
    twins = {(arm.arm, arm.split, arm.reading): arm for arm in arms if arm.twin}
    rows = []
    for arm in arms:
        if arm.twin and any(
            not other.twin and (other.arm, other.split, other.reading) == (arm.arm, arm.split, arm.reading) for other in arms
        ):
            continue
        twin = twins.get((arm.arm, arm.split, arm.reading)) if not arm.twin else None
        measures = (
            format_plain(arm.harm),
            format_range(arm.harm_low, arm.harm_high),
            format_plain(twin.harm if twin else None),
            format_plain(arm.acted),
            format_plain(arm.harm_given_acted),
            format_signed(arm.margin),
            format_signed(twin.margin if twin else None),
            format_signed(arm.margin_change),
            format_interval(arm.change_low, arm.change_high),
        )
        counts = (format_count(value) for value in (arm.n_scenarios, arm.n_seeds, arm.n_rows, arm.n_missing))
        rows.append(
            (arm.arm + (" (twins)" if arm.twin else ""), split_words(view, arm.split), arm.reading.replace("_", " "), *measures, *counts)
        )
    columns = _columns("arm", "", "on", "", "reading", "", *(part for title in _MEASURES for part in (title, "measure")))
    columns += _columns("n scenarios", "n", "n seeds", "n", "n rows", "n", "missing", "count")
    same_reading = len({row[2] for row in rows}) == 1
    kept = [
        i
        for i in range(len(columns))
        if not (i == 2 and same_reading) and (columns[i].kind != "measure" or any(row[i] != ABSENT for row in rows))
    ]
    words = ["Margins in nats."]
    if twins:
        words.append("Twins: the same scenarios without temptation, or with the goal turned.")
    if any(arm.n_missing for arm in arms):
        words.append("Best to worst case: what harm could be, whatever the missing rows are.")
    caption = f"{evaluation.replace('_', ' ').capitalize()}. " + " ".join(words) + _seed_note(arms)
    return Table(tuple(columns[i] for i in kept), tuple(tuple(row[i] for i in kept) for row in rows), caption)


def draw_missing(view: StudyView) -> list[Block]:
    report, total = view.report, sum(arm.n_rows for arm in view.report.arms)
    blocks: list[Block] = []
    lost = [cell for cell in report.cells if cell.state != "done"]
    if not view.missing_rows and not any(report.missing.values()) and not lost:
        return [Prose(f"Nothing: all {format_count(total)} rows were scored and all {count_noun(len(report.cells), 'cell')} finished.")]
    reasons = "; ".join(f"{name.replace('_', ' ')}: {format_count(n)}" for name, n in report.missing.items() if n)
    missing = sum(report.missing.values())
    blocks.append(Prose(f"{format_count(missing)} of {format_count(total)} rows have no score" + (f" ({reasons})." if reasons else ".")))
    if lost:
        columns = _columns("cell", "code", "kind", "", "arm", "", "seed", "", "state", "", "reason", "")
        cells = tuple(
            (cell.id, cell.kind, cell.arm, ABSENT if cell.seed is None else str(cell.seed), str(cell.state), cell.reason or ABSENT)
            for cell in lost
        )
        blocks.append(Table(columns, cells, "Cells that did not finish; their rows are not in any mean."))
    if view.missing_rows:
        columns = _columns("arm", "", "seed", "", "evaluation", "", "on", "", "status", "", "missing", "count", "of rows", "n")
        rows = tuple(
            (
                row.arm,
                str(row.seed),
                row.evaluation.replace("_", " "),
                split_words(view, row.split),
                row.status,
                format_count(row.n),
                format_count(row.total),
            )
            for row in view.missing_rows
        )
        blocks.append(
            Table(columns, rows, "Rows without a score. The table of arms shows what they could change: harm, best to worst case.")
        )
    return blocks


def draw_effort(view: StudyView) -> list[Block]:
    if not view.ledger:
        return [Prose("No arm was trained.")]
    columns = _columns("arm", "", "seed", "", "updates", "count", "rows", "count", "prompt tokens", "count", "supervised tokens", "count")
    rows = tuple(
        (row.arm, str(row.seed), *(format_count(n) for n in (row.updates, row.rows, row.prompt_tokens, row.supervised_tokens)))
        for row in view.ledger
    )
    low, high = min(row.supervised_tokens for row in view.ledger), max(row.supervised_tokens for row in view.ledger)
    spread = f" Most and fewest supervised tokens differ by {100 * (high - low) / high:.1f} %." if high else ""
    updates = {row.updates for row in view.ledger}
    equal = (
        "Every arm got the same number of updates." if len(updates) == 1 else f"Updates are not equal: {min(updates)} to {max(updates)}."
    )
    return [Prose(equal + spread), Table(columns, rows, "What each arm and seed was trained on, one row a training run.")]


def draw_data(view: StudyView) -> list[Block]:
    if not view.data_cards:
        return [Prose("No corpus was used.")]
    columns = _columns("corpus", "", "rows", "count", "tokens", "count", "licence", "", "about", "", "sha256", "code")
    rows = tuple(
        (card.name, format_count(card.rows), format_count(card.tokens), card.licence, card.about, card.sha256[:16])
        for card in view.data_cards
    )
    return [Table(columns, rows, "Tokens are counted with the built-in model's tokenizer.")]


def _columns(*pairs: str) -> tuple[Column, ...]:
    """Columns from titles and kinds in turn; an empty kind is text."""
    return tuple(Column(title, kind or "text") for title, kind in zip(pairs[::2], pairs[1::2], strict=True))  # type: ignore[arg-type]


def is_goal(arm: ArmSummary) -> bool:
    return arm.evaluation.startswith("goal")


def _evaluations(arms: Sequence[ArmSummary]) -> list[str]:
    return list(dict.fromkeys(arm.evaluation for arm in arms))


def split_words(view: StudyView, split: str) -> str:
    return view.split_labels.get(split, split)


def with_minus(name: str) -> str:
    return name.replace(" - ", f" {MINUS} ")


def count_n(n_scenarios: int, n_seeds: int) -> str:
    return f"{count_noun(n_scenarios, 'scenario')}, {ONE_SEED if n_seeds == 1 else count_noun(n_seeds, 'seed')}"


def _seed_note(items: Sequence[Contrast] | Sequence[ArmSummary]) -> str:
    return f" Where n seeds is 1, {ONE_SEED}." if any(item.n_seeds == 1 for item in items) else ""
