"""`teachwhy report`: one page for one run or several."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from teachwhy.report.page import Section


def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Folders of studies' runs and of rules prefer; files of rules simulate.", metavar="RUN...")
    ],
    output: Annotated[
        Path | None, typer.Option(help="Where the page goes; else report.html in the run, for several runs report.html here.")
    ] = None,
    title: Annotated[str, typer.Option(help="The page's title.")] = "teachwhy: what was measured",
) -> None:
    """Make one self-contained HTML page from one run or several; print its path."""
    from teachwhy.errors import UserError
    from teachwhy.files import explain_os_error, write_text
    from teachwhy.study.gather import view_run
    from teachwhy.study.page import render_runs

    page = output or (runs[0] / "report.html" if len(runs) == 1 else Path("report.html"))
    if page.is_dir():
        page = page / "report.html"
    more = dict(_rules_sections(runs))
    studies = [view_run(run) for run in runs if run not in more]
    if not studies:
        raise UserError(
            "none of these is the run of a study", where=str(runs[0]), hint="Name one first; what is of rules stands behind it."
        )
    html = render_runs(studies, title, more=list(more.values()))
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, page) from error
    write_text(page, html)
    typer.echo(page)


def _rules_sections(runs: list[Path]) -> Iterator[tuple[Path, Section]]:
    """What of the paths is of rules, by the schema that its JSON names."""
    import json

    makers = {"teachwhy.rules.preference/1": "preference_section", "teachwhy.rules.simulate/1": "simulation_section"}
    for number, run in enumerate(runs, 1):
        path = run if run.is_file() else run / "report.json"
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # said where a study is looked for
        if isinstance(held, dict) and (make := makers.get(str(held.get("schema")))):
            from teachwhy.rules import page  # late: it imports Inspect, which the pages of studies do without

            yield run, getattr(page, make)(held, f"rules-{number}")
