"""A subject with planted rates: what the whole path would report of a model whose rates are known. For trying things out and for tests.

`scripted/none=0.5,bare=0.2,filler=0.2,reason=0.05` breaks a built-in rule with these chances, by the condition that it finds in its
request. It knows the built-in rules by their words and nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from typing import Any

from inspect_ai.model import ChatMessage, GenerateConfig, ModelAPI, ModelOutput, ModelUsage
from inspect_ai.tool import ToolChoice, ToolInfo

from teachwhy.errors import UserError
from teachwhy.files import derive_seed
from teachwhy.rules.bind import BuiltIn, Wording, read_built_in
from teachwhy.rules.conditions import make_tautology
from teachwhy.rules.histories import PLACE
from teachwhy.rules.recall import ASK

ORDER = ("reason", "filler", "always", "negated", "tautology", "bare")
"""The longest first: the bare text stands in the others."""
TOKENS = 100


class ScriptedModel(ModelAPI):
    """A model API; `model_name` holds the rates. acts: chance that it takes a step the rule is about at all; recall: that it names the rule
    when it is asked which bear on a step."""

    def __init__(
        self, model_name: str, base_url: str | None = None, api_key: str | None = None, config: GenerateConfig | None = None, **args: Any
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config or GenerateConfig())
        self.rates = read_rates(model_name.removeprefix("scripted/"))
        self.seed = int(args.get("seed", 0))

    def max_connections(self) -> int:
        """Nothing waits here."""
        return 100

    async def generate(
        self,
        input: list[ChatMessage],  # noqa: A002  # Inspect's name
        tools: list[ToolInfo],  # noqa: ARG002
        tool_choice: ToolChoice,  # noqa: ARG002
        config: GenerateConfig,
    ) -> ModelOutput:
        """One step: kept or broken by chance, the same at every run for the same request and seed."""
        text = "\n".join(message.text for message in input)
        rng = random.Random(derive_seed(self.seed, "scripted", text, str(config.seed)))
        if input[-1].text == ASK:
            rule = _find_rule(input[-2].text)
            condition = find_condition(rule, text)
            named = condition != "none" and rng.random() < self.rates.get("recall", 1.0)
            said = next((said for one in rule.wordings if (said := _text(one, condition)) in text), "") if named else ""
            return _say(self.model_name, f"1. {said}" if said else "None that I see.")
        rule = _find_rule(input[-1].text)
        pair = rule.pairs[rng.randrange(len(rule.pairs))]
        if rng.random() >= self.rates.get("acts", 1.0):
            return _say(self.model_name, "I would like to look at the code first.")
        broken = rng.random() < self.rates.get(find_condition(rule, text), 0.0)
        step = PLACE.sub(lambda found: rule.slots[found[1]][0], pair.broken if broken else pair.kept)
        if rule.check.approval and not broken:
            return _say(self.model_name, step)
        output = ModelOutput.for_tool_call(self.model_name, "bash", {"command": step})
        output.usage = ModelUsage(input_tokens=TOKENS - 1, output_tokens=1, total_tokens=TOKENS)
        return output


def _say(model: str, text: str) -> ModelOutput:
    output = ModelOutput.from_content(model, text)
    output.usage = ModelUsage(input_tokens=TOKENS - 1, output_tokens=1, total_tokens=TOKENS)
    return output


def read_rates(text: str) -> dict[str, float]:
    """`none=0.5,bare=0.2` as numbers. Raises UserError."""
    known = ("none", *ORDER, "acts", "recall")
    found = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            rate = float(value)
        except ValueError:
            rate = -1.0
        if name not in known or not 0 <= rate <= 1:
            raise UserError(
                f"{part!r} is no rate of a scripted model",
                where=f"scripted/{text}",
                hint=f"scripted/none=0.5,bare=0.2,reason=0.05; there are: {', '.join(known)}.",
            )
        found[name] = rate
    return found


@cache
def _openings() -> Sequence[tuple[str, str, BuiltIn]]:
    return [(PLACE.split(job.ask)[0], PLACE.split(job.ask)[-1], rule) for rule in read_built_in().values() for job in rule.jobs]


def _find_rule(ask: str) -> BuiltIn:
    """The built-in rule whose job this is."""
    for opening, end, rule in _openings():
        if (opening or end) and ask.startswith(opening) and ask.endswith(end):
            return rule
    raise ValueError("a scripted model knows the jobs of the built-in rules alone")


def _text(wording: Wording, condition: str) -> str:
    return make_tautology(wording.bare, wording.reason) if condition == "tautology" else str(getattr(wording, condition))


def find_condition(rule: BuiltIn, request: str) -> str:
    """Under which condition a request shows a rule."""
    for condition in ORDER:
        if any(_text(wording, condition) in request for wording in rule.wordings):
            return condition
    return "none"
