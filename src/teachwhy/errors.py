"""Every error that teachwhy raises on purpose.

    TeachwhyError
    ├── UserError          something the user can mend: printed without a traceback, exit code 2
    │   ├── LeakError      a training row shares text with an evaluation scenario
    │   └── MissingExtra   a library that is not installed is needed; names the command that installs it
    └── CellFailed         one cell of a study could not be finished; the others go on
        └── CapReached     what may be spent is spent: exit code 4, and what was finished is kept

Anything else that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_FINDINGS = 1
EXIT_USAGE = 2
EXIT_INCONCLUSIVE = 3
EXIT_CAP = 4
EXIT_INTERRUPTED = 130
CAP_WORDS = "the cap on what calls may take is reached"
"""In the reason of every cell that a cap stopped."""


class TeachwhyError(Exception):
    """Root of the tree."""


class UserError(TeachwhyError):
    """What is wrong, where, and what to type next."""

    exit_code = EXIT_USAGE

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        self.what = what
        self.where = where
        self.hint = hint
        super().__init__("\n".join(part for part in (what, where and f"in {where}", hint) if part))

    def __reduce__(self) -> tuple[object, ...]:
        """Survive the trip from a worker process: exceptions pickle only their `args` by default."""
        return _rebuild, (type(self), self.what, self.where, self.hint)


def _rebuild(kind: type[UserError], what: str, where: str, hint: str) -> UserError:
    return kind(what, where=where, hint=hint)


class LeakError(UserError):
    """Training text shares an 8-gram with an evaluation scenario."""


class MissingExtra(UserError):
    """A library of an extra is needed and not installed."""

    def __init__(self, what: str, *, where: str = "", hint: str = "", extra: str = "train") -> None:
        super().__init__(what, where=where, hint=hint or f'Type: pip install "teachwhy[{extra}]"')


class CellFailed(TeachwhyError):
    """One cell failed; `reason` is kept in the run and counted in the report."""


class CapReached(CellFailed):
    """The next call could cost more than is left under the cap."""
