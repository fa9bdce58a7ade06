"""What a run advises, as a patch of the rule file and as hooks. Both are shown; neither is applied or installed."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from teachwhy.errors import UserError
from teachwhy.files import hash_file, parse_record
from teachwhy.rules.bind import Bound, Kept, Wording, bind_rules, read_kept
from teachwhy.rules.conditions import count_lengths, find_span
from teachwhy.rules.hooks import Hook, make_hook
from teachwhy.rules.listing import HOST, collect_rules
from teachwhy.rules.plan import RulesPlan, Settings, Tested
from teachwhy.rules.read import Rule, project_of, read_rule_file

REPORT, PLAN = "report.json", "plan.json"
ADDS = ("add reason", "add reason, make a hook")
HOOKS = ("make a hook", "add reason, make a hook", "keep reason, make a hook")
_WORDS = re.compile(r"\w+|[^\w\s]")


DRAFT_HINT = "Then move it to reason: in .teachwhy/rules.yaml, and run the rules again."


class Edit(NamedTuple):
    """A rule that gets its reason."""

    rule: Rule
    text: str
    """The rule with its reason, as it was measured."""
    tokens: int
    """That it adds to every turn."""
    tokenizer: str


class Fix(NamedTuple):
    """All that a run advises."""

    file: Path
    root: Path
    """Where the patch is applied."""
    diff: str
    edits: tuple[Edit, ...]
    hooks: tuple[Hook, ...]
    notes: tuple[str, ...]
    """What to know before either is used."""


class _Planned(BaseModel):
    """What is used of plan.json."""

    model_config = ConfigDict(extra="ignore")

    file: str
    path: str = ""
    sha256: str
    models: list[str]
    settings: Settings
    drafted: list[str] = []
    rules: dict[str, Annotated[list[Wording], Field(min_length=1)]]


class _Advised(NamedTuple):
    bound: Bound
    wording: Wording
    rulings: tuple[tuple[str, str], ...]
    """(model, ruling)."""
    drafted: bool

    @property
    def adds(self) -> bool:
        return not self.drafted and any(ruling in ADDS for _, ruling in self.rulings)

    @property
    def hooks(self) -> bool:
        return any(ruling in HOOKS for _, ruling in self.rulings)


def fix_rules(folder: Path) -> Fix:
    """What the run in a folder advises for its rule file. Raises UserError where the run is not finished or the file has changed since."""
    plan, report = read_run(folder)
    path = _find_file(plan)
    if not path.is_file():
        raise UserError(
            "the run's rule file is not there", where=str(path), hint="Has it been moved? Run the rules again: teachwhy rules run"
        )
    if hash_file(path) != plan["sha256"]:
        hint = "What was measured is not what stands there now. Run the rules again: teachwhy rules run"
        raise UserError("the rule file has changed since the run", where=str(path), hint=hint)
    root = project_of(path)
    kept = read_kept(root) if path != HOST else Kept()
    bounds = {one.rule.id: one for one in reversed(bind_rules(collect_rules(read_rule_file(path)[:1], kept), kept))}
    wordings = {key: [parse_record(Wording, one, where=str(folder / PLAN)) for one in held] for key, held in plan["rules"].items()}
    advised = list(_find_advised(report, bounds, wordings, plan.get("drafted", ())))
    edits = tuple(_make_edit(one) for one in advised if one.adds and path != HOST)  # that file is nobody's
    hooks = tuple(_make_hook(one, path.name) for one in advised if one.hooks)
    diff = make_diff(path, root, edits) if edits else ""
    notes = [*_say_edits(edits), *(f"hook {hook.name}: {hook.rule!r}" for hook in hooks), *_say_models(advised)]
    notes += _say_reasons(advised, path)
    notes += [f"line {one.bound.rule.line}: what helped is a draft by a model. Is it true? {DRAFT_HINT}" for one in advised if one.drafted]
    if hooks and not _same_checks(plan, path, bounds, wordings):
        notes.append("The checks are no longer those of the run; the hooks are made from those that there are now.")
    return Fix(path, root, diff, edits, hooks, tuple(notes))


def _find_file(plan: Mapping[str, Any]) -> Path:
    """The file that was measured: of the two names that the run knows it by, the one with its contents."""
    named = [path for name in ("path", "file") if (path := Path(str(plan.get(name, "")))).is_file()]
    return next((path for path in named if hash_file(path) == plan["sha256"]), next(iter(named), Path(plan["file"])))


def read_run(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(plan.json, report.json) of a finished run. Raises UserError."""
    plan = read_json(folder / PLAN, "teachwhy.rules.plan/", "there is no run in this folder", hint="Name the folder of teachwhy rules run.")
    hint = "Type the command of the run again: it goes on where it stopped."
    try:
        _Planned.model_validate(plan)
    except ValidationError as error:
        where, says = ".".join(map(str, error.errors()[0]["loc"])), error.errors()[0]["msg"]
        raise UserError(f"the file is damaged: {where}: {says}", where=str(folder / PLAN), hint=f"Remove it. {hint}") from None
    report = read_json(folder / REPORT, "teachwhy.rules.run/", "the run is not finished: it has no report", hint=hint)
    try:
        done = [(one["model"], {rule["id"] for rule in one["rules"]}) for one in report["models"]]
        asked = [(model, set(plan["rules"])) for model in plan["models"]]
        ruled = all(isinstance(rule["ruling"], str) for one in report["models"] for rule in one["rules"])
        whole = ruled and (report["sha256"], done) == (plan["sha256"], asked)
    except (LookupError, TypeError):
        whole = False
    if not whole:
        raise UserError("the run is not finished: its report is not of all its rules and models", where=str(folder), hint=hint)
    return plan, report


