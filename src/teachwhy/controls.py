"""Arms to compare a corpus with, made from the corpus: neutral, filler, shuffled. What is compared then differs in one thing.

neutral   as many rows and as much that carries loss, of ordinary chats: what any training does
filler    the deeds stay; each reason gives way to as many words of its own case that explain nothing
shuffled  the deeds stay; each reason goes to another case: what reasons do that are none

Filler and shuffled need to know what of an answer is the deed and what the reason: a bare version of the same rows says it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from teachwhy.corpora import NAMES, CorpusRow, Message, corpus_reader, derange
from teachwhy.errors import UserError
from teachwhy.files import canonical_json, code_commit, derive_seed, hash_text, library_versions, now, publish, write_card, write_jsonl
from teachwhy.records import Card, Counts

ControlKind = Literal["neutral", "filler", "shuffled"]
Count = Callable[[str], int]
_CLOSING = re.compile(r"[.!?]*$")


def write_control(name: str, kind: ControlKind, folder: Path, *, bare: str, seed: int, count: Count, unit: str) -> Path:
    """Make a control of a corpus by name or path: FOLDER/corpus.jsonl and its card. Returns the folder.

    bare: the bare version's name or path; that of shipped replies is known, and so are their fillers. Raises UserError.
    """
    if folder.exists():
        raise UserError("the folder is there already", where=str(folder), hint="Choose another --output.")
    rows = list(corpus_reader(name)())
    if not rows:
        raise UserError("the corpus has no rows", where=name)
    source, _, version = name.partition("/")
    ours = name in NAMES and source in ("replies", "oracle")
    if kind == "neutral":
        made = neutral_control(rows, list(corpus_reader("neutral")()), count, seed=seed)
        inputs = {"neutral": _hash("neutral")}
    elif kind == "filler" and ours and version != "bare":
        made, inputs = list(corpus_reader(f"{source}/filler")()), {}
    else:
        bare = bare or (f"{source}/bare" if ours else "")
        if not bare:
            raise UserError(f"a {kind} control needs to know which words are the reason", hint="Give the rows without them: --bare FILE.")
        make = filler_control if kind == "filler" else shuffled_control
        made, inputs = make(rows, list(corpus_reader(bare)()), count, seed=seed), {"bare": _hash(bare)}
    sizes = {f"{unit} that carry loss": sum(count(row.said()) for row in made), "of the corpus": sum(count(row.said()) for row in rows)}
    with publish(folder) as part:
        write_jsonl(part / "corpus.jsonl", (row.line() for row in made))
        card = Card(
            kind="corpus", name=f"{kind} control of {name}", created=now(), inputs={"corpus": _hash(name), **inputs},
            settings={"kind": kind, "of": name, "bare": bare}, seed=seed, versions=library_versions(), commit=code_commit(),
            counts=Counts(in_=len(made), kept=len(made)), details=sizes,
        )  # fmt: skip
        write_card(part, card)
    return folder


def _hash(name: str) -> str:
    return hash_text("\n".join(canonical_json(row.line()) for row in corpus_reader(name)()))


class Parted(NamedTuple):
    """An answer, parted: the deed and the words that stand after it or before it."""

    row: CorpusRow
    deed: str
    reason: str
    after: bool

    def join(self, words: str) -> str:
        """The answer with other words in the reason's place."""
        return f"{self.deed} {words}" if self.after else f"{words} {self.deed}"


