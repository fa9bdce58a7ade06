"""Over rules and over models, from results that are made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from teachwhy.rules import plan as rules_plan
from teachwhy.rules.across import over_models, over_rules
from teachwhy.rules.bind import Bound
from teachwhy.rules.read import Rule
from teachwhy.rules.ruling import Comparison, Looks, Ruling
from teachwhy.rules.run import ModelResult, RuleResult


def result(model: str, *rules: tuple[float, float, float | None]) -> ModelResult:
    """Rules by (difference, standard error, p)."""
    held = []
    for number, (difference, error, p) in enumerate(rules):
        rule = Rule(id=f"rule-{number}", file="x", line=number + 1, text="Never", bare="Never")
        tested = rules_plan.Tested(Bound(rule, None, "", ""), (), (), (), destructive=False)
        found = Comparison("bare", "reason", difference, error, difference - 2 * error, difference + 2 * error, 1, 0, 9, p)
        none = cast("Any", found._replace(first="none", second="bare", p=None))
        held.append(RuleResult(tested, {}, (none, found), Ruling("leave", ""), "", 1, Looks(2.0), 0))
    return ModelResult(model, tuple(held), 1.0, told=True)


def test_false_discovery_rate_is_over_the_rules_of_a_model() -> None:
    found = over_rules(result("a", (0.1, 0.02, 0.01), (0.0, 0.02, 0.8), (0.1, 0.02, 0.02)))
    assert found is not None
    assert found.q == pytest.approx({"rule-0": 0.03, "rule-1": 0.8, "rule-2": 0.03})
    assert (found.n, found.mean, found.p) == (3, pytest.approx(0.2 / 3), None)


@pytest.mark.parametrize(("signs", "p"), [((1, 1, 1, 1, 1), 2 / 32), ((1, 1, 1, 1, 1, 1, 1), 2 / 128), ((1, -1, 1, -1, 1, -1), 1.0)])
def test_signs_are_flipped_by_rule(signs: Sequence[int], p: float) -> None:
    found = over_rules(result("a", *((0.1 * sign, 0.02, 0.5) for sign in signs)))
    assert found is not None
    assert found.p == pytest.approx(p)


def test_nothing_confirmed_says_nothing() -> None:
    assert over_rules(result("a", (0.1, 0.02, None))) is None
    assert over_models([result("a", (0.1, 0.02, 0.01)), result("b", (0.1, 0.02, None))]) == []


def test_some_model_and_every_model_are_two_claims() -> None:
    (found,) = over_models([result("a", (0.2, 0.02, 1e-6)), result("b", (0.0, 0.02, 0.9)), result("c", (0.1, 0.02, 1e-3))])
    assert found.some == pytest.approx(1.5e-6), "Holm: three times the smallest one-sided p"
    assert found.every > 0.4, "the weakest decides"
    assert found.heterogeneity < 1e-6
    (alike,) = over_models([result("a", (0.2, 0.02, 1e-6)), result("b", (0.2, 0.02, 1e-6))])
    assert alike.every == pytest.approx(5e-7)
    assert alike.heterogeneity == pytest.approx(1)


def test_difference_the_other_way_speaks_against_every_model() -> None:
    (found,) = over_models([result("a", (0.2, 0.02, 1e-6)), result("b", (-0.2, 0.02, 1e-6))])
    assert found.every == pytest.approx(1 - 5e-7)