def read_json(path: Path, schema: str, missing: str, *, hint: str) -> dict[str, Any]:
    """An object with a schema that begins like this. Raises UserError."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(missing, where=str(path), hint=hint) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"the file cannot be read: {error}", where=str(path), hint=hint) from None
    if not isinstance(held, dict) or not str(held.get("schema", "")).startswith(schema):
        raise UserError(f"the file is not of the schema {schema}", where=str(path), hint=hint)
    return held


def _find_advised(
    report: Mapping[str, Any], bounds: Mapping[str, Bound], wordings: Mapping[str, Sequence[Wording]], drafted: Sequence[str]
) -> Iterable[_Advised]:
    for id_, held in wordings.items():
        rulings = tuple((model["model"], rule["ruling"]) for model in report["models"] for rule in model["rules"] if rule["id"] == id_)
        if not any(ruling in (*ADDS, *HOOKS) for _, ruling in rulings):
            continue
        if id_ not in bounds or bounds[id_].check is None:
            hint = "Has .teachwhy/rules.yaml changed? Run the rules again: teachwhy rules run"
            raise UserError(f"the run's rule {id_!r} is not found any more, or has no check", where=PLAN, hint=hint)
        bound = bounds[id_]
        own = next((word for word in held if _WORDS.findall(word.bare.lower()) == _WORDS.findall(bound.rule.bare.lower())), held[0])
        yield _Advised(bound, own, rulings, id_ in drafted)


def _make_edit(one: _Advised) -> Edit:
    lengths = count_lengths(one.wording, ("bare", "reason"))
    return Edit(one.bound.rule, one.wording.reason, lengths.tokens["reason"] - lengths.tokens["bare"], lengths.tokenizer)


def _make_hook(one: _Advised, name: str) -> Hook:
    check = one.bound.check
    assert check is not None, "refused before"  # noqa: S101
    reason = one.bound.reason or re.sub(r"^[\s.,(–—-]+|\)$", "", one.wording.reason.removeprefix(one.wording.bare)).strip()
    return make_hook(check, id=one.bound.rule.id, rule=one.bound.rule.bare, reason=reason, place=f"{name}:{one.bound.rule.line}")


def make_diff(path: Path, root: Path, edits: Sequence[Edit]) -> str:
    """A unified diff for `git apply` and `patch -p1` in `root`. Line ends, a byte order mark and a last line without an end stay."""
    raw = path.read_bytes().decode("utf-8")
    mark = "\ufeff" if raw.startswith("\ufeff") else ""
    text = raw.removeprefix(mark)
    new = text
    for (start, end), edit in sorted(((find_span(text, edit.rule), edit) for edit in edits), key=lambda one: one[0], reverse=True):
        stop = edit.rule.text[-1] if edit.rule.text[-1:] in (".", "!") and not edit.text.endswith((".", "!", "?")) else ""
        new = new[:start] + edit.text + stop + new[end:]
    name = path.resolve().relative_to(root.resolve()).as_posix()
    before, after = (re.findall(r"[^\n]*\n|[^\n]+", mark + one) for one in (text, new))
    lines = list(difflib.unified_diff(before, after, _quote_name(f"a/{name}"), _quote_name(f"b/{name}")))
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _quote_name(name: str) -> str:
    """As git writes it: odd letters as octal bytes between quotes; a tab ends a name with a space in it."""
    if re.fullmatch(r"[\x20-\x7e]*", name) and not set(name) & {'"', "\\"}:
        return name + ("\t" if " " in name else "")
    shown = "".join(chr(byte) if 0x20 <= byte < 0x7F and chr(byte) not in '"\\' else f"\\{byte:03o}" for byte in name.encode())
    return f'"{shown}"'


def _say_edits(edits: Sequence[Edit]) -> Iterable[str]:
    for edit in edits:
        yield f"line {edit.rule.line}, {edit.rule.bare!r}: its reason adds {edit.tokens} tokens to every turn ({edit.tokenizer})"
    if len(edits) > 1:
        yield f"together {sum(edit.tokens for edit in edits)} tokens; a model's own tokenizer may count otherwise"


def _say_models(advised: Sequence[_Advised]) -> Iterable[str]:
    """Where models do not agree."""
    for one in advised:
        if len({ruling for _, ruling in one.rulings}) > 1:
            yield f"line {one.bound.rule.line}: " + "; ".join(f"{model}: {ruling}" for model, ruling in one.rulings)


def _say_reasons(advised: Sequence[_Advised], path: Path) -> Iterable[str]:
    if path == HOST:
        yield "The file is teachwhy's own, of an invented project: there is nothing of yours to mend."
    elif lines := [str(one.bound.rule.line) for one in advised if not one.bound.reason and not one.drafted]:
        yield f"The reason of line {', '.join(lines)} is teachwhy's, true in an invented project. Is it true in yours?"


def _same_checks(plan: Mapping[str, Any], path: Path, bounds: Mapping[str, Bound], wordings: Mapping[str, Sequence[Wording]]) -> bool:
    """Whether the run's key comes out again: it covers the checks, which plan.json does not hold."""
    if not set(wordings) <= set(bounds):
        return False
    tested = tuple(Tested(bounds[key], tuple(held), (), (), False) for key, held in wordings.items())
    settings = parse_record(Settings, plan["settings"], where=PLAN)
    again = RulesPlan(path, path.name, "", plan["sha256"], tuple(plan["models"]), settings, tested, (), ())
    return bool(again.checks_key == plan.get("checks"))
