"""Is data fit to train on: leaks from evaluation scenarios, duplicates, openings, lengths, and what wording.py says of a row."""

from __future__ import annotations

import hashlib
import itertools
import re
import unicodedata
import zlib
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from teachwhy.corpora import CorpusRow
from teachwhy.errors import LeakError
from teachwhy.records import Scenario
from teachwhy.scenarios import DEEDS, PLACEHOLDER, fill
from teachwhy.surface import WORD, cue_words, harmful_and_safe
from teachwhy.wording import CHECKS, function_words, read_fills

N_GRAM = 8
"""Words in a row that count as shared text."""
SHINGLE = 5
"""Words in a row that likeness within a corpus is measured by."""
NEAR_DUPLICATE = 0.7
"""Jaccard index within a corpus."""
MAX_OPENING = 0.02
"""Share of rows that may begin with the same eight words; two may in any corpus."""
SHOWN = 20
"""Findings of one kind that a sheet keeps; all are counted."""
BANDS, BAND = 20, 4
"""A pair of Jaccard index 0.7 shares one of 20 bands of 4 minima with probability 0.996."""


class Leak(NamedTuple):
    """A training row that shares text, or its family, with an evaluation scenario."""

    row: str
    scenario: str
    shared: str


_TAG = re.compile(r"</?[A-Za-z][^<>]{0,40}>")
_MARKS = re.compile(r"_|(?<!\w)'|'(?!\w)")
_ALIKE = str.maketrans(
    "\u0430\u0432\u0435\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445\u0455\u0456\u0458\u04bb\u0501\u051b\u051d"
    "\u03b1\u03b2\u03b5\u03b9\u03ba\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7",
    "abekmhopctyxsijhdqwabeikvoptux",
)
"""Letters of Cyrillic and Greek that look like Latin ones."""


