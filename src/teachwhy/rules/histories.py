"""Frozen beginnings of an agent's session, up to the moment at which its next step is about a rule: made from slots, by seed."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from teachwhy.errors import UserError
from teachwhy.files import derive_seed, parse_record, read_yaml
from teachwhy.records import Record
from teachwhy.shipped import ROOT

Stratum = Literal["first", "distracted", "later", "compacted", "dropped"]
PROBED: tuple[Stratum, ...] = ("first", "distracted", "later", "compacted")
"""First opportunity; after talk off the job; after other work; after a compaction whose summary kept the rule's text."""
DROPPED: Stratum = "dropped"
"""After a compaction whose summary left the rule out: every condition asks the same, so it shows what is done without the rule."""
N_HISTORIES = 40
EPISODES = 3
"""Of other work, before a later probe."""
PLACE = re.compile(r"\{([a-z][a-z0-9_]*)\}")


class Turn(Record):
    """What a user or the agent said; of the agent also a tool it used, and what came of it."""

    user: str = ""
    assistant: str | None = None
    tool: Literal["", "read_file", "edit_file"] = ""
    arguments: dict[str, str] = {}
    result: str = ""

    @model_validator(mode="after")
    def _one(self) -> Turn:
        if bool(self.user) == (self.assistant is not None) or (self.tool and self.assistant is None):
            raise ValueError("a turn is the user's or the assistant's, and tools are the assistant's")
        return self


Episode = tuple[Turn, ...]


class Stock(Record):
    """What histories are made of."""

    slots: dict[str, tuple[str, ...]]
    work: tuple[Episode, ...] = Field(min_length=EPISODES)
    distractors: tuple[Episode, ...] = Field(min_length=1)
    compactions: tuple[str, ...]
    """Summaries; {rule} is where the rule's text stands."""
    dropped: tuple[str, ...]
    """Their twins without it."""

    @model_validator(mode="after")
    def _twins(self) -> Stock:
        if len(self.compactions) != len(self.dropped) or not all("{rule}" in text for text in self.compactions):
            raise ValueError("every compaction holds {rule} and has a twin under `dropped`")
        return self


class History(NamedTuple):
    """One beginning; the rule itself is put in later, under each condition."""

    id: str
    stratum: Stratum
    turns: Episode
    summary: str
    """Of what was before a compaction, {rule} still open; empty: there was none, and the file stands in the system prompt."""
    without: str
    """The summary without the rule."""
    ask: str


@cache
def read_stock() -> Stock:
    """The shipped stock."""
    path = ROOT / "rules" / "host" / "histories.yaml"
    return parse_record(Stock, read_yaml(path), where=str(path))


def make_histories(
    rule: str,
    jobs: Sequence[str],
    slots: Mapping[str, Sequence[str]],
    *,
    n: int = N_HISTORIES,
    seed: int = 0,
    strata: Sequence[Stratum] = PROBED,
) -> list[History]:
    """Histories of a rule, as many of each stratum as can be; jobs are told in turn, every stratum meets every job if n allows.

    Raises UserError without a job.
    """
    if not jobs:
        raise UserError(
            "the rule has no jobs: work that an agent is given where it matters", where=rule, hint="Write some into .teachwhy/rules.yaml."
        )
    stock = read_stock()
    found = []
    for number in range(n):
        stratum = strata[number % len(strata)]
        rng = random.Random(derive_seed(seed, "history", rule, stratum, str(number)))
        job = jobs[(number // len(strata) + number) % len(jobs)]
        values = {name: rng.choice(list(options)) for name, options in sorted({**stock.slots, **slots}.items())}
        place = rng.randrange(len(stock.compactions))
        compacted = stratum in ("compacted", DROPPED)
        found.append(
            History(
                id=f"{rule}-{stratum}-{number:03}-{derive_seed(seed, 'histories') % 2**16:04x}",
                stratum=stratum,
                turns=_begin(stock, stratum, rng, values),
                summary=fill_slots(stock.compactions[place] if stratum == "compacted" else stock.dropped[place], values)
                if compacted
                else "",
                without=fill_slots(stock.dropped[place], values) if compacted else "",
                ask=fill_slots(job, values),
            )
        )
    return found


def _begin(stock: Stock, stratum: Stratum, rng: random.Random, values: dict[str, str]) -> Episode:
    if stratum == "distracted":
        episodes: Sequence[Episode] = [rng.choice(stock.distractors)]
    elif stratum == "later":
        episodes = rng.sample(stock.work, EPISODES)
    else:
        episodes = []
    return tuple(_fill_turn(turn, values) for episode in episodes for turn in episode)


def _fill_turn(turn: Turn, values: dict[str, str]) -> Turn:
    return turn.model_copy(
        update={
            "user": fill_slots(turn.user, values),
            "assistant": None if turn.assistant is None else fill_slots(turn.assistant, values),
            "arguments": {name: fill_slots(value, values) for name, value in turn.arguments.items()},
            "result": fill_slots(turn.result, values),
        }
    )


def fill_slots(text: str, values: dict[str, str]) -> str:
    """The text with the values of its {names}; {rule} and what is no slot stay."""
    return PLACE.sub(lambda found: values.get(found[1], found[0]), text)
