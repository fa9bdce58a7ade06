"""Models: the built-in one, chats as ids, checkpoints, local weights as an Inspect model, likelihood.

Importing this module imports none of torch, transformers and inspect_ai.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from teachwhy.errors import UserError

__all__ = ["Scored", "plain_messages", "score_continuations"]


class Scored(NamedTuple):
    """Likelihood of one continuation."""

    logprob: float
    """Summed over its tokens, nats."""
    n_tokens: int


async def score_continuations(model: Any, prefixes: Sequence[Sequence[Any]], continuations: Sequence[Sequence[str]]) -> list[list[Scored]]:
    """How likely an Inspect model with local weights finds texts: for each prefix, each of its continuations.

    A prefix is a chat (messages of Inspect, or mappings with `role` and `content`); a last assistant message is a prefill.
    Concurrent calls are scored together. Raises UserError for a model that gives no log-probabilities of given text,
    ValueError where the two lists differ in length.
    """
    if len(prefixes) != len(continuations):
        raise ValueError(f"{len(prefixes)} prefixes, but continuations for {len(continuations)}")
    score = getattr(model.api, "score", None)
    if score is None:
        raise UserError(
            f"the model {model} does not tell how likely a given text is: likelihood needs local weights",
            hint="Take a model with local weights (teachwhy/builtin, teachwhy//path/to/folder), or the reading `text`.",
        )
    found: list[list[Scored]] = await score([plain_messages(prefix) for prefix in prefixes], continuations)
    return found


def plain_messages(messages: Sequence[Any]) -> list[dict[str, str]]:
    """Messages of Inspect or mappings as {role, content}. Raises UserError for tools, images and other media."""
    found = []
    for message in messages:
        if isinstance(message, Mapping):
            found.append({"role": str(message["role"]), "content": str(message["content"])})
            continue
        only_text = isinstance(message.content, str) or all(part.type == "text" for part in message.content)
        if not only_text or message.role == "tool" or getattr(message, "tool_calls", None):
            raise UserError("models with local weights take text alone: no tools, images or other media")
        found.append({"role": message.role, "content": message.text})
    return found
