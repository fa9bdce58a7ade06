"""What Inspect finds through the entry point `inspect_ai`: nothing heavy is imported here."""

from __future__ import annotations

from inspect_ai.model import ModelAPI, modelapi

from teachwhy.evaluations.tasks import agreement, ambiguity, capability, conduct, goals, honeypots, lookalikes

__all__ = ["agreement", "ambiguity", "capability", "conduct", "goals", "honeypots", "lookalikes", "teachwhy"]


@modelapi(name="teachwhy")
def teachwhy() -> type[ModelAPI]:
    """Local weights: `teachwhy/builtin`, `teachwhy//path/to/folder`, `teachwhy/owner/name`."""
    from teachwhy.models.local import LocalModel

    return LocalModel
