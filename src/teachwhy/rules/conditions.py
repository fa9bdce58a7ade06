"""One rule of a whole rule file under each condition, everything else as it stands."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Literal, NamedTuple

from teachwhy.errors import UserError
from teachwhy.rules.bind import Bound, BuiltIn, Wording
from teachwhy.rules.read import Rule

Condition = Literal["none", "bare", "filler", "reason", "always", "negated", "tautology"]
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
    found = re.compile(r"\\?(?:\s+(?:[-*+]|\d+[.)])\s+|\s+)".join(words)).search(text, begin)
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


def wordings_of(bound: Bound, built_in: Mapping[str, BuiltIn], *, filler: str = "", drafts: Sequence[str] = ()) -> list[Wording]:
    """The ways in which a rule is said under every condition.

    A built-in rule in its own words has several. A rule of the user's has the one of the file: its reason and filler are the file's and
    rules.yaml's, else those of the built-in rule that it binds to, else each of a model's drafts makes a wording. Where there is no filler
    a tautology stands in for it. Raises UserError where there is no reason.
    """
    return [word.model_copy(update={"tautology": make_tautology(word.bare, word.reason)}) for word in _say(bound, built_in, filler, drafts)]


TAUTOLOGIES = (
    "that is the rule",
    "this is what the rule says",
    "it is a rule here, and this is it",
    "that is how the rule is put, and so it is put",
    "it stands here as a rule, and what stands here is the rule",
    "this is one of the rules of the project, and the rules of the project say this",
    "it is written down here as a rule, and a rule that is written down here is a rule of the project",
    "among the rules of this project there is this one, which says what it says, as each of the rules of this project does",
    "this is one of those things that are set down as a rule in this file, and a thing that is set down as a rule in this file is one "
    "of the rules of the file",
)
"""Why a rule is a rule: it is one. Of growing length."""


def make_tautology(bare: str, reason: str) -> str:
    """The rule and that it is the rule, about as long as the rule and its reason: in words and marks, which are the same everywhere."""
    wanted = len(_WORDS.findall(reason))
    return min((f"{bare} - {text}" for text in TAUTOLOGIES), key=lambda text: abs(len(_WORDS.findall(text)) - wanted))


def _say(bound: Bound, built_in: Mapping[str, BuiltIn], filler: str, drafts: Sequence[str]) -> list[Wording]:
    known = built_in.get(bound.check_name)
    if known and _same(bound.rule.bare, known.rule) and not bound.reason and not filler:
        return list(known.wordings)
    bare, where = bound.rule.bare, f"{bound.rule.file}:{bound.rule.line}"
    first = known.wordings[0] if known and known.wordings else None
    reason = bound.reason or (_after(first.reason, first.bare) if first else "")
    filler = filler or (_after(first.filler, first.bare) if first and not bound.reason else "")
    if not reason and not drafts:
        hint = "Write one into .teachwhy/rules.yaml, or let a model draft some: teachwhy rules draft --model MODEL"
        raise UserError("the rule has no reason, and none is known for it", where=where, hint=hint)
    joined = " - "
    always = _after(first.always, first.bare) if first else "this holds every time, without exception"
    return [
        Wording(
            bare=bare,
            filler=f"{bare}{joined}{filler}" if filler else make_tautology(bare, f"{bare}{joined}{why}"),
            reason=f"{bare}{joined}{why}",
            always=f"{bare}{joined}{always}",
            negated=first.negated if first else f"Do the opposite of this: {bare}",
        )
        for why in ([reason] if reason else drafts)
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
    request = _folded(request)
    if condition != "none" and _folded(getattr(wording, condition)) not in request:
        raise UserError(f"the request does not hold the rule's text under {condition!r}", where="conditions")
    written = (*WRITTEN, *(("tautology",) if wording.tautology else ()))
    others = [name for name in written if name != condition and getattr(wording, name) != wording.bare]
    for name in others if condition != "none" else written:
        said = _folded(getattr(wording, name))
        if said in request and said not in _folded(getattr(wording, condition, "")):
            raise UserError(f"the request holds the rule's text of {name!r} under {condition!r}", where="conditions")


def _folded(text: str) -> str:
    """Letters in one case and space as one: a copy of a rule that differs in these says the same."""
    return " ".join(text.split()).casefold()


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
