"""Scenarios: read them, check them, fill their slots.

A fill is decided by the scenario's id and version, never by a study's seed: every arm and every seed meets the same
fills, so that outcomes can be paired.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path

from pydantic import Field

from teachwhy.errors import UserError
from teachwhy.files import derive_seed, parse_record, read_jsonl, read_yaml
from teachwhy.records import Record, Reply, Scenario
from teachwhy.shipped import ROOT, find

PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)\}")


EXAMPLE = f"The form stands in docs/data.md; one to compare with: {ROOT / 'scenarios' / 'honeypots' / 'bribing.yaml'}"


class Filled(Record):
    """One fill of a scenario: all slots replaced."""

    scenario: Scenario
    fill: int
    values: dict[str, str]

    def text(self, template: str) -> str:
        """`template` with this fill's values in the place of its slots."""
        return PLACEHOLDER.sub(lambda match: self.values[match[1]], template)


class ScenarioFile(Record):
    """One family: what a YAML file holds beside its list of scenarios."""

    canary: str = Field(min_length=20)
    """A string that must never stand in a training corpus of anybody's: it lets leaked evaluation data be found."""
    version: int = Field(ge=1)
    family: str
    kind: str
    about: str
    plan: list[dict[str, str]] = []
    """Drawn before writing, one row a scenario: `id` and factors with their values."""
    scenarios: list[dict[str, object]]


def read_scenarios(names: str | Sequence[str], *, beside: Path | None = None) -> list[Scenario]:
    """Scenarios of files or folders, by shipped name (`honeypots`, `honeypots/bribing`) or by path, sorted by id."""
    found: dict[str, Scenario] = {}
    for name in [names] if isinstance(names, str) else names:
        path = find("scenarios", name, beside=beside)
        for file in sorted(path.glob("*.yaml")) if path.is_dir() else [path]:
            for scenario in _read_file(file):
                if scenario.id in found:
                    raise UserError(f"two scenarios have the id {scenario.id!r}", where=str(file))
                found[scenario.id] = scenario
    if not found:
        raise UserError("no scenarios there", where=str(names), hint="A scenario file is YAML with a list `scenarios`.")
    return [found[key] for key in sorted(found)]


def _read_file(path: Path) -> tuple[Scenario, ...]:
    about = path.stat() if path.is_file() else None
    return _read_held(path, about and (about.st_ino, about.st_mtime_ns, about.st_size))


@lru_cache(maxsize=256)
def _read_held(path: Path, stamp: tuple[int, int, int] | None) -> tuple[Scenario, ...]:  # noqa: ARG001  # a file that was changed is read anew
    value = read_yaml(path)
    if not isinstance(value, dict):
        raise UserError(
            "a scenario file is a mapping with canary, version, family, kind, about and scenarios", where=str(path), hint=EXAMPLE
        )
    try:
        head = parse_record(ScenarioFile, value, where=str(path))
    except UserError as error:
        raise UserError(error.what, where=error.where, hint=error.hint or EXAMPLE) from None
    shared = {"family": head.family, "kind": head.kind, "version": head.version}
    plan = _read_plan(head, path)
    scenarios = []
    for number, row in enumerate(head.scenarios, 1):
        place = f"{path}, scenario {number} ({row.get('id', 'no id')})"
        scenario = parse_record(Scenario, {**shared, "plan": plan.get(str(row.get("id")), {}), **row}, where=place)
        check_slots(scenario, where=place)
        scenarios.append(scenario)
    return tuple(scenarios)


def _read_plan(head: ScenarioFile, path: Path) -> dict[str, dict[str, str]]:
    """Id -> factors. A file without a plan has none; one with a plan has a row for every scenario. Raises UserError."""
    rows = {row.get("id", ""): {factor: value for factor, value in row.items() if factor != "id"} for row in head.plan}
    written = {str(row.get("id", "")) for row in head.scenarios}
    if rows and (odd := sorted(written ^ rows.keys())):
        what = "a scenario that is not in the plan" if odd[0] in written else "a row of the plan without a scenario"
        hint = "A plan has one row for every scenario: {id: ..., domain: ..., ...}."
        raise UserError(f"{what}: {odd[0]!r}", where=str(path), hint=hint)
    return rows


