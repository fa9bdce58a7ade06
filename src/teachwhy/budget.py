"""Caps on what calls to somebody else's machine may cost: estimated before, reserved while they run, counted after."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from teachwhy.errors import CAP_WORDS, CapReached
from teachwhy.files import CARD, read_card

CHARACTERS_A_TOKEN = 4.0
"""Of English text, on average; for estimates."""


def estimate_tokens(text: str, max_new: int) -> int:
    """Tokens that a call will take, most likely: those of its prompt and all that it may write."""
    return round(len(text) / CHARACTERS_A_TOKEN) + max_new


def most_tokens(text: str, max_new: int) -> int:
    """Tokens that a call can take at most: no tokenizer makes more tokens of a text than it has bytes; a template adds some."""
    return len(text.encode()) + 64 + max_new


@dataclass
class Call:
    """One call in flight; whoever makes it says what it took. Until then, and if it fails, the worst is assumed."""

    tokens: int


class TokenCap:
    """Tokens that calls may take together. One event loop; calls in flight count with the most that they can take.

    used: what earlier calls took. note: told what is used and held before and after every call, so that it can be kept: whatever ends the
    process, no call is forgotten.
    """

    def __init__(self, limit: int | None = None, used: int = 0, note: Callable[[int], None] = lambda tokens: None) -> None:
        self.limit, self.used, self.held = limit, used, 0
        self.reached = False
        self._note = note
        self._freed = anyio.Event()

    @asynccontextmanager
    async def call(self, most: int) -> AsyncIterator[Call]:
        """Make one call inside. Waits for calls in flight where its worst case would not fit beside theirs.

        Raises CapReached where it would not fit after them either.
        """
        while self.limit is not None and self.used + self.held + most > self.limit:
            if not self.held:
                self.reached = True
                raise CapReached(f"{CAP_WORDS}: {self.used:,} of {self.limit:,} are used, the next call may take {most:,}")
            await self._freed.wait()
        made = Call(most)
        self.held += most
        self._note(self.used + self.held)
        try:
            yield made
        finally:
            self.held -= most
            self.used += made.tokens
            self._note(self.used + self.held)
            self._freed.set()
            self._freed = anyio.Event()


SPENT = "spent"
"""File of a cell that is not done: tokens that its calls took."""


def spent_tokens(cells_dir: Path, but: Path | None = None) -> int:
    """Tokens that calls to APIs took in this folder, in cells that are done and in those that are not. but: the .part folder of a cell
    that counts its own."""
    spent = 0
    for folder in cells_dir.iterdir() if cells_dir.is_dir() else ():
        if (folder / CARD).is_file():
            spent += int(read_card(folder).spend.get("tokens", 0))
        elif (folder / SPENT).is_file() and folder != but:
            spent += int((folder / SPENT).read_text() or 0)
    return spent
