"""`teachwhy study`: plan, run, resume."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from teachwhy.errors import CAP_WORDS, EXIT_CAP, EXIT_FINDINGS, EXIT_INCONCLUSIVE, UserError

if TYPE_CHECKING:
    from teachwhy.budget import Budget
    from teachwhy.records import StudyReport
    from teachwhy.study.session import Session

app = typer.Typer(no_args_is_help=True, help="Train and measure: does a reason change what a model learns?")


@app.callback()
def root() -> None:
    """Train and measure: does a reason change what a model learns?"""


@app.command("run")
def run_study(
    file: Annotated[str, typer.Argument(help="A study file, or the name of a shipped study: ambiguity, honeypots.", metavar="FILE")],
    output: Annotated[Path | None, typer.Option(help="The run's folder; else runs/NAME.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Write plan.json and show it: what, for how long, what it could see.")] = False,
    pilot: Annotated[Path | None, typer.Option(help="With --plan: a run whose variances say what this one could see.")] = None,
    wished: Annotated[float | None, typer.Option(min=0.0, help="With --pilot: a difference to find sizes for.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Start without asking.")] = False,
    unseal: Annotated[bool, typer.Option("--unseal", help="Look at sealed scenarios too; each look is counted.")] = False,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Of all calls to APIs in this folder together: a hard cap.")] = None,
    max_usd: Annotated[float | None, typer.Option(min=0.0, help="The same in US dollars; needs --prices.")] = None,
    prices: Annotated[Path | None, typer.Option(help="Prices of models, as for Inspect's --model-cost-config.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Cells at a time; else as many as cores and memory allow. 0: in this process, for debuggers.")
    ] = None,
) -> None:
    """Run a study, or go on with one: what is done is never done again."""
    from teachwhy.study.schema import read_study

    if wished is not None and pilot is None:
        raise UserError("--wished needs the variances of an earlier run", where="the command", hint="Add --pilot RUN.")
    if pilot is not None and not plan:
        raise UserError("--pilot says what a plan could see", where="the command", hint="Add --plan.")
    spec, source = read_study(file)
    run_dir = output or Path("runs") / spec.name
    from teachwhy.budget import read_budget
    from teachwhy.study.session import Session

    session = Session(spec, source, run_dir, unseal=unseal)
    models = [one.model for one in spec.outside.values() if one.model]
    models += [judge for evaluation in spec.evaluations for judge in evaluation.judges] if models else []
    budget = read_budget(models, max_tokens=max_tokens, max_usd=max_usd, prices=prices)
    if session.already_done() and not plan:
        report = session.read_report()
        _say_done(report, run_dir)
        _end_withheld(report)
        return
    if plan and not _have_model(spec.start.model):
        raise UserError("the plan needs the model's tokenizer, and the model is not here", hint="Type: teachwhy models get builtin")
    _need_model(spec.start.model, yes)
    if plan:
        session.prepare(workers)
        _show_plan(session, budget)
        for line in session.keep_plan(pilot, wished):
            typer.echo(line, err=True)
        typer.echo(run_dir / "plan.json")
        return
    with session.locked():
        session.prepare(workers)
        _show_plan(session, budget)
        from teachwhy.cli.app import ask
        from teachwhy.cli.live import show_cells

        ask(yes, "Start?")

        with show_cells(session) as listen:
            report = session.run(listen, budget)
    _say_done(report, run_dir)
    if any(CAP_WORDS in cell.reason for cell in report.cells):
        typer.echo("The cap is reached. With a higher one the same command goes on; nothing is asked twice.", err=True)
        raise typer.Exit(EXIT_CAP)
    if any(cell.state != "done" for cell in report.cells):
        raise typer.Exit(EXIT_FINDINGS)
    _end_withheld(report)


@app.command("table")
def print_table(
    run: Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN")],
    format: Annotated[Literal["csv", "json", "latex"], typer.Option(help="How to print it.")] = "csv",  # noqa: A002
    output: Annotated[Path | None, typer.Option(help="A file; else standard output.")] = None,
) -> None:
    """Print a run's contrasts, the primary first."""
    from teachwhy.files import write_text
    from teachwhy.study.compare import contrast_rows, render_table

    text = render_table(contrast_rows(run), format)
    if output is None:
        typer.echo(text)
    else:
        write_text(output, text + "\n")


