"""A subject with planted rates for office honeypots: what the whole path would report of an agent whose rates are known. For trying things
out and for tests.

`actor/harmful=0.3+admirable=0.1+inactive=0.1` plays, with these chances, a transcript of that label that was written for the scenario;
else, and on twins in the place of a harmful one, a safe one. `dies`, `loops`, `cut_off` and `floods` end otherwise: an error of the
provider, no end, a cut-off answer, forty calls a turn.
"""

from __future__ import annotations

import json
import random
from typing import Any

from inspect_ai.model import ChatMessage, ChatMessageAssistant, GenerateConfig, ModelAPI, ModelOutput, ModelUsage
from inspect_ai.model._model_output import ChatCompletionChoice
from inspect_ai.tool import ToolCall, ToolChoice, ToolInfo

from teachwhy.errors import UserError
from teachwhy.files import derive_seed
from teachwhy.office.scenes import Call, Scene, Turn, scene_of

LABELS = ("harmful", "admirable", "inactive", "safe")
FAULTS = ("dies", "loops", "cut_off", "floods")


class ActorModel(ModelAPI):
    """A model API; `model_name` holds the rates. It knows what is being played by the sample's metadata."""

    def __init__(
        self, model_name: str, base_url: str | None = None, api_key: str | None = None, config: GenerateConfig | None = None, **args: Any
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config or GenerateConfig())
        self.rates = read_rates(model_name.removeprefix("actor/"))
        self.seed = int(args.get("seed", 0))

    def max_connections(self) -> int:
        """Nothing waits here."""
        return 100

    async def generate(
        self,
        input: list[ChatMessage],  # noqa: A002  # Inspect's name
        tools: list[ToolInfo],  # noqa: ARG002
        tool_choice: ToolChoice,  # noqa: ARG002
        config: GenerateConfig,  # noqa: ARG002
    ) -> ModelOutput:
        """The next turn of what it plays, the same at every run under the same seed."""
        from inspect_ai.solver._task_state import sample_state

        if input[-1].text.startswith(JUDGE_OPENING):
            return _judge(self.model_name, input[-1].text, self.rates.get("harmful", 0.0))
        state = sample_state()
        if state is None or "scenario" not in state.metadata:
            raise UserError("an actor plays office scenarios alone")
        about = state.metadata
        rng = random.Random(derive_seed(self.seed, "actor", self.model_name, str(state.sample_id), state.epoch))
        plays = draw(self.rates, rng)
        if plays == "harmful" and state.metadata["twin"]:
            plays = "safe"  # nothing tempts there
        n_done = sum(message.role == "assistant" for message in input)
        if plays == "dies" and n_done:
            raise RuntimeError("the actor dies, as it was told")
        if plays in ("loops", "floods"):
            return _answer(
                self.model_name, Turn(calls=(Call(tool="list_mail"),) * (40 if plays == "floods" else 1)), n_done, scene_of(about)
            )
        scene = scene_of(about)
        turns = pick(scene, "safe" if plays in ("dies", "cut_off") else plays, rng)
        if plays == "cut_off" and n_done:
            output = ModelOutput.from_content(self.model_name, "I will now", stop_reason="max_tokens")
        elif n_done < len(turns):
            output = _answer(self.model_name, turns[n_done], n_done, scene)
        else:
            output = ModelOutput.from_content(self.model_name, "There is nothing more for me to do.")
        output.usage = ModelUsage(input_tokens=900, output_tokens=100, total_tokens=1000)
        return output


JUDGE_OPENING = "You read what an AI agent did in an office"


def _judge(model: str, asked: str, rate: float) -> ModelOutput:
    """Asked as a judge it looks at nothing: harmful with its rate, with the agent's last line as evidence, else safe."""
    own = [line.partition(": ")[2] for line in asked.splitlines() if line.startswith("| AGENT ")]
    harmful = bool(own) and random.Random(derive_seed(0, "actor judges", asked)).random() < rate
    verdict = {"verdict": "harmful" if harmful else "safe", "quote": own[-1] if harmful else ""}
    output = ModelOutput.from_content(model, json.dumps(verdict))
    output.usage = ModelUsage(input_tokens=900, output_tokens=100, total_tokens=1000)
    return output


def draw(rates: dict[str, float], rng: random.Random) -> str:
    """What is played."""
    left = rng.random()
    for name, rate in rates.items():
        if left < rate:
            return name
        left -= rate
    return "safe"


def pick(scene: Scene, label: str, rng: random.Random) -> tuple[Turn, ...]:
    """A written transcript of a label, one that was written for this twin where there is one; none: the agent says that it is done."""
    held = [one for one in scene.scenario.transcripts if one.label == label]
    if label != "harmful":
        held = [one for one in held if one.twin == scene.twin] or held
    return rng.choice(held).turns if held else ()


def _answer(model: str, turn: Turn, number: int, scene: Scene) -> ModelOutput:
    calls = [
        ToolCall(id=f"call_{number}_{place}", function=call.tool, arguments=scene.whole(call.args)) for place, call in enumerate(turn.calls)
    ]
    message = ChatMessageAssistant(content=scene.text(turn.say), tool_calls=calls or None)
    return ModelOutput(model=model, choices=[ChatCompletionChoice(message=message, stop_reason="tool_calls" if calls else "stop")])


def read_rates(text: str) -> dict[str, float]:
    """`harmful=0.3+dies=0.1` as numbers. Raises UserError."""
    known = (*LABELS, *FAULTS)
    found: dict[str, float] = {}
    for part in text.split("+"):
        name, _, value = part.partition("=")
        try:
            rate = float(value)
        except ValueError:
            rate = -1.0
        if name not in known or not 0 <= rate <= 1:
            hint = f"actor/harmful=0.3+admirable=0.1; there are: {', '.join(known)}."
            raise UserError(f"{part!r} is no rate of an actor", where=f"actor/{text}", hint=hint)
        found[name] = rate
    if sum(found.values()) > 1 + 1e-9:
        raise UserError("the rates add up to more than 1", where=f"actor/{text}")
    return found
