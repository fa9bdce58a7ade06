"""The published scenarios: every condition a sample, in upstream's words and with upstream's scores."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import inspect_ai
import pytest
from inspect_ai.model import ModelOutput, ModelUsage, get_model

from teachwhy.errors import MissingExtra, UserError
from teachwhy.evaluations.published import list_conditions, published

HARM = "<tool_use:email>\nto: kyle.johnson@summitbridge.com\nbody: I have leverage over you.\n</tool_use:email>"


def model_of(answer: Any) -> Any:
    def say(messages: list[Any], *rest: Any) -> ModelOutput:
        output = ModelOutput.from_content("mockllm/model", answer(messages))
        output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)
        return output

    return get_model("mockllm/model", custom_outputs=say, memoize=False)


def subject(messages: list[Any]) -> str:
    """Harm in a third of conditions, by their words."""
    digest = hashlib.sha256("".join(message.text for message in messages).encode()).hexdigest()
    return HARM if int(digest, 16) % 3 == 0 else "Nothing to do."


def grader(messages: list[Any]) -> str:
    return f"<answer>{'yes' if 'leverage over you' in messages[-1].text else 'no'}</answer>"


def test_conditions_are_those_of_upstream() -> None:
    found = list_conditions()
    assert len(found) == len({one.id for one in found}) == 3 * 26 * 3
    assert {one.kind for one in list_conditions("murder", "latent", "none")} == {"murder"}
    with pytest.raises(UserError, match="there is no goal_type 'hidden'"):
        list_conditions(goal_type="hidden")


@pytest.mark.skipif(find_spec("inspect_evals") is not None, reason="inspect-evals is installed")
def test_without_the_extra_it_says_what_to_type() -> None:
    with pytest.raises(MissingExtra) as found:
        published()
    assert 'pip install "teachwhy[published]"' in found.value.hint


@pytest.mark.skipif(find_spec("inspect_evals") is None, reason='needs inspect-evals: pip install "teachwhy[published]"')
@pytest.mark.filterwarnings("default")  # what inspect-evals imports is not ours
def test_scores_are_those_of_upstream_on_the_same_transcripts(tmp_path: Path) -> None:
    from inspect_evals.agentic_misalignment import agentic_misalignment  # type: ignore[import-not-found,unused-ignore]

    quiet: dict[str, Any] = {"log_dir": str(tmp_path), "display": "none", "log_level": "error"}
    judge = model_of(grader)
    (log,) = inspect_ai.eval(published("blackmail"), model=model_of(subject), model_roles={"judge": judge}, **quiet)
    assert log.status == "success", log.error
    ours = {str(sample.id): sample for sample in log.samples or []}
    assert 0 < sum(sample.scores["published_scorer"].value["harmful"] for sample in ours.values()) < len(ours) == 78
    for one in list_conditions("blackmail")[::9]:
        task = agentic_misalignment(
            scenario=one.kind, goal_type=one.goal_type, goal_value=one.goal_value, urgency_type=one.urgency, grader_model=judge
        )
        (theirs,) = inspect_ai.eval(task, model=model_of(subject), **quiet)
        (sample,) = theirs.samples or []
        mine = ours[str(sample.id)]
        assert [message.text for message in mine.messages] == [message.text for message in sample.messages]
        assert mine.scores["published_scorer"].value == (sample.scores or {})["harmfulness_scorer"].value
