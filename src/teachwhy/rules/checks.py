"""Checks: what an agent must do or not do, in a form that a program can decide, each with examples that are run before it is used."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from functools import cache
from typing import Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from teachwhy.errors import UserError
from teachwhy.records import Record
from teachwhy.rules.commands import CONTAINERS, SHELLS, WRAPPERS, Command, parse_commands, program_of

GIT_OPTIONS_WITH_WORD = frozenset({"-C", "-c", "--git-dir", "--work-tree", "--namespace", "--exec-path", "--super-prefix"})
_QUIET = """cd export alias set unset source . true false : echo printf exit return read shift test [ shopt umask trap local declare typeset
    let wait mkdir rmdir touch rm mv cp ln chmod chown sleep pushd popd eval exec kill"""
SILENT = frozenset(_QUIET.split())
"""What prints nothing of its own when all is well: a rule about every command that prints is not about them."""


class Step(NamedTuple):
    """What an agent did next: what it said and what it ran."""

    message: str
    bash: Sequence[str] = ()
    """One text for each call of its shell."""


class Example(Record):
    """A step whose reading is known."""

    bash: str = ""
    message: str = ""
    approved: bool = False
    """Whether the user had agreed before."""


class Check(Record):
    """Exactly one of: env, forbid, message_forbid, approval.

    A pattern of argv is written like a command: `git push ...`, `grep|egrep ...`, `git reset ... --hard ...`; `...` stands for any words,
    `*` inside a word for any letters, `a|b` for either. Paths before a program and git's own options before its subcommand do not count.
    """

    about: str = ""
    applies: tuple[str, ...] = ()
    """Patterns of the commands that the rule is about; empty: every command that prints."""
    env: dict[str, str] = {}
    """Each of those commands must have these variables; `*` is any value."""
    forbid: tuple[str, ...] = ()
    """None of these may be run."""
    unpiped: tuple[str, ...] = ()
    """With `forbid`: none of these, unless they read what another command writes."""
    unless: tuple[str, ...] = ()
    """Commands that do not count, whatever else they match: dry runs, help."""
    instead: tuple[str, ...] = ()
    """With `forbid`: what keeps the rule where it is run."""
    message_forbid: str = ""
    """With `applies`: a regular expression that none of their words and none of what they are fed may match."""
    approval: tuple[str, ...] = ()
    """Commands that need the user's word: running one without it breaks the rule, asking for it keeps it."""
    asks: str = ""
    """With `approval`: a regular expression for a question to the user."""
    kept: tuple[Example, ...] = Field((), description="Steps that keep the rule.")
    broken: tuple[Example, ...] = Field((), description="Steps that break it.")

    @field_validator("message_forbid", "asks")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"{value!r} is no regular expression: {error}") from None
        return value

    @model_validator(mode="after")
    def _one(self) -> Check:
        kinds = [name for name in ("env", "forbid", "message_forbid", "approval") if getattr(self, name)]
        if len(kinds) != 1:
            raise ValueError(f"a check is one of env, forbid, message_forbid, approval; here: {', '.join(kinds) or 'none'}")
        if self.message_forbid and not self.applies:
            raise ValueError("message_forbid needs the commands that it is about: applies")
        if bool(self.approval) != bool(self.asks):
            raise ValueError("approval and asks belong together")
        return self


class Reading(NamedTuple):
    """What a check makes of a step."""

    verdict: Literal["kept", "broken", "not_applicable"]
    evidence: str
    """The command or sentence that decided."""


def read_step(check: Check, step: Step, *, approved: bool = False) -> Reading:
    """Whether a step keeps the rule, breaks it, or gave no opportunity. approved: whether the user had agreed before."""
    return decide(check, [command for text in step.bash for command in parse_commands(text)], step.message, _prints, approved=approved)


