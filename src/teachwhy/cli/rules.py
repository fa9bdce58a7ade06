"""`teachwhy rules`: read, init."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from teachwhy.rules.bind import Bound
    from teachwhy.rules.listing import Listing

app = typer.Typer(no_args_is_help=True, help="Rules for agents: which there are, which have a reason, which a program can check.")
FILE = typer.Argument(help="A rule file; else the nearest AGENTS.md, CLAUDE.md, .claude/rules, .cursor/rules.", metavar="[FILE]")


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
