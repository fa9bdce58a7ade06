"""What of a run a build should stop on: rules that are broken, or more often than before, and no answer; as JUnit and for GitHub."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from teachwhy.errors import EXIT_FINDINGS, EXIT_INCONCLUSIVE, EXIT_OK, UserError
from teachwhy.rules.fix import read_json
from teachwhy.rules.results import SCHEMA

Kind = Literal["broken", "regression", "inconclusive"]
OPEN = ("need more", "no ruling")
"""Rulings that are none."""
_NOT_XML = re.compile("[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\u200e\u200f\u202a-\u202e\u2066-\u2069]")


class Finding(NamedTuple):
    """One thing to say of one rule under one model."""

    kind: Kind
    model: str
    rule: str
    """Its id."""
    line: int
    text: str
    says: str


def read_baseline(path: Path) -> dict[str, Any]:
    """An earlier report.json. Raises UserError."""
    hint = "Name the report.json of an earlier run; its models and rules are looked up in it."
    found = read_json(path, SCHEMA, "there is no such file", hint=hint)
    if found["schema"] != SCHEMA:
        raise UserError(f"the file is not of the schema {SCHEMA}", where=str(path), hint=hint)
    try:
        _Report.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        says = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise UserError(f"the file is not a whole report: {says}", where=str(path), hint=hint) from None
    return found


class _Part(BaseModel):
    """What is used of a report; the rest may be whatever it is."""

    model_config = ConfigDict(extra="ignore", strict=True)


class _Rate(_Part):
    n: int = Field(ge=0)
    broken: int = Field(ge=0)
    low: float | None = Field(allow_inf_nan=False)
    high: float | None = Field(allow_inf_nan=False)

    @model_validator(mode="after")
    def _has_limits(self) -> _Rate:
        if self.n and (self.low is None or self.high is None):
            raise ValueError("steps were read, and there are no limits")
        return self


class _Conditions(_Part):
    bare: _Rate


class _Rule(_Part):
    id: str
    conditions: _Conditions


class _Model(_Part):
    model: str
    judged: bool
    rules: list[_Rule]


class _Report(_Part):
    models: list[_Model]


def _rates(report: Mapping[str, Any]) -> dict[tuple[str, str], Mapping[str, Any]]:
    """The bare rate of every model and rule whose model was fit to judge."""
    return {(one["model"], rule["id"]): rule["conditions"]["bare"] for one in report["models"] if one["judged"] for rule in one["rules"]}


def count_known(baseline: Mapping[str, Any], models: Collection[str], rules: Collection[str]) -> int:
    """How many of these rules and models a baseline can be compared with."""
    return sum((model, rule) in _rates(baseline) for model in models for rule in rules)


def find_findings(
    report: Mapping[str, Any], *, with_reason: Collection[str] = (), baseline: Mapping[str, Any] | None = None
) -> list[Finding]:
    """All of a report, in its order. with_reason: ids of rules that have their reason in the file."""
    before = _rates(baseline) if baseline else {}
    tolerance = float(report["settings"]["tolerance"])
    found = []
    for model in report["models"]:
        for rule in model["rules"]:
            about = model["model"], rule["id"], rule["line"], rule["text"]
            if says := _say_broken(rule, tolerance, has_reason=rule["id"] in with_reason):
                found.append(Finding("broken", *about, says))
            if says := _say_regression(rule, before.get((model["model"], rule["id"]))):
                found.append(Finding("regression", *about, says))
            if rule["ruling"] in OPEN:
                found.append(Finding("inconclusive", *about, f"{rule['ruling']}: {rule['says']}"))
    return found


def _say_broken(rule: Mapping[str, Any], tolerance: float, *, has_reason: bool) -> str:
    """By the rule as it stands: bare, or, where the file has its reason, the better of bare and reason."""
    names = ("bare", "reason") if has_reason else ("bare",)
    rates = {name: rule["conditions"][name] for name in names if rule["conditions"].get(name, {}).get("n")}
    if rule["ruling"] == "no ruling" or not rates:
        return ""
    name = min(rates, key=lambda one: float(rates[one]["rate"]))
    low = float(rates[name]["low"])
    return f"{name}: {_show(rates[name])}; at least {low:.1%}, {tolerance:.1%} are tolerated" if low > tolerance else ""


def _say_regression(rule: Mapping[str, Any], before: Mapping[str, Any] | None) -> str:
    now = rule["conditions"]["bare"]
    if not before or not before["n"] or not now["n"] or float(now["low"]) <= float(before["high"]):
        return ""
    return f"bare: {_show(now)}; before {_show(before)}"


def _show(rate: Mapping[str, Any]) -> str:
    return f"{rate['broken']} of {rate['n']} steps broke it ({rate['low']:.1%} to {rate['high']:.1%})"


def exit_code(findings: Sequence[Finding], fail_on: Collection[str]) -> int:
    """1 for a broken rule or a regression, 3 for no answer, of the kinds that were asked for; else 0."""
    kinds = {one.kind for one in findings if one.kind in fail_on}
    return EXIT_FINDINGS if kinds - {"inconclusive"} else EXIT_INCONCLUSIVE if kinds else EXIT_OK


def show_github(findings: Sequence[Finding], file: str) -> str:
    """Workflow commands, one a line: annotations of a file, whose path counts from the repository's root."""
    lines = []
    for one in findings:
        place = f"file={_property(file)},line={one.line},title={_property(f'{one.kind}: {one.model}')}"
        lines.append(f"::warning {place}::{_message(f'{one.text}: {one.says}')}\n")
    return "".join(lines)


