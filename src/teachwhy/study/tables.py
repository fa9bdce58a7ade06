"""The tables of a study's part of the page: contrasts, arms, what is missing, effort, data."""

from __future__ import annotations

import re
from collections.abc import Sequence

from teachwhy.records import ArmSummary, Contrast, UpdateSummary
from teachwhy.report.charts import Line, Tint, draw_lines
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

INTERVAL = "95\u00a0% interval"
ONE_SEED = "one seed: the interval is over scenarios only"
_CONTROLS = ("start", "base", "none", "neutral", "bare", "filler", "repeat", "shuffled")
_MEASURES = (
    "harm",
    "harm, best to worst case",
    "harm on twins",
    "acted",
    "harm given acted",
    "margin",
    "margin on twins",
    "change from start",
    INTERVAL,
)


def draw_contrasts(view: StudyView) -> list[Block]:
    ordered = sorted(view.report.contrasts, key=lambda contrast: contrast.exploratory)
    if not ordered:
        return [Prose("No contrast could be computed.")]
    units = {one.unit for one in ordered}
    unit = f", {units.pop()}" if len(units) == 1 else ""
    tested = any(one.p is not None for one in ordered)
    bounded = any(one.lowest is not None for one in ordered)
    rows = []
    for one in ordered:
        where = split_words(view, one.split) + ("" if one.reading == "direct" else f", {one.reading.replace('_', ' ')}")
        seeds = ", ".join(format_signed(value) for value in one.seed_values) or ABSENT
        difference = format_signed(one.difference) + ("" if unit else f" {one.unit}")
        numbers = (difference, format_interval(one.low, one.high), seeds, format_count(one.n_scenarios), format_count(one.n_seeds))
        tests = (format_p(one.p), format_p(one.p_holm)) if tested else ()
        worst = (format_interval(one.lowest, one.highest),) if bounded else ()
        rows.append((with_minus(one.name), where, *numbers, *tests, *worst, "exploratory" if one.exploratory else "primary"))
    columns = _columns("contrast", "wide", "on", "wide", f"difference{unit}", "measure", INTERVAL, "measure")
    columns += _columns("each seed", "measure", "n scenarios", "n", "n seeds", "n")
    columns += _columns("p", "measure", "p (Holm)", "measure") if tested else ()
    columns += _columns("if the missing were extreme", "measure") if bounded else ()
    columns += _columns("status", "text")
    caption = "The primary contrast first; all others are exploratory." + _seed_note(ordered)
    if any(one.name.endswith(": scenarios less twins") for one in ordered):
        caption += " Scenarios less twins: what is left of the primary when that on the same situations without temptation is taken off."
    caption += " No p under 5 seeds." if any(one.n_seeds < 5 for one in ordered) else ""
    if bounded:
        caption += " If the missing were extreme: harm 0 or 1; of margins the lowest, or the highest, difference of one seed and scenario"
        caption += " that was read, which is no bound."
    return [Table(columns, tuple(rows), caption, strong=frozenset(i for i, one in enumerate(ordered) if not one.exploratory))]


def draw_arms(view: StudyView) -> list[Block]:
    return _arm_tables(view, [arm for arm in view.report.arms if not is_goal(arm)]) or [Prose("No arm was measured.")]


def draw_updates(view: StudyView) -> list[Block]:
    """Trainings scored before their end; nothing where none was."""
    found = view.report.updates
    if not found:
        return []
    splits = list(dict.fromkeys([*view.split_labels, *(one.split for one in found)]))
    places = {split: place for place, split in enumerate(splits)}
    arms = list(dict.fromkeys(one.arm for one in found))
    ordered = sorted(found, key=lambda one: (places[one.split], arms.index(one.arm), one.update))
    rows = tuple(
        (
            one.arm, split_words(view, one.split), format_count(one.update), format_signed(one.change), format_interval(one.low, one.high),
            ", ".join(format_signed(value) for value in one.seed_values), format_count(one.n_scenarios), format_count(one.n_seeds),
        )
        for one in ordered
    )  # fmt: skip
    columns = _columns("arm", "", "on", "wide", "updates", "count", "change from start", "measure", INTERVAL, "measure")
    columns += _columns("each seed", "measure", "n scenarios", "n", "n seeds", "n")
    table = Table(columns, rows, "Every training scored before its end and at it; exploratory.")
    return [*_retention(view), _update_figure(view, ordered), table]


