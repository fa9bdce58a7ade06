"""A second reading of a step, by other means than the first: regular expressions over the text, no grammar.

Where the two disagree, one of them is wrong: such steps are counted and read again. It knows no functions, no aliases, no other machines,
and takes what stands in quotes behind `bash -c` or `eval` as commands by its look alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from teachwhy.rules.checks import SILENT, Check, Reading, Step, decide
from teachwhy.rules.commands import Command

_HEREDOC = re.compile(r"<<-?\s*(['\"]?)(\w+)\1([^\n]*)\n(.*?)^\s*\2\s*$", re.DOTALL | re.MULTILINE)
_QUOTED = re.compile(r"'[^']*'|\"(?:\\.|[^\"\\])*\"")
_COMMENT = re.compile(r"(?:^|(?<=\s))#[^\n]*")
_BREAK = re.compile(
    r"\|\||&&|\||;;|;|\n|(?<!>)&(?!>)|\(|\)|`|\$\(|(?<=\s)\{(?=\s)|(?<=\s)\}|\b(?:then|do|else|elif|if|while|until|!)(?=\s)"
)
_REDIRECT = re.compile(r"\d*(?:>>?|<|>&|&>)\s*(?:&\d|[^\s;|&]+)?")
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_RUNNERS = re.compile(
    r"^(?:(?:sudo|doas|nohup|time|command|exec|env|nice|xargs|setsid|stdbuf|timeout|watch)\b(?:\s+(?:-\S+|\d+[smh]?|\w+=\S*))*\s+)+(?=\S)"
)
_INNER = re.compile(r"\b(?:(?:ba|z|da|k)?sh\s+(?:-\w+\s+)*-\w*c|eval)\s+('[^']*'|\"(?:\\.|[^\"\\])*\")")
_FED_SHELL = re.compile(r"(?:^|[\s;&|])(?:ba|z|da|k)?sh\s*$")


def read_again(check: Check, step: Step, *, approved: bool = False) -> Reading:
    """As `checks.read_step`: the commands are found by other means, and what they say of the rule is decided alike."""
    texts = (re.sub("[\1\2]", "", text) for text in step.bash)  # they mark places below
    return decide(check, [piece for text in texts for piece in _pieces(text)], step.message, _prints, approved=approved)


DEEPEST = 12
"""Commands inside commands that are read; no person nests deeper."""


def _prints(piece: Command) -> bool:
    quiet = piece.argv[0] in SILENT or piece.argv[:2] == ("git", "add")
    return not quiet and ">/dev/null" not in piece.text.replace(" ", "").split("2>")[0]


def _pieces(text: str, env: dict[str, str] | None = None, depth: int = 0) -> Iterator[Command]:
    """The text cut where a shell would begin another command; exports hold from where they stand, inside a subshell up to its end."""
    if depth > DEEPEST:
        return
    fed: list[str] = []

    def keep_fed(found: re.Match[str]) -> str:
        fed.append(found[4])
        return f" \1{len(fed) - 1}\1 {found[3]}\n"

    quoted: list[str] = []

    def keep_quoted(found: re.Match[str]) -> str:
        quoted.append(found[0])
        return f"\2{len(quoted) - 1}\2"

    exported = dict(env or {})
    outer: list[dict[str, str]] = []
    plain = _HEREDOC.sub(keep_fed, text)
    plain = _QUOTED.sub(keep_quoted, plain)
    plain = _COMMENT.sub("", plain).replace("\\\n", " ")
    for inner in (one for one in quoted if one.startswith('"')):
        for found in re.findall(r"\$\(([^()]*)\)|`([^`]*)`", inner[1:-1]):
            yield from _pieces(re.sub("\1\\d+\1", " ", "".join(found)), exported, depth + 1)
    place, piped = 0, False
    for found in [*_BREAK.finditer(plain), None]:
        piece = plain[place : found.start() if found else len(plain)]
        yield from (one._replace(piped=piped and one.argv[0] != "xargs") for one in _read_piece(piece, quoted, fed, exported, depth + 1))
        piped = found is not None and found[0] == "|"
        if found is None:
            break
        if found[0] in ("(", "$("):
            outer.append(dict(exported))
        elif found[0] == ")" and outer:
            exported.clear()
            exported.update(outer.pop())
        place = found.end()


def _read_piece(piece: str, quoted: list[str], fed: list[str], exported: dict[str, str], depth: int) -> Iterator[Command]:
    stdin = "".join(fed[int(number)] for number in re.findall("\1(\\d+)\1", piece))
    piece = re.sub("\1\\d+\1", " ", piece)
    shown = re.sub("\2(\\d+)\2", lambda found: quoted[int(found[1])], piece).strip()
    shown = re.sub("\1(\\d+)\1", lambda found: fed[int(found[1])], shown)  # a here-document inside quotes
    words = [
        re.sub("\1(\\d+)\1", lambda found: fed[int(found[1])], re.sub("\2(\\d+)\2", lambda found: _unquote(quoted[int(found[1])]), word))
        for word in _REDIRECT.sub(" ", piece).split()
    ]
    own: dict[str, str] = {}
    while words and (found := _ASSIGNMENT.fullmatch(words[0])):
        own[found[1]] = found[2]
        words.pop(0)
    if words and words[0] in ("export", "declare", "typeset"):
        for word in words[1:]:
            if found := _ASSIGNMENT.fullmatch(word):
                exported[found[1]] = found[2]
    if not words:
        return
    held = {**exported, **own}
    yield Command(tuple(words), held, shown, stdin)
    if found := _RUNNERS.match(" ".join(words)):
        for word in found[0].split():
            if inner := _ASSIGNMENT.fullmatch(word):
                held[inner[1]] = inner[2]
        rest = words[len(found[0].split()) :]
        if rest:
            yield Command(tuple(rest), held, shown)
    if found := _INNER.search(shown):
        yield from _pieces(_unquote(found[1]), held, depth)
    if stdin and _FED_SHELL.search(shown):
        yield from _pieces(stdin, held, depth)
    for found in re.finditer(r"\s-(?:exec|execdir|ok)\s+(.+?)(?:\s\\?;|\s\+|$)", shown):
        yield from _pieces(found[1], held, depth)


def _unquote(text: str) -> str:
    inner = text[1:-1]
    return inner if text.startswith("'") else re.sub(r"\\([\"\\$`])", r"\1", inner)
