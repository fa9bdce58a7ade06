"""Several rules and several models: which findings stand together, and what holds for some model, for every model, over the rules."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from teachwhy.rules.ruling import Comparison
from teachwhy.rules.run import ModelResult, RuleResult
from teachwhy.statistics import holm_adjust

EXACT = 20
"""Rules up to which all ways to flip their signs are counted."""


class OverRules(NamedTuple):
    """One model: bare less reason over its rules that came to the confirm stage. Rules are the units."""

    n: int
    mean: float
    p: float | None
    """Two-sided, of flipping the sign of each rule's difference; None under 5 rules, where it could not fall below 0.06."""
    q: dict[str, float]
    """Rule -> p adjusted for the false discovery rate over the model's rules (Benjamini and Hochberg 1995)."""


class OverModels(NamedTuple):
    """One rule: bare less reason over models."""

    rule: str
    n: int
    some: float
    """p that it is so for no model at all: the smallest after Holm."""
    every: float
    """p that it is not so for at least one model: the largest (intersection and union, Berger 1982); directional."""
    heterogeneity: float
    """p of Cochran's Q: whether the models differ. Differences that were stopped early are too large, so this is rough."""


def found_of(one: RuleResult) -> Comparison | None:
    """Bare less reason, where it was confirmed."""
    return next((each for each in one.comparisons if (each.first, each.second) == ("bare", "reason")), None)


def over_rules(result: ModelResult) -> OverRules | None:
    """None where no rule came to the confirm stage."""
    from scipy.stats import false_discovery_control, permutation_test  # type: ignore[import-untyped,unused-ignore]

    held = {one.tested.id: found for one in result.rules if (found := found_of(one)) and found.p is not None}
    if not held:
        return None
    differences = np.array([found.difference for found in held.values()])
    adjusted = false_discovery_control([found.p for found in held.values()])
    p = None
    if len(held) >= 5:
        resamples = np.inf if len(held) <= EXACT else 100_000
        flipped = permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=resamples, rng=np.random.default_rng(0))
        p = float(flipped.pvalue)
    return OverRules(len(held), float(differences.mean()), p, dict(zip(held, map(float, adjusted), strict=True)))


def over_models(results: Sequence[ModelResult]) -> list[OverModels]:
    """Rules that came to the confirm stage under two models or more."""
    rules = dict.fromkeys(one.tested.id for result in results for one in result.rules)
    found = []
    for rule in rules:
        held = [
            each for result in results for one in result.rules if one.tested.id == rule and (each := found_of(one)) and each.p is not None
        ]
        if len(held) < 2:
            continue
        directed = [_directed(each) for each in held]
        some = min(p for p in holm_adjust(directed) if p is not None)
        found.append(OverModels(rule, len(held), some, max(directed), _heterogeneity(held)))
    return found


def _directed(found: Comparison) -> float:
    """One-sided p that the reason lowers the rate."""
    assert found.p is not None  # noqa: S101
    return found.p / 2 if found.difference > 0 else 1 - found.p / 2


def _heterogeneity(held: Sequence[Comparison]) -> float:
    from scipy.stats import chi2  # type: ignore[import-untyped,unused-ignore]

    differences, errors = np.array([one.difference for one in held]), np.array([one.error for one in held])
    weights = 1 / errors**2
    centre = (weights * differences).sum() / weights.sum()
    return float(chi2.sf((weights * (differences - centre) ** 2).sum(), len(held) - 1))
