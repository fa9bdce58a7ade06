"""Rules in the files that agents read (AGENTS.md and its kind), each with its reason where it has one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Literal, NamedTuple

from teachwhy.errors import UserError
from teachwhy.files import hash_file, hash_text
from teachwhy.records import Record

NAMES = ("AGENTS.md", "CLAUDE.md", "CLAUDE.local.md", ".claude/CLAUDE.md", ".github/copilot-instructions.md")
GLOBS = (".claude/rules/**/*.md", ".cursor/rules/**/*.mdc")
MAX_BYTES = 1_000_000
MAX_RULE = 2_000
"""Letters. A longer one is no rule that could be tested."""
MAX_IMPORTS = 5
"""Imports inside imports."""
ALIKE = 0.75
"""Two texts this alike (Ratcliff and Obershelp's ratio) are one rule, reworded."""

Form = Literal["", "dash", "connective", "brackets", "sentence", "sub-item"]


class Rule(Record):
    """One line that an agent must follow."""

    id: str
    file: str
    line: int
    """Of the file, from 1."""
    text: str
    """All of it, with the reason."""
    bare: str
    reason: str = ""
    form: Form = ""
    """How the reason stands there."""
    note: str = ""
    """Why it cannot be tested as it is; empty: it can."""


class RuleFile(Record):
    """One file and its rules."""

    path: str
    sha256: str
    rules: tuple[Rule, ...]
    unread: tuple[int, ...] = ()
    """Lines of list items that do not read like rules or reasons."""
    skipped: tuple[str, ...] = ()
    """Imports that were not followed, and why."""


class _Block(NamedTuple):
    """A paragraph or a list item's own text."""

    text: str
    line: int
    level: int
    """0: a paragraph; 1 and more: how deep in lists."""


_DIRECTIVE = re.compile(
    r"""^(?:please\s+|when(?:ever)?\b[^,]{3,80},\s+|if\b[^,]{3,80},\s+|before\b[^,]{3,80},\s+|after\b[^,]{3,80},\s+|for\b[^,]{3,60},\s+|in\b[^,]{3,60},\s+)?
    (?:always|never|don[’']t|do\s+(?:not|\w+)|must|only|no\b|not\b|use|run|favou?r|minimi[sz]e|wrap|pin|edit|copy|let|be|refrain|remember|try|prefer|avoid|ask|keep|make|write|ensure|put|add|set|call|commit|push|check|follow|
    stick|leave|read|test|format|lint|name|place|import|return|throw|raise|log|document|update|create|delete|remove|install|build|verify|include|
    exclude|start|stop|wait|limit|treat|handle|validate|mock|search|open|close|explain|say|tell|answer|respond|reply|work|fix|respect)\b
    |\b(?:must|should|shall|always|never|do\s+not|don[’']t|may\s+not|cannot|can[’']t|are\s+not\s+allowed|not\s+allowed|is\s+forbidden|is\s+required|under\s+no\s+circumstances|needs?)\b|\bonly$""",
    re.IGNORECASE | re.VERBOSE,
)
"""A line that tells somebody to do or not to do something."""
_CONNECTIVE = re.compile(
    r",?\s+(?:because|since|so\s+that|as\s+otherwise|otherwise|or\s+else|so\s+(?:it|they|we|the|that|nobody|everyone)\b)\s*", re.IGNORECASE
)
_KEEPS_WORD = re.compile(r"^(?:so\s+(?!that)|otherwise|or\s+else|as\s+otherwise)", re.IGNORECASE)
_DASH = re.compile(r"\s+(?:-{1,2}|[–—])(?=\s)|[–—]")
_BRACKETS = re.compile(r"\s*\(([^()]{8,})\)\s*[.!]?$")
_REASON_OPENER = re.compile(
    r"^(?:because|since|so\b|otherwise|it|its|they|their|this|that|these|those|we|our|the|without|else|if\s+not|reason:|why:|to\s+avoid|there|nobody|"
    r"everyone|each|every|an?\s)",
    re.IGNORECASE,
)
_LABEL = re.compile(r"^(?:[✅❌•⚠️]+\s*)?(?:[\w/`.-]+ ?){1,4}:\s+")
"""`Naming: use snake_case`."""
_EXAMPLE = re.compile(r"^(?:e\.g\.|i\.e\.|for example|such as|see|like|cf\.|default|optional|default:)", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.!?])(?<!e\.g\.)(?<!i\.e\.)(?<!etc\.)\s+(?=[A-Z`\"'(])")
_IMPORT = re.compile(r"(?<![\w`@])@((?:~/|\.{0,2}/)?[\w.][\w./-]*)")


