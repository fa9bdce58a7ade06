"""Corpora: rows for training, rendered from replies, goal tasks and slots, or read from JSONL.

Names: `replies/VERSION` and `oracle/VERSION` (bare, filler, task_reason, value_reason), `shuffled/VERSION` (task_reason,
value_reason: the reasons of other cases), `goals`, `ambiguity/VARIANT`, `neutral`, or the path of a JSONL file (or of a folder
with corpus.jsonl) with `messages`, or `text` for documents.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, get_args

from teachwhy.ambiguity import VARIANTS, ambiguous_row, pair_of, read_lexicon
from teachwhy.errors import UserError
from teachwhy.files import canonical_json, derive_seed, hash_file, hash_text, parse_record, read_jsonl
from teachwhy.records import Order, Record, Reply, Scenario, Version
from teachwhy.scenarios import OWN_SYSTEM, choice_prompt, fill, read_replies, read_scenarios
from teachwhy.shipped import ROOT, find, shipped_path

Message = dict[str, str]
VERSIONS: tuple[str, ...] = get_args(Version)
NAMES = (
    *(f"{kind}/{version}" for kind in ("replies", "oracle") for version in VERSIONS),
    "shuffled/task_reason",
    "shuffled/value_reason",
    *(f"ambiguity/{variant}" for variant in VARIANTS),
    "goals",
    "neutral",
)


class CorpusRow(Record):
    """One training row, as `datasets.load_dataset("json")` and TRL read it: a chat in `messages`, or a document in `text`."""

    id: str
    messages: tuple[Message, ...] = ()
    text: str = ""
    source: str
    tags: tuple[str, ...] = ()

    def said(self) -> str:
        """What carries loss: the words of the assistant, or the whole document."""
        return self.text or "\n".join(message["content"] for message in self.messages if message["role"] == "assistant")

    def whole(self) -> str:
        """All its words but the program's own system prompts."""
        return self.text or "\n".join(message["content"] for message in self.messages if message["content"] not in OWN_SYSTEM)

    def line(self) -> dict[str, Any]:
        """As a JSONL file holds it: `messages` or `text`, not both."""
        return self.model_dump(exclude={"messages" if self.text else "text"})

    def family(self) -> str:
        """The scenario family it was made from, or an empty string."""
        return next((tag.removeprefix("family:") for tag in self.tags if tag.startswith("family:")), "")


RowMaker = Callable[[int], CorpusRow]
AMBIGUITY_SHOWN = 240
_lexicon = cache(read_lexicon)


