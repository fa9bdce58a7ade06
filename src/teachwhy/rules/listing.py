"""What `teachwhy rules read` says: the rules of a file as an object for programs, and what a change did to them."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from teachwhy.errors import UserError
from teachwhy.records import Record
from teachwhy.rules.bind import KEPT, Bound, Kept, bind_rules, read_kept
from teachwhy.rules.read import Rule, RuleFile, find_rule_files, most_alike, parse_rules, project_of, read_rule_file
from teachwhy.shipped import ROOT


class ListedRule(Record):
    """One rule of the listing."""

    id: str
    file: str
    line: int
    text: str = Field(description="As it stands in the file, reason and all.")
    bare: str
    reason: str = Field(description="Empty: it has none.")
    reason_from: Literal["", "file", "rules.yaml"] = Field(description="Where the reason stands.")
    check: str = Field(description="Name of the check that decides it, `own`, or empty.")
    bound_by: str = Field(description="The regular expression that matched, or .teachwhy/rules.yaml.")
    was: str = Field("", description="Its earlier text, where it was reworded.")
    note: str = Field("", description="Why it cannot be tested as it is.")


class OtherFile(Record):
    """A file that was read beside the first."""

    file: str
    sha256: str


class Listing(Record):
    """What `teachwhy rules read --format json` prints."""

    schema_: Literal["teachwhy.rules.read/1"] = Field("teachwhy.rules.read/1", alias="schema")
    file: str
    sha256: str
    rules: tuple[ListedRule, ...]
    others: tuple[OtherFile, ...] = Field((), description="Imports, and further rule files of the project.")
    unread: tuple[int, ...] = Field((), description="Lines of the file's list items that do not read like rules or reasons.")
    skipped: tuple[str, ...] = Field((), description="Imports that were not followed, and why; entries of rules.yaml that match no rule.")


def list_rules(file: Path | None) -> tuple[Listing, list[Bound]]:
    """The rules of a file, or of the nearest rule files. Raises UserError where there is none, or nothing reads like a rule."""
    files = read_files(file)
    kept = read_kept(project_of(Path(files[0].path)))
    rules = collect_rules(files, kept)
    if not rules:
        hint = "A rule is a line or a list item that says what to do: “Always use NO_COLOR=1”, “Never push without asking”."
        raise UserError("no line reads like a rule", where=files[0].path, hint=hint)
    bound = bind_rules(rules, kept)
    unmatched = [one for one in kept.rules if one.id not in {held.rule.id for held in bound}]
    return _listing(files, bound, [f"{KEPT}, {one.id}: no rule of the file is like it" for one in unmatched]), bound


HOST = ROOT / "rules" / "host" / "AGENTS.md"
"""The built-in rules among others, in an invented project's file."""


def read_files(file: Path | None) -> list[RuleFile]:
    """A file with what it imports, or the nearest rule files: each once; `builtin`: HOST. Raises UserError."""
    file = HOST if file is not None and str(file) == "builtin" else file
    files: list[RuleFile] = []
    for path in [file] if file else find_rule_files(Path.cwd()):
        files += [one for one in read_rule_file(path) if one.path not in {held.path for held in files}]
    return files


def collect_rules(files: Sequence[RuleFile], kept: Kept) -> list[Rule]:
    """The rules of files, in their order, then those that rules.yaml adds by hand."""
    rules = [rule for one in files for rule in one.rules]
    return rules + _by_hand(kept, rules, files)


def _by_hand(kept: Kept, rules: Sequence[Rule], files: Sequence[RuleFile]) -> list[Rule]:
    """Entries of rules.yaml that stand in a file and were not read as rules."""
    known = {rule.id for rule in rules} | {rule.bare for rule in rules}
    found = []
    for one in kept.rules:
        text = one.text.strip()
        if one.id in known or text in known or not text:
            continue
        for file in files:
            lines = Path(file.path).read_text(encoding="utf-8-sig").split("\n")
            if place := next((number for number, line in enumerate(lines, 1) if text in line), 0):
                found.append(Rule(id=one.id, file=file.path, line=place, text=text, bare=text))
                break
    return found


def _listing(files: Sequence[RuleFile], bound: Sequence[Bound], unmatched: Sequence[str]) -> Listing:
    rows = tuple(
        ListedRule(
            id=one.rule.id, file=one.rule.file, line=one.rule.line, text=one.rule.text, bare=one.rule.bare, reason=one.reason,
            reason_from=one.reason_from, check=one.check_name, bound_by=one.by, was=one.was, note=one.rule.note,
        )
        for one in bound
    )  # fmt: skip
    first, *others = files
    return Listing(
        file=first.path, sha256=first.sha256, rules=rows, others=tuple(OtherFile(file=one.path, sha256=one.sha256) for one in others),
        unread=tuple(line for line in first.unread if line not in {one.rule.line for one in bound}),
        skipped=(*(line for one in files for line in one.skipped), *unmatched),
    )  # fmt: skip


class Change(NamedTuple):
    """What became of a rule between two versions of a file."""

    kind: Literal["added", "removed", "reworded", "reason added", "reason removed", "reason changed"]
    rule: Rule
    before: Rule | None


def diff_rules(path: Path, revision: str) -> list[Change]:
    """How the rules of a file differ from those at a revision of its repository. Raises UserError where git cannot say."""
    before = parse_rules(_show(path, revision), str(path))
    after = [rule for one in read_rule_file(path) if one.path == str(path) for rule in one.rules] if path.exists() else []
    held, found = {rule.id: rule for rule in before}, []
    free = {key: rule for key, rule in held.items() if key not in {rule.id for rule in after}}
    for rule in after:
        old = held.get(rule.id) or free.pop(most_alike(rule.bare, {key: one.bare for key, one in free.items()}), None)
        if old is None:
            found.append(Change("added", rule, None))
            continue
        if old.id != rule.id:
            found.append(Change("reworded", rule, old))
        if old.reason != rule.reason:
            kind: Literal["reason added", "reason removed", "reason changed"] = (
                "reason added" if not old.reason else "reason changed" if rule.reason else "reason removed"
            )
            found.append(Change(kind, rule, old))
    return [*found, *(Change("removed", rule, rule) for rule in free.values())]


def _show(path: Path, revision: str) -> str:
    if revision.startswith("-"):
        raise UserError(f"{revision!r} is no revision", where="the command")
    folder = path.resolve().parent
    if ask_git(folder, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}") is None:
        raise UserError(f"there is no revision {revision!r} here", where=str(path), hint="Name a branch, a tag or a commit: --diff main")
    return ask_git(folder, "show", f"{revision}:./{path.name}") or ""  # a file that was not there had no rules


def ask_git(folder: Path, *words: str) -> str | None:
    """What git says; None where it fails."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"git could not be asked: {error}", where=str(folder)) from None
    return None if done.returncode else done.stdout.decode("utf-8", "replace")
