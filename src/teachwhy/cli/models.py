"""`teachwhy models`: fetch the built-in model, list what is there."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import typer

app = typer.Typer(no_args_is_help=True, help="Fetch the built-in model; list what is there.")


@app.command("get")
def get_model(name: Annotated[str, typer.Argument(help="The model's name: builtin.", metavar="NAME")]) -> None:
    """Fetch a model (93 MB) and convert it (541 MB), unless it is there; print its folder."""
    from teachwhy.cli.app import say
    from teachwhy.errors import UserError
    from teachwhy.models import builtin

    if name not in builtin.ALIASES:
        raise UserError(f"there is no model {name!r} to fetch", hint="Type: teachwhy models get builtin")
    typer.echo(builtin.get_builtin(say))


@app.command("list")
def list_models(
    format: Annotated[Literal["table", "json"], typer.Option(help="How to print it.")] = "table",  # noqa: A002
) -> None:
    """List the models that come with teachwhy: name, size, where, state."""
    from teachwhy.models import builtin

    row = {
        "name": builtin.NAME,
        "size_mb": builtin.DISK_MB,
        "download_mb": builtin.DOWNLOAD_MB,
        "where": str(builtin.builtin_dir()),
        "state": "ready" if builtin.find_builtin() else "missing",
        "about": builtin.ABOUT,
    }
    if format == "json":
        typer.echo(json.dumps([row], indent=2))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for title in ("name", "size", "state", "where"):
        table.add_column(title, overflow="fold", no_wrap=title in ("name", "size", "state"))
    table.add_row(str(row["name"]), f"{row['size_mb']} MB", str(row["state"]), Text(str(row["where"])))
    console = Console(highlight=False)
    console.print(table)
    console.print()
    console.print(Text(f"{row['name']}: {row['about']}."))
    if row["state"] == "missing":
        console.print(Text(f"To fetch it ({row['download_mb']} MB), type: teachwhy models get {row['name']}"))