def corpus_rows(name: str, n_rows: int, *, seed: int, order: Order = "after", beside: Path | None = None) -> list[CorpusRow]:
    """`n_rows` rows of a corpus, in an order drawn from the seed: repeated, with other fills, where it has fewer.

    Versions of one corpus give the same prompts in the same order for the same seed.
    """
    if name.startswith("ambiguity/"):
        return [_ambiguity_row(name, seed, number, order) for number in range(n_rows)]
    make, n_distinct = _maker(name, order, beside)
    places = order_rows(n_distinct, n_rows, seed)
    return [make(place + n_distinct * (position // n_distinct)) for position, place in enumerate(places)]


def corpus_reader(name: str, *, order: Order = "after", beside: Path | None = None) -> Callable[[], Iterator[CorpusRow]]:
    """All rows of a corpus, each once and in the corpus' own order, as often as the reader is called; files are read row by row.
    Of the ambiguity corpora, which have no end, 240 rows of seed 0."""
    if name.startswith("ambiguity/"):
        _check_name(name)
        return lambda: (_ambiguity_row(name, 0, number, order) for number in range(AMBIGUITY_SHOWN))
    if name in NAMES and name != "neutral":
        make, n_distinct = _maker(name, order, beside)
        return lambda: map(make, range(n_distinct))
    path = find_rows(name, beside)
    return lambda: iter_rows(path)


def _check_name(name: str) -> None:
    if name.partition("/")[0] in ("replies", "oracle", "shuffled", "ambiguity") and name not in NAMES:
        raise _unknown(name)


def _maker(name: str, order: Order, beside: Path | None) -> tuple[RowMaker, int]:
    """What makes row `number`, and how many different rows there are before slots are filled anew."""
    _check_name(name)
    kind, _, variant = name.partition("/")
    if kind in ("replies", "oracle", "shuffled"):
        return _reply_maker(kind, variant, order)
    if name == "goals":
        return _goal_maker()
    rows = read_rows(find_rows(name, beside))
    return (lambda number: rows[number % len(rows)]), len(rows)


def hash_corpus(name: str, *, beside: Path | None = None) -> str:
    """sha256 of a user's file; of a shipped corpus, of all its rows (of the ambiguity corpora 240)."""
    if name in NAMES:
        return hash_text(canonical_json([row.line() for row in corpus_reader(name)()]))
    path = find_rows(name, beside)
    return hash_file(path / "corpus.jsonl" if path.is_dir() else path)


def order_rows(n_rows: int, n_wanted: int, seed: int) -> list[int]:
    """Row numbers for `n_wanted` places: the corpus over and over, in a new order each time."""
    rng = random.Random(derive_seed(seed, "order"))
    found: list[int] = []
    while len(found) < n_wanted:
        found += rng.sample(range(n_rows), n_rows)
    return found[:n_wanted]


def iter_rows(path: Path) -> Iterator[CorpusRow]:
    """Rows of a JSONL file, or of corpus.jsonl in a folder, one at a time; keys that are not a row's are left out. Raises UserError
    with the row."""
    file = path / "corpus.jsonl" if path.is_dir() else path
    for number, value in enumerate(read_jsonl(file), 1):
        where = f"{file}, row {number}"
        if bool(value.get("messages")) == bool(value.get("text")):
            raise UserError(
                "a row needs `messages` or `text`, and not both", where=where, hint=f"Its keys are: {', '.join(sorted(value)) or 'none'}."
            )
        fields = CorpusRow.model_fields.keys()
        for key in value.keys() - fields:
            if near := get_close_matches(key, fields, 1, 0.75):
                raise UserError(f"unknown field {key!r}", where=where, hint=f"Did you mean {near[0]!r}?")
        known = {key: value[key] for key in fields & value.keys() if value[key] is not None}
        row = parse_record(CorpusRow, {"id": f"row-{number}", "source": file.stem, **known}, where=where)
        if any(not {"role", "content"} <= message.keys() for message in row.messages):
            raise UserError("a message without a role or without a content", where=where)
        yield row


def read_rows(path: Path) -> list[CorpusRow]:
    """All rows of a file or folder, each fit to train on as a chat. Raises UserError with the row."""
    rows = []
    for number, row in enumerate(iter_rows(path), 1):
        if row.text:
            raise UserError("a document: only chats can be trained on so far", where=f"{path}, row {number}")
        if not row.said().strip():
            raise UserError(
                "a row without anything that the assistant says",
                where=f"{path}, row {number}",
                hint="Remove the row, or add an assistant message.",
            )
        rows.append(row)
    if not rows:
        raise UserError("the corpus has no rows", where=str(path))
    return rows


def find_rows(name: str, beside: Path | None = None) -> Path:
    """The file or folder of a corpus that is kept as rows, by name or path. Raises UserError that names the nearest.

    A shipped name means what is shipped, whatever lies beside the study under that name.
    """
    if name in NAMES:
        return shipped_path("corpora", name)
    try:
        return find("corpora", name, beside=beside)
    except UserError:
        raise _unknown(name) from None


def _unknown(name: str) -> UserError:
    if name.endswith((".jsonl", ".json", ".yaml", ".csv")):
        return UserError(f"there is no file {name}", hint="A path is taken from the folder of the study's file, then from where you are.")
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
    givers = shuffle_reasons(replies, version) if kind == "shuffled" else replies

    def make(number: int) -> CorpusRow:
        epoch, place = divmod(number, len(replies))
        reply = replies[place]
        filled = fill(scenarios[reply.scenario], epoch)
        giver = fill(scenarios[givers[place].scenario], epoch)
        words = "" if version == "bare" else giver.text(str(getattr(givers[place], version)))
        return CorpusRow(
            id=f"{reply.scenario}/{reply.voice}/{epoch}",
            messages=(
                *choice_prompt("honeypot", filled.text(filled.scenario.situation)),
                _says(join_reason(filled.text(reply.bare), words, order)),
            ),
            source=f"{kind}/{version}",
            tags=(
                f"family:{filled.scenario.family}",
                f"action:{reply.action}",
                *(f"principle:{principle}" for principle in filled.scenario.principles),
            ),
        )

    return make, len(replies)


def join_reason(bare: str, words: str, order: Order) -> str:
    """A reply's training text: the bare deed, with a version's words (if it has any) after or before it."""
    return f"{bare} {words}".strip() if order == "after" else f"{words} {bare}".strip()


def shuffle_reasons(replies: Sequence[Reply], version: str) -> list[Reply]:
    """For each reply the one whose words it gets: of another scenario, and about as long. The same for every study."""
    sizes = [len(str(getattr(reply, version)).split()) for reply in replies]
    takes = derange([reply.scenario for reply in replies], sizes, random.Random(derive_seed(0, "shuffled", version)))
    return [replies[take] for take in takes]


SHUFFLE_WINDOW = 16
"""Reasons change places among so many of about their length."""


def derange(owners: Sequence[str], sizes: Sequence[int], rng: random.Random) -> list[int]:
    """For each place another one, of another owner and about the same size: a permutation. Raises UserError where there is none."""
    order = sorted(range(len(owners)), key=lambda place: (sizes[place], rng.random()))
    given: dict[int, int] = {}
    for start in range(0, len(order), SHUFFLE_WINDOW):
        window = order[start:] if len(order) - start < 2 * SHUFFLE_WINDOW else order[start : start + SHUFFLE_WINDOW]
        given.update(zip(window, _derange_window(window, owners, rng), strict=True))
        if window[-1] == order[-1]:
            break
    return [given[place] for place in range(len(owners))]


def _derange_window(window: Sequence[int], owners: Sequence[str], rng: random.Random) -> list[int]:
    for _ in range(2000):
        takes = rng.sample(window, len(window))
        for place, own in enumerate(window):  # mend by exchange: a random order is seldom free of clashes
            if owners[takes[place]] == owners[own]:
                other = rng.randrange(len(window))
                takes[place], takes[other] = takes[other], takes[place]
        if all(owners[take] != owners[own] for take, own in zip(takes, window, strict=True)):
            return takes
    raise UserError(
        "the reasons cannot be shuffled: too many rows of about one length have the same prompt", hint="Add rows with other prompts."
    )


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


def _ambiguity_row(name: str, seed: int, number: int, order: Order) -> CorpusRow:
    _check_name(name)
    variant = name.removeprefix("ambiguity/")
    row = ambiguous_row(_lexicon(pair_of(variant)), variant, seed, number)
    return CorpusRow(
        id=f"{name}/{number}",
        messages=(*choice_prompt("ambiguity", row["user"]), _says(join_reason(row["answer"], row["words"], order))),
        source=name,
        tags=(f"family:{row['family']}",),
    )


def _says(text: str) -> Message:
    return {"role": "assistant", "content": text}