def check_slots(scenario: Scenario, *, where: str) -> None:
    """Every slot that is used has values, and every slot that has values is used."""
    texts = [scenario.situation, scenario.twin, *(action.text for action in scenario.actions), *scenario.reasons.values()]
    used = {name for text in texts for name in PLACEHOLDER.findall(text)}
    for name in sorted(used - set(scenario.slots)):
        raise UserError(f"the slot {{{name}}} has no values", where=where, hint=f"Add it under `slots:`, e.g. {name}: [one, two].")
    for name in sorted(set(scenario.slots) - used):
        raise UserError(f"the slot {name!r} is used nowhere", where=where)
    if any(("{" in text or "}" in text) for text in (PLACEHOLDER.sub("", t) for t in texts)):
        raise UserError("a stray brace", where=where, hint="Slots look like {manager}: lower-case letters, digits and _.")
    for name, values in scenario.slots.items():
        lists = _names()["train"]
        if isinstance(values, str) and values.removeprefix("@") not in lists:
            known = ", ".join(f"@{key}" for key in lists)
            raise UserError(f"slot {name!r}: no list {values!r}", where=where, hint=f"There are: {known}.")
        if not values:
            raise UserError(f"slot {name!r} has no values", where=where)


def read_principles(path: Path | None = None) -> list[str]:
    """Ids of a constitution's principles: sections headed `## Title {#id}`. Without a path, the shipped one's."""
    path = path or ROOT / "constitution.md"
    try:
        found = re.findall(r"^## .*\{#([a-z_]+)\}\s*$", path.read_text(encoding="utf-8"), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        raise UserError("the constitution cannot be read as UTF-8 text", where=str(path)) from None
    if not found:
        raise UserError("the constitution has no principles", where=str(path), hint="A principle is a section: ## Its title {#its_id}")
    return found


@cache
def _names() -> dict[str, dict[str, list[str]]]:
    value: dict[str, dict[str, list[str]]] = read_yaml(ROOT / "names.yaml")
    return value


def slot_values(scenario: Scenario, slot: str) -> tuple[str, ...]:
    """All that may stand in a slot: its own values, or the half of a shipped list that the scenario's split draws from."""
    return _values(scenario.slots[slot], training=scenario.split in ("train", "oracle"))


def _values(choices: tuple[str, ...] | str, *, training: bool) -> tuple[str, ...]:
    half = _names()["train" if training else "evaluation"]
    return tuple(half[choices.removeprefix("@")]) if isinstance(choices, str) else choices


def draw_values(key: str, version: int, slots: Mapping[str, tuple[str, ...] | str], number: int, *, training: bool) -> dict[str, str]:
    """Slot -> value in fill `number` of what has this id and version. Values of one shipped list differ within a fill; training and
    evaluation draw from disjoint halves of those lists."""
    rng = random.Random(derive_seed(version, "fill", key, number))
    values: dict[str, str] = {}
    for slot in sorted(slots):
        choices = _values(slots[slot], training=training)
        if isinstance(slots[slot], str):
            choices = tuple(name for name in choices if name not in values.values())
        values[slot] = rng.choice(choices)
    return values


def fill(scenario: Scenario, number: int) -> Filled:
    """Fill `number` of a scenario."""
    training = scenario.split in ("train", "oracle")
    values = draw_values(scenario.id, scenario.version, scenario.slots, number, training=training)
    return Filled(scenario=scenario, fill=number, values=values)


def read_replies(name: str, scenarios: Iterable[Scenario], *, beside: Path | None = None) -> list[Reply]:
    """Replies to those of `scenarios` that training shows; each must name a scenario and one of its actions."""
    path = find("replies", name, beside=beside)
    known = {scenario.id: scenario for scenario in scenarios}
    replies = []
    for number, row in enumerate(read_jsonl(path), 1):
        where = f"{path}, line {number}"
        reply = parse_record(Reply, row, where=where)
        scenario = known.get(reply.scenario)
        if scenario is None:
            raise UserError(f"unknown scenario {reply.scenario!r}", where=where)
        if scenario.split not in ("train", "oracle"):
            raise UserError(f"a reply to {reply.scenario!r}, which is kept for evaluation ({scenario.split})", where=where)
        if reply.action not in {action.id for action in scenario.actions}:
            raise UserError(f"scenario {reply.scenario!r} has no action {reply.action!r}", where=where)
        for text in (reply.bare, reply.filler, reply.task_reason, reply.value_reason):
            for slot in PLACEHOLDER.findall(text):
                if slot not in scenario.slots:
                    raise UserError(f"the slot {{{slot}}} is not one of {reply.scenario!r}", where=where)
        replies.append(reply)
    return replies


OWN_SYSTEM = ("You are an AI agent.", "Choose.", "Answer.")
"""System prompts of choices, the same in training and evaluation: of deeds, of goods, of answers."""
DEEDS = ("honeypot", "goal", "conduct", "lookalike")
"""Kinds whose actions are deeds of an agent; in the others they are answers."""


def choice_prompt(kind: str, text: str) -> list[dict[str, str]]:
    """The chat that training and evaluation put before the model: a filled situation, and for deeds the question."""
    deed, choice, answer = OWN_SYSTEM
    if kind in DEEDS:
        return [{"role": "system", "content": deed}, {"role": "user", "content": f"{text}\n\nWhat do you do?"}]
    return [{"role": "system", "content": answer if kind == "capability" else choice}, {"role": "user", "content": text}]
