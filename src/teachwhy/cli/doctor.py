"""`teachwhy doctor`: what is there, what is missing, and what to type for it."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

KEYS = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GOOGLE_API_KEY", "OPENROUTER_API_KEY")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
MAC_BROWSERS = ("Chromium", "Google Chrome")


def doctor(
    format: Annotated[Literal["table", "json"], typer.Option(help="How to print it.")] = "table",  # noqa: A002
) -> None:
    """Say what is installed, what is missing and what to type for it. Changes nothing."""
    found = examine()
    if format == "json":
        typer.echo(json.dumps(found, indent=2))
    else:
        _show(found)


def examine() -> dict[str, Any]:
    """What this installation and this machine have. Keys are looked at for presence alone."""
    from teachwhy import __version__
    from teachwhy.models import builtin
    from teachwhy.study import run

    libraries = list_libraries()
    found: dict[str, Any] = {
        "teachwhy": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "libraries": libraries,
        "builtin": {"state": "ready" if builtin.find_builtin() else "missing", "where": str(builtin.builtin_dir())},
        "machine": {
            "cores": run.count_cores(),
            "memory_gb": _round(count_memory()),
            "disk_free_gb": _round(_free_disk(builtin.builtin_dir())),
            "bf16": has_bf16(),
        },
        "chromium": find_chromium(),
        "keys": {name: bool(os.environ.get(name)) for name in KEYS},
    }
    return {**found, "todo": _list_todo(found)}


def list_libraries() -> dict[str, dict[str, str | None]]:
    """Group (core or an extra) -> library -> installed version, as the package's own metadata names them."""
    groups: dict[str, dict[str, str | None]] = {"core": {}}
    try:
        required = metadata.requires("teachwhy") or []
    except metadata.PackageNotFoundError:
        return groups
    for line in required:
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)", line)
        name = re.split(r"[^\w.-]", line, maxsplit=1)[0]
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            version = None
        groups.setdefault(extra[1] if extra else "core", {})[name] = version
    return groups


def count_memory() -> int | None:
    """Bytes of memory, or of the control group's limit where that is smaller; None where it cannot be told."""
    try:
        n_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return n_bytes
    return min(n_bytes, int(limit)) if limit.isdigit() else n_bytes


def has_bf16() -> bool | None:
    """Does the processor multiply in bfloat16? None where it cannot be told."""
    try:
        if sys.platform == "darwin":
            words = ["sysctl", "-n", "hw.optional.arm.FEAT_BF16"]
            return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip() == "1"
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return None
    return bool(re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", flags))


def find_chromium() -> str | None:
    """A Chromium or Chrome; only the tests of the page need one."""
    for name in BROWSERS:
        if path := shutil.which(name):
            return path
    places = [Path(f"/Applications/{name}.app/Contents/MacOS/{name}") for name in MAC_BROWSERS]
    return next((str(path) for path in places if path.exists()), None)


def _free_disk(path: Path) -> int | None:
    for place in (path, *path.parents):
        if place.exists():
            return shutil.disk_usage(place).free
    return None


def _round(n_bytes: int | None) -> float | None:
    return None if n_bytes is None else round(n_bytes / 2**30, 1)


def _list_todo(found: dict[str, Any]) -> list[dict[str, str]]:
    missing = {group: [name for name, version in names.items() if version is None] for group, names in found["libraries"].items()}
    todo = []
    if missing["core"]:
        todo.append({"what": f"Missing from this installation: {', '.join(missing['core'])}.", "type": "pip install teachwhy"})
    if missing.get("train"):
        what = f"Training and scoring models here needs {', '.join(missing['train'])}."
        todo.append({"what": what, "type": 'pip install "teachwhy[train]"'})
    if found["builtin"]["state"] == "missing":
        todo.append({"what": "The built-in model is not there yet.", "type": "teachwhy models get builtin"})
    if not any(found["keys"].values()):
        todo.append({"what": "No provider's key is set; only a provider's models need one.", "type": "export ANTHROPIC_API_KEY=..."})
    return todo


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in _describe(found):
        grid.add_row(name, Text(value))
    console = Console(highlight=False)
    console.print(grid)
    console.print()
    for step in found["todo"] or [{"what": "Nothing is missing.", "type": "teachwhy study run ambiguity"}]:
        console.print(Text(step["what"]))
        console.print(Text(f"  Type: {step['type']}"))


def _describe(found: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [("teachwhy", f"{found['teachwhy']} on Python {found['python']}, {found['platform']}")]
    for group, names in found["libraries"].items():
        there = ", ".join(f"{name} {version}" for name, version in names.items() if version)
        missing = ", ".join(name for name, version in names.items() if not version)
        text = "; ".join(part for part in (there, missing and f"missing: {missing}") if part)
        rows.append((group, text or "unknown: teachwhy runs from its source tree without being installed"))
    machine = {name: "unknown" if value is None else value for name, value in found["machine"].items()}
    bf16 = {True: "computes in bf16", False: "does not compute in bf16", "unknown": "bf16 unknown"}[machine["bf16"]]
    return [
        *rows,
        ("built-in model", f"{found['builtin']['state']}: {found['builtin']['where']}"),
        ("machine", f"{machine['cores']} cores ({bf16}), {machine['memory_gb']} GB of memory, {machine['disk_free_gb']} GB of disk free"),
        ("chromium", found["chromium"] or "missing (only the tests of the page need it)"),
        ("keys", ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in found["keys"].items())),
    ]
