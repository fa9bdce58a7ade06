"""Session logs of Claude Code and Codex: found, and read as the steps of agents with what the user said between."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from teachwhy.errors import UserError
from teachwhy.rules.formats import Odd, Output, Part, Piece, Said, clean, read_claude, read_codex

MAX_COMMAND = 20_000
"""Letters. A longer one writes a file, most likely, and would take the second detector minutes."""


class Call(NamedTuple):
    """One call of the shell."""

    line: int
    """Of the log, from 1."""
    command: str


class LoggedStep(NamedTuple):
    """One answer of an agent: its text and its shell calls."""

    message: str
    calls: tuple[Call, ...]
    seconds: float | None
    """Since 1970; None: the log does not say when."""
    line: int
    agent: str = ""
    """Empty: the one that the user talks with."""
    copied: bool = False
    """Whether it was read before, in the log of a session that this one goes on with."""


class Head(NamedTuple):
    """What a log says of itself."""

    folder: str
    """Where the session began; empty: it does not say."""
    session: str
    has_user: bool
    """Whether the messages to the agent are a user's; another agent's, if not."""


@dataclass
class _Draft:
    """An answer that may go on."""

    answer: str
    seconds: float | None
    line: int
    texts: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    copied: bool = True
    """Of its calls, and of its text where the log names what belongs to one answer."""
    text_copied: bool = True
    """Of other text; it decides where there is no call, since a log that goes on with another may date it anew."""


def find_logs(places: Sequence[Path]) -> list[Path]:
    """All .jsonl files of the places, else of where the two agents keep theirs, in the order of their names. Raises UserError for none."""
    hint = "Name a folder or a file: teachwhy rules logs --sessions FOLDER"
    for place in places:
        if not place.exists():
            raise UserError("there is no such file or folder", where=str(place), hint=hint)
    homes = [Path(os.environ.get(name) or Path.home() / folder) for name, folder in _HOMES]
    looked = list(places) or [home / inner for home, inner in zip(homes, ("projects", "sessions"), strict=True)]
    found = {path for place in looked for path in ([place] if place.is_file() else place.rglob("*.jsonl")) if path.is_file()}
    if not found:
        raise UserError("no session log was found", where=", ".join(map(str, looked)), hint=hint)
    return sorted(found)


_HOMES = (("CLAUDE_CONFIG_DIR", ".claude"), ("CODEX_HOME", ".codex"))


def read_head(path: Path) -> Head:
    """Where a session began. Raises OSError where the log cannot be read."""
    for _, row in _rows(path):
        if isinstance(row, Odd):
            continue
        inner = row.get("payload")
        held = inner if isinstance(inner, dict) else row
        if isinstance(held.get("cwd"), str) and held["cwd"]:
            session = held.get("sessionId") or held.get("id")
            has_user = not (isinstance(held.get("source"), dict) and "subagent" in held["source"])
            return Head(clean(held["cwd"]), session if isinstance(session, str) else str(path), has_user)
    return Head("", str(path), True)


def read_log(path: Path, seen: set[str]) -> Iterator[LoggedStep | Said | Odd]:
    """What happened in a session, in order; one line is held at a time. seen: keys of what was read before, added to. Raises OSError."""
    drafts: dict[str, _Draft] = {}
    for line, row in _rows(path):
        pieces: Iterable[Piece] = [row] if isinstance(row, Odd) else read_codex(row) if "payload" in row else read_claude(row)
        for piece in pieces:
            if isinstance(piece, Part):
                draft = drafts.get(piece.agent)
                if draft is None or draft.answer != piece.answer:
                    yield from _close(drafts, piece.agent)
                    stamp = row.get("timestamp") if isinstance(row, dict) else None
                    draft = drafts[piece.agent] = _Draft(piece.answer, _seconds(stamp), line)
                yield from _add(draft, piece, line, seen)
            elif isinstance(piece, Output):
                if piece.agent in drafts and not drafts[piece.agent].answer:
                    yield from _close(drafts, piece.agent)
            elif isinstance(piece, Said):
                yield from _close(drafts, "")
                yield piece
            else:
                yield piece
    for agent in list(drafts):
        yield from _close(drafts, agent)


def _add(draft: _Draft, part: Part, line: int, seen: set[str]) -> Iterator[Odd]:
    known = bool(part.key) and part.key in seen
    if part.answer or part.commands:
        draft.copied &= known
    else:
        draft.text_copied &= known
    seen.add(part.key)
    draft.texts.append(part.message)
    for command in part.commands:
        if len(command) > MAX_COMMAND:
            yield Odd(f"shell call of more than {MAX_COMMAND:,} letters")
        else:
            draft.calls.append(Call(line, clean(command)))


def _close(drafts: dict[str, _Draft], agent: str) -> Iterator[LoggedStep]:
    if draft := drafts.pop(agent, None):
        message = "\n".join(text for text in draft.texts if text)
        if message or draft.calls:
            copied = draft.copied and (draft.text_copied or bool(draft.calls))
            yield LoggedStep(message, tuple(draft.calls), draft.seconds, draft.line, agent, copied)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | Odd]]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.strip():
                continue
            try:
                row = json.loads(raw)
            except (ValueError, RecursionError):
                yield number, Odd("line that is no JSON")
                continue
            yield number, row if isinstance(row, dict) else Odd("line that is no JSON object")


def _seconds(stamp: object) -> float | None:
    try:
        time = datetime.fromisoformat(str(stamp))
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
