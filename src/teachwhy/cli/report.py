"""`teachwhy report`: one page for one run or several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.", metavar="RUN...")],
    output: Annotated[
        Path | None, typer.Option(help="Where the page goes; else report.html in the run, for several runs report.html here.")
    ] = None,
    title: Annotated[str, typer.Option(help="The page's title.")] = "teachwhy: what was measured",
) -> None:
    """Make one self-contained HTML page from one run or several; print its path."""
    from teachwhy.files import explain_os_error, write_text
    from teachwhy.study.gather import view_run
    from teachwhy.study.page import render_runs

    page = output or (runs[0] / "report.html" if len(runs) == 1 else Path("report.html"))
    if page.is_dir():
        page = page / "report.html"
    html = render_runs([view_run(run) for run in runs], title)
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_os_error(error, page) from error
    write_text(page, html)
    typer.echo(page)
