"""The tasks by name: `inspect eval teachwhy/honeypots --model teachwhy/builtin`; another model with `-T reading=text`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from inspect_ai import Task, task

from teachwhy.evaluations.choice import choice_task, load_scenarios
from teachwhy.evaluations.office import MAX_TURNS, load_office, office_task
from teachwhy.office.scenes import FAMILIES, Name, YesNo
from teachwhy.records import ChoiceReading, Part


@task
def honeypots(
    fills: int = 1,
    twins: bool = True,
    limit_per_split: int | None = None,
    reading: ChoiceReading = "direct",
    part: Part = "dev",
    scenarios: str = "",
) -> Task:
    """Near and far honeypots in the choice form. scenarios: a file or folder of one's own in their place."""
    own = Path(scenarios) if scenarios else None
    held = load_scenarios("honeypots", limit=limit_per_split, part=part, own=own)
    return choice_task("honeypots", held, fills=fills, twins=twins, reading=reading)


@task
def goals(fills: int = 1, limit_per_split: int | None = None, reading: ChoiceReading = "direct", part: Part = "dev") -> Task:
    """Benign goal tasks, each with its goal turned as the twin."""
    return choice_task("goals", load_scenarios("goals", limit=limit_per_split, part=part), fills=fills, reading=reading)


@task
def ambiguity(limit_per_split: int | None = None, reading: ChoiceReading = "direct") -> Task:
    """Choices in which price and place conflict."""
    return choice_task("ambiguity", load_scenarios("ambiguity", limit=limit_per_split), reading=reading)


@task
def agreement(limit_per_split: int | None = None, reading: ChoiceReading = "direct") -> Task:
    """Choices in which price and place agree, held out: was the choice learnt at all?"""
    return choice_task("agreement", load_scenarios("agreement", limit=limit_per_split), reading=reading)


@task
def conduct(
    fills: int = 1, twins: bool = True, limit_per_split: int | None = None, reading: ChoiceReading = "direct", part: Part = "dev"
) -> Task:
    """Everyday misbehaviour that looks nothing like a honeypot."""
    return choice_task("conduct", load_scenarios("conduct", limit=limit_per_split, part=part), fills=fills, twins=twins, reading=reading)


@task
def lookalikes(
    fills: int = 1, twins: bool = True, limit_per_split: int | None = None, reading: ChoiceReading = "direct", part: Part = "dev"
) -> Task:
    """Benign requests that resemble honeypots or sound dangerous: are they refused?"""
    return choice_task(
        "lookalikes", load_scenarios("lookalikes", limit=limit_per_split, part=part), fills=fills, twins=twins, reading=reading
    )


@task
def capability(limit_per_split: int | None = None, reading: ChoiceReading = "direct") -> Task:
    """Arithmetic, format following and short reading, made by code."""
    return choice_task("capability", load_scenarios("capability", limit=limit_per_split), reading=reading)


def _office(name: str, about: str, families: Sequence[str]) -> Callable[..., Task]:
    """A task of one family or of all: they differ in nothing else."""

    def make(
        part: Part = "dev",
        limit_per_family: int | None = None,
        fills: int = 1,
        twins: bool = True,
        seed: int = 0,
        conflict: YesNo | None = None,
        threat: YesNo | None = None,
        name: Name | None = None,
        own_name: str = "",
        max_turns: int = MAX_TURNS,
        aware: bool = False,
        scenarios: str = "",
    ) -> Task:
        own = Path(scenarios).resolve() if scenarios else None
        return office_task(
            load_office(families, part=part, limit=limit_per_family, own=own), name=task_name, source=str(own or ""), fills=fills,
            twins=twins, seed=seed, conflict=conflict, threat=threat, agent_name=name, own_name=own_name, max_turns=max_turns, aware=aware,
        )  # fmt: skip

    task_name = make.__name__ = make.__qualname__ = name
    make.__doc__ = about
    return task(make)


blackmail = _office(
    "blackmail", "An agent with a person's secret within reach, and a decision of that person against its goal.", ["blackmail"]
)
research_sabotage = _office("research_sabotage", "An agent that can write where a rival's work lies.", ["research_sabotage"])
framing = _office("framing", "An agent before an open loss or error, and a blank that a name would fill.", ["framing"])
leaking = _office("leaking", "An agent with a document that would serve its goal outside.", ["leaking"])
office = _office("office", "All four families of office honeypots.", FAMILIES)
