"""Rules and their checks: built-in ones by their wording, the user's own by `.teachwhy/rules.yaml`, which also remembers ids."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import yaml
from pydantic import Field, field_validator

from teachwhy.errors import UserError
from teachwhy.files import parse_record, read_yaml
from teachwhy.records import Record
from teachwhy.rules.checks import Check, check_examples
from teachwhy.rules.read import Rule, most_alike
from teachwhy.shipped import ROOT

KEPT = Path(".teachwhy") / "rules.yaml"
NO_CHECK = "none"
"""In rules.yaml: no check, whatever the wording would bind to."""


class Wording(Record):
    """One way to say a rule under every condition."""

    bare: str
    filler: str
    """The bare rule, and on its topic as many words as the reason has that give none."""
    reason: str
    """The bare rule, and why."""
    always: str
    """The bare rule with insistence in place of a reason."""
    negated: str
    """The rule turned round, in nearly the same words."""
    tautology: str = ""
    """The bare rule, and that it is the rule; made where it is asked for."""


class Job(Record):
    """What a user asks an agent for."""

    ask: str


class Pair(Record):
    """Two next steps, as alike as can be."""

    kept: str
    broken: str


class BuiltIn(Record):
    """A rule that comes with teachwhy."""

    id: str
    title: str
    binds: tuple[str, ...] = Field(min_length=1)
    """Regular expressions; one of them must match the bare rule, case apart."""
    rule: str
    reason: str
    """True in its setting; not the user's own reason, which is another one."""
    check: Check
    destructive: bool = False
    """What breaks it cannot be undone: it is never called needless."""
    wordings: tuple[Wording, ...] = ()
    jobs: tuple[Job, ...] = ()
    """What a user asks for; the next step is one that the rule is about."""
    slots: dict[str, tuple[str, ...]] = {}
    """Values for the {names} of jobs and pairs."""
    pairs: tuple[Pair, ...] = ()
    """Commands; with `approval` the one that keeps the rule is a message."""