def _update_figure(view: StudyView, found: Sequence[UpdateSummary]) -> Block:
    first, second = view.poles
    nats = view.measure == "margin"
    lines = [
        Line(split_words(view, split), arm, ((0, 0.0), *((one.update, one.change) for one in held)), tint_of(arm))
        for split in dict.fromkeys(one.split for one in found)
        for arm in dict.fromkeys(one.arm for one in found)
        if (held := [one for one in found if (one.arm, one.split) == (arm, split)])
    ]
    what = f"change of {view.measure} from the start" + (", nats" if nats else "")
    seeds = format_range(min(one.n_seeds for one in found), max(one.n_seeds for one in found), 0)
    caption = f"Mean over seeds and scenarios after so many updates; up is towards {first}, down towards {second}. n seeds: {seeds}; the "
    return draw_lines(lines, axis=what, caption=caption + "table below has n scenarios and intervals.")


def _retention(view: StudyView) -> list[Block]:
    """What is kept on far families where both arms have moved near scenarios equally."""
    kept = view.report.retention
    if kept is None:
        return []
    how = "named in the plan" if kept.planned else "the farthest that every training reached, which the data chose"
    if kept.difference is None:
        level = f" of {format_signed(kept.near)} nats ({how})" if kept.near is not None else ""
        return [Prose(f"Far changes at an equal near change{level} cannot be compared: {kept.reason}. Score more updates.")]
    interval = f", {INTERVAL} {format_interval(kept.low, kept.high)} over seeds alone" if kept.low is not None else ""
    each = ", ".join(format_signed(one - other) for one, other in zip(kept.far_plus, kept.far_minus, strict=True))
    says = f"Where both arms had changed near scenarios by {format_signed(kept.near)} nats ({how}), the change on far families is "
    says += f"{format_signed(kept.difference)} nats ({kept.plus} {MINUS} {kept.minus}){interval}; each seed {each}. Read on straight lines "
    says += f"between measured updates, over {kept.n_near} near and {kept.n_far} far scenarios; exploratory."
    return [Prose(says)]


def draw_bags(view: StudyView) -> list[Block]:
    """Whether words alone could have made the difference."""
    if not view.bag_rows:
        return []
    first, second = view.poles
    columns = _columns("arm", "text", "on", "wide", f"{first} likelier", "measure", f"{first} less {second}, nats a word", "measure")
    columns += _columns("n scenarios", "n")
    rows = tuple(
        (row.arm, split_words(view, row.split), format_plain(row.share), format_signed(row.nats, 3), format_count(row.n))
        for row in view.bag_rows
    )
    words = (
        "A bag of single words is fitted to what each arm was trained to say (first seed) and asked the same choices. It knows no order "
    )
    words += "and no question: where it moves as the arms do, words alone could have moved them."
    return [
        Prose(words),
        Table(columns, rows, "Share of scenarios in which the bag finds the first pole's action likelier, a word for a word."),
    ]


def draw_goals(view: StudyView) -> list[Block]:
    return _arm_tables(view, [arm for arm in view.report.arms if is_goal(arm)])


def _arm_tables(view: StudyView, arms: Sequence[ArmSummary]) -> list[Block]:
    """What the words mean, then one table for each evaluation and split."""
    if not arms:
        return []
    words = []
    if any(arm.margin is not None for arm in arms):
        words.append("Margins are in nats.")
    if any(arm.change is not None for arm in arms):
        units = " and ".join(sorted({"nats" if arm.measure == "margin" else "probability of harm" for arm in arms}))
        words.append(f"Change and interval ({units}) are from the start, paired by scenario.")
    if any(arm.twin for arm in arms):
        words.append("Twins: the same scenarios without temptation, or with the goal turned.")
    if any(arm.n_missing and arm.harm is not None for arm in arms):
        words.append("Best to worst case: what harm could be, whatever the missing rows are.")
    order = list(view.split_labels)
    main = next((one.evaluation for one in view.report.contrasts if not one.exploratory), "")
    groups = sorted(
        {(arm.evaluation, arm.split) for arm in arms},
        key=lambda group: (group[0] != main, group[0], order.index(group[1]) if group[1] in order else len(order), group[1]),
    )
    tables = [_arm_table(view, [arm for arm in arms if (arm.evaluation, arm.split) == group]) for group in groups]
    return [Prose(" ".join(words) + _seed_note(arms), "quiet"), *tables]


