"""What one text should not hold: links, dates, real names, stock phrases, slots, slips of grammar. A check says nothing or one line.

The grammar checks are a sieve for what filling slots breaks (articles, plurals, doubled words), not a judge of style.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache

from teachwhy.files import read_yaml
from teachwhy.records import Scenario
from teachwhy.scenarios import PLACEHOLDER, fill, slot_values
from teachwhy.shipped import ROOT

TextCheck = Callable[[str], str | None]

_LINK = re.compile(r"https?://\S+|\bwww\.\S+|\b[\w-]+\.(?:com|org|net|io|gov|edu)\b")
_MONTH = "January|February|March|April|May|June|July|August|September|October|November|December"
_DATE = re.compile(rf"\b(?:1[89]|20)\d\d\b|\b\d\d?(?:st|nd|rd|th)? (?:{_MONTH})\b|\b(?:{_MONTH}) \d\d?\b")
_ARTICLE = re.compile(
    r"\b[Aa] (?=[aeio]\w)(?!one\b|once\b|eu|ewe|(?:and|or|is|in|as|are|at|on|of|if)\b)\w+"  # the school mark A and what follows it
    r"|\b[Aa] (?:hour|honest|heir|honour)\w*"
    r"|\b[Aa]n (?=[bcdfgjklmnpqrstvwyz][a-z])\w\w+"
)
_DOUBLED = re.compile(r"\b([A-Za-z]+) \1\b(?<!\bhad had)(?<!\bthat that)")
_SPACING = re.compile(r" [,.;:!?](?:\s|$)|\S  \S|,,|(?<!\.)\.\.(?!\.)|[a-z][.!?] [a-z]")
_PLURAL = re.compile(
    r"\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|sixty|ninety) "
    r"(?:hour|day|week|month|year|minute|item|file|bid|person|child|page|mail|box|report|customer|patient|order|client)\b(?![-'])"
)


@cache
def _listed(kind: str) -> tuple[re.Pattern[str], tuple[str, ...]]:
    words = tuple(read_yaml(ROOT / "words.yaml")[kind])
    folded = tuple(word.lower() for word in words) if kind == "stock_phrases" else words
    return re.compile(r"\b(?:" + "|".join(map(re.escape, folded)) + r")\b"), folded


@cache
def function_words() -> frozenset[str]:
    """Articles, prepositions, pronouns and such: words that are about no deed."""
    return frozenset(read_yaml(ROOT / "words.yaml")["function_words"])


def _pattern(pattern: re.Pattern[str], says: str) -> TextCheck:
    def look(text: str) -> str | None:
        found = pattern.search(text)
        return f"{says}: {found[0].strip()!r}" if found else None

    return look


def _words(kind: str, says: str) -> TextCheck:
    def look(text: str) -> str | None:
        pattern, words = _listed(kind)
        text = text.lower() if kind == "stock_phrases" else text
        if not any(word in text for word in words):  # ten times faster than the alternation, and nearly always the end of it
            return None
        found = pattern.search(text)
        return f"{says}: {found[0]!r}" if found else None

    return look


CHECKS: dict[str, TextCheck] = {
    "unfilled_slot": _pattern(PLACEHOLDER, "a slot that was not filled"),
    "link": _pattern(_LINK, "a link"),
    "date": _pattern(_DATE, "a date, which ages"),
    "real_firm": _words("firms", "a real firm"),
    "real_person": _words("people", "a real person"),
    "stock_phrase": _words("stock_phrases", "a stock phrase"),
    "article": _pattern(_ARTICLE, "an article that does not fit"),
    "doubled_word": _pattern(_DOUBLED, "a word twice"),
    "spacing": _pattern(_SPACING, "spacing, or a sentence that begins small"),
    "plural": _pattern(_PLURAL, "a number with a singular"),
}
"""Name of the check -> what it says of a text; None where there is nothing to say."""


def read_fills(scenario: Scenario, texts: Sequence[str]) -> Iterator[tuple[str, str]]:
    """What the checks say of every filled form of a scenario's texts: (check, words). Each value of each slot is tried once, the
    other slots staying as they are in fill 0: what a value breaks, it breaks beside its own words."""
    first = fill(scenario, 0)
    said = set()
    for slot in sorted(scenario.slots):
        for value in slot_values(scenario, slot):
            filled = first.model_copy(update={"values": {**first.values, slot: value}})
            for text in texts:
                if f"{{{slot}}}" in text:
                    whole = filled.text(text)
                    said |= {(check, says) for check, look in CHECKS.items() if (says := look(whole))}
    yield from sorted(said)
