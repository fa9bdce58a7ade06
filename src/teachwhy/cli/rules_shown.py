"""How `teachwhy rules` shows what it found: tables and bars on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.progress import TaskID

    from teachwhy.budget import Budget
    from teachwhy.records import Record
    from teachwhy.rules.bind import Bound
    from teachwhy.rules.listing import Listing
    from teachwhy.rules.logs import CountedLogs, CountedRule
    from teachwhy.rules.plan import RulesPlan
    from teachwhy.rules.preference import PreferenceResult, Progress
    from teachwhy.rules.run import Event, ModelResult


def show_record(record: Record) -> None:
    """A record as JSON; what of a path is no UTF-8 becomes question marks."""
    import json

    text = json.dumps(record.model_dump(by_alias=True), indent=2, ensure_ascii=False)
    typer.echo(text.encode("utf-8", "replace").decode())


def show_plan(planned: RulesPlan, budget: Budget) -> None:
    from teachwhy.cli.app import say_price, strip_controls
    from teachwhy.report.numbers import count_noun
    from teachwhy.rules.listing import HOST
    from teachwhy.rules.replay import MAX_NEW

    size = planned.size()
    of = "an invented project's file (teachwhy rules read builtin)" if planned.file == HOST else planned.name
    says = f"{count_noun(len(planned.rules), 'rule')} of {of}, {count_noun(len(planned.models), 'model')}: "
    says += f"{size.calls_least:,} to {size.calls_most:,} calls a model, about {size.tokens_least:,} to {size.tokens_most:,} tokens"
    typer.echo(f"{says}.", err=True)
    for model in planned.models:
        price = say_price(budget, model, *((tokens, calls * MAX_NEW / 2) for tokens, calls in zip(size[2:], size[:2], strict=True)))
        typer.echo(f"{strip_controls(model)}: {price}", err=True)
    max_tokens = budget.limits.tokens
    if max_tokens is not None and max_tokens < size.tokens_least * len(planned.models):
        says = f"--max-tokens {max_tokens:,} is under what the screen alone takes: the run will stop in it, and keep what is done."
        typer.echo(says, err=True)
    for line in planned.left_out:
        typer.echo(f"not tested: {strip_controls(line)}", err=True)
    for line in planned.apart:
        typer.echo(f"note: {strip_controls(line)}", err=True)


@contextmanager
def show_steps() -> Iterator[Callable[[Event], None]]:
    """A bar on a terminal, else a line a stage or round."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False)

    def name(event: Event) -> str:
        return f"{event.model}, {event.stage}" + (f" {event.round + 1}" if event.stage == "confirm" else "")

    if not console.is_terminal:

        def say(event: Event) -> None:
            if event.done == event.total:
                console.print(f"{name(event)}: {event.total} steps", markup=False)

        yield say
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        tasks: dict[str, TaskID] = {}

        def draw(event: Event) -> None:
            if name(event) not in tasks:
                tasks[name(event)] = progress.add_task(name(event), total=event.total)
            progress.update(tasks[name(event)], completed=event.done)

        yield draw


def show_result(result: ModelResult) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from teachwhy.cli.app import strip_controls
    from teachwhy.rules.results import sentence, table_rows

    console = Console(highlight=False)
    console.print(Text(result.model, style="bold"))
    table = Table(box=None, pad_edge=False, header_style="dim")
    titles, *rows = table_rows(result)
    for title in titles:
        table.add_column(title, justify="left" if title in ("check", "ruling") else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(strip_controls(cell)) for cell in row))
    console.print(table)
    console.print("broken steps of those that were read\n", style="dim")
    for one in result.rules:
        console.print(strip_controls(sentence(one)), markup=False)
    differ = sum(one.disagreements for one in result.rules)
    if differ:
        console.print(f"The detectors differ on {differ} steps: see first, second and third in outcomes.csv.", markup=False)


