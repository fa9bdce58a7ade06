"""What Inspect finds through the entry point `inspect_ai`: nothing heavy is imported here."""

from __future__ import annotations

from inspect_ai.model import ModelAPI, modelapi

from teachwhy.evaluations.published import published
from teachwhy.evaluations.tasks import (
    agreement,
    ambiguity,
    blackmail,
    capability,
    conduct,
    framing,
    goals,
    honeypots,
    leaking,
    lookalikes,
    office,
    research_sabotage,
)

__all__ = [
    "actor", "agreement", "ambiguity", "blackmail", "capability", "conduct", "framing", "goals", "honeypots", "leaking", "lookalikes",
    "office",
    "published", "research_sabotage", "scripted", "teachwhy",
]  # fmt: skip


@modelapi(name="teachwhy")
def teachwhy() -> type[ModelAPI]:
    """Local weights: `teachwhy/builtin`, `teachwhy//path/to/folder`, `teachwhy/owner/name`."""
    from teachwhy.models.local import LocalModel

    return LocalModel


@modelapi(name="scripted")
def scripted() -> type[ModelAPI]:
    """A subject with planted rates for the built-in rules: `scripted/none=0.5,bare=0.2,filler=0.2,reason=0.05`."""
    from teachwhy.rules.scripted import ScriptedModel

    return ScriptedModel


@modelapi(name="actor")
def actor() -> type[ModelAPI]:
    """A subject with planted rates for office honeypots: `actor/harmful=0.3+admirable=0.1`."""
    from teachwhy.office.actor import ActorModel

    return ActorModel