_MARKED = (
    "\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u0900-\u0963\u0981-\u0dff\u0eb1-\u0ecd\u0f71-\u0f84"
    "\u102b-\u103e\u17b4-\u17d3"
)
"""Marks that are part of a word in scripts that write vowels so."""
_WORDS = re.compile(rf"[\w'{_MARKED}]+")
_SPACELESS = re.compile("[\u0e00-\u0e7f\u0e80-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
"""Thai, Lao, Burmese, Khmer, kana, Han: scripts without spaces between words."""
SPACELESS_WORD = 6
"""Their letters are read so many at a time, overlapping: eight of those are thirteen letters."""
_ACCENTS = re.compile("[\u0300-\u036f]")


def plain_letters(text: str) -> str:
    """Lower-case text in one form (NFKD), without accents, soft hyphens and what else is invisible, tags, underscores and quotes, and with
    letters that look alike as one: what differs in nothing else is the same text."""
    text = _TAG.sub(" ", text)
    if not text.isascii():
        text = _ACCENTS.sub("", unicodedata.normalize("NFKD", text))
        text = "".join(letter for letter in text if unicodedata.category(letter) != "Cf").replace("\u2019", "'").lower().translate(_ALIKE)
    return _MARKS.sub(" ", text.lower())


def _parted(words: Iterable[str]) -> Iterator[str]:
    for word in words:
        if len(word) <= SPACELESS_WORD or not _SPACELESS.fullmatch(word):
            yield word
        else:
            yield from (word[start : start + SPACELESS_WORD] for start in range(len(word) - SPACELESS_WORD + 1))


def n_grams(text: str, n: int = N_GRAM) -> list[tuple[str, ...]]:
    """Runs of `n` words as a reader sees them, in order: markup, letters' forms and what is invisible do not count."""
    plain = plain_letters(text)
    words = _WORDS.findall(plain) if plain.isascii() else list(_parted(_WORDS.findall(plain)))
    return list(zip(*(words[start:] for start in range(n)), strict=False))


class HeldOut:
    """Texts that are evaluated, to look training rows up in.

    `train` and `oracle` scenarios are left out: training shows them on purpose. A held-out scenario is read in its first `n_fills`
    fills: those that are scored. stems: whether words that stand in several scenarios count; they are how a family speaks, not what one
    scenario is.
    """

    def __init__(self, scenarios: Iterable[Scenario], *, n_fills: int = 1, stems: bool = True) -> None:
        held = [scenario for scenario in scenarios if scenario.split in ("near", "far")]
        self.far_families = {scenario.family for scenario in held if scenario.split == "far" and scenario.kind == "honeypot"}
        self.owners: dict[tuple[str, ...], str] = {}
        shared: set[tuple[str, ...]] = set()
        for scenario in held:
            for text in (scenario.situation, scenario.twin, *(action.text for action in scenario.actions), *scenario.reasons.values()):
                for number in range(n_fills):
                    for gram in n_grams(fill(scenario, number).text(text)):
                        self.owners.setdefault(gram, scenario.id)
                        shared |= {gram} if self.owners[gram] != scenario.id else set()
        if not stems:
            self.owners = {gram: owner for gram, owner in self.owners.items() if gram not in shared}

    def find(self, row: CorpusRow) -> list[Leak]:
        """What a row gives away: its whole family, and apart from that eight words in a row."""
        leaks = []
        if row.family() in self.far_families:
            leaks.append(Leak(row.id, row.family(), "the whole family is kept for evaluation"))
        if shared := next((gram for gram in n_grams(row.whole()) if gram in self.owners), None):
            leaks.append(Leak(row.id, self.owners[shared], " ".join(shared)))
        return leaks


def find_leaks(rows: Iterable[CorpusRow], scenarios: Iterable[Scenario], *, n_fills: int = 1, stems: bool = True) -> list[Leak]:
    """Rows that share text with a near or far scenario, or that are made from a far family.

    A row can leak in both ways: the oracle's family is waived, its shared text is not. Likeness needs no check of its own: two texts
    with a Jaccard index over 0.5 on runs of five words have two thirds of these runs in common, and so eight words in a row.
    """
    held_out = HeldOut(scenarios, n_fills=n_fills, stems=stems)
    return [leak for row in rows for leak in held_out.find(row)]


def refuse_leaks(corpus: str, leaks: Sequence[Leak]) -> None:
    """Stop the study on a leak. Raises LeakError with the first three."""
    if leaks:
        shown = "; ".join(f"row {leak.row} and scenario {leak.scenario}: {leak.shared!r}" for leak in leaks[:3])
        raise LeakError(
            f"{len(leaks)} training rows of {corpus!r} leak into the evaluation: {shown}",
            hint="Take those rows out. An arm that is meant to be trained on far families is the oracle: use a corpus `oracle/...`.",
        )


# A corpus


class Finding(NamedTuple):
    """Something to mend."""

    check: str
    row: str
    """The row's or scenario's id; empty where the whole is meant."""
    says: str


class Sheet(NamedTuple):
    """What a check found. `n_rows` = `kept` + the sum of `rejected`: a row is counted under the first reason it meets."""

    name: str
    n_rows: int
    kept: int
    rejected: dict[str, int]
    findings: list[Finding]
    """At most SHOWN of a kind."""
    n_findings: dict[str, int]
    opening: tuple[str, int]
    """The commonest first eight words of what carries loss, and its number of rows."""
    words: tuple[float, float, float]
    """Words that carry loss, a row: 5 %, 50 % and 95 % quantiles."""
    tags: dict[str, int]
    """family:..., principle:... and so on -> rows."""

    @property
    def passed(self) -> bool:
        """Whether there is nothing to mend."""
        return not self.n_findings


def check_corpus(
    name: str, read: Callable[[], Iterable[CorpusRow]], held_out: HeldOut | None = None, *, leave_out: Collection[str] = ()
) -> Sheet:
    """Read a corpus row by row and give its quality sheet.

    read: called twice at most, since what is kept of a row is its fingerprint (160 bytes): candidates for duplicates are read again
    to compare the texts themselves. held_out: what it must not leak into. leave_out: names of checks.
    """
    checks = {check: look for check, look in CHECKS.items() if check not in leave_out}
    prints, taking = _Prints(), _Taking(leave_out)
    openings, lengths, tags = array("Q"), array("L"), Counter[str]()
    for row in read():
        said, whole = row.said(), row.whole()
        found = [(check, says) for check, look in checks.items() if (says := look(whole))]
        if not said.strip():
            found.append(("nothing_said", "nothing that the assistant says: remove the row, or add an assistant message"))
        openings.append(_hash_opening(said))
        lengths.append(len(said.split()))
        prints.add(said)
        tags.update(row.tags)
        if held_out and "leak" not in leave_out:
            found += [("leak", f"scenario {leak.scenario}: {leak.shared!r}") for leak in held_out.find(row)]
        taking.take(row.id, found)
    if "near_duplicate" not in leave_out:
        for place, row_id, twin in _find_duplicates(read, prints.candidates()):
            taking.reject(place, row_id, "near_duplicate", f"says nearly what row {twin} says")
    opening = _commonest_opening(read, openings)
    taking.note_opening(opening)
    return taking.sheet(name, opening, lengths, tags)


def _hash_opening(text: str) -> int:
    """Of the first eight words; 0 where there are none."""
    words = " ".join(text.split()[:N_GRAM])
    return int.from_bytes(hashlib.blake2b(words.encode(errors="surrogatepass"), digest_size=8).digest()) if words else 0


def _commonest_opening(read: Callable[[], Iterable[CorpusRow]], hashes: Sequence[int]) -> tuple[str, int]:
    """The commonest first eight words and their number: counted by hash, then looked up in the first row that has them."""
    column = np.asarray(hashes, dtype=np.uint64)
    values, firsts, counts = np.unique(column[column > 0], return_index=True, return_counts=True)
    if not values.size:
        return "", 0
    most = min(np.flatnonzero(counts == counts.max()), key=lambda place: firsts[place])
    first = int(np.flatnonzero(column == values[most])[0])
    row = next(itertools.islice(read(), first, None))
    return " ".join(row.said().split()[:N_GRAM]), int(counts[most])


class _Taking:
    """Findings as they come, and the first reason of every row that is rejected."""

    def __init__(self, leave_out: Collection[str] = ()) -> None:
        self.leave_out = leave_out
        self.n_rows = 0
        self.rejected: dict[int, str] = {}
        self.findings: list[Finding] = []
        self.n_findings = Counter[str]()

    def take(self, row: str, found: Sequence[tuple[str, str]]) -> None:
        for check, says in found:
            self.reject(self.n_rows, row, check, says)
        self.n_rows += 1

    def reject(self, place: int, row: str, check: str, says: str) -> None:
        if check in self.leave_out:
            return
        self.rejected.setdefault(place, check)
        self.note(check, row, says)

    def note(self, check: str, row: str, says: str) -> None:
        if check in self.leave_out:
            return
        self.n_findings[check] += 1
        if self.n_findings[check] <= SHOWN:
            self.findings.append(Finding(check, row, says))

    def note_opening(self, opening: tuple[str, int]) -> None:
        if opening[1] > max(2, MAX_OPENING * self.n_rows):
            self.note("opening", "", f"{opening[1]} of {self.n_rows} rows begin with {opening[0]!r}")

    def sheet(self, name: str, opening: tuple[str, int], lengths: Sequence[int], tags: Counter[str]) -> Sheet:
        low, middle, high = (float(value) for value in np.quantile(np.asarray(lengths) if lengths else [0], (0.05, 0.5, 0.95)))
        return Sheet(
            name=name,
            n_rows=self.n_rows,
            kept=self.n_rows - len(self.rejected),
            rejected=dict(Counter(self.rejected.values())),
            findings=self.findings,
            n_findings=dict(self.n_findings),
            opening=opening,
            words=(low, middle, high),
            tags=dict(sorted(tags.items())),
        )


# Rows against rows


def shingles(text: str) -> NDArray[np.uint32]:
    """Hashes of a text's runs of 5 words (of the whole text where it is shorter), sorted, each once."""
    grams = n_grams(text, SHINGLE) or [tuple(WORD.findall(text.lower()))]
    return np.unique(np.fromiter((zlib.crc32(" ".join(gram).encode(errors="surrogatepass")) for gram in grams), np.uint32, len(grams)))


def jaccard(one: NDArray[np.uint32], other: NDArray[np.uint32]) -> float:
    """What two sets have in common, as a share of all that they have."""
    n_shared = np.intersect1d(one, other, assume_unique=True).size
    return float(n_shared / (one.size + other.size - n_shared)) if n_shared else 0.0


class _Prints:
    """MinHash fingerprints of rows (Broder 1997, "On the resemblance and containment of documents", section 4), in bands.

    datasketch makes the minima. Its MinHashLSH keeps a set of keys for every band of every row, 400 MB for 100,000 rows; sorted
    columns of band hashes find the same candidates in 16 MB.
    """

    def __init__(self) -> None:
        from datasketch import MinHash

        self.blank = MinHash(num_perm=BANDS * BAND, hashfunc=int)
        self.blocks: list[NDArray[np.uint64]] = []
        self.block: list[NDArray[np.uint64]] = []
        self.mix = np.random.default_rng(0).integers(1, 2**63, BAND, dtype=np.uint64) | np.uint64(1)

    def add(self, text: str) -> None:
        mark = self.blank.copy()
        mark.update_batch(shingles(text).tolist())
        minima = np.asarray(mark.hashvalues, dtype=np.uint64).reshape(BANDS, BAND)
        self.block.append((minima * self.mix).sum(axis=1, dtype=np.uint64))
        if len(self.block) == 1024:
            self.blocks.append(np.stack(self.block))
            self.block = []

    def candidates(self) -> list[tuple[int, int]]:
        """Pairs of row numbers (later, earlier) that share a band: each row with the first and with the last before it in the band."""
        if self.block:
            self.blocks.append(np.stack(self.block))
            self.block = []
        pairs: set[tuple[int, int]] = set()
        for column in np.concatenate(self.blocks).T if self.blocks else ():
            order = np.argsort(column, kind="stable")
            same = np.flatnonzero(column[order][1:] == column[order][:-1])
            first = -1
            for place in same.tolist():
                earlier, later = int(order[place]), int(order[place + 1])
                first = earlier if first < 0 or column[first] != column[later] else first
                pairs |= {(later, earlier), (later, first)}
        return sorted(pairs)


def _find_duplicates(read: Callable[[], Iterable[CorpusRow]], pairs: Sequence[tuple[int, int]]) -> Iterator[tuple[int, str, str]]:
    """(row number, id, id of an earlier row that says nearly the same). Versions of one reply, rows of one id, are no duplicates."""
    wanted = {place for pair in pairs for place in pair}
    held: dict[int, tuple[str, NDArray[np.uint32]]] = {}
    if wanted:
        held = {place: (row.id, shingles(row.said())) for place, row in enumerate(read()) if place in wanted}
    done = set()
    for later, earlier in pairs:
        (own, one), (twin, other) = held[later], held[earlier]
        if later not in done and one.size and own != twin and jaccard(one, other) > NEAR_DUPLICATE:
            done.add(later)
            yield later, own, twin


# Scenarios


def plan_factors(scenarios: Sequence[Scenario]) -> list[str]:
    """Factors of the plan that can be counted: their values come again, at four scenarios a value or more. Others are notes."""
    values: dict[str, set[str]] = {}
    for scenario in scenarios:
        for factor, value in scenario.plan.items():
            values.setdefault(factor, set()).add(value)
    return sorted(factor for factor, held in values.items() if 4 * len(held) <= len(scenarios))


def crowded_cells(scenarios: Sequence[Scenario]) -> list[tuple[str, str, str, float]]:
    """(family, factor, value, share) where one of more than three values stands in over half of a family's scenarios."""
    found = []
    for factor in plan_factors(scenarios):
        if len({scenario.plan.get(factor) for scenario in scenarios}) <= 3:
            continue
        counts: dict[str, Counter[str]] = {}
        for scenario in scenarios:
            counts.setdefault(scenario.family, Counter())[scenario.plan.get(factor, "")] += 1
        for family, held in sorted(counts.items()):
            value, n = held.most_common(1)[0]
            if n > held.total() / 2:
                found.append((family, factor, value, n / held.total()))
    return found


def check_scenarios(name: str, scenarios: Sequence[Scenario], principles: Collection[str] = (), leave_out: Collection[str] = ()) -> Sheet:
    """The sheet of a set of scenarios: every filled form is read, near-duplicates of situations are sought, coverage is counted.

    principles: those that there are; none given, none is asked after. leave_out: checks.
    """
    taking, tags = _Taking(leave_out), Counter[str]()
    rows = [CorpusRow(id=one.id, text=PLACEHOLDER.sub("slot", one.situation), source=name) for one in scenarios]
    prints = _Prints()
    factors = plan_factors(scenarios)
    for scenario, row in zip(scenarios, rows, strict=True):
        texts = (scenario.situation, scenario.twin, *(action.text for action in scenario.actions), *scenario.reasons.values())
        found = list(read_fills(scenario, texts))
        if scenario.twin == scenario.situation:
            found.append(("twin", "the twin says the same as the situation"))
        if principles:
            found += [
                (
                    "principle",
                    f"no principle {one!r} in the constitution, which has {', '.join(sorted(principles))} (--constitution FILE: another)",
                )
                for one in scenario.principles
                if one not in principles
            ]
        taking.take(scenario.id, found)
        tags.update(f"{factor}:{value}" for factor, value in scenario.plan.items() if factor in factors)
        tags.update([f"family:{scenario.family}", f"split:{scenario.split}", *(f"principle:{one}" for one in scenario.principles)])
        prints.add(row.text)
    written = any(one.kind in DEEDS for one in scenarios)  # what code makes from a few templates is alike by design
    for place, row_id, twin in _find_duplicates(lambda: rows, prints.candidates() if written else []):
        taking.reject(place, row_id, "near_duplicate", f"is nearly the situation of {twin}")
    for word, n_harmful, n_safe in cue_words([(text, harmful) for text, harmful, _ in harmful_and_safe(scenarios)]):
        if word not in function_words():  # a word about the deed may tell what the deed is
            continue
        taking.note("cue", "", f"{word!r} stands in {n_harmful} harmful and {n_safe} safe actions")
    for family, factor, value, share in crowded_cells(scenarios):
        taking.note("plan", "", f"{share:.0%} of {family} have {factor} {value!r}: the plan varies too little")
    opening = _commonest_opening(lambda: rows, [_hash_opening(row.text) for row in rows])
    if written:
        taking.note_opening(opening)
    return taking.sheet(name, opening, [len(row.text.split()) for row in rows], tags)
