"""`teachwhy rules`: read, init, run, fix, simulate, logs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from teachwhy.errors import EXIT_CAP

if TYPE_CHECKING:
    from rich.progress import TaskID

    from teachwhy.rules.bind import Bound
    from teachwhy.rules.listing import Listing
    from teachwhy.rules.logs import CountedLogs, CountedRule
    from teachwhy.rules.plan import RulesPlan
    from teachwhy.rules.run import Event, ModelResult

app = typer.Typer(no_args_is_help=True, help="Rules for agents: which there are, which have a reason, which a program can check.")
FILE = typer.Argument(help="A rule file; else the nearest AGENTS.md, CLAUDE.md, .claude/rules, .cursor/rules.", metavar="[FILE]")


class FailOn(StrEnum):
    """What a run ends with an exit code for."""

    broken = "broken"
    regression = "regression"
    inconclusive = "inconclusive"
    never = "never"


@app.callback()
def root() -> None:
    """Rules for agents: which there are, which have a reason, which a program can check."""


@app.command("read")
def read_rules(
    file: Annotated[Path | None, FILE] = None,
    format: Annotated[Literal["table", "json"], typer.Option(help="How to print it.")] = "table",  # noqa: A002
    diff: Annotated[str, typer.Option(metavar="REV", help="Only what changed since a revision of the repository.")] = "",
) -> None:
    """List the rules of a file: line, reason, and the check that can decide it. Needs no model and costs nothing."""
    from teachwhy.rules.listing import list_rules

    if diff:
        _show_diff(file, diff, format)
        return
    listing, bound = list_rules(file)
    if format == "json":
        typer.echo(listing.model_dump_json(by_alias=True, indent=2))
        return
    _show_table(listing, bound)


@app.command("init")
def init_rules(file: Annotated[Path | None, FILE] = None) -> None:
    """Write .teachwhy/rules.yaml to edit: reasons, fillers, checks and jobs. What is in it already is kept."""
    from teachwhy.files import explain_os_error, write_text
    from teachwhy.rules.bind import KEPT, draft_kept, read_kept
    from teachwhy.rules.listing import list_rules
    from teachwhy.rules.read import project_of

    listing, bound = list_rules(file)
    folder = project_of(Path(listing.file))
    path = folder / KEPT
    try:
        path.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, path) from error
    write_text(path, draft_kept(bound, read_kept(folder)))
    typer.echo(path)


@app.command("run")
def run_file(
    file: Annotated[
        str | None, typer.Argument(help="A rule file; else the nearest. builtin: the built-in rules in an invented file.", metavar="[FILE]")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="Any model of Inspect; can be given several times.")] = None,
    sessions: Annotated[int, typer.Option(min=1, help="Steps a rule and condition in the confirm stage, at most.")] = 400,
    tolerate: Annotated[float, typer.Option(help="Rate of broken steps that is fine.")] = 0.02,
    stop: Annotated[
        Literal["looks", "any"], typer.Option(help="Ten planned looks; or intervals that hold at any moment, for more steps.")
    ] = "looks",
    seed: Annotated[int, typer.Option(help="Draws the histories.")] = 0,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Of all calls in this folder together; what is done is kept.")] = None,
    output: Annotated[Path, typer.Option(help="The folder of the run.")] = Path("runs/rules"),
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be asked, and stop.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before starting.")] = False,
    fail_on: Annotated[
        list[FailOn] | None,
        typer.Option(help="Exit with 1 for these (3: inconclusive); can be given several times. Else never."),
    ] = None,
    baseline: Annotated[Path | None, typer.Option(help="An earlier report.json, for regressions.")] = None,
    format: Annotated[Literal["table", "json", "junit", "github"], typer.Option(help="How to print it.")] = "table",  # noqa: A002
) -> None:
    """Ask models for the next step in frozen histories, under each condition of a rule, and advise for each rule."""
    import json
    import shlex

    from teachwhy.errors import CapReached, UserError
    from teachwhy.files import write_text
    from teachwhy.rules.plan import Settings, plan_rules

    settings = Settings(sessions=sessions, seed=seed, tolerance=tolerate, stop=stop)
    planned = plan_rules(Path(file) if file else None, model or [], settings)
    _show_plan(planned)
    before = _read_baseline(planned, baseline, fail_on or [])
    if plan:
        return
    if not yes and not typer.confirm("Start?", err=True):
        raise typer.Abort
    from teachwhy.rules.page import render_rules
    from teachwhy.rules.results import results_json
    from teachwhy.rules.run import read_rows, run_rules, spent_tokens

    output.mkdir(parents=True, exist_ok=True)
    try:
        with _show_steps() as listen:
            results = run_rules(planned, output, max_tokens=max_tokens, listen=listen)
    except CapReached as reached:
        typer.echo(f"{reached}. With a higher --max-tokens the same command goes on; nothing is asked twice.", err=True)
        raise typer.Exit(EXIT_CAP) from None
    except OSError as error:
        raise UserError(str(error), where=str(output)) from error
    whole = results_json(planned, results)
    write_text(output / "report.json", json.dumps(whole, indent=2) + "\n")
    words = ["teachwhy", "rules", "run", *([file] if file else []), *(word for one in planned.models for word in ("--model", one))]
    words += ["--sessions", str(sessions), "--seed", str(seed), "--tolerate", str(tolerate), "--stop", stop, "--output", str(output)]
    page = render_rules(planned, results, read_rows(output), shlex.join(words), spent_tokens(output))
    write_text(output / "report.html", page)
    for result in results if format == "table" else ():
        _show_result(result)
    code = _show_findings(planned, whole, before, fail_on or [], format)
    typer.echo(f"The page is {output / 'report.html'}", err=True)
    raise typer.Exit(code)


def _read_baseline(planned: RulesPlan, path: Path | None, fail_on: Sequence[FailOn]) -> dict[str, Any] | None:
    """Refused before anything is asked: what could never be found would look like all is well."""
    from teachwhy.errors import UserError
    from teachwhy.rules.findings import count_known, read_baseline

    if "never" in fail_on and len(set(fail_on)) > 1:
        raise UserError("never stands beside another kind", where="--fail-on", hint="Leave one of them out.")
    if path is None:
        if "regression" in fail_on:
            raise UserError("a regression needs something to be compared with", where="--fail-on", hint="Name it: --baseline report.json")
        return None
    found = read_baseline(path)
    n, known = len(planned.models) * len(planned.rules), count_known(found, planned.models, [one.id for one in planned.rules])
    if not known:
        hint = "Rules are known by their ids, models by their names; a model that was not fit to judge is no baseline."
        raise UserError("the baseline has none of these rules under these models", where=str(path), hint=hint)
    typer.echo(f"compared with the baseline: {known} of {n} rules under a model.", err=True)
    return found


def _show_findings(
    planned: RulesPlan, whole: Mapping[str, Any], before: Mapping[str, Any] | None, fail_on: Sequence[FailOn], format_: str
) -> int:
    """Print a report in a form for programs, or what was asked for below its table; and the exit code."""
    import json

    from teachwhy.cli.app import strip_controls
    from teachwhy.rules.findings import exit_code, find_findings, show_github, show_junit
    from teachwhy.rules.read import project_of

    with_reason = {one.id for one in planned.rules if one.bound.rule.reason}
    findings = find_findings(whole, with_reason=with_reason, baseline=before)
    file = planned.file.resolve().relative_to(project_of(planned.file)).as_posix()
    if format_ == "json":
        typer.echo(json.dumps(whole, indent=2))
    elif format_ == "junit":
        typer.echo(show_junit(whole, findings, fail_on, file), nl=False)
    elif format_ == "github":
        typer.echo(show_github(findings, file), nl=False)
    else:
        for one in findings:
            if one.kind in fail_on or one.kind == "regression":
                typer.echo(strip_controls(f"{one.kind}: line {one.line}, {one.text!r}, {one.model}: {one.says}"))
    return exit_code(findings, fail_on)


@app.command("fix")
def fix_file(
    run: Annotated[Path, typer.Option("--from", help="The folder of a finished run.")],
    output: Annotated[Path | None, typer.Option(help="A folder for hooks; else they are printed. None is installed.")] = None,
) -> None:
    """Print what a run advises: a patch of the rule file, and hooks. Changes no rule file and installs nothing."""
    import sys

    from teachwhy.cli.app import say, strip_controls
    from teachwhy.rules.fix import fix_rules
    from teachwhy.rules.hooks import save_hooks, show_settings

    fix = fix_rules(run)
    if not fix.edits and not fix.hooks:
        say("Nothing is advised: no rule is to get a reason or a hook.")
        return
    for note in fix.notes:
        say(note)
    shown = strip_controls(fix.diff) if sys.stdout.isatty() else fix.diff
    if shown != fix.diff:
        say("The patch holds control codes, which are not shown: send it to a file to apply it.")
    typer.echo(shown.encode(), nl=False)
    if fix.edits:
        say(f"To apply it, in {fix.root}: git apply, or patch -p1")
    if fix.hooks and output:
        paths = save_hooks(fix.hooks, output)
        say("\n".join([*(f"written: {path}" for path in paths), "To install them, in .claude/settings.json:"]))
        say(show_settings(paths, fix.root))
    elif fix.hooks:
        for hook in fix.hooks:
            typer.echo(f"# {hook.name}\n{hook.script}", nl=False)
        say("With --output FOLDER the hooks are written to files, and it is shown how they are installed.")


def _show_plan(planned: RulesPlan) -> None:
    from teachwhy.cli.app import strip_controls
    from teachwhy.report.numbers import count_noun

    size = planned.size()
    says = f"{count_noun(len(planned.rules), 'rule')} of {planned.name}, {count_noun(len(planned.models), 'model')}: "
    says += f"{size.calls_least:,} to {size.calls_most:,} calls a model, about {size.tokens_least:,} to {size.tokens_most:,} tokens"
    typer.echo(f"{says}; --max-tokens caps them.", err=True)
    for line in planned.left_out:
        typer.echo(f"not tested: {strip_controls(line)}", err=True)
    for line in planned.apart:
        typer.echo(f"length: {strip_controls(line)}", err=True)


@contextmanager
def _show_steps() -> Iterator[Callable[[Event], None]]:
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


def _show_result(result: ModelResult) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from teachwhy.cli.app import strip_controls
    from teachwhy.rules.results import sentence, table_rows

    console = Console(highlight=False)
    console.print(Text(result.model, style="bold"))
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("line", "check", "none", "bare", "filler", "reason", "ruling"):
        table.add_column(title, justify="left" if title in ("check", "ruling") else "right", overflow="fold")
    for row in table_rows(result):
        table.add_row(*(Text(strip_controls(cell)) for cell in row))
    console.print(table)
    console.print("broken steps of those that were read\n", style="dim")
    for one in result.rules:
        console.print(strip_controls(sentence(one)), markup=False)
    differ = sum(one.disagreements for one in result.rules)
    if differ:
        console.print(f"The two detectors differ on {differ} steps: see second in outcomes.csv.", markup=False)


@app.command("simulate")
def simulate_rates(
    bare: Annotated[float, typer.Option(help="Rate of broken steps with the bare rule.")],
    reason: Annotated[float, typer.Option(help="Rate with its reason.")],
    sessions: Annotated[int, typer.Option(help="Steps a condition, at most.")] = 400,
    repeats: Annotated[int, typer.Option(help="Simulated runs.")] = 2000,
    seed: Annotated[int, typer.Option(help="Draws them.")] = 0,
    histories: Annotated[int, typer.Option(help="That the steps are spread over.")] = 40,
    spread: Annotated[float, typer.Option(help="Standard deviation of the histories' log-odds.")] = 0.5,
    looks: Annotated[int, typer.Option(help="1, 2, 4, 5 or 10.")] = 10,
    format: Annotated[Literal["table", "json"], typer.Option(help="How to print it.")] = "table",  # noqa: A002
) -> None:
    """Say what a run would find if the rates were these: planted rates through the code that reads real runs. Needs no model."""
    import json

    from teachwhy.rules.simulate import simulate

    found = simulate(bare, reason, sessions, repeats, seed, histories=histories, spread=spread, looks=looks)
    if format == "json":
        typer.echo(json.dumps({"schema": "teachwhy.rules.simulate/1", **found._asdict()}, indent=2))
        return
    what = "a difference that is not there is found" if bare == reason else "the difference is found"
    typer.echo(f"{bare:.1%} bare, {reason:.1%} with the reason, at most {sessions:,} steps a condition, {repeats:,} simulated runs")
    typer.echo(f"  {what}: {found.power:.1%} of runs (Monte Carlo error {found.power_se:.1%}); the opposite: {found.opposite:.1%}")
    typer.echo(f"  the interval holds the true difference: {found.coverage:.1%}")
    typer.echo(f"  steps a condition: {found.mean_sessions_per_arm:,.0f} on average; with one look {found.fixed_sessions_per_arm:,.0f}")


@app.command("logs")
def count_sessions(
    file: Annotated[Path | None, FILE] = None,
    sessions: Annotated[
        list[Path] | None, typer.Option(help="A folder of session logs, or one; else those of Claude Code and of Codex.")
    ] = None,
    format: Annotated[Literal["table", "json"], typer.Option(help="How to print it.")] = "table",  # noqa: A002
) -> None:
    """Count how often your own sessions of this project broke each rule. Reads logs on this machine; writes and sends nothing."""
    from teachwhy.rules.logs import count_logs

    counted = count_logs(file, sessions or [])
    if format == "json":
        typer.echo(counted.model_dump_json(by_alias=True, indent=2))
        return
    _show_counts(counted)


def _show_counts(counted: CountedLogs) -> None:
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


def _show_table(listing: Listing, bound: list[Bound]) -> None:
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


def _show_diff(file: Path | None, revision: str, format_: str) -> None:
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
