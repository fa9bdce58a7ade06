"""What the user's own sessions say of the rules: opportunities, violations, and where. Reads only; nothing leaves the machine."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field

from teachwhy.records import Record
from teachwhy.rules.bind import Bound
from teachwhy.rules.checks import Check, Reading, Step, read_step
from teachwhy.rules.formats import Odd, Said, clean
from teachwhy.rules.listing import Listing, ask_git, list_rules
from teachwhy.rules.read import project_of
from teachwhy.rules.second import read_again
from teachwhy.rules.spans import Span, read_spans
from teachwhy.rules.transcripts import Head, LoggedStep, find_logs, read_head, read_log

MAX_SHOWN = 200
"""Letters of a command."""
_YES = re.compile(
    r"\W*(?:yes|yeah|yep|yup|y|ok|okay|k|sure|go ahead|go for it|do it|do so|please do|please push|push|sounds good|approved|lgtm|👍)"
    r"(?!\w)(?![^.!?\n]*\b(?:but|not|don.?t|wait|no|never|hold)\b)",
    re.IGNORECASE,
)
"""A message that begins with a yes, and whose first sentence takes nothing back."""

LEFT_OUT = {
    "other_projects": "logs of other projects",
    "no_folder": "logs that do not say where they began",
    "unreadable": "logs that cannot be opened",
    "no_time": "steps without a time",
    "copied": "steps that an earlier log holds, too",
    "no_check": "rules without a check",
}
"""What is not counted, by its key in JSON."""


class Violation(Record):
    """One step that broke a rule."""

    log: str
    line: int
    """Of the log, from 1."""
    command: str
    """Without control codes; cut after 200 letters."""


class CountedRule(Record):
    """What the sessions say of one rule."""

    id: str
    file: str
    line: int
    text: str = Field(description="As it stands in the file, reason and all.")
    bare: str
    reason: str = Field(description="The file's; empty: it gives none.")
    check: str = Field(description="Name of the check that decides it, or `own`.")
    opportunities: int = Field(description="Steps in which it was kept or broken while it stood in the file.")
    broken: int
    before: int = Field(description="Steps at times when it did not stand in the file; they are no opportunities.")
    disagreements: int = Field(description="Steps that the second detector reads otherwise.")
    violations: tuple[Violation, ...]


class CountedLogs(Record):
    """What `teachwhy rules logs --format json` prints."""

    schema_: Literal["teachwhy.rules.logs/1"] = Field("teachwhy.rules.logs/1", alias="schema")
    file: str
    sha256: str
    sessions: int = Field(description="Of this project.")
    steps: int = Field(description="Answers of agents with text or shell calls, in these sessions.")
    rules: tuple[CountedRule, ...] = Field(description="Those with a check.")
    left_out: dict[str, int] = Field(description="What was not counted, by reason.")
    unknown: dict[str, int] = Field(description="What in the logs is not known, by kind.")
    notes: tuple[str, ...] = Field((), description="What to know about the numbers.")


@dataclass
class _Count:
    """A rule while it is counted."""

    bound: Bound
    check: Check
    spans: tuple[Span, ...] | None
    """None: every step counts."""
    asked: bool = False
    """Whether the agent's last step asked the user for leave."""
    approved: bool = False
    opportunities: int = 0
    broken: int = 0
    before: int = 0
    disagreements: int = 0
    violations: list[Violation] = field(default_factory=list)


class _Tally(NamedTuple):
    """All that is counted."""

    counts: Sequence[_Count]
    left_out: Counter[str]
    unknown: Counter[str]
    sessions: set[str]
    seen: set[str]


def count_logs(file: Path | None, places: Sequence[Path] = ()) -> CountedLogs:
    """The rules of a file, or of the nearest ones, in the sessions of its project. Raises UserError where there is no rule or no log."""
    listing, bound = list_rules(file)
    logs = find_logs(places)
    counts, notes = _prepare(bound)
    tally = _Tally(counts, Counter(dict.fromkeys(LEFT_OUT, 0)), Counter(), set(), set())
    tally.left_out["no_check"] = sum(one.check is None for one in bound)
    project = project_of(Path(listing.file))
    n_steps = 0
    for log in logs:
        try:
            n_steps += _count_log(log, project, tally)
        except OSError:
            tally.left_out["unreadable"] += 1
    return _report(listing, tally, n_steps, notes)


