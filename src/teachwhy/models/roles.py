"""Models that are asked by name: anything that Inspect knows."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from teachwhy.errors import UserError

if TYPE_CHECKING:
    from inspect_ai.model import ChatMessage, GenerateConfig, Model, ModelOutput
    from inspect_ai.tool import Tool, ToolInfo

MAX_RETRIES = 6
STALLED_SECONDS = 300
"""After which one try is given up. Models that reason may take minutes."""
GIVEN_UP_SECONDS = 1200
"""After which no further try is made."""


def check_subject(model: str) -> None:
    """Raise UserError for a provider that there is not and for a key that is not set, before anything is asked."""
    from inspect_ai.model import get_model

    try:
        get_model(model, memoize=False)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001  # each provider says in its own way what it lacks
        said = " ".join(re.sub(r"\[/?\w+\]", "", str(error)).split()).removeprefix("ERROR: ")
        key = re.search(r"\b[A-Z][A-Z0-9_]*_API_KEY\b", said)
        hint = f"Type: export {key[0]}=..." if key else "Providers and how they are named: https://inspect.aisi.org.uk/models.html"
        raise UserError(f"{model} cannot be asked: {said[:300]}", hint=hint) from None


def open_subject(model: str, *, keep: bool = True) -> Model:
    """The model. keep: so that a cell that is gone on with asks nothing twice; the folder of what is kept is dropped when the cell is
    done."""
    from inspect_ai.model import CachePolicy, GenerateConfig, get_model

    return get_model(model, memoize=False, config=GenerateConfig(cache=CachePolicy(expiry=None) if keep else False))


async def ask_model(
    model: Model, messages: Sequence[ChatMessage], config: GenerateConfig, tools: Sequence[Tool | ToolInfo] = ()
) -> ModelOutput:
    """One answer, tried a bounded number of times (Inspect tries for ever by default, and waits for ever for a server that stalls). An
    answer that is no JSON is asked for again, too: Inspect takes that for the end."""
    from inspect_ai.model import GenerateConfig
    from inspect_ai.model._generate_config import active_generate_config

    said = active_generate_config()  # by --max-retries and its like
    bounds = GenerateConfig(
        max_retries=MAX_RETRIES if said.max_retries is None else said.max_retries,
        attempt_timeout=said.attempt_timeout or STALLED_SECONDS,
        timeout=said.timeout or GIVEN_UP_SECONDS,
    )

    async def once() -> ModelOutput:
        return await model.generate(list(messages), tools=list(tools), tool_choice="auto" if tools else None, config=bounds.merge(config))

    for _ in range(2):
        with suppress(json.JSONDecodeError):
            return await once()
    return await once()


def was_kept() -> bool:
    """Whether the sample's last answer came from those that were kept, and so cost nothing anew."""
    from inspect_ai.log import transcript

    last = next((event for event in reversed(transcript().events) if event.event == "model"), None)
    return last is not None and last.cache == "read"
