"""Models that are asked by name: anything that Inspect knows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from teachwhy.errors import UserError

if TYPE_CHECKING:
    from inspect_ai.model import Model


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
    """The model, its calls retried a bounded number of times (Inspect retries for ever by default). keep: so that a cell that is gone on
    with asks nothing twice; the folder of what is kept is dropped when the cell is done."""
    from inspect_ai.model import CachePolicy, GenerateConfig, get_model

    kept = CachePolicy(expiry=None) if keep else False
    return get_model(model, memoize=False, config=GenerateConfig(max_retries=6, timeout=120, cache=kept))


def was_kept() -> bool:
    """Whether the sample's last answer came from those that were kept, and so cost nothing anew."""
    from inspect_ai.log import transcript

    last = next((event for event in reversed(transcript().events) if event.event == "model"), None)
    return last is not None and last.cache == "read"
