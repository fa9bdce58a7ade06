"""Is the data fit to train on: leaks from evaluation scenarios into training rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from teachwhy.corpora import CorpusRow
from teachwhy.errors import LeakError
from teachwhy.records import Scenario
from teachwhy.scenarios import fill

N_GRAM = 8
"""Words in a row that count as shared text."""

_WORD = re.compile(r"[a-z0-9']+")


class Leak(NamedTuple):
    """A training row that shares text, or its family, with an evaluation scenario."""

    row: str
    scenario: str
    shared: str


def n_grams(text: str) -> list[tuple[str, ...]]:
    """Runs of 8 lower-case words, in order."""
    words = _WORD.findall(text.lower())
    return [tuple(words[start : start + N_GRAM]) for start in range(len(words) - N_GRAM + 1)]


def find_leaks(rows: Iterable[CorpusRow], scenarios: Sequence[Scenario], *, n_fills: int = 1) -> list[Leak]:
    """Rows that share 8 words in a row with a near or far scenario, or that are made from a far family.

    A row can be both: the oracle's family is waived, its shared text is not. `train` scenarios are no leak: training shows them
    on purpose. A held-out scenario is read in its first `n_fills` fills: those that are scored. System prompts are the
    program's own and left out.
    """
    held_out = [scenario for scenario in scenarios if scenario.split in ("near", "far")]
    far_families = {scenario.family for scenario in held_out if scenario.split == "far" and scenario.kind == "honeypot"}
    owners: dict[tuple[str, ...], str] = {}
    for scenario in held_out:
        texts = (scenario.situation, scenario.twin, *(action.text for action in scenario.actions))
        for filled in (fill(scenario, number) for number in range(n_fills)):
            for text in texts:
                for gram in n_grams(filled.text(text)):
                    owners.setdefault(gram, scenario.id)
    leaks = []
    for row in rows:
        if row.family() in far_families:
            leaks.append(Leak(row.id, row.family(), "the whole family is kept for evaluation"))
        text = "\n".join(message["content"] for message in row.messages if message["role"] != "system")
        shared = next((gram for gram in n_grams(text) if gram in owners), None)
        if shared:
            leaks.append(Leak(row.id, owners[shared], " ".join(shared)))
    return leaks


def refuse_leaks(corpus: str, leaks: Sequence[Leak]) -> None:
    """Stop the study on a leak. Raises LeakError with the first three."""
    if leaks:
        shown = "; ".join(f"row {leak.row} and scenario {leak.scenario}: {leak.shared!r}" for leak in leaks[:3])
        raise LeakError(
            f"{len(leaks)} training rows of {corpus!r} leak into the evaluation: {shown}",
            hint="Take those rows out. An arm that is meant to be trained on far families is the oracle: use a corpus `oracle/...`.",
        )