def _arm_table(view: StudyView, arms: Sequence[ArmSummary]) -> Table:
    """Every measure with its n; the twin's beside it; columns that are empty throughout are left out."""
    plain = {(arm.arm, arm.reading) for arm in arms if not arm.twin}
    twins = {(arm.arm, arm.reading): arm for arm in arms if arm.twin and (arm.arm, arm.reading) in plain}
    several = len({arm.reading for arm in arms}) > 1
    rows = []
    for arm in arms:
        if arm.twin and (arm.arm, arm.reading) in plain:
            continue
        twin = twins.get((arm.arm, arm.reading))
        measures = (
            format_plain(arm.harm),
            format_range(arm.harm_low, arm.harm_high) if any(one.n_missing for one in arms) else ABSENT,
            format_plain(twin.harm if twin else None),
            format_plain(arm.acted),
            format_plain(arm.harm_given_acted),
            format_signed(arm.margin),
            format_signed(twin.margin if twin else None),
            format_signed(arm.change),
            format_interval(arm.change_low, arm.change_high),
        )
        counts = (_both(arm, twin, field) for field in ("n_scenarios", "n_seeds", "n_rows", "n_missing"))
        name = arm.arm + (" (twins)" if arm.twin else "") + (f", {arm.reading.replace('_', ' ')}" if several else "")
        rows.append((name, *measures, *counts))
    columns = _columns("arm", "text", *(part for title in _MEASURES for part in (title, "measure")))
    columns += _columns("n scenarios", "n", "n seeds", "n", "n rows", "n", "missing", "count")
    kept = [i for i, column in enumerate(columns) if column.kind != "measure" or any(row[i] != ABSENT for row in rows)]
    half = view.halves.get(arms[0].evaluation)
    caption = f"{arms[0].evaluation.replace('_', ' ').capitalize()}, {split_words(view, arms[0].split)}{f' ({half})' if half else ''}."
    return Table(tuple(columns[i] for i in kept), tuple(tuple(row[i] for i in kept) for row in rows), caption)


def _both(arm: ArmSummary, twin: ArmSummary | None, field: str) -> str:
    """A count, with the twin's where that is another."""
    own, other = getattr(arm, field), getattr(twin or arm, field)
    return format_count(own) if own == other else f"{format_count(own)} (twins {format_count(other)})"


