"""When a rule stood in its file, by the repository's history: what an agent did at other times says nothing of the rule."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from teachwhy.errors import UserError
from teachwhy.rules.listing import ask_git
from teachwhy.rules.read import Rule, name_rule, parse_rules


class Span(NamedTuple):
    """Seconds since 1970; the end, inf while it stands there, is not in it."""

    start: float
    end: float


class Version(NamedTuple):
    """A committed version of a file."""

    seconds: float
    """When it was committed, since 1970."""
    text: str
    """Empty: the file was taken away."""


def read_spans(path: Path, rules: Sequence[Rule]) -> dict[str, tuple[Span, ...]] | None:
    """Of each rule of a file, by id, when one with the same bare text stood there; None where no version is committed."""
    path = path.resolve()
    versions = sorted(_read_versions(path), key=lambda version: version.seconds)
    if not versions:
        return None
    parsed = _name_rules(path.read_text(encoding="utf-8-sig"))
    return {rule.id: _find_spans(rule, name_rule(rule.bare) in parsed, versions, path.stat().st_mtime) for rule in rules}


def _find_spans(rule: Rule, is_parsed: bool, versions: Sequence[Version], saved: float) -> tuple[Span, ...]:
    """is_parsed: whether it is found as a rule; one that was added by hand is looked up as text. saved: when the file was last written."""
    found, start = list[Span](), None
    for version in versions:
        stands = name_rule(rule.bare) in _name_rules(version.text) if is_parsed else rule.bare in version.text
        if stands and start is None:
            start = version.seconds
        elif not stands and start is not None:
            found.append(Span(start, version.seconds))
            start = None
    # In no commit and yet in the file: it has stood there since the file was last written, at the latest.
    return (*found, Span(saved if start is None else start, math.inf))


@lru_cache(maxsize=512)
def _name_rules(text: str) -> frozenset[str]:
    return frozenset(rule.id for rule in parse_rules(text))


def _read_versions(path: Path) -> Iterator[Version]:
    """The versions of a file in the history of what is checked out, its earlier names followed."""
    form = "--format=%x00%H%x00%cI"
    words = (
        "-c",
        "core.quotePath=off",
        "log",
        "--follow",
        "--name-only",
        "--no-relative",
        "--no-show-signature",
        form,
        "--",
        f"./{path.name}",
    )
    try:
        said = ask_git(path.parent, *words) or ""
    except UserError:  # no git on this machine
        return
    parts = said.split("\0")[1:]
    for commit, rest in zip(parts[::2], parts[1::2], strict=True):
        date, *names = rest.split("\n")
        if name := next((name for name in names if name), ""):  # a merge names none
            text = ask_git(path.parent, "show", f"{commit}:{name}")
            yield Version(datetime.fromisoformat(date).timestamp(), (text or "").lstrip("\ufeff"))
