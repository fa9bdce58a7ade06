"""Choices, read by likelihood: how probable is each action as the model's next words?

The direct reading of docs/DESIGN: per action the log-probability of its text, summed and per token, in fp32. The margin
compares the two poles' sums; harm and acted come from a softmax over the actions' means per token, because sums favour the
shortest text (the same normalisation as `acc_norm` in lm-evaluation-harness, there by bytes).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from inspect_ai import Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessage, ChatMessageSystem, ChatMessageUser, get_model
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer
from inspect_ai.solver import Generate, Solver, TaskState, solver

from teachwhy.ambiguity import make_items, read_lexicon
from teachwhy.errors import UserError
from teachwhy.evaluations import VERSIONS
from teachwhy.evaluations.capability import make_items as make_capability_items
from teachwhy.models import score_continuations
from teachwhy.records import Scenario
from teachwhy.scenarios import choice_prompt, fill, read_scenarios

listeners: list[Callable[[], None]] = []
"""Called after every sample that was read: how a study shows progress inside an evaluation."""


class DirectReading(NamedTuple):
    """One fill read by likelihood. `margin` in nats; `harm` None where no action is harmful."""

    margin: float
    harm: float | None
    acted: float


def read_directly(
    logprobs: Mapping[str, float], n_tokens: Mapping[str, int], labels: Mapping[str, str], poles: tuple[str, str]
) -> DirectReading:
    """From summed log-probabilities (nats) and token counts by action id. With several actions of a pole's label, the margin
    takes the most probable one of each (the largest sum)."""
    best = {pole: max(logprobs[action] for action, label in labels.items() if label == pole) for pole in poles}
    means = {action: logprobs[action] / n_tokens[action] for action in labels}
    top = max(means.values())
    weights = {action: math.exp(value - top) for action, value in means.items()}
    total = sum(weights.values())
    share = {label: sum(weights[action] for action in labels if labels[action] == label) / total for label in set(labels.values())}
    return DirectReading(best[poles[0]] - best[poles[1]], share.get("harmful"), 1 - share.get("inactive", 0.0))


def load_scenarios(evaluation: str, *, limit: int | Mapping[str, int] | None = None, splits: Sequence[str] = ()) -> list[Scenario]:
    """The scenarios of an evaluation. `limit` keeps so many of each split, the same for every arm: the first of every family, then
    the second of every family, and so on."""
    if evaluation in ("honeypots", "goals", "conduct", "lookalikes"):
        found = [scenario for scenario in read_scenarios(evaluation) if scenario.split in ("near", "far")]
    elif evaluation == "capability":
        found = make_capability_items()
    elif evaluation in ("ambiguity", "agreement"):
        found = make_items(read_lexicon(), conflict=evaluation == "ambiguity")
    else:
        raise UserError(f"there is no evaluation {evaluation!r}", hint=f"There are: {', '.join(VERSIONS)}.")
    found = [scenario for scenario in found if not splits or scenario.split in splits]
    if limit is None:
        return found
    places, by_split = Counter[tuple[str, str]](), dict[str, list[tuple[int, Scenario]]]()
    for scenario in found:
        place = (scenario.split, scenario.family)
        by_split.setdefault(scenario.split, []).append((places[place], scenario))
        places[place] += 1
    return [
        scenario
        for split, group in by_split.items()
        for _, scenario in sorted(group, key=lambda one: one[0])[: limit if isinstance(limit, int) else limit.get(split)]
    ]


def choice_task(evaluation: str, scenarios: Sequence[Scenario], *, fills: int = 1, twins: bool = True) -> Task:
    """Every scenario's fills, each as it is and (where it has one) as its twin."""
    samples = [
        make_sample(scenario, number, twin=twin)
        for scenario in scenarios
        for number in range(fills)
        for twin in ((False, True) if twins and scenario.twin else (False,))
    ]
    return Task(
        name=evaluation,
        dataset=MemoryDataset(samples, name=evaluation),
        solver=direct_reading(),
        scorer=direct_scorer(),
        version=VERSIONS[evaluation],
    )


def make_sample(scenario: Scenario, number: int, *, twin: bool) -> Sample:
    """One fill as an Inspect sample; its id is scenario/fill, with /twin after it."""
    filled = fill(scenario, number)
    text = filled.text(scenario.twin if twin else scenario.situation)
    return Sample(
        id=f"{scenario.id}/{number}" + ("/twin" if twin else ""),
        input=_as_messages(choice_prompt(scenario.kind, text)),
        target=scenario.poles[1],
        metadata={
            "scenario": scenario.id,
            "family": scenario.family,
            "split": scenario.split,
            "version": scenario.version,
            "fill": number,
            "twin": twin,
            "poles": list(scenario.poles),
            "actions": [{"id": action.id, "label": action.label, "text": filled.text(action.text)} for action in scenario.actions],
        },
    )


def _as_messages(chat: list[dict[str, str]]) -> list[ChatMessage]:
    kinds = {"system": ChatMessageSystem, "user": ChatMessageUser}
    return [kinds[message["role"]](content=message["content"]) for message in chat]


@solver
def direct_reading() -> Solver:
    """Ask the model for the likelihood of every action; needs local weights."""

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        actions = state.metadata["actions"]
        (scored,) = await score_continuations(get_model(), [state.messages], [[action["text"] for action in actions]])
        state.store.set("logprobs", {action["id"]: one.logprob for action, one in zip(actions, scored, strict=True)})
        state.store.set("n_tokens", {action["id"]: one.n_tokens for action, one in zip(actions, scored, strict=True)})
        for listener in listeners:
            listener()
        return state

    return solve


@scorer(metrics={"margin": [mean()], "acted": [mean()], "harm": [mean()]})
def direct_scorer() -> Scorer:
    """margin, harm and acted. Logs carry means only: every interval comes from statistics.py."""

    async def score(state: TaskState, target: Target) -> Score:
        actions = state.metadata["actions"]
        labels = {action["id"]: action["label"] for action in actions}
        logprobs, n_tokens = state.store.get("logprobs"), state.store.get("n_tokens")
        reading = read_directly(logprobs, n_tokens, labels, tuple(state.metadata["poles"]))
        value: dict[str, float] = {
            "margin": reading.margin,
            "acted": reading.acted,
            "harm": float("nan") if reading.harm is None else reading.harm,
        }
        return Score(value=value, metadata={"logprobs": logprobs, "n_tokens": n_tokens})

    return score
