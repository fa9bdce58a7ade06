"""Blocks, sections, and the page made of them: one HTML file without script or network.

Every text given here is data: it is escaped by jinja2, and its control codes are shown as symbols. Only the SVG of a
`Figure` is trusted, because `charts` made it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"

ColumnKind = Literal["text", "wide", "code", "count", "measure", "n"]
"""`measure`: a number with an error, which may not stand without an `n`; `count`: a number without one; `wide`: a
text that needs room."""

CalloutKind = Literal["answer", "finding", "withheld", "note", "warning"]
"""The first three are set large."""

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]"
)


def show_controls(text: str) -> str:
    """Control, bidirectional and invisible characters as visible symbols; new lines and tabs stay."""
    return _HIDDEN.sub(lambda found: _symbol(ord(found[0])), text.replace("\r\n", "\n"))


def _symbol(code: int) -> str:
    if code < 0x20:
        return chr(0x2400 + code)
    if code == 0x7F:
        return "\u2421"
    return "\ufffd" if 0xD800 <= code <= 0xDFFF else f"\u27e8U+{code:04X}\u27e9"


class Block:
    """Anything a section holds. `template` names the macro that draws it."""

    template: ClassVar[str]


@dataclass(frozen=True)
class Prose(Block):
    """Paragraphs, parted by empty lines. `lead`: larger; `quiet`: smaller, for what only some need."""

    template = "prose"
    text: str
    tone: Literal["", "lead", "quiet"] = ""


@dataclass(frozen=True)
class Callout(Block):
    """A sentence that must not be missed; `details` stand below it."""

    template = "callout"
    kind: CalloutKind
    text: str
    title: str = ""
    details: tuple[str, ...] = ()


@dataclass(frozen=True)
class Check:
    """One condition: passed, failed, or (None) not part of this."""

    name: str
    passed: bool | None
    says: str = ""


@dataclass(frozen=True)
class Checks(Block):
    """A list of conditions, each with a word and a mark."""

    template = "checks"
    items: tuple[Check, ...]


@dataclass(frozen=True)
class Column:
    """A table's column."""

    title: str
    kind: ColumnKind = "text"


@dataclass(frozen=True)
class Table(Block):
    """Rows of ready-made texts. A measure must have its n: in a column of kind `n`, or, for all rows, in `n`."""

    template = "table"
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""
    n: str = ""
    strong: frozenset[int] = frozenset()
    """Indices of rows to set apart."""

    def __post_init__(self) -> None:
        measures = [column.title for column in self.columns if column.kind == "measure"]
        if measures and not self.n and not any(column.kind == "n" for column in self.columns):
            raise ValueError(f"the table shows {measures[0]!r} without its n")
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"a row has {len(row)} cells, the table {len(self.columns)} columns")


@dataclass(frozen=True)
class Figure(Block):
    """One picture in two layouts: `wide` for desktop and print, `narrow` for a phone. `alt` says what it shows."""

    template = "figure"
    wide: str
    narrow: str
    alt: str
    caption: str


@dataclass(frozen=True)
class Details(Block):
    """Blocks under a line that opens them."""

    template = "details"
    summary: str
    blocks: tuple[Block, ...]
    open: bool = False


@dataclass(frozen=True)
class Transcript(Block):
    """Who said what, as it was: white space kept."""

    template = "transcript"
    turns: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Tile:
    """One number with its name and what belongs to it."""

    title: str
    value: str
    text: str


@dataclass(frozen=True)
class Tiles(Block):
    """Numbers side by side, to be compared."""

    template = "tiles"
    items: tuple[Tile, ...]


@dataclass(frozen=True)
class Facts(Block):
    """Names and values, one a line; values in fixed width."""

    template = "facts"
    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Code(Block):
    """A command or a file, as it is typed."""

    template = "code"
    text: str


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it. `id` is made safe; `sections` are one level down."""

    title: str
    id: str
    blocks: tuple[Block, ...] = ()
    sections: tuple[Section, ...] = ()


def slug(text: str) -> str:
    """A text as an id: lower case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "section"


def _finalize(value: Any) -> Any:
    return value if isinstance(value, Markup) else show_controls(str(value))


@cache
def environment() -> Environment:
    """Templates of pages: everything is escaped, control codes are shown."""
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _check_ids(sections: Sequence[Section], seen: set[str]) -> None:
    for section in sections:
        name = slug(section.id)
        if name in seen:
            raise ValueError(f"two sections have the id {name!r}")
        seen.add(name)
        _check_ids(section.sections, seen)


def render_page(title: str, lead: str, sections: Sequence[Section], footer: str) -> str:
    """The whole HTML page. ValueError: two sections share an id."""
    _check_ids(sections, set())
    page = environment().get_template("page.html")
    return page.render(title=title, lead=lead, sections=sections, footer=footer, slug=slug, trusted=Markup)