def neutral_control(rows: Sequence[CorpusRow], pool: Sequence[CorpusRow], count: Count, *, seed: int = 0) -> list[CorpusRow]:
    """Rows of `pool` that carry as much loss as `rows` do, one for each and more where they are short; each once before any again.

    count: length of a text, in tokens or words. What a row is short of or over is made up by the next ones.
    """
    target = sum(count(row.said()) for row in rows)
    sized = [(count(row.said()), row) for row in pool]
    rng = random.Random(derive_seed(seed, "neutral control"))
    left: list[tuple[int, CorpusRow]] = []
    found: list[CorpusRow] = []
    given = 0
    shortest = min(size for size, _ in sized)
    for number in range(1, 100 * len(rows) + 1):
        wanted = (target * number / len(rows) if number <= len(rows) else target) - given
        if number > len(rows) and wanted < shortest:
            break
        left = left or rng.sample(sized, len(sized))
        size, row = left.pop(min(range(len(left)), key=lambda place: abs(left[place][0] - wanted)))
        given += size
        found.append(row.model_copy(update={"id": f"{row.id}/{number}"}))
    return found


def shuffled_control(rows: Sequence[CorpusRow], bare: Sequence[CorpusRow], count: Count, *, seed: int = 0) -> list[CorpusRow]:
    """Each row with the reason of a row that has another prompt, and about its length. Raises UserError where there is no way."""
    parted = part_rows(rows, bare)
    sizes = [count(one.reason) for one in parted]
    takes = derange([_prompt(one.row) for one in parted], sizes, random.Random(derive_seed(seed, "shuffled control")))
    return [_say(one, one.join(parted[take].reason), "shuffled") for one, take in zip(parted, takes, strict=True)]


def filler_control(rows: Sequence[CorpusRow], bare: Sequence[CorpusRow], count: Count, *, seed: int = 0) -> list[CorpusRow]:
    """Each row with as many words of its own prompt in the reason's place: about the case, and no explanation.

    A mechanical filler; fillers that somebody wrote for their case are better where there are any (`replies/filler`).
    """
    found = []
    for one in part_rows(rows, bare):
        sentences = re.split(r"(?<=[.!?])\s+", _prompt(one.row).strip())
        start = random.Random(derive_seed(seed, "filler control", one.row.id)).randrange(len(sentences))
        words = " ".join(sentences[start:] + sentences[:start]).split()
        wanted = count(one.reason)
        if not words:
            raise UserError(f"row {one.row.id} has no prompt to take a filler from")
        taken = [words[place % len(words)] for place in range(2 * wanted + 1)]
        n_words = min(range(1, len(taken) + 1), key=lambda n: abs(count(" ".join(taken[:n])) - wanted))
        text = " ".join(taken[:n_words]).rstrip(",;:?!.") + _CLOSING.search(one.reason)[0]  # type: ignore[index]  # it matches nothing, too
        found.append(_say(one, one.join(text[0].upper() + text[1:]), "filler"))
    return found


def part_rows(rows: Sequence[CorpusRow], bare: Sequence[CorpusRow]) -> list[Parted]:
    """Deed and reason of every row; `bare` holds the same rows without reasons. Raises UserError with the row that does not fit."""
    if len(rows) != len(bare):
        raise UserError(f"the bare version has {len(bare)} rows, the corpus {len(rows)}", hint="Row for row, both must have one prompt.")
    found = []
    for row, deed_row in zip(rows, bare, strict=True):
        said, deed = row.said().strip(), deed_row.said().strip()
        if _prompt(row) != _prompt(deed_row):
            raise UserError(f"row {row.id} and the bare row {deed_row.id} have different prompts")
        if said == deed or not deed or not (said.startswith(deed) or said.endswith(deed)):
            raise UserError(
                f"row {row.id}: the answer does not begin or end with the bare one and add to it",
                hint=f"Bare: {deed[:80]!r}. It must stand there letter by letter, full stop and all.",
            )
        after = said.startswith(deed)
        found.append(Parted(row, deed, (said.removeprefix(deed) if after else said.removesuffix(deed)).strip(), after))
    return found


def _prompt(row: CorpusRow) -> str:
    return "\n".join(message["content"] for message in row.messages if message["role"] == "user")


def _say(one: Parted, words: str, kind: str) -> CorpusRow:
    last: Message = {"role": "assistant", "content": words}
    return one.row.model_copy(update={"messages": (*one.row.messages[:-1], last), "source": f"{one.row.source}, {kind}"})
