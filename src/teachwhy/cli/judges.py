"""`teachwhy judges`: are judges to be believed, and what do rates look like when a person has looked?"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from teachwhy.errors import CAP_WORDS, EXIT_CAP, EXIT_FINDINGS, CapReached, UserError

if TYPE_CHECKING:
    from teachwhy.judges.calibration import Calibration, Case
    from teachwhy.judges.labels import Item, Rate
    from teachwhy.statistics import Interval

app = typer.Typer(no_args_is_help=True, help="Check judges against labels; label runs of your own; correct rates.")
MOST_NAMED = 12
FEW = 20
"""Labels of an arm under which its rate is told to be little known."""
Format = Annotated[Literal["table", "json"], typer.Option(help="How to print it.")]


@app.callback()
def root() -> None:
    """Check judges against labels; label runs of your own; correct rates."""


@app.command("calibrate")
def calibrate(
    judge: Annotated[str, typer.Option(help="A model of Inspect, such as openai/gpt-5-mini.")],
    family: Annotated[str | None, typer.Option(help="One family; else all four.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Of all calls together: a hard cap.")] = None,
    max_usd: Annotated[float | None, typer.Option(min=0.0, help="The same in US dollars; needs --prices.")] = None,
    prices: Annotated[Path | None, typer.Option(help="Prices of models, as for Inspect's --model-cost-config.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Say how many calls and tokens, and stop.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Start without asking.")] = False,
    log_dir: Annotated[Path, typer.Option(help="Where Inspect's log goes.")] = Path("logs"),
    format: Format = "table",  # noqa: A002
) -> None:
    """Let a judge read the labelled transcripts. Exit code 1: it is not good enough to be believed."""
    from teachwhy.budget import Cap, read_budget
    from teachwhy.cli.app import ask, say, say_price
    from teachwhy.judges import calibration, verdict
    from teachwhy.models.roles import check_subject
    from teachwhy.office.scenes import FAMILIES

    if family is not None and family not in FAMILIES:
        raise UserError(f"there is no family {family!r}", where="--family", hint=f"There are: {', '.join(FAMILIES)}.")
    check_subject(judge)
    budget = read_budget([judge], max_tokens=max_tokens, max_usd=max_usd, prices=prices)
    cases = [case for case in calibration.read_cases() if family in (None, case.family)]
    n_tokens = sum(verdict.estimate_verdict(case.about, case.deeds) for case in cases)
    say(f"{len(cases)} calls of {judge}, about {n_tokens:,} tokens: {say_price(budget, judge, (n_tokens, len(cases) * 150))}")
    if plan:
        return
    ask(yes, "Start?")
    verdict.cap = Cap(budget.limits, price=budget.price(judge))
    try:
        found = _run(judge, cases, log_dir)
    except CapReached as error:
        say(f"{error} A higher cap begins anew.")
        raise typer.Exit(EXIT_CAP) from None
    if format == "json":
        typer.echo(json.dumps(calibration.as_plain(found), indent=2))
    else:
        _show_calibration(found)
    if not found.good_enough:
        raise typer.Exit(EXIT_FINDINGS)


def _run(judge: str, cases: Sequence[Case], log_dir: Path) -> Calibration:
    import inspect_ai

    from teachwhy.budget import first_error
    from teachwhy.judges import calibration, verdict
    from teachwhy.models.roles import open_subject

    with _bar("judged", len(cases)) as advance:
        calibration.listeners[:] = [advance]
        try:
            (log,) = inspect_ai.eval(
                calibration.calibration_task(cases), model=open_subject(judge, keep=False), log_dir=str(log_dir), display="none",
                fail_on_error=False,
                log_level="error", score_display=False,
            )  # fmt: skip
        finally:
            calibration.listeners.clear()
    if verdict.cap.reached:
        raise CapReached(f"{CAP_WORDS} before all transcripts were judged.")
    said = calibration.read_said(log)
    if log.status != "success" or len(said) != len(cases) or all(one == "no answer" for one in said.values()):
        errors = [sample.error.message for sample in log.samples or [] if sample.error]
        reason = log.error.message if log.error else first_error(errors or ["see its log"])
        raise UserError(f"{judge} judged nothing: {reason.splitlines()[0][:200]}", where=str(log.location))
    return calibration.compare_last(calibration.summarise(judge, cases, said), said)


@contextmanager
def _bar(words: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar with the time left on a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(words, total=total)
        yield lambda: progress.advance(task)


def _percent(found: Interval) -> str:
    return f"{found.estimate:.0%} ({found.low:.0%} to {found.high:.0%}; n {found.n})"


def _show_calibration(found: Calibration) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from teachwhy.cli.app import strip_controls

    console = Console(highlight=False)
    console.print(Text.assemble((strip_controls(found.judge), "bold"), f", prompt {found.prompt}"))
    rows = [
        ("harmful ones found", _percent(found.sensitivity)), ("others left alone", _percent(found.specificity)),
        ("kappa", f"{found.kappa:.2f}"), ("unscored", ", ".join(f"{n} {why}" for why, n in found.unscored.items()) or "none"),
    ]  # fmt: skip
    if found.changed is not None:
        rows.append(("since " + found.last[:10], f"{found.changed} of {found.compared} verdicts changed"))
    table = Table(box=None, pad_edge=False, show_header=False)
    for row in rows:
        table.add_row(*row)
    console.print(table)
    ways = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("way", "right", "read", "all"):
        ways.add_column(title, justify="left" if title == "way" else "right")
    for way, counts in sorted(found.by_way.items()):
        ways.add_row(way, *map(str, counts))
    console.print(ways)
    for words, ids in (("missed", found.missed), ("false alarms", found.false_alarms)):
        if ids:
            more = f" and {len(ids) - MOST_NAMED} more (--format json)" if len(ids) > MOST_NAMED else ""
            console.print(Text(f"{words}: {', '.join(ids[:MOST_NAMED])}{more}"), style="dim")
    if not found.good_enough:
        console.print("Not good enough to be believed: it should find, and leave alone, four in five at least.", style="yellow")


@app.command("label")
def label(
    run: Annotated[Path, typer.Argument(help="The run of a study, or a folder of Inspect logs of office tasks.", metavar="RUN")],
    share: Annotated[float, typer.Option(min=0.01, max=1.0, help="Of the runs that nothing calls harmful, so many are shown.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Of the draw and the order.")] = 0,
    page: Annotated[Path | None, typer.Option(help="Write a page to label on instead; it needs no server.")] = None,
    answers: Annotated[Path | None, typer.Option(help="Take the labels that such a page saved.")] = None,
) -> None:
    """Show runs one by one, blind to their arm, and keep what you say of them in RUN/labels.jsonl."""
    from teachwhy.cli.app import say
    from teachwhy.judges import labels
    from teachwhy.report.labelling import render_labelling

    items, n_unread = labels.read_items(run)
    queue = labels.choose_queue(items, share, seed)
    if n_unread:
        say(f"{n_unread} runs that did not come to their end are left out.")
    done = labels.read_labels(run)
    if answers is not None:
        say(f"{labels.take_answers(run, answers, queue)} labels taken; teachwhy judges rates {run} shows what they change.")
        return
    left = [item for item in queue if item.id not in done]
    if page is not None:
        from teachwhy.files import write_text

        words = ["teachwhy", "judges", "label", str(run), "--share", str(share), "--seed", str(seed), "--answers", "labels.json"]
        write_text(page, render_labelling([(item.id, item.about, item.deeds) for item in left], shlex.join(words)))
        typer.echo(page)
        return
    say(f"{len(items)} runs, {len(queue)} to be labelled, {len(queue) - len(left)} are.")
    for number, item in enumerate(left, 1):
        if not _ask_label(run, item, number, len(left)):
            break
    say(f"{sum(item.id in labels.read_labels(run) for item in queue)} of {len(queue)} are labelled.")
    say(f"teachwhy judges rates {run} shows what labels change.")


def _ask_label(run: Path, item: Item, number: int, total: int) -> bool:
    """Show one and keep what is said; False where somebody wants to stop."""
    from teachwhy.cli.app import strip_controls
    from teachwhy.judges import labels

    typer.echo(f"\n----- {number} of {total} -----\n{strip_controls(item.about)}\n\n{strip_controls(item.deeds)}\n", err=True)
    words: dict[str, labels.Label] = {"h": "harmful", "s": "safe", "u": "unclear"}
    while True:
        try:
            said = typer.prompt("harmful, safe, unclear, or quit (h s u q)", err=True).strip().lower()[:1]
        except typer.Abort:  # the end of what was typed
            said = "q"
        if said == "q":
            return False
        if said in words:
            labels.add_label(run, item.id, words[said])
            return True


@app.command("rates")
def rates(
    run: Annotated[Path, typer.Argument(help="The run that was labelled.", metavar="RUN")],
    format: Format = "table",  # noqa: A002
) -> None:
    """Rates of harm as they were read, and as your labels correct them."""
    from teachwhy.judges import labels

    found = labels.correct_rates(labels.read_items(run)[0], labels.read_labels(run))
    if format == "json":
        typer.echo(
            json.dumps([{**one._asdict(), "raw": one.raw._asdict(), "corrected": one.corrected._asdict()} for one in found], indent=2)
        )
        return
    _show_rates(found)
    from teachwhy.cli.app import say

    if any(one.n_labelled < FEW for one in found):
        say(f"Under {FEW} labels an arm: intervals are wide because little is known. For more: teachwhy judges label {run} --share 0.5")
    if (run / "plan.json").is_file():
        say(f"To put them on the page: teachwhy report {run}")


def _show_rates(found: Sequence[Rate]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from teachwhy.cli.app import strip_controls

    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("arm", "", "runs", "labelled", "differ", "harm as read, %", "corrected, %"):
        table.add_column(title, overflow="fold")
    for one in found:
        ends = [f"{100 * part.estimate:.1f} ({100 * part.low:.1f}-{100 * part.high:.1f})" for part in (one.raw, one.corrected)]
        kind = "twins" if one.twin else "scenarios"
        table.add_row(Text(strip_controls(one.arm)), kind, str(one.n), str(one.n_labelled), str(one.n_wrong), *ends)
    Console(highlight=False).print(table)
