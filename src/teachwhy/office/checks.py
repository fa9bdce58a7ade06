"""What an office scenario must hold before anybody meets it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from teachwhy.errors import UserError
from teachwhy.office.events import play
from teachwhy.office.reading import as_regex, read_office
from teachwhy.office.scenes import DESIGN, FORM, OfficeScenario, Pattern, Scene, Stuff, brief, lay_out, make_scene
from teachwhy.office.state import TOOLS, WRITING
from teachwhy.scenarios import PLACEHOLDER


def check_scenario(scenario: OfficeScenario, *, where: str) -> None:
    """Raise UserError for a scenario that could not be run or read as it means: its levels, handles, tools, patterns, its twin, and every
    written transcript, which must be read as what it is labelled."""

    def refuse(what: str, hint: str = FORM) -> None:
        raise UserError(what, where=where, hint=hint)

    try:
        known = scenario.factors in DESIGN
    except KeyError:
        known = False
    if not known:
        refuse("the plan gives it no cell", "A row of `plan` has conflict: yes or no, threat: yes or no, name: own, neutral or foreign.")
    for name, levels in (("conflict", scenario.conflict), ("threat", scenario.threat)):
        if set(levels) != {"yes", "no"}:
            refuse(f"{name} needs a mail for yes and one for no")
    if scenario.twin == scenario.temptation or scenario.twin == Stuff():
        refuse("it has no twin: other items in the temptation's place")
    _check_texts(scenario, where)
    for pattern in _patterns(scenario):
        for tool in pattern.tools:
            if tool not in WRITING:
                what = f"{pattern.id}: {tool!r} is no tool that changes anything" if tool in TOOLS else f"{pattern.id}: no tool {tool!r}"
                refuse(what, f"There are: {', '.join(sorted(WRITING))}.")
        for who in (*pattern.to, *pattern.to_others):
            if who not in scenario.people and "@" not in who:
                refuse(f"{pattern.id}: nobody has the handle {who!r}", f"There are: {', '.join(scenario.people)}.")
    for transcript in scenario.transcripts:
        scene = make_scene(scenario, 0, twin=transcript.twin)
        office = lay_out(scene)
        if refused := play(scene, office, transcript.turns):
            refuse(f"transcript {transcript.id}: the office refuses a call: {refused[0]}")
        found = read_office(scene, office)
        if found.label != transcript.label:
            says = f"{found.label} ({', '.join(found.ways) or 'no pattern met'})"
            refuse(f"transcript {transcript.id} is labelled {transcript.label} and read as {says}")


def _check_texts(scenario: OfficeScenario, where: str) -> None:
    """Every slot has a value, every regular expression can be read, at both twins."""
    declared = {*scenario.slots, *scenario.people, *(f"{one}_mail" for one in scenario.people), "agent", "agent_mail", "domain"}
    texts = list(_texts(scenario.model_dump(by_alias=True, exclude={"slots", "plan"})))
    used = {name for text in texts for name in PLACEHOLDER.findall(text)}
    if odd := sorted(used - declared):
        raise UserError(f"the slot {{{odd[0]}}} has no values", where=where, hint="Add it under `slots:` or `people:`, or drop it.")
    if odd := sorted(set(scenario.slots) - used):
        raise UserError(f"the slot {odd[0]!r} is used nowhere", where=where, hint=FORM)
    for twin in (False, True):
        scene = make_scene(scenario, 0, twin=twin)
        brief(scene)
        lay_out(scene)
        _check_regexes(scenario, scene, where)


def _check_regexes(scenario: OfficeScenario, scene: Scene, where: str) -> None:
    for pattern in _patterns(scenario):
        for text in (pattern.target, pattern.by, *pattern.says, *pattern.lacks):
            try:
                re.compile(as_regex(scene, text))
            except re.error as error:
                raise UserError(f"{pattern.id}: {text!r} is no regular expression: {error}", where=where, hint=FORM) from None


def _patterns(scenario: OfficeScenario) -> list[Pattern]:
    return [*scenario.errand, *scenario.harm, *scenario.good, *(one.after for one in scenario.happenings if one.after)]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield str(key)
            yield from _texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _texts(part)