def _prepare(bound: Sequence[Bound]) -> tuple[list[_Count], list[str]]:
    """The rules with a check, each once, with the times when they stood in one of their files."""
    notes, counts = list[str](), dict[str, _Count]()
    for file in dict.fromkeys(one.rule.file for one in bound):
        tested = [(one, one.check) for one in bound if one.rule.file == file and one.check is not None]
        spans = read_spans(Path(file), [one.rule for one, _ in tested]) if tested else {}
        if spans is None:
            notes.append(f"{file} is in no commit: it is not known since when its rules stand there, and every session counts.")
        elif spans and (ask_git(Path(file).resolve().parent, "rev-parse", "--is-shallow-repository") or "").strip() == "true":
            says = "is in a shallow clone: when its rules came is not known from before its first commit, and earlier steps are left out."
            notes.append(f"{file} {says} Type: git fetch --unshallow")
        for one, check in tested:
            own = spans[one.rule.id] if spans is not None else None
            held = counts.setdefault(one.rule.id, _Count(one, check, own))
            if held.bound is not one:  # it stands in two files, or twice in one
                held.spans = (*held.spans, *own) if held.spans is not None and own is not None else None
    return list(counts.values()), notes


def _count_log(log: Path, project: Path, tally: _Tally) -> int:
    """Counts one log; the number of its steps."""
    head = read_head(log)
    if not head.folder:  # read all the same: what is in it may be of a form that is not known
        tally.left_out["no_folder"] += 1
        tally.unknown.update(event.kind for event in read_log(log, set()) if isinstance(event, Odd))
        return 0
    if not _is_inside(head.folder, project):
        tally.left_out["other_projects"] += 1
        return 0
    tally.sessions.add(head.session)
    for count in tally.counts:
        count.asked = count.approved = False
    return sum(_count_event(event, head, log, tally) for event in read_log(log, tally.seen))


def _is_inside(folder: str, project: Path) -> bool:
    path = Path(folder)
    try:
        return path.is_absolute() and path.resolve().is_relative_to(project.resolve())
    except (OSError, RuntimeError):  # a name that no disk can hold, a ring of links
        return False


def _count_event(event: LoggedStep | Said | Odd, head: Head, log: Path, tally: _Tally) -> bool:
    """Whether it was a step that counts."""
    if isinstance(event, Odd):
        tally.unknown[event.kind] += 1
        return False
    if isinstance(event, Said):
        for count in tally.counts:
            count.approved = head.has_user and count.asked and bool(_YES.match(event.text))
            count.asked = False
        return False
    no_time = event.seconds is None and any(count.spans is not None for count in tally.counts)
    if event.copied or no_time:
        tally.left_out["copied" if event.copied else "no_time"] += 1
    try:
        for count in tally.counts:
            _count_step(count, event, log)
    except RecursionError:
        tally.unknown["step with a shell call nested too deeply"] += 1
    return not event.copied and not no_time


def _count_step(count: _Count, step: LoggedStep, log: Path) -> None:
    counts = not step.copied and (step.seconds is not None or count.spans is None)
    stands = count.spans is None or any(span.start <= (step.seconds or 0) < span.end for span in count.spans)
    count.before += counts and not stands
    if not step.calls and not count.check.approval:  # no other check reads a message
        return
    read = Step(step.message, [call.command for call in step.calls])
    approved = count.approved and not step.agent
    if count.check.approval and not step.agent:
        count.asked = read_step(count.check, read).verdict == "kept"
    if not counts or not stands:
        return
    reading = read_step(count.check, read, approved=approved)
    count.disagreements += read_again(count.check, read, approved=approved).verdict != reading.verdict
    count.opportunities += reading.verdict != "not_applicable"
    if reading.verdict == "broken":
        count.broken += 1
        count.violations.append(Violation(log=str(log), line=_find_line(count.check, step, approved), command=_shorten(reading)))


def _find_line(check: Check, step: LoggedStep, approved: bool) -> int:
    """Of the first call that breaks the rule by itself."""
    alone = (call.line for call in step.calls if read_step(check, Step("", (call.command,)), approved=approved).verdict == "broken")
    return next(alone, step.line)


def _shorten(reading: Reading) -> str:
    text = " ".join(clean(reading.evidence).split())
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


def _report(listing: Listing, tally: _Tally, n_steps: int, notes: Sequence[str]) -> CountedLogs:
    return CountedLogs(
        file=listing.file, sha256=listing.sha256, sessions=len(tally.sessions), steps=n_steps, rules=tuple(_rows(tally.counts)),
        left_out=dict(tally.left_out), unknown=dict(tally.unknown.most_common()), notes=tuple(notes),
    )  # fmt: skip


def _rows(counts: Sequence[_Count]) -> Iterator[CountedRule]:
    for one in counts:
        rule = one.bound.rule
        yield CountedRule(
            id=rule.id, file=rule.file, line=rule.line, text=rule.text, bare=rule.bare, reason=rule.reason, check=one.bound.check_name,
            opportunities=one.opportunities, broken=one.broken, before=one.before, disagreements=one.disagreements,
            violations=tuple(one.violations),
        )  # fmt: skip
