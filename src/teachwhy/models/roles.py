"""Models that are asked by name: anything that Inspect knows."""

from __future__ import annotations

import re

from teachwhy.errors import UserError


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