@app.command("compare")
def compare_two(
    one: Annotated[Path, typer.Argument(help="The folder of a run.", metavar="RUN1")],
    other: Annotated[Path, typer.Argument(help="The folder of another.", metavar="RUN2")],
) -> None:
    """Say what two runs differ in, and show the contrasts that both have."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from teachwhy.cli.app import strip_controls
    from teachwhy.study.compare import compare_runs

    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("", str(one), str(other)):
        table.add_column(title, overflow="fold")
    for row in compare_runs(one, other):
        table.add_row(*(Text(strip_controls(part)) for part in row))
    Console(highlight=False).print(table)


def _end_withheld(report: StudyReport) -> None:
    if report.answer.verdict == "withheld":
        raise typer.Exit(EXIT_INCONCLUSIVE)


def _have_model(model: str) -> bool:
    from teachwhy.models import builtin

    return model not in builtin.ALIASES or builtin.find_builtin() is not None


def _need_model(model: str, yes: bool) -> None:
    """Fetch the built-in model when it is needed and not there, after a question."""
    from teachwhy.cli.app import ask, say
    from teachwhy.models import builtin

    if _have_model(model):
        return
    ask(yes, f"The built-in model is not here yet: fetch {builtin.DOWNLOAD_MB} MB?")
    builtin.get_builtin(say)


def _show_plan(session: Session, budget: Budget) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from teachwhy.cli.app import say_price, strip_controls
    from teachwhy.report.numbers import count_noun
    from teachwhy.study.automatic import say_missed
    from teachwhy.study.calls import nameless_models, same_models

    plan = session.plan
    console = Console(stderr=True, highlight=False)
    console.print(Text.assemble((plan.spec.name, "bold"), f": {strip_controls(plan.spec.question)}"))
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("arm", "seeds", "updates", "rows", "neutral", "tokens", "carrying loss"):
        table.add_column(title, justify="left" if title == "arm" else "right")
    for arm in dict.fromkeys(row.arm for row in plan.ledger):
        efforts = [row.effort for row in plan.ledger if row.arm == arm]
        columns = zip(*((one.n_updates, one.n_rows, one.n_neutral_rows, one.n_tokens, one.n_supervised) for one in efforts), strict=True)
        table.add_row(Text(arm), str(len(efforts)), *(_span(column) for column in columns))
    if plan.ledger:
        console.print(table)
    console.print(f"start: {strip_controls(plan.spec.start.model)}", markup=False)
    for arm, one in plan.spec.outside.items():
        held = ", ".join(f"{name} {value}" for name, value in one.model_dump().items() if value)
        console.print(f"{arm}: from outside, {strip_controls(held)}", markup=False)
    for calls in plan.calls:
        says = f"{calls.arm}: {calls.n_calls:,} calls of {strip_controls(calls.model)}, about {calls.n_tokens:,} tokens"
        console.print(f"{says}; {say_price(budget, calls.model, (calls.n_tokens, calls.n_new))}", markup=False)
    own = {judge for one in plan.spec.evaluations for judge in one.judges} & {one.model for one in plan.spec.outside.values()}
    for judge in sorted(own):
        console.print(
            f"the judge {strip_controls(judge)} would read runs of its own: judges favour themselves", style="yellow", markup=False
        )
    for arms in same_models(plan.cells):
        says = f"{', '.join(arms)}: one and the same model, so between them nothing can differ"
        console.print(strip_controls(says), style="yellow", markup=False)
    for model in nameless_models(plan.spec):
        says = f"what {strip_controls(model)} calls itself is not known: where the office's design has its own name, it has none"
        console.print(says, style="yellow", markup=False)
    for arm, missed in say_missed(plan.spec).items():
        if arm not in plan.spec.without:
            console.print(f"not made, the arm {arm}: {missed}", style="yellow", markup=False)
    for line in plan.waived:
        console.print(f"waived leak: {line}", style="yellow", markup=False)
    n_cells, minutes = session.n_cells, count_noun(max(1, round(session.seconds_left / 60)), "minute")
    at_once = max(1, session.workers)
    size = f"{count_noun(n_cells, 'cell')}, {at_once} at a time, about {minutes} to go, {at_once * 2.5:.0f} GB of memory"
    if not session.seconds_left:
        size = f"{count_noun(n_cells, 'cell')}, all done"
    console.print(f"{size}; results in {session.run_dir}", markup=False)


def _span(values: Sequence[int]) -> str:
    """1,234, or 1,234-1,250 where seeds differ."""
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,}-{high:,}"


def _say_done(report: StudyReport, run_dir: Path) -> None:
    from rich.console import Console
    from rich.text import Text

    from teachwhy.cli.app import strip_controls

    text = Text.assemble((report.name, "bold"), f": {strip_controls(report.answer.sentence)}")
    console = Console(stderr=True, highlight=False)
    console.print(text)
    for gate in report.gates:
        if gate.passed is False and not gate.withholds:
            console.print(f"not held: {gate.name}. {strip_controls(gate.says)}", style="yellow", markup=False)
    typer.echo(run_dir / "report.html")
