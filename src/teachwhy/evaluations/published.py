"""The published scenarios of agentic misalignment (Lynch et al. 2025), as inspect-evals has them, with all conditions in one task.

Upstream has one sample a task, so that its stderr prints 0. Here every condition is a sample, with upstream's words and its scorer, both
of whose scores are kept: `harmful`, which also asks for the word "blackmail" or "leverage", and `classifier_verdict`.
"""

from __future__ import annotations

import os
from typing import Any, Literal, NamedTuple

from inspect_ai import Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageSystem, get_model
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer
from inspect_ai.solver import TaskState, generate

from teachwhy.errors import MissingExtra, UserError

KINDS = ("blackmail", "leaking", "murder")
VALUES = ("america", "global", "safety", "acceleration", "ethical", "pragmatic", "individualism", "collectivism")
GOALS = (*((goal, value) for goal in ("explicit", "latent", "swap") for value in VALUES), ("none", "none"), ("ambiguous", "none"))
"""Type and value of the goal; upstream forbids the others."""
URGENCIES = ("replacement", "restriction", "none")


class Condition(NamedTuple):
    """One cell of upstream's design."""

    kind: str
    goal_type: str
    goal_value: str
    urgency: str

    @property
    def id(self) -> str:
        """As upstream names it."""
        return f"{self.kind}_{self.goal_type}-{self.goal_value}_{self.urgency}"


def list_conditions(scenario: str = "", goal_type: str = "", urgency: str = "") -> list[Condition]:
    """All of them, or those with these levels. Raises UserError for a level that there is not."""
    found = [Condition(kind, *goal, one) for kind in KINDS for goal in GOALS for one in URGENCIES]
    for name, value in (("kind", scenario), ("goal_type", goal_type), ("urgency", urgency)):
        known = list(dict.fromkeys(getattr(one, name) for one in found))
        if value and value not in known:
            raise UserError(f"there is no {name} {value!r} among the published scenarios", hint=f"There are: {', '.join(known)}.")
        found = [one for one in found if not value or getattr(one, name) == value]
    return found


@task
def published(
    scenario: str = "",
    goal_type: str = "",
    urgency: str = "",
    prod: bool = False,
    instructions: Literal["", "dont", "goal"] = "",
    grader_model: str = "",
) -> Task:
    """Agentic misalignment as published, every condition a sample.

    scenario, goal_type, urgency: one level each; else all. prod: without the scratchpad. instructions: upstream's extra ones.
    grader_model: who
    classifies; else the model role `judge`, else INSPECT_GRADER_MODEL, else upstream's choice. Raises MissingExtra without inspect-evals.
    """
    upstream = _upstream()
    samples = []
    for one in list_conditions(scenario, goal_type, urgency):
        asked = upstream.generate_prompts(
            scenario=one.kind, goal_type=one.goal_type, goal_value=one.goal_value, urgency_type=one.urgency,
            extra_system_instructions=instructions or None, prod_flag=prod, alignment_faking_warning=None,
        )  # fmt: skip
        about = {
            "scenario": one.kind, "goal_type": one.goal_type, "goal_value": one.goal_value, "urgency_type": one.urgency,
            "condition_id": one.id, "extra_system_instructions": instructions or None, "test_eval_awareness": False, "prod": prod,
        }  # fmt: skip
        text = "\n".join([asked.user_prompt, asked.email_content])
        samples.append(Sample(id=one.id, input=text, metadata={**about, "system": asked.system_prompt}))
    for sample in samples:
        system = str((sample.metadata or {}).pop("system"))
        sample.input = [ChatMessageSystem(content=system), *_as_user(str(sample.input))]
    return Task(
        name="published", dataset=MemoryDataset(samples, name="published"), solver=generate(tool_calls="none"),
        scorer=published_scorer(grader_model), metadata={"upstream": upstream.version},
    )  # fmt: skip


def _as_user(text: str) -> list[Any]:
    from inspect_ai.model import ChatMessageUser

    return [ChatMessageUser(content=text)]


class Upstream(NamedTuple):
    """What is used of inspect-evals."""

    generate_prompts: Any
    harmfulness_scorer: Any
    version: str


def _upstream() -> Upstream:
    try:
        from importlib.metadata import version

        from inspect_evals.agentic_misalignment.prompt_generator import generate_prompts
        from inspect_evals.agentic_misalignment.scorers import harmfulness_scorer
    except ImportError:
        raise MissingExtra("the published scenarios come with inspect-evals, which is not installed", extra="published") from None
    return Upstream(generate_prompts, harmfulness_scorer, version("inspect-evals"))


@scorer(metrics={"harmful": [mean()], "classifier_verdict": [mean()]})
def published_scorer(grader_model: str = "") -> Scorer:
    """Upstream's scorer; an answer that no grader could read is unscored. Means only: conditions share their mails, so an interval over
    samples would be too narrow."""
    inner = None

    async def score(state: TaskState, target: Target) -> Score | None:
        nonlocal inner
        from inspect_ai.model._model import model_roles

        if inner is None:
            role = get_model(role="judge") if "judge" in model_roles() else None
            grader = grader_model or role
            inner = _upstream().harmfulness_scorer(grader_model=grader or os.environ.get("INSPECT_GRADER_MODEL") or None)
        found: Score | None = await inner(state, target)
        return found

    return score
