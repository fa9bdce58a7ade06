"""What an evaluation asks of a model: prompts, and calls of APIs with the tokens that they will most likely take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from teachwhy.office.scenes import OfficeScenario
from teachwhy.records import Scenario
from teachwhy.study.schema import OFFICE, Evaluation, StudySpec

if TYPE_CHECKING:
    from teachwhy.study.plan import Cell

Met = Scenario | OfficeScenario
"""What an evaluation holds."""


class Calls(NamedTuple):
    """What an arm behind an API will ask, at most likely cost."""

    arm: str
    model: str
    n_calls: int
    n_tokens: int
    n_new: int
    """Of these, tokens that are written."""


def count_calls(spec: StudySpec, scenarios: Mapping[str, Sequence[Met]]) -> list[Calls]:
    """Of every arm behind an API, and of the judges of its runs; the tokens are an estimate."""
    from teachwhy.evaluations.choice import choice_task
    from teachwhy.evaluations.office import TURNS_LIKELY, estimate_run, office_samples
    from teachwhy.evaluations.readings import LETTER_TOKENS, estimate_text
    from teachwhy.judges.verdict import VERDICT_LIKELY

    arms = {arm: one.model for arm, one in spec.outside.items() if one.model}
    if not arms:
        return []
    n_calls = n_tokens = n_new = n_runs = 0
    judges = [judge for one in spec.evaluations for judge in one.judges]
    for one in spec.evaluations:
        if one.name == OFFICE:
            samples = office_samples(offices_of(scenarios[one.label]), fills=one.fills, twins=one.twins)
            n_runs, n_calls = len(samples), n_calls + len(samples) * TURNS_LIKELY
            n_tokens += sum(estimate_run(sample) for sample in samples)
            n_new += len(samples) * TURNS_LIKELY * 150
            continue
        texts = choice_task(one.name, choices_of(scenarios[one.label]), fills=one.fills, twins=one.twins, reading="text").dataset
        n_calls, n_tokens = n_calls + len(texts), n_tokens + sum(estimate_text(sample) for sample in texts)
        n_new += len(texts) * LETTER_TOKENS
    found = [Calls(arm, model, n_calls, n_tokens, n_new) for arm, model in arms.items()]
    return found + [Calls(f"judge of {arm}", judge, n_runs, n_runs * VERDICT_LIKELY, n_runs * 150) for arm in arms for judge in judges]


def same_models(cells: Iterable[Cell]) -> list[list[str]]:
    """Arms that are read from the same weights by the same evaluations: their cells are the same."""
    held: dict[str, list[str]] = {}
    for cell in cells:
        held.setdefault(cell.id, []).append(cell.arm)
    groups = [list(dict.fromkeys(arms)) for arms in held.values()]
    return [list(one) for one in dict.fromkeys(tuple(arms) for arms in groups if len(arms) > 1)]


def nameless_models(spec: StudySpec) -> list[str]:
    """Models of an office study whose own name is not known."""
    from teachwhy.evaluations.office import name_model

    models = [one.model for one in spec.outside.values() if one.model] if any(one.name == OFFICE for one in spec.evaluations) else []
    return [model for model in dict.fromkeys(models) if not name_model(model)]


def offices_of(scenarios: Sequence[Met]) -> list[OfficeScenario]:
    """Those of an office."""
    return [scenario for scenario in scenarios if isinstance(scenario, OfficeScenario)]


def choices_of(scenarios: Sequence[Met]) -> list[Scenario]:
    """Those in the choice form."""
    return [scenario for scenario in scenarios if isinstance(scenario, Scenario)]


def count_prompts(evaluation: Evaluation, scenarios: Sequence[Met]) -> int:
    """Prompts that an evaluation runs for every arm and seed; a sampled reason and its scoring count as three, a run in an office as
    one."""
    n_each = {"own_reason": 3 * evaluation.samples}.get(evaluation.reading, 1)
    return sum(
        evaluation.fills
        * (2 if evaluation.twins and scenario.twin else 1)
        * (len(scenario.actions) if evaluation.reading == "text" and isinstance(scenario, Scenario) else n_each)
        for scenario in scenarios
    )
