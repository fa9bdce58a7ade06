"""The command line: one file a noun, parsing only. A noun's file is imported when the noun is typed."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """What the script `teachwhy` calls. Ends by SystemExit with one of the exit codes of errors.py."""
    from teachwhy.cli.app import app

    app(prog_name="teachwhy")
