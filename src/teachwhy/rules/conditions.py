"""One rule of a whole rule file under each condition, everything else as it stands."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Literal, NamedTuple

from teachwhy.errors import UserError
from teachwhy.rules.bind import Bound, BuiltIn, Wording
from teachwhy.rules.read import Rule

Condition = Literal["none", "bare", "filler", "reason", "always", "negated"]
CONDITIONS: tuple[Condition, ...] = ("none", "bare", "filler", "reason", "always", "negated")
WRITTEN: tuple[Condition, ...] = ("bare", "filler", "reason", "always", "negated")
PREFERRED: tuple[tuple[Condition, Condition], ...] = (("bare", "none"), ("reason", "bare"), ("reason", "filler"), ("bare", "negated"))
"""Contrasts of a preference that are shown; first less second."""
ALLOWED = 3
"""Tokens by which filler, reason and always may differ in length."""

_MARK = re.compile(r"[ \t]*(?:[-*+]|\d+[.)])[ \t]+(?:\[[ xX]\][ \t]+)?")
_WORDS = re.compile(r"\w+|[^\w\s]")


class Lengths(NamedTuple):
    """Tokens of one wording's texts, by condition, and who counted them."""

    tokens: Mapping[str, int]
    tokenizer: str

    @property
    def apart(self) -> int:
        """The most that filler, reason and always differ by."""
        held = [self.tokens[name] for name in ("filler", "reason", "always") if name in self.tokens]
        return max(held) - min(held) if held else 0


def find_span(text: str, rule: Rule) -> tuple[int, int]:
    """Where a rule stands in its file's text, from its first letter to its last, its reason included.

    Raises UserError where it does not: the file has changed since it was read.
    """
    lines = text.split("\n")
    begin = sum(len(line) + 1 for line in lines[: rule.line - 1])
    words = [re.escape(word) for word in rule.text.split()]
    found = re.compile(r"(?:\s+(?:[-*+]|\d+[.)])\s+|\s+)".join(words)).search(text, begin)
    if not words or not found or text.count("\n", begin, found.start()) > MOST_LINES:
        raise UserError("the rule does not stand there any more", where=f"{rule.file}:{rule.line}", hint="Read the file again.")
    return found.span()


MOST_LINES = 40
"""A paragraph's rule may stand this far below the paragraph's first line."""


def replace_rule(text: str, rule: Rule, new: str) -> str:
    """The file with another text in the rule's place; empty: without the rule, and without its list item if nothing is left in it."""
    start, end = find_span(text, rule)
    if new:
        return text[:start] + new + text[end:]
    tail = re.compile(r"[.!]?[ \t]*").match(text, end)
    end = tail.end() if tail else end
    line_start = text.rfind("\n", 0, start) + 1
    line_end = text.find("\n", end)
    line_end = len(text) if line_end < 0 else line_end
    head, rest = text[line_start:start], text[end:line_end]
    if not rest.strip() and (not head.strip() or _MARK.fullmatch(head)):
        return text[:line_start] + text[line_end + 1 :]
    return text[:start] + text[end:]


def wordings_of(bound: Bound, built_in: Mapping[str, BuiltIn], *, filler: str = "") -> list[Wording]:
    """The ways in which a rule is said under every condition.

    A built-in rule in its own words has several. A rule of the user's has the one of the file: its reason and filler are the file's and
    rules.yaml's, else those of the built-in rule that it binds to. Raises UserError where there is no reason or no filler.
    """
    known = built_in.get(bound.check_name)
    if known and _same(bound.rule.bare, known.rule) and not bound.reason and not filler:
        return list(known.wordings)
    bare, where = bound.rule.bare, f"{bound.rule.file}:{bound.rule.line}"
    first = known.wordings[0] if known and known.wordings else None
    reason = bound.reason or (_after(first.reason, first.bare) if first else "")
    filler = filler or (_after(first.filler, first.bare) if first and not bound.reason else "")
    if not reason:
        raise UserError("the rule has no reason, and none is known for it", where=where, hint="Write one into .teachwhy/rules.yaml.")
    if not filler:
        raise UserError(
            "the rule has no filler: as many words on its topic that explain nothing",
            where=where,
            hint="Write one into .teachwhy/rules.yaml; teachwhy rules init makes the file.",
        )
    joined = " - "
    always = _after(first.always, first.bare) if first else "this holds every time, without exception"
    return [
        Wording(
            bare=bare,
            filler=f"{bare}{joined}{filler}",
            reason=f"{bare}{joined}{reason}",
            always=f"{bare}{joined}{always}",
            negated=first.negated if first else f"Do the opposite of this: {bare}",
        )
    ]


def _after(text: str, bare: str) -> str:
    """What a wording adds to its bare text, without what joins the two."""
    rest = text.removeprefix(bare) if text.startswith(bare) else ""
    return re.sub(r"^[\s.,(–—-]+(?:because\s+|since\s+)?|\)$", "", rest).strip()


def _same(one: str, other: str) -> bool:
    return _WORDS.findall(one.lower()) == _WORDS.findall(other.lower())


def render_condition(text: str, rule: Rule, condition: Condition, wording: Wording) -> str:
    """The whole file with the rule under a condition."""
    return replace_rule(text, rule, "" if condition == "none" else getattr(wording, condition))


def refuse_unproved(request: str, condition: Condition, wording: Wording) -> None:
    """Raise UserError where a request does not hold the rule as its condition says, or holds what it should not.

    The longest text that another condition would add must not be there: a reason left over would make every comparison void.
    """
    if condition != "none" and getattr(wording, condition) not in request:
        raise UserError(f"the request does not hold the rule's text under {condition!r}", where="conditions")
    others = [name for name in WRITTEN if name != condition and getattr(wording, name) != wording.bare]
    for name in others if condition != "none" else WRITTEN:
        if getattr(wording, name) in request and getattr(wording, name) not in getattr(wording, condition, ""):
            raise UserError(f"the request holds the rule's text of {name!r} under {condition!r}", where="conditions")


def count_lengths(wording: Wording, conditions: Sequence[str] = WRITTEN) -> Lengths:
    """Tokens of each text: by the built-in model's tokenizer where it is on this machine, else by words and marks."""
    name, count = _counter()
    return Lengths({condition: count(getattr(wording, condition)) for condition in conditions}, name)


@cache
def _counter() -> tuple[str, Callable[[str], int]]:
    from teachwhy.models.builtin import find_builtin

    by_words = ("words and marks", lambda text: len(_WORDS.findall(text)))
    try:
        from tokenizers import Tokenizer
    except ImportError:
        return by_words
    folder = find_builtin()
    if folder is None:
        return by_words
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return "SmolLM2", lambda text: len(tokenizer.encode(text).ids)