def _message(text: str) -> str:
    return _clean(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")


def _clean(text: str) -> str:
    """Without what XML forbids, what a terminal would obey, and marks that turn the direction of writing."""
    return _NOT_XML.sub("", text)


def show_junit(report: Mapping[str, Any], findings: Sequence[Finding], fail_on: Collection[str], file: str) -> bytes:
    """JUnit's XML, in UTF-8: a suite a model, a case a rule; what is not asked for and has no answer is skipped, not passed."""
    whole = ElementTree.Element("testsuites", name="teachwhy rules")
    for model in report["models"]:
        suite = ElementTree.SubElement(whole, "testsuite", name=_clean(f"{file}, {model['model']}"))
        for rule in model["rules"]:
            own = [one for one in findings if (one.model, one.rule) == (model["model"], rule["id"])]
            suite.append(_make_case(model["model"], rule, own, fail_on, file))
        for name, tag in (("tests", "testcase"), ("failures", "testcase/failure"), ("skipped", "testcase/skipped")):
            suite.set(name, str(len(suite.findall(tag))))
        suite.set("errors", "0")
    ElementTree.indent(whole)
    return bytes(ElementTree.tostring(whole, encoding="utf-8", xml_declaration=True)) + b"\n"


def _make_case(
    model: str, rule: Mapping[str, Any], findings: Sequence[Finding], fail_on: Collection[str], file: str
) -> ElementTree.Element:
    case = ElementTree.Element("testcase", name=_clean(f"line {rule['line']}: {rule['text']}"), classname=_clean(model))
    case.set("file", _clean(file))
    case.set("line", str(rule["line"]))
    held = ElementTree.SubElement(case, "properties")
    for name, value in _list_properties(rule).items():
        ElementTree.SubElement(held, "property", name=_clean(name), value=_clean(value))
    failing = [one for one in findings if one.kind in fail_on]
    waiting = [one for one in findings if one.kind == "inconclusive"]
    if failing:
        failure = ElementTree.SubElement(case, "failure", type=failing[0].kind, message=_clean("; ".join(one.says for one in failing)))
        failure.text = _clean("\n".join(f"{one.kind}: {one.says}" for one in failing))
    elif waiting:
        ElementTree.SubElement(case, "skipped", message=_clean(waiting[0].says))
    ElementTree.SubElement(case, "system-out").text = _clean(f"{rule['ruling']}: {rule['says']}")
    return case


def _list_properties(rule: Mapping[str, Any]) -> dict[str, str]:
    found = {name: str(rule[name]) for name in ("id", "check", "ruling", "rounds", "disagreements")}
    for condition, counted in rule["conditions"].items():
        found |= {f"{condition}.{name}": str(counted[name]) for name in ("n", "broken", "missing")}
    return found
