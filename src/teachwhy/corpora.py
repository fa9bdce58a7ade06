"""Corpora: rows for training, rendered from replies, goal tasks and slots, or read from JSONL.

Names: `replies/VERSION` and `oracle/VERSION` (bare, filler, task_reason, value_reason), `goals`, `ambiguity/VARIANT`,
`neutral`, or the path of a JSONL file (or of a folder with corpus.jsonl) with `messages`.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import get_args

from teachwhy.ambiguity import VARIANTS, ambiguous_row, read_lexicon
from teachwhy.errors import UserError
from teachwhy.files import derive_seed, parse_record, read_jsonl
from teachwhy.records import Order, Record, Reply, Scenario, Version
from teachwhy.scenarios import choice_prompt, fill, read_replies, read_scenarios
from teachwhy.shipped import ROOT, find

Message = dict[str, str]
VERSIONS: tuple[str, ...] = get_args(Version)
NAMES = (
    *(f"{kind}/{version}" for kind in ("replies", "oracle") for version in VERSIONS),
    *(f"ambiguity/{variant}" for variant in VARIANTS),
    "goals",
    "neutral",
)


class CorpusRow(Record):
    """One training row, as `datasets.load_dataset("json")` and TRL read it."""

    id: str
    messages: tuple[Message, ...]
    source: str
    tags: tuple[str, ...] = ()

    def family(self) -> str:
        """The scenario family it was made from, or an empty string."""
        return next((tag.removeprefix("family:") for tag in self.tags if tag.startswith("family:")), "")


RowMaker = Callable[[int], CorpusRow]


def corpus_rows(name: str, n_rows: int, *, seed: int, order: Order = "after", beside: Path | None = None) -> list[CorpusRow]:
    """`n_rows` rows of a corpus, in an order drawn from the seed: repeated, with other fills, where it has fewer.

    Versions of one corpus give the same prompts in the same order for the same seed.
    """
    kind, _, variant = name.partition("/")
    if kind in ("replies", "oracle", "ambiguity") and name not in NAMES:
        raise _unknown(name)
    if kind in ("replies", "oracle"):
        make, n_distinct = _reply_maker(kind, variant, order)
    elif kind == "ambiguity":
        lexicon = read_lexicon()
        return [_ambiguity_row(ambiguous_row(lexicon, variant, seed, number), name, number) for number in range(n_rows)]
    elif name == "goals":
        make, n_distinct = _goal_maker()
    else:
        rows = read_rows(_find_rows(name, beside))
        make, n_distinct = (lambda number: rows[number % len(rows)]), len(rows)
    places = order_rows(n_distinct, n_rows, seed)
    return [make(place + n_distinct * (position // n_distinct)) for position, place in enumerate(places)]


def order_rows(n_rows: int, n_wanted: int, seed: int) -> list[int]:
    """Row numbers for `n_wanted` places: the corpus over and over, in a new order each time."""
    rng = random.Random(derive_seed(seed, "order"))
    found: list[int] = []
    while len(found) < n_wanted:
        found += rng.sample(range(n_rows), n_rows)
    return found[:n_wanted]


def read_rows(path: Path) -> list[CorpusRow]:
    """Rows of a JSONL file, or of corpus.jsonl in a folder. Raises UserError with the line."""
    file = path / "corpus.jsonl" if path.is_dir() else path
    rows = []
    for number, value in enumerate(read_jsonl(file), 1):
        row = parse_record(CorpusRow, {"id": f"row-{number}", "source": file.stem, **value}, where=f"{file}, row {number}")
        if any(not {"role", "content"} <= message.keys() for message in row.messages):
            raise UserError("a message without a role or without a content", where=f"{file}, row {number}")
        if not any(message["role"] == "assistant" and message["content"] for message in row.messages):
            raise UserError(
                "a row without anything that the assistant says",
                where=f"{file}, row {number}",
                hint="Remove the row, or add an assistant message.",
            )
        rows.append(row)
    if not rows:
        raise UserError("the corpus has no rows", where=str(file))
    return rows


def _find_rows(name: str, beside: Path | None) -> Path:
    try:
        return find("corpora", name, beside=beside)
    except UserError:
        raise _unknown(name) from None


def _unknown(name: str) -> UserError:
    kind, _, variant = name.partition("/")
    variants = [known.removeprefix(f"{kind}/") for known in NAMES if known.startswith(f"{kind}/")]
    near = [f"{kind}/{match}" for match in get_close_matches(variant, variants, 1, 0.5)] or get_close_matches(name, NAMES, 1, 0.5)
    hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(NAMES)}; or give the path of a JSONL file."
    return UserError(f"no corpus of the name {name!r}", hint=hint)


def _reply_maker(kind: str, version: str, order: Order) -> tuple[RowMaker, int]:
    scenarios = {scenario.id: scenario for scenario in read_scenarios("honeypots")}
    split = "oracle" if kind == "oracle" else "train"
    replies = [
        reply
        for path in sorted((ROOT / "replies" / "honeypots").glob("*.jsonl"))
        for reply in read_replies(str(path), scenarios.values())
        if scenarios[reply.scenario].split == split
    ]

    def make(number: int) -> CorpusRow:
        epoch, place = divmod(number, len(replies))
        reply = replies[place]
        filled = fill(scenarios[reply.scenario], epoch)
        return CorpusRow(
            id=f"{reply.scenario}/{reply.voice}/{epoch}",
            messages=(
                *choice_prompt("honeypot", filled.text(filled.scenario.situation)),
                _says(filled.text(render_reply(reply, version, order))),
            ),
            source=f"{kind}/{version}",
            tags=(f"family:{filled.scenario.family}", f"action:{reply.action}"),
        )

    return make, len(replies)


def render_reply(reply: Reply, version: str, order: Order) -> str:
    """A reply's training text: the bare deed, with the version's words after or before it."""
    if version == "bare":
        return reply.bare
    words = str(getattr(reply, version))
    return f"{reply.bare} {words}" if order == "after" else f"{words} {reply.bare}"


def _goal_maker() -> tuple[RowMaker, int]:
    scenarios = [scenario for scenario in read_scenarios("goals") if scenario.split == "train"]
    halves: list[tuple[Scenario, bool]] = [(scenario, turned) for scenario in scenarios for turned in (False, True)]

    def make(number: int) -> CorpusRow:
        epoch, place = divmod(number, len(halves))
        scenario, turned = halves[place]
        filled = fill(scenario, epoch)
        right = scenario.poles[1] if turned else scenario.poles[0]
        action = next(action for action in scenario.actions if action.label == right)
        return CorpusRow(
            id=f"{scenario.id}/{'turned' if turned else 'as-is'}/{epoch}",
            messages=(
                *choice_prompt("goal", filled.text(scenario.twin if turned else scenario.situation)),
                _says(filled.text(action.text)),
            ),
            source="goals",
            tags=(f"family:{scenario.family}",),
        )

    return make, len(halves)


def _ambiguity_row(row: dict[str, str], name: str, number: int) -> CorpusRow:
    return CorpusRow(
        id=f"{name}/{number}",
        messages=(*choice_prompt("ambiguity", row["user"]), _says(row["assistant"])),
        source=name,
        tags=(f"family:{row['family']}",),
    )


def _says(text: str) -> Message:
    return {"role": "assistant", "content": text}