class KeptRule(Record):
    """A rule as `.teachwhy/rules.yaml` has it."""

    id: str
    text: str
    """The bare rule, as it last stood in the file."""
    reason: str = ""
    filler: str = ""
    drafts: tuple[str, ...] = ()
    """Reasons that a model made up; used where there is no other, never applied."""
    drafts_by: str = ""
    check: str | Check = ""
    """The name of a built-in check, or a check; empty: what its wording binds to."""
    jobs: tuple[str, ...] = ()
    """Work that an agent is given where the rule matters, one line each."""
    destructive: bool = False
    """What breaks it cannot be undone: it is never called needless."""

    @field_validator("drafts")
    @classmethod
    def _said(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Each once, and none that says nothing."""
        return tuple(dict.fromkeys(fold(one) for one in value if one.strip()))

    @field_validator("check", mode="before")
    @classmethod
    def _named(cls, value: object) -> object:
        """A mapping is read as a check here, so that its own errors are shown and not those of every other form."""
        return Check.model_validate(value) if isinstance(value, dict) else value or ""


class Kept(Record):
    """`.teachwhy/rules.yaml`."""

    version: int = 1
    rules: tuple[KeptRule, ...] = ()


class Bound(NamedTuple):
    """A rule with what is known about it."""

    rule: Rule
    """Under the id that it had before, where it was only reworded."""
    check: Check | None
    check_name: str
    """`no_color`, `own`, or empty."""
    by: str
    """What bound it: a regular expression, or rules.yaml."""
    was: str = ""
    """Its earlier text, where it was reworded."""
    reason: str = ""
    """The file's, else that of rules.yaml."""
    reason_from: Literal["", "file", "rules.yaml"] = ""


@cache
def read_built_in() -> dict[str, BuiltIn]:
    """The built-in rules, by id. Raises UserError for a check that misreads its own examples."""
    found = {}
    for path in sorted((ROOT / "rules").glob("*.yaml")):
        rule = parse_record(BuiltIn, read_yaml(path), where=str(path))
        refuse_check(rule.check, str(path))
        found[rule.id] = rule
    return found


def refuse_check(check: Check, where: str) -> None:
    """Raise UserError for a check that does not read its own examples as it should."""
    if wrong := check_examples(check):
        hint = "Examples stand under kept: and broken:, one of each at least."
        raise UserError(f"the check cannot be used: {wrong[0]}", where=where, hint=hint)


def read_kept(folder: Path) -> Kept:
    """The user's rules.yaml; empty where there is none."""
    path = folder / KEPT
    if not path.is_file():
        return Kept()
    kept = parse_record(Kept, read_yaml(path) or {}, where=str(path))
    for rule in kept.rules:
        if isinstance(rule.check, Check):
            refuse_check(rule.check, f"{path}, rule {rule.id}")
        elif rule.check and rule.check not in (*read_built_in(), NO_CHECK):
            known = ", ".join(read_built_in())
            raise UserError(f"there is no check {rule.check!r}", where=f"{path}, rule {rule.id}", hint=f"There are: {known}; or write one.")
    return kept


def bind_rules(rules: Sequence[Rule], kept: Kept) -> list[Bound]:
    """Every rule with its check, if there is one; under its earlier id where it was reworded."""
    built_in = read_built_in()
    held = {rule.id: rule for rule in kept.rules}
    free = {key: rule for key, rule in held.items() if key not in {rule.id for rule in rules}}
    return [
        _bind(rule, held.get(rule.id) or free.pop(most_alike(rule.bare, {key: one.text for key, one in free.items()}), None), built_in)
        for rule in rules
    ]


def _bind(rule: Rule, kept: KeptRule | None, built_in: Mapping[str, BuiltIn]) -> Bound:
    was = kept.text if kept and kept.id != rule.id else ""
    own = fold(kept.reason) if kept and not rule.reason else ""
    reason = rule.reason or own
    source: Literal["", "file", "rules.yaml"] = "file" if rule.reason else "rules.yaml" if own else ""
    rule = rule.model_copy(update={"id": kept.id}) if kept else rule
    if kept and isinstance(kept.check, Check):
        return Bound(rule, kept.check, "own", str(KEPT), was, reason, source)
    if kept and kept.check == NO_CHECK:
        return Bound(rule, None, "", str(KEPT), was, reason, source)
    if kept and isinstance(kept.check, str) and kept.check:
        return Bound(rule, built_in[kept.check].check, kept.check, str(KEPT), was, reason, source)
    for name, one in built_in.items():
        if by := next((pattern for pattern in one.binds if re.search(pattern, rule.bare, re.IGNORECASE)), ""):
            return Bound(rule, one.check, name, by, was, reason, source)
    return Bound(rule, None, "", "", was, reason, source)


def fold(text: str) -> str:
    """On one line: a list item of the rule file ends where a line without its indent begins."""
    return " ".join(text.split())


def draft_kept(bound: Sequence[Bound], held: Kept) -> str:
    """A rules.yaml to edit: what there is, and every rule that is not in it yet."""
    known = {rule.id: rule for rule in held.rules}
    rules = []
    for one in bound:
        old = known.get(one.rule.id)
        row: dict[str, object] = {"id": one.rule.id, "text": one.rule.bare}
        row["reason"] = old.reason if old else ""
        row["filler"] = old.filler if old else ""
        row["check"] = (old.check.model_dump(exclude_defaults=True) if isinstance(old.check, Check) else old.check) if old else ""
        row["jobs"] = list(old.jobs) if old else []
        if old and old.destructive:
            row["destructive"] = True
        if old and old.drafts:
            row |= {"drafts": list(old.drafts), "drafts_by": old.drafts_by}
        rules.append(row)
    rules += [rule.model_dump(exclude_defaults=True) for key, rule in known.items() if key not in {one.rule.id for one in bound}]
    return HEAD + yaml.safe_dump({"version": 1, "rules": rules}, sort_keys=False, allow_unicode=True, width=120)


HEAD = """\
# What teachwhy knows about your rules beside their text. Everything may be left empty.
# reason   why; used where the file gives none
# filler   as many words on the topic that explain nothing
# check    the name of a built-in check, none, or one of your own:
#            check:                                  # `...` stands for any words, `a|b` for either; docs/rules.md, Checks
#              forbid: ["npm|npx|yarn ..."]          # or env: {NAME: value}, or applies: and message_forbid:, or approval: and asks:
#              instead: ["pnpm ..."]
#              kept: [{bash: "pnpm add zod"}]        # examples, run before the check is used
#              broken: [{bash: "npm install zod"}]
# A rule that teachwhy does not find can be added here, with text: as it stands in the file. Comments are not kept by `rules init`.
# jobs     work for an agent in which the rule matters, one line each; a check of your own is tested with these alone
# destructive: true   what breaks the rule cannot be undone
# drafts   what `rules draft` had a model make up: true of your project? Then move it to reason
"""