def find_rule_files(start: Path) -> list[Path]:
    """The rule files of the nearest folder that has any, from `start` upwards to the root of its repository. Raises UserError."""
    start = start.resolve()
    for folder in (start, *start.parents):
        found = [folder / name for name in NAMES if (folder / name).is_file()]
        found += [path for pattern in GLOBS for path in sorted(folder.glob(pattern)) if path.is_file()]
        if found:
            return found
        if (folder / ".git").exists():
            break
    known = "AGENTS.md, CLAUDE.md, .claude/rules/*.md, .cursor/rules/*.mdc or .github/copilot-instructions.md"
    raise UserError("no rule file was found here or above", where=str(start), hint=f"Name one, or write {known}.")


def read_rule_file(path: Path, root: Path | None = None) -> list[RuleFile]:
    """The rules of a file and, of a CLAUDE.md, of what it imports from the same project. Raises UserError for what is no text."""
    return list(_read(path, (root or project_of(path)).resolve(), [], 0))


def project_of(path: Path) -> Path:
    """The root of the repository that a file is in, else its folder."""
    folder = path.resolve().parent
    return next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), folder)


def _read(path: Path, root: Path, seen: list[Path], depth: int) -> Iterator[RuleFile]:
    text = _read_text(path)
    seen.append(path.resolve())
    skipped, imported = [], []
    if path.name.startswith("CLAUDE") or depth:
        for name in _imports(text):
            target = (path.parent / name).resolve() if not name.startswith("~") else Path(name).expanduser().resolve()
            if target in seen or target in imported:
                continue
            if not target.is_file():
                continue  # an @ that names nothing: an address, a handle
            if not target.is_relative_to(root):
                skipped.append(f"@{name}: outside the project")
            elif depth >= MAX_IMPORTS:
                skipped.append(f"@{name}: more than {MAX_IMPORTS} imports deep")
            else:
                imported.append(target)
    blocks = list(_blocks(text))
    rules = _read_blocks(blocks, str(path))
    said = {rule.reason for rule in rules if rule.form == "sub-item"}
    held = {rule.line for rule in rules}
    unread = [block.line for block in blocks if block.level and block.line not in held and _tidy(block.text) not in said]
    yield RuleFile(path=str(path), sha256=hash_file(path), rules=tuple(rules), unread=tuple(unread), skipped=tuple(skipped))
    for target in imported:
        if target not in seen:
            yield from _read(target, root, seen, depth + 1)


def _read_text(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UserError(
                f"the file has {size:,} bytes; rule files are read up to {MAX_BYTES:,}", where=str(path), hint="Is it the right file?"
            )
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"the file cannot be read: {error.strerror or error}", where=str(path)) from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        hint = "Save it again as UTF-8, or name another file."
        raise UserError(f"the file is no text in UTF-8 (byte {error.start:,})", where=str(path), hint=hint) from None
    if "\0" in text:
        raise UserError("the file is binary", where=str(path), hint="Name a text file: AGENTS.md, CLAUDE.md, an .mdc file.")
    if re.search(r"\r(?!\n)", text):
        raise UserError("a line ends with a carriage return alone", where=str(path), hint="Save the file with line ends LF or CRLF.")
    return text