def draw_missing(view: StudyView) -> list[Block]:
    report, total = view.report, sum(view.report.missing.values())
    blocks: list[Block] = []
    lost = [cell for cell in report.cells if cell.state != "done"]
    if not view.missing_rows and not any(n for status, n in report.missing.items() if status != "ok") and not lost:
        return [Prose(f"Nothing: all {format_count(total)} rows were scored and all {count_noun(len(report.cells), 'cell')} finished.")]
    reasons = "; ".join(f"{name.replace('_', ' ')}: {format_count(n)}" for name, n in report.missing.items() if n and name != "ok")
    missing = sum(n for status, n in report.missing.items() if status != "ok")
    blocks.append(Prose(f"{format_count(missing)} of {format_count(total)} rows have no score" + (f" ({reasons})." if reasons else ".")))
    if lost:
        columns = _columns("cell", "code", "kind", "", "arm", "", "seed", "", "state", "", "reason", "")
        cells = tuple(
            (cell.id, cell.kind, cell.arm, ABSENT if cell.seed is None else str(cell.seed), str(cell.state), cell.reason or ABSENT)
            for cell in lost
        )
        blocks.append(Table(columns, cells, "Cells that did not finish; their rows are not in any mean."))
    if view.missing_rows:
        columns = _columns(
            "arm", "", "seed", "", "updates", "count", "evaluation", "", "on", "", "status", "", "missing", "count", "of rows", "n"
        )
        rows = tuple(
            (
                row.arm,
                str(row.seed),
                format_count(row.update),
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
        return []
    columns = _columns("arm", "", "seed", "", "updates", "count", "rows", "count", "prompt tokens", "count", "supervised tokens", "count")
    rows = tuple(
        (row.arm, str(row.seed), *(format_count(n) for n in (row.updates or None, row.rows, row.prompt_tokens, row.supervised_tokens)))
        for row in view.ledger
    )
    # an organism's own training is before the arms, and what a trainer of the user's does with its rows is its own
    arms = [row for row in view.ledger if row.arm != "start" and row.updates]
    if not arms:
        return [Prose("No arm was trained here beside the start.")]
    low, high = min(row.supervised_tokens for row in arms), max(row.supervised_tokens for row in arms)
    percent = 100 * (high - low) / max(high, 1)
    spread = f" Most and fewest supervised tokens differ by {'less than 0.1' if 0 < percent < 0.1 else f'{percent:.1f}'}\u00a0%."
    updates = {row.updates for row in arms}
    equal = (
        "Every arm got the same number of updates." if len(updates) == 1 else f"Updates are not equal: {min(updates)} to {max(updates)}."
    )
    if view.arm_settings:
        own = "; ".join(f"{arm}: {', '.join(f'{key} {value}' for key, value in one.items())}" for arm, one in view.arm_settings.items())
        equal = f"Arms have settings of their own, so what they differ in is not the data alone ({own}). {equal}"
    caption = "What each arm and seed was trained on, one row a training run."
    if any(not row.updates for row in view.ledger):
        caption += " Without updates: rows that a trainer of the user's own was given; what it made of them is not known here."
    return [Prose(equal + spread), Table(columns, rows, caption)]


def draw_data(view: StudyView) -> list[Block]:
    if not view.data_cards:
        return []
    columns = _columns("corpus", "", "rows", "count", "tokens that carry loss", "count", "licence", "", "about", "", "sha256", "code")
    rows = tuple(
        (card.name, format_count(card.rows), format_count(card.tokens), card.licence, card.about, card.sha256[:16])
        for card in view.data_cards
    )
    return [
        Table(columns, rows, "Rows and tokens of the first training that was given the corpus, counted with the start's own tokenizer.")
    ]


def _columns(*pairs: str) -> tuple[Column, ...]:
    """Columns from titles and kinds in turn; an empty kind is text."""
    return tuple(Column(title, kind or "text") for title, kind in zip(pairs[::2], pairs[1::2], strict=True))  # type: ignore[arg-type]


def tint_of(arm: str) -> Tint:
    """How an arm is coloured in figures."""
    words = arm.split("_")
    return "bound" if "oracle" in words else "control" if any(word in _CONTROLS for word in words) else "main"


def is_goal(arm: ArmSummary) -> bool:
    return arm.evaluation.startswith("goal")


def split_words(view: StudyView, split: str) -> str:
    return view.split_labels.get(split, split)


def with_minus(name: str) -> str:
    return name.replace(" - ", f" {MINUS} ")


def with_minus_signs(text: str) -> str:
    """Hyphens before numbers, and between two arms, as minus signs."""
    return re.sub(r"(?<![\w-])-(?=\d)", MINUS, with_minus(text))


def count_n(n_scenarios: int, n_seeds: int, n_families: int = 0) -> str:
    families = f" of {n_families} families" if n_families else ""
    return f"{count_noun(n_scenarios, 'scenario')}{families}, {ONE_SEED if n_seeds == 1 else count_noun(n_seeds, 'seed')}"


def _seed_note(items: Sequence[Contrast] | Sequence[ArmSummary]) -> str:
    return f" Where n seeds is 1, {ONE_SEED}." if any(item.n_seeds == 1 for item in items) else ""
