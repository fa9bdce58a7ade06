"""Results of a run as plain values: report.json, and the rows of the table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from teachwhy.rules.across import over_models, over_rules
from teachwhy.rules.plan import RulesPlan
from teachwhy.rules.ruling import AnyTime, Comparison, Counted, Looks, Z
from teachwhy.rules.run import ModelResult, RuleResult

SCHEMA = "teachwhy.rules.run/1"
SHOWN = ("none", "bare", "filler", "reason")
"""Conditions of every run."""


def results_json(plan: RulesPlan, results: Sequence[ModelResult]) -> dict[str, Any]:
    """The whole of report.json."""
    return {
        "schema": SCHEMA,
        "file": plan.name,
        "sha256": plan.sha256,
        "settings": plan.settings.model_dump(),
        "left_out": list(plan.left_out),
        "models": [_model_json(one) for one in results],
        "over_models": [one._asdict() for one in over_models(results)],
    }


def _model_json(one: ModelResult) -> dict[str, Any]:
    over = over_rules(one)
    return {
        "model": one.model,
        "judged": one.judged,
        "acts": one.acts,
        "told": one.told,
        "over_rules": over._asdict() if over else None,
        "rules": [_rule_json(rule) for rule in one.rules],
    }


def _rule_json(one: RuleResult) -> dict[str, Any]:
    return {
        "id": one.tested.id,
        "line": one.tested.bound.rule.line,
        "text": one.tested.bound.rule.bare,
        "check": one.tested.bound.check_name,
        "ruling": one.ruling.kind,
        "says": one.ruling.says,
        "more": one.ruling.more,
        "stopped": one.stopped,
        "rounds": one.rounds,
        "disagreements": one.disagreements,
        "recall": {name: found._asdict() for name, found in one.recalled.items()},
        "conditions": {name: _count_json(counted, Looks(Z) if name == "none" else one.measure) for name, counted in one.counts.items()},
        "comparisons": [_comparison_json(found) for found in one.comparisons],
    }


def _count_json(counted: Counted, measure: Looks | AnyTime) -> dict[str, Any]:
    interval = measure.rate(counted) if counted.total else None
    return {
        "n": counted.total,
        "broken": int(counted.broken.sum()),
        "acted": counted.acted,
        "missing": counted.missing,
        "rate": None if math.isnan(counted.rate) else counted.rate,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
    }


def _comparison_json(found: Comparison) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in found._asdict().items()}


def table_rows(result: ModelResult) -> list[tuple[str, ...]]:
    """First the titles, then one row a rule: line, check, each of the conditions, ruling."""
    more = dict.fromkeys(name for one in result.rules for name in one.counts if name not in SHOWN)
    shown = (*SHOWN, *more)
    titles = ("line", "check", *shown, "ruling")
    return [
        titles,
        *(
            (
                str(one.tested.bound.rule.line),
                one.tested.bound.check_name,
                *(_rate(one.counts.get(name)) for name in shown),
                one.ruling.kind,
            )
            for one in result.rules
        ),
    ]


def _rate(counted: Counted | None) -> str:
    if counted is None or not counted.total:
        return ""
    return f"{counted.broken.sum():.0f}/{counted.total}"


def sentence(one: RuleResult) -> str:
    """What is said of a rule below the table."""
    found = next((each for each in one.comparisons if (each.first, each.second) == ("bare", "reason")), None)
    seen = (
        f" bare less reason {found.difference:+.1%} ({found.low:+.1%} to {found.high:+.1%});"
        if found and "percentage points" not in one.ruling.says
        else ""
    )
    missing = sum(counted.missing for counted in one.counts.values())
    lost = f" {missing} steps could not be read." if missing else ""
    return f"line {one.tested.bound.rule.line}, {one.tested.bound.rule.bare!r}:{seen} {one.ruling.says}{lost}"