def _imports(text: str) -> list[str]:
    """Names after @ outside code."""
    plain = re.sub(r"```.*?```|~~~.*?~~~|`[^`\n]*`", "", text, flags=re.DOTALL)
    return list(dict.fromkeys(found.rstrip(".,;:") for found in _IMPORT.findall(plain)))


def parse_rules(text: str, file: str = "") -> list[Rule]:
    """The rules of a Markdown text, in its order; a second one with the same bare text has a note."""
    return _read_blocks(list(_blocks(text)), file)


def _read_blocks(blocks: Sequence[_Block], file: str) -> list[Rule]:
    found: list[Rule] = []
    owner: tuple[int, int] | None = None  # (index, level) of the list item that a reason below it would belong to
    for block in blocks:
        if block.level and owner and block.level > owner[1] and not _is_rule(block.text):
            rule = found[owner[0]]
            if not rule.reason and not _EXAMPLE.match(block.text):
                whole = f"{rule.text}\n{block.text}"
                found[owner[0]] = rule.model_copy(update={"reason": _tidy(block.text), "form": "sub-item", "text": whole})
            continue
        owner = None
        for sentence, line in _directives(block):
            bare, reason, form = split_reason(sentence)
            found.append(
                Rule(id=name_rule(bare), file=file, line=line, text=sentence, bare=bare, reason=reason, form=form, note=_note(sentence))
            )
            owner = (len(found) - 1, block.level) if block.level else None
    return _mark_repeated(found)


def _note(text: str) -> str:
    return f"longer than {MAX_RULE:,} letters" if len(text) > MAX_RULE else ""


def _mark_repeated(rules: Sequence[Rule]) -> list[Rule]:
    first: dict[str, Rule] = {}
    found = []
    for rule in rules:
        held = first.setdefault(rule.id, rule)
        found.append(rule if held is rule else rule.model_copy(update={"note": f"the same as line {held.line}"}))
    return found


def _blocks(text: str) -> Iterator[_Block]:
    """Paragraphs and list items; code, headings, tables, quotes and comments hold no rules."""
    from markdown_it import MarkdownIt

    body, offset = _after_front_matter(text)
    level = quoted = 0
    for token in MarkdownIt("commonmark").enable("table").parse(body):
        level += {"list_item_open": 1, "list_item_close": -1}.get(token.type, 0)
        quoted += {
            "blockquote_open": 1,
            "blockquote_close": -1,
            "heading_open": 1,
            "heading_close": -1,
            "table_open": 1,
            "table_close": -1,
        }.get(token.type, 0)
        if token.type == "inline" and not quoted and token.map:
            for number, part in _lines(token.content) if not level else [(0, token.content)]:
                words = re.sub(r"\\\n", "\n", part).split()  # a line that is broken with a backslash
                own = re.sub(r"^\[[ xX]\] ", "", " ".join(words))  # a box to tick is no part of the rule
                yield _Block(own, token.map[0] + 1 + offset + number, level)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """A paragraph cut where a line ends a sentence or is an import, since many write one rule a line without a list; with line numbers."""
    start, held = 0, list[str]()
    for number, line in enumerate(text.split("\n")):
        if held and (
            held[-1].rstrip().endswith((".", "!", "?")) or line.startswith(("@", "✅", "❌", "•", "⚠")) or held[-1].startswith("@")
        ):
            yield start, "\n".join(held)
            start, held = number, []
        held.append(line)
    yield start, "\n".join(held)


def _after_front_matter(text: str) -> tuple[str, int]:
    """Without the YAML at the top of an .mdc file; and its number of lines."""
    found = re.match(r"---[ \t]*\n.*?\n---[ \t]*\n", text, re.DOTALL)
    return (text[found.end() :], found[0].count("\n")) if found else (text, 0)


def _directives(block: _Block) -> Iterator[tuple[str, int]]:
    """The sentences of a block that are rules, each with the sentences after it that are none: its reason may be there."""
    parts: list[list[str]] = []
    for sentence in _SENTENCE.split(block.text):
        if _is_rule(sentence):
            parts.append([sentence])
        elif parts:
            parts[-1].append(sentence)
    for part in parts:
        yield " ".join(part), block.line


