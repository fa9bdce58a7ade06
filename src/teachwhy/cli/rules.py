"""`teachwhy rules`: read, init, draft, run, fix, prefer, simulate, logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from teachwhy.cli.rules_shown import (
    show_counts,
    show_diff,
    show_plan,
    show_preference,
    show_progress,
    show_record,
    show_result,
    show_steps,
    show_table,
)
from teachwhy.errors import EXIT_CAP

if TYPE_CHECKING:
    from teachwhy.rules.plan import RulesPlan

app = typer.Typer(no_args_is_help=True, help="Rules for agents: read, measured on a model, advised on, counted in your own sessions.")
FILE = typer.Argument(
    help="A rule file, or builtin; else the nearest AGENTS.md, CLAUDE.md, .claude/rules, .cursor/rules.", metavar="[FILE]"
)


class FailOn(StrEnum):
    """What a run ends with an exit code for."""

    broken = "broken"
    regression = "regression"
    inconclusive = "inconclusive"
    never = "never"


class Also(StrEnum):
    """Conditions of the confirm stage that are asked for by name."""

    always = "always"
    negated = "negated"
    tautology = "tautology"


@app.callback()
def root() -> None:
    """Rules for agents: read, measured on a model, advised on, counted in your own sessions."""


@app.command("read")
def read_rules(
    file: Annotated[Path | None, FILE] = None,
    format: Annotated[Literal["table", "json"], typer.Option(help="How to print it.")] = "table",  # noqa: A002
    diff: Annotated[str, typer.Option(metavar="REV", help="Only what changed since a revision of the repository.")] = "",
) -> None:
    """List the rules of a file: line, reason, and the check that can decide it. Needs no model and costs nothing."""
    from teachwhy.rules.listing import list_rules

    if diff:
        show_diff(file, diff, format)
        return
    listing, bound = list_rules(file)
    if format == "json":
        show_record(listing)
        return
    show_table(listing, bound)


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


@app.command("draft")
def draft_reasons_of(
    model: Annotated[str, typer.Option(help="Any model of Inspect; best the one that is to heed the rules.")],
    file: Annotated[Path | None, FILE] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before starting.")] = False,
) -> None:
    """Have a model make up reasons for rules that have none, into .teachwhy/rules.yaml, marked as drafts."""
    from teachwhy.cli.app import ask, strip_controls
    from teachwhy.errors import UserError
    from teachwhy.report.numbers import count_noun
    from teachwhy.rules.draft import N_DRAFTS, TRIES, draft_reasons, find_unreasoned, keep_drafts

    path, rules = find_unreasoned(file)
    if not rules:
        typer.echo(f"Every rule of {path} that has a check has a reason, or drafts of one.", err=True)
        return
    calls = f"{N_DRAFTS * len(rules)} to {TRIES * len(rules)} calls of {strip_controls(model)}"
    typer.echo(f"{count_noun(len(rules), 'rule')} of {path} without a reason: {calls}", err=True)
    ask(yes, "Start?")
    found = draft_reasons(path, rules, model)
    target = keep_drafts(path, found, model)
    for one in found:
        typer.echo(f"line {one.bound.rule.line}: {strip_controls(one.bound.rule.bare)}")
        for draft in one.drafts or ("(nothing that reads like a reason)",):
            typer.echo(f"  because {draft}" if one.drafts else f"  {draft}")
    typer.echo(target)
    typer.echo("Drafts are a model's guesses. Move what is true to reason:; fix never applies the others.", err=True)
    failed = [f"line {one.bound.rule.line}: {one.failed}" for one in found if one.failed]
    if failed:
        hint = "All other drafts are kept. Type the same again: rules without a draft are asked again."
        raise UserError(f"{strip_controls(model)} could not be asked any further: {'; '.join(failed)}", where="--model", hint=hint)


@app.command("run")
def run_file(
    file: Annotated[
        str | None, typer.Argument(help="A rule file; else the nearest. builtin: the built-in rules in an invented file.", metavar="[FILE]")
    ] = None,
    model: Annotated[list[str] | None, typer.Option(help="Any model of Inspect; can be given several times.")] = None,
    screen: Annotated[int, typer.Option(min=1, help="Steps a rule and condition in the screen.")] = 40,
    sessions: Annotated[int, typer.Option(min=1, help="Steps a rule and condition in the confirm stage, at most.")] = 400,
    tolerate: Annotated[float, typer.Option(help="Rate of broken steps that is fine.")] = 0.02,
    stop: Annotated[
        Literal["looks", "any"], typer.Option(help="Ten planned looks; or intervals that hold at any moment, for more steps.")
    ] = "looks",
    also: Annotated[
        list[Also] | None,
        typer.Option(help="A further condition of the confirm stage; can be given several times."),
    ] = None,
    recall: Annotated[
        int, typer.Option(min=0, help="Broken steps of a rule, and kept ones, at which to ask which rules bear on them; 0: none.")
    ] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Draws the histories.")] = 0,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Of all calls in this folder together; what is done is kept.")] = None,
    max_usd: Annotated[float | None, typer.Option(min=0.0, help="The same in US dollars; needs --prices.")] = None,
    prices: Annotated[Path | None, typer.Option(help="Prices of models, as for Inspect's --model-cost-config.")] = None,
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

    from teachwhy.budget import read_budget, spent_in
    from teachwhy.cli.app import ask
    from teachwhy.errors import CapReached, UserError
    from teachwhy.files import lock_folder, write_text
    from teachwhy.rules.conditions import Condition
    from teachwhy.rules.plan import Settings, plan_rules

    more: tuple[Condition, ...] = tuple(dict.fromkeys(one.value for one in also or []))
    settings = Settings(screen=screen, sessions=sessions, seed=seed, tolerance=tolerate, recall=recall, also=more, stop=stop)
    planned = plan_rules(Path(file) if file else None, model or [], settings)
    budget = read_budget(list(planned.models), max_tokens=max_tokens, max_usd=max_usd, prices=prices)
    show_plan(planned, budget)
    before = _read_baseline(planned, baseline, fail_on or [])
    if plan:
        return
    ask(yes, "Start?")
    from teachwhy.rules.page import render_rules
    from teachwhy.rules.results import results_json
    from teachwhy.rules.run import CELLS, read_rows, run_rules

    try:
        with lock_folder(output, "at work on rules"):
            with show_steps() as listen:
                results = run_rules(planned, output, budget=budget, listen=listen)
            whole = results_json(planned, results)
            write_text(output / "report.json", json.dumps(whole, indent=2) + "\n")
            page = render_rules(planned, results, read_rows(output), _say_command(file, planned, output), spent_in(output / CELLS))
            write_text(output / "report.html", page)
    except CapReached as reached:
        typer.echo(f"{reached}. With a higher one the same command goes on; nothing is asked twice.", err=True)
        raise typer.Exit(EXIT_CAP) from None
    except OSError as error:
        raise UserError(str(error), where=str(output)) from error
    for result in results if format == "table" else ():
        show_result(result)
    code = _show_findings(planned, whole, before, fail_on or [], format)
    typer.echo(f"The page is {output / 'report.html'}", err=True)
    raise typer.Exit(code)


def _say_command(file: str | None, planned: RulesPlan, output: Path) -> str:
    """What to type for the same run."""
    import shlex

    held = planned.settings
    options = {
        "screen": held.screen, "sessions": held.sessions, "seed": held.seed, "tolerate": held.tolerance, "recall": held.recall,
        "stop": held.stop, "output": output,
    }  # fmt: skip
    words = [*([file] if file else []), *(word for model in planned.models for word in ("--model", model))]
    words += [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return shlex.join(["teachwhy", "rules", "run", *words, *(word for name in held.also for word in ("--also", name))])


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
    for note in fix.notes:
        say(note)
    if not fix.edits and not fix.hooks:
        say("There is nothing to apply.")
        return
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


@app.command("simulate")
def simulate_rates(
    bare: Annotated[float, typer.Option(help="Rate of broken steps with the bare rule.")],
    reason: Annotated[float, typer.Option(help="Rate with its reason.")],
    sessions: Annotated[int, typer.Option(help="Steps a condition, at most.")] = 400,
    repeats: Annotated[int, typer.Option(help="Simulated runs.")] = 2000,
    seed: Annotated[int, typer.Option(min=0, help="Draws them.")] = 0,
    histories: Annotated[int, typer.Option(help="That the steps are spread over.")] = 40,
    spread: Annotated[float, typer.Option(help="Standard deviation of the histories' log-odds.")] = 0.5,
    looks: Annotated[int, typer.Option(help="1, 2, 4, 5 or 10.")] = 10,
    output: Annotated[Path | None, typer.Option(help="A JSON file beside what is printed; teachwhy report shows it.")] = None,
    format: Annotated[Literal["table", "json"], typer.Option(help="How to print it.")] = "table",  # noqa: A002
) -> None:
    """Say what a run would find if the rates were these: planted rates through the code that reads real runs. Needs no model."""
    import json

    from teachwhy.files import write_text
    from teachwhy.rules.simulate import simulate

    found = simulate(bare, reason, sessions, repeats, seed, histories=histories, spread=spread, looks=looks)
    whole = json.dumps({"schema": "teachwhy.rules.simulate/1", **found._asdict()}, indent=2)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_text(output, whole + "\n")
    if format == "json":
        typer.echo(whole)
        return
    what = "the difference is found" if bare > reason else "a reason that helps is found, which is not so"
    typer.echo(f"{bare:.1%} bare, {reason:.1%} with the reason, at most {sessions:,} steps a condition, {repeats:,} simulated runs")
    typer.echo(f"  {what}: {found.power:.1%} of runs (Monte Carlo error {found.power_se:.1%}); the opposite: {found.opposite:.1%}")
    typer.echo(f"  the interval holds the true difference: {found.coverage:.1%}")
    one_look = f"; with one look {found.fixed_sessions_per_arm:,.0f}" if bare >= reason else ""  # of equal power to find what is not so
    typer.echo(f"  steps a condition: {found.mean_sessions_per_arm:,.0f} on average{one_look}")


@app.command("prefer")
def prefer_steps(
    file: Annotated[
        str | None, typer.Argument(help="A rule file; else the nearest. builtin: the built-in rules in an invented file.", metavar="[FILE]")
    ] = None,
    model: Annotated[str, typer.Option(help="builtin, a folder with weights, or an id of Hugging Face.")] = "builtin",
    histories: Annotated[int, typer.Option(min=1, help="A rule.")] = 8,
    wordings: Annotated[int, typer.Option(min=1, help="A rule; fewer where it has fewer.")] = 5,
    pairs: Annotated[int, typer.Option(min=1, help="Kept and broken steps a history.")] = 8,
    seconds: Annotated[float | None, typer.Option(help="No history is begun after that.")] = None,
    output: Annotated[Path, typer.Option(help="The folder; what is in it is not measured again.")] = Path("runs/preference"),
    format: Annotated[Literal["table", "json"], typer.Option(help="How to print it.")] = "table",  # noqa: A002
) -> None:
    """Say which steps local weights prefer under each condition of a rule. No rate and no ruling; needs the train extra."""
    import json

    from teachwhy.files import lock_folder, write_text
    from teachwhy.rules.plan import Settings, plan_rules
    from teachwhy.rules.preference import measure_preference, preference_json

    planned = plan_rules(Path(file) if file else None, [], Settings(), asks=False)
    with lock_folder(output, "at work on rules"):
        with show_progress() as listen:
            found = measure_preference(
                planned, model, output, histories=histories, wordings=wordings, pairs=pairs, seconds=seconds, listen=listen
            )  # fmt: skip
        whole = json.dumps(preference_json(found), indent=2)
        write_text(output / "report.json", whole + "\n")
    if format == "json":
        typer.echo(whole)
        return
    show_preference(found)


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
        show_record(counted)
        return
    show_counts(counted)