def decide(check: Check, read: Sequence[Command], message: str, prints: Callable[[Command], bool], *, approved: bool = False) -> Reading:
    """What commands and a message say of a rule, however they were read. prints: whether a rule about every command is about one."""
    commands = [command for command in read if not _any(check.unless, command)]
    if check.approval:
        asked = [command for command in commands if _any(check.approval, command)]
        if asked:
            return Reading("kept" if approved else "broken", asked[0].text)
        found = re.search(check.asks, message)
        return Reading("kept", found[0]) if found and not approved else Reading("not_applicable", "")
    if check.forbid:
        unpiped = [command for command in commands if not command.piped and _any(check.unpiped, command)]
        if broken := [command for command in commands if _any(check.forbid, command)] or unpiped:
            return Reading("broken", broken[0].text)
        kept = [command for command in commands if _any(check.instead, command)]
        return Reading("kept", kept[0].text) if kept else Reading("not_applicable", "")
    about = [command for command in commands if (_any(check.applies, command) if check.applies else prints(command))]
    if not about:
        return Reading("not_applicable", "")
    for command in about:
        if not _keeps(check, command):
            return Reading("broken", command.text)
    return Reading("kept", about[0].text)


def _prints(command: Command) -> bool:
    name = program_of(command.argv[0])
    quiet = name in SILENT or (name == "git" and command.argv[1:2] == ("add",)) or command.hidden or command.is_call
    return not quiet and not _is_wrapper(name, command)


def _is_wrapper(name: str, command: Command) -> bool:
    """`env X=1 ls` is read as the `ls` that it runs."""
    inner = name in SHELLS and (len(command.argv) == 1 or any(re.fullmatch(r"-[a-zA-Z]*c", word) for word in command.argv))
    elsewhere = name == "ssh" or (name in CONTAINERS and {"exec", "run"} & set(command.argv))
    return name in WRAPPERS or name == "env" or inner or bool(elsewhere)


def _keeps(check: Check, command: Command) -> bool:
    if check.env:
        return all(name in command.env and fnmatchcase(command.env[name], value) for name, value in check.env.items())
    texts = [*command.argv, *(word.partition("=")[2] for word in command.argv if word.startswith("--")), command.stdin]
    return not any(re.search(check.message_forbid, text) for text in texts)


def _any(patterns: Sequence[str], command: Command) -> bool:
    return any(match_argv(pattern, command.argv) for pattern in patterns)


def match_argv(pattern: str, argv: Sequence[str]) -> bool:
    """Whether a command has the form of a pattern."""
    return _match(_split(pattern), tuple(normalise_argv(argv)))


def normalise_argv(argv: Sequence[str]) -> list[str]:
    """Without the path before a program, and of git without its own options before the subcommand."""
    words = [program_of(argv[0]), *argv[1:]]
    if words[0] == "git":
        place = 1
        while place < len(words) and words[place].startswith("-"):
            place += 2 if words[place] in GIT_OPTIONS_WITH_WORD else 1
        words = ["git", *words[place:]]
    return words


@cache
def _split(pattern: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(pattern))
    except ValueError as error:
        raise UserError(f"the pattern {pattern!r} cannot be read: {error}") from None
    if not words:
        raise UserError("a pattern is empty", hint="Write it like a command: git push ...")
    return words


def _match(pattern: tuple[str, ...], words: tuple[str, ...]) -> bool:
    """Each place of the pattern against the words that are left, by what can follow: linear in both, whatever the input."""
    places = {0}
    for part in pattern:
        if part == "...":
            places = set(range(min(places), len(words) + 1)) if places else set()
        else:
            options = part.split("|")
            places = {place + 1 for place in places if place < len(words) and any(fnmatchcase(words[place], one) for one in options)}
    return len(words) in places


def check_examples(check: Check) -> list[str]:
    """What of a check's own examples it reads wrongly, or lacks: a check that always says the same decides nothing."""
    wrong = []
    for verdict, examples in (("kept", check.kept), ("broken", check.broken)):
        if not examples:
            wrong.append(f"it has no example that is {verdict}")
        for example in examples:
            found = read_step(check, Step(example.message, (example.bash,) if example.bash else ()), approved=example.approved)
            if found.verdict != verdict:
                wrong.append(f"{(example.bash or example.message)!r} is read as {found.verdict.replace('_', ' ')}, not as {verdict}")
    return wrong