@contextmanager
def show_progress() -> Iterator[Callable[[Progress], None]]:
    """A bar on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress as Bars

    console = Console(stderr=True, highlight=False)
    with Bars(console=console, transient=True, disable=not console.is_terminal) as bars:
        bar = bars.add_task("histories", total=None)
        yield lambda progress: bars.update(bar, completed=progress.done, total=progress.total)


def show_preference(found: PreferenceResult) -> None:
    from rich.console import Console
    from rich.table import Table

    from teachwhy.cli.app import strip_controls
    from teachwhy.rules.preference import HEADINGS, preference_rows

    console = Console(highlight=False)
    console.print(strip_controls(found.says), markup=False)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in HEADINGS:
        table.add_column(title, justify="left" if title == "check" else "right")
    for row in preference_rows(found):
        table.add_row(*row)
    console.print(table)
    console.print("nats, with 95 % intervals; a preference, no rate; only bare - negated is beyond copying", style="dim")
    for line in found.left_out:
        console.print(f"left out: {strip_controls(line)}", markup=False)


def show_counts(counted: CountedLogs) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from teachwhy.cli.app import strip_controls
    from teachwhy.report.numbers import count_noun, format_count

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("line", "rule", "reason", "opportunities", "broken", "rate (95 %)"):
        in_full = title not in ("line", "rule")
        table.add_column(title, justify="left" if title in ("rule", "reason") else "right", overflow="fold", no_wrap=in_full)
    several = len({one.file for one in counted.rules}) > 1
    for one in counted.rules:
        place = Text(strip_controls(f"{one.file}:{one.line}" if several else str(one.line)))
        reason = Text("yes" if one.reason else "no", style="" if one.reason else "dim")
        numbers = (format_count(one.opportunities), format_count(one.broken), _rate(one))
        table.add_row(place, Text(strip_controls(_cut(one.bare, 80))), reason, *numbers)
    if counted.rules:
        console.print(table)
    for one in counted.rules:
        _show_violations(one)
    says = f"{count_noun(counted.steps, 'step')} in {count_noun(counted.sessions, 'session')} of the project of {counted.file}."
    console.print(f"\n{strip_controls(says)}", markup=False, soft_wrap=True)
    if not counted.rules:
        console.print(
            "No rule has a check, so nothing can be counted. To write one, type: teachwhy rules init", markup=False, soft_wrap=True
        )
    for note in counted.notes:
        console.print(strip_controls(note), markup=False, soft_wrap=True)
    for line in _say_left_out(counted):
        console.print(strip_controls(line), markup=False, soft_wrap=True)


def _say_left_out(counted: CountedLogs) -> Iterator[str]:
    from teachwhy.report.numbers import count_noun, format_count
    from teachwhy.rules.logs import LEFT_OUT

    for one in counted.rules:
        if one.disagreements:
            yield f"line {one.line}: a second detector reads {count_noun(one.disagreements, 'step')} otherwise: the rate is that unsure."
    lines = [f"{format_count(n)} {LEFT_OUT[key]}" for key, n in counted.left_out.items() if n]
    for n in sorted({one.before for one in counted.rules} - {0}):
        places = ", ".join(str(one.line) for one in counted.rules if one.before == n)
        lines.append(f"{count_noun(n, 'step')} from when the rule was not in the file (line {places})")
    if lines:
        yield f"left out: {'; '.join(lines)}"
    if counted.unknown:
        yield f"not known, and not read: {'; '.join(f'{format_count(n)} x {kind}' for kind, n in counted.unknown.items())}"


def _rate(rule: CountedRule) -> str:
    from teachwhy.report.numbers import ABSENT
    from teachwhy.statistics import wilson_interval

    if not rule.opportunities:
        return ABSENT
    found = wilson_interval(rule.broken, rule.opportunities)
    return f"{100 * found.estimate:.1f} % ({100 * found.low:.1f} to {100 * found.high:.1f})"


def _show_violations(rule: CountedRule, most: int = 5) -> None:
    from teachwhy.cli.app import strip_controls

    if not rule.violations:
        return
    more = f", the first {most} of {len(rule.violations)}" if len(rule.violations) > most else ""
    typer.echo(f"\nbroken{more}: {strip_controls(_cut(rule.bare, 80))}")
    for one in rule.violations[:most]:
        typer.echo(f"  {strip_controls(one.log)}:{one.line}: {strip_controls(one.command)}")


def show_table(listing: Listing, bound: list[Bound]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from teachwhy.cli.app import strip_controls
    from teachwhy.report.numbers import count_noun
    from teachwhy.rules.bind import KEPT

    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("line", "check", "rule", "reason"):
        table.add_column(title, justify="right" if title == "line" else "left", overflow="fold", ratio={"rule": 3, "reason": 2}.get(title))
    for name in dict.fromkeys(one.rule.file for one in bound):
        if listing.others:
            table.add_row("", "", Text(name, style="bold"), "")
        for one in bound:
            if one.rule.file == name:
                shown = Text(strip_controls(_cut(one.rule.bare)))
                reason = Text(strip_controls(_cut(one.reason)) or "none", style="" if one.reason else "dim")
                table.add_row(str(one.rule.line), one.check_name or Text("none", style="dim"), shown, reason)
    console.print(table)
    for one in bound:
        if one.was:
            console.print(f"line {one.rule.line}: reworded, kept as {one.rule.id}; it was: {strip_controls(_cut(one.was))}", markup=False)
        if one.rule.note:
            console.print(f"line {one.rule.line}: {one.rule.note}", markup=False)
    for line in listing.skipped:
        console.print(f"left out: {strip_controls(line)}", markup=False)
    if listing.unread:
        lines = ", ".join(map(str, listing.unread[:20])) + (", ..." if len(listing.unread) > 20 else "")
        says = f"{count_noun(len(listing.unread), 'list item')} of {listing.file} read like no rule: lines {lines}."
        console.print(f"\n{says} One that is a rule can be added to {KEPT}.", markup=False)
    n_reasons, n_checks = sum(bool(one.reason) for one in bound), sum(one.check is not None for one in bound)
    says = f"{count_noun(len(bound), 'rule')} in {listing.file}: {n_reasons} with a reason, {n_checks} with a check."
    console.print(f"\n{says}", markup=False)
    if n_checks < len(bound):
        console.print("A rule without a check cannot be tested yet. To write one, type: teachwhy rules init", markup=False)


def _cut(text: str, most: int = 300) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def show_diff(file: Path | None, revision: str, format_: str) -> None:
    import json

    from teachwhy.cli.app import strip_controls
    from teachwhy.rules.listing import diff_rules
    from teachwhy.rules.read import find_rule_files

    changes = [change for path in ([file] if file else find_rule_files(Path.cwd())) for change in diff_rules(path, revision)]
    if format_ == "json":
        rows = []
        for one in changes:
            before = one.before.model_dump() if one.before else None
            rows.append({"change": one.kind, "rule": one.rule.model_dump(), "before": before})
        typer.echo(json.dumps({"schema": "teachwhy.rules.diff/1", "revision": revision, "changes": rows}, indent=2))
        return
    for one in changes:
        typer.echo(f"{one.kind}: {one.rule.file}:{one.rule.line}: {strip_controls(_cut(one.rule.bare))}")
        if one.kind == "reworded" and one.before:
            typer.echo(f"  was: {strip_controls(_cut(one.before.bare))}")
        if one.kind.startswith("reason"):
            earlier = one.before.reason if one.before else ""
            typer.echo(f"  reason: {strip_controls(_cut(earlier)) or 'none'} -> {strip_controls(_cut(one.rule.reason)) or 'none'}")
    if not changes:
        typer.echo(f"No rule has changed since {revision}.")