def _is_rule(text: str) -> bool:
    plain = _LABEL.sub("", re.sub(r"\*\*|__", "", text).strip())
    return len(plain.split()) >= 2 and not plain.endswith(":") and bool(_DIRECTIVE.search(plain.rstrip(".!")))


_CODE = re.compile(r"(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)")
_BOLD = re.compile(
    r"""(?<![\w/*\\])\*\*(?=[^\s*])((?:(?!\*\*).)*?[^\s*])\*\*(?![\w/*])  # **always**; not packages/**/src
    |(?<![\w\\])__(?=[^\s_])((?:(?!__).)*\s(?:(?!__).)*[^\s_]|always|do|must|never|not?|only)__(?!\w)  # not __init__.py
    |^\*\*(?=\w)|(?<=[\w.!?`)])\*\*$""",  # of what is bold over two sentences, one half
    re.IGNORECASE | re.VERBOSE,
)


def _plain(text: str) -> str:
    """Without the marks of bold type; code and marks that stand alone stay to the letter."""
    code = [found[0] for found in _CODE.finditer(text)]
    parts = iter(code)
    plain = _BOLD.sub(lambda found: found[1] or found[2] or "", _CODE.sub("`\0`", text))
    return re.sub("`\0`", lambda found: next(parts, ""), plain).strip()


def split_reason(text: str) -> tuple[str, str, Form]:
    """(the bare rule, its reason, how it stands there); no reason: empty."""
    text = _plain(text)
    if (found := _BRACKETS.search(text)) and _REASON_OPENER.match(found[1]) and not _EXAMPLE.match(found[1]):
        return _tidy(text[: found.start()]), _tidy(re.sub(r"^(?:because|since)\s+", "", found[1], flags=re.IGNORECASE)), "brackets"
    first, *others = _SENTENCE.split(text)
    if (found := _CONNECTIVE.search(first)) and len(first[: found.start()].split()) >= 2 and len(first[found.end() :].split()) >= 2:
        word = found[0].strip(" ,")
        reason = f"{word} {first[found.end() :]}" if _KEEPS_WORD.match(word) else first[found.end() :]
        return _tidy(first[: found.start()]), _tidy(" ".join([reason, *others])), "connective"
    for found in reversed(list(_DASH.finditer(first))):  # the last: `git checkout -- x` has one of its own
        rest = first[found.end() :].strip()
        of_a_command = found[0].strip() == "--" and re.search(r"\bgit \w+$", first[: found.start()])
        if len(rest.split()) >= 3 and not of_a_command and not _EXAMPLE.match(rest) and not _DIRECTIVE.match(rest):
            return _tidy(first[: found.start()]), _tidy(" ".join([rest, *others])), "dash"
    if others and not _EXAMPLE.match(others[0]):
        return _tidy(first), _tidy(re.sub(r"^(?:reason|why):\s*", "", " ".join(others), flags=re.IGNORECASE)), "sentence"
    return _tidy(text), "", ""


def _tidy(text: str) -> str:
    return text.strip().rstrip(".;,:! ").strip()


def name_rule(bare: str) -> str:
    """An id from the bare text: its first words and four digits of its hash, case and spaces apart."""
    words = re.findall(r"[a-z0-9_]+", bare.lower())
    return "-".join(["-".join(words[:5])[:40].strip("-") or "rule", hash_text(" ".join(words))[:4]])


def most_alike(text: str, others: Mapping[str, str]) -> str:
    """Key of the text that is most alike, if it is alike enough to be the same rule in other words; else an empty string."""
    scored = [(SequenceMatcher(None, text.lower(), other.lower(), autojunk=False).ratio(), key) for key, other in others.items()]
    ratio, key = max(scored, default=(0.0, ""))
    return key if ratio >= ALIKE else ""
