"""Data to SVG that follows the page's light or dark colours.

Altair draws with a few stand-in colours; in the finished SVG each is replaced by a CSS variable of the page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from teachwhy.files import hash_text
from teachwhy.report.numbers import format_interval, format_signed
from teachwhy.report.page import Figure, show_controls

Tint = Literal["main", "control", "bound"]
"""`bound`: what could be reached at best, not a competitor."""

_TOKENS = {
    "#010203": "--ink",
    "#010204": "--soft",
    "#010205": "--grid",
    "#010206": "--main",
    "#010207": "--control",
    "#010208": "--bound",
    "#010209": "--paper",
}
_COLOUR = {variable.removeprefix("--"): token for token, variable in _TOKENS.items()}
_FONT = "system-ui, Segoe UI, Roboto, DejaVu Sans, sans-serif"
_ROW_PX = 40
_EDGES: tuple[tuple[str, Literal["left", "center", "right"], int], ...] = (
    ("left", "left", -5),
    ("middle", "center", 0),
    ("right", "right", 5),
)
"""Where a number stands in its panel, how it is aligned, and its shift in pixels: it must not leave the panel."""
_REACH = 2.5
"""A bound further out than this many times all other marks is drawn at the edge, with an arrow."""


@dataclass(frozen=True)
class Bar:
    """One row of a panel: a mean, its interval, and the small dots it is made of."""

    panel: str
    name: str
    value: float
    low: float
    high: float
    dots: tuple[float, ...] = ()
    tint: Tint = "main"


def draw_bars(
    bars: Sequence[Bar], *, panels: Sequence[str], names: Sequence[str], axis: str, zero: str, ends: tuple[str, str], caption: str
) -> Figure:
    """Panels of dots with interval bars around a zero line, side by side (wide) and stacked (narrow).

    panels, names: titles and rows, in order. axis: what the x axis measures, with its unit. zero: what zero means.
    ends: what lies to the left and to the right. ValueError: no bars, or two in one place.
    """
    if not bars:
        raise ValueError("a figure needs at least one bar")
    if len({(bar.panel, bar.name) for bar in bars}) < len(bars):
        raise ValueError("two bars stand in one row of one panel")
    bars = [replace(bar, panel=show_controls(bar.panel), name=show_controls(bar.name)) for bar in bars]
    panels, names = [show_controls(panel) for panel in panels], [show_controls(name) for name in names]
    axis, ends = show_controls(axis), (show_controls(ends[0]), show_controls(ends[1]))
    shown = [panel for panel in panels if any(bar.panel == panel for bar in bars)]
    domain = _domain(bars)
    rows = [_row(bar, domain) for bar in bars]
    label_px = round(6.6 * max(len(name) for name in names)) + 14
    svgs = []
    for layout in ("wide", "narrow"):
        column_px = (900 - label_px) // len(shown) - 24 if layout == "wide" else 326 - label_px
        views = [
            _panel(rows, panel, names, domain, min(column_px, 520), ends, layout == "narrow" or not index)
            for index, panel in enumerate(shown)
        ]
        svgs.append(_to_svg(views, layout, axis))
    return Figure(svgs[0], svgs[1], alt=_alternative(bars, shown, names, axis, zero), caption=caption)


@dataclass(frozen=True)
class Line:
    """One line of a panel: (updates, value) in order."""

    panel: str
    name: str
    points: tuple[tuple[int, float], ...]
    tint: Tint = "main"


_DASHES: tuple[tuple[int, ...], ...] = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3), (12, 3), (3, 5))


def draw_lines(lines: Sequence[Line], *, axis: str, caption: str) -> Figure:
    """Panels of lines over updates, side by side (wide) and stacked (narrow), each line named at its end. ValueError: no lines."""
    import altair as alt

    if not lines:
        raise ValueError("a figure needs at least one line")
    lines = [replace(line, panel=show_controls(line.panel), name=show_controls(line.name)) for line in lines]
    axis = show_controls(axis)
    panels = list(dict.fromkeys(line.panel for line in lines))
    values = [value for line in lines for _, value in line.points]
    span = (max(values) - min(values)) or 1.0
    tints = {line.name: line.tint for line in lines}
    peers = {name: [other for other in tints if tints[other] == tint].index(name) for name, tint in tints.items()}
    dashes = {name: list(_DASHES[place % len(_DASHES)]) for name, place in peers.items()}  # of one colour, told apart in every panel alike
    scale = alt.Scale(domain=[min(values) - 0.08 * span, max(values) + 0.08 * span], nice=False)
    svgs = []
    for layout in ("wide", "narrow"):
        width_px = min(520, 900 // len(panels) - 130) if layout == "wide" else 210
        views = [_line_panel([line for line in lines if line.panel == panel], panel, width_px, scale, span, dashes) for panel in panels]
        svgs.append(_to_svg(views, layout, f"updates; upwards: {axis}"))
    said = [
        f"{line.panel}, {line.name}: " + ", ".join(f"{format_signed(value)} after {update}" for update, value in line.points) + "."
        for line in lines
    ]
    return Figure(svgs[0], svgs[1], alt=f"{axis} over updates. " + " ".join(said), caption=caption)


def _line_panel(lines: Sequence[Line], panel: str, width_px: int, scale: Any, span: float, dashes: Mapping[str, list[int]]) -> Any:
    """One panel; names that would lie on each other are moved apart."""
    import altair as alt

    height_px, gap = 230, span * 1.16 * 15 / 230
    rows, ends = [], []
    floor = float("-inf")
    for line in sorted(lines, key=lambda one: one.points[-1][1]):
        rows += [{"name": line.name, "update": x, "value": y, "tint": line.tint} for x, y in line.points]
        floor = max(line.points[-1][1], floor + gap)
        ends.append({"name": line.name, "update": line.points[-1][0], "value": floor, "tint": line.tint})
    tint = alt.Color(
        "tint:N",
        legend=None,
        scale=alt.Scale(domain=["main", "control", "bound"], range=[_COLOUR["main"], _COLOUR["control"], _COLOUR["bound"]]),
    )
    ticks = sorted({x for line in lines for x, _ in line.points})
    x = alt.X("update:Q", title=None, axis=alt.Axis(values=ticks, ticks=False, domain=False, labelPadding=6, format="d"))
    zero = "datum.value === 0 ? '0' : datum.label"
    axis = alt.Axis(grid=True, gridColor=_COLOUR["grid"], ticks=False, domain=False, format="+~r", labelExpr=zero)
    y = alt.Y("value:Q", title=None, scale=scale, axis=axis)
    marks: list[Any] = [alt.Chart(alt.InlineData(values=[{"value": 0}])).mark_rule(color=_COLOUR["ink"], strokeWidth=1.2).encode(y=y)]
    for name in (line.name for line in lines):
        mine = [row for row in rows if row["name"] == name]
        drawn = alt.Chart(alt.InlineData(values=mine)).encode(x=x, y=y, color=tint)
        marks += [drawn.mark_line(strokeWidth=2, strokeDash=dashes[name]), drawn.mark_circle(size=34, opacity=1)]
    texts = alt.Chart(alt.InlineData(values=ends)).mark_text(align="left", dx=7, fontSize=12).encode(x=x, y=y, text="name:N", color=tint)
    title = alt.TitleParams(panel, anchor="start", frame="group", fontSize=14, offset=8)
    return alt.layer(*marks, texts).properties(width=width_px, height=height_px, title=title)


def _domain(bars: Sequence[Bar]) -> tuple[float, float]:
    """The x range: all marks and zero; bounds only as far as they do not crush the rest."""
    near = [value for bar in bars if bar.tint != "bound" for value in (bar.low, bar.high, *bar.dots)]
    far = [value for bar in bars if bar.tint == "bound" for value in (bar.low, bar.high, *bar.dots)]
    reach = _REACH * max((abs(value) for value in near), default=float("inf"))
    values = [0.0, *near, *(value for value in far if abs(value) <= reach)]
    span = (max(values) - min(values)) or 1.0
    return min(values) - 0.1 * span, max(values) + 0.1 * span


def _row(bar: Bar, domain: tuple[float, float]) -> dict[str, Any]:
    low, high = domain
    held = [min(max(value, low), high) for value in (bar.value, bar.low, bar.high)]
    off = bar.value < low or bar.value > high
    return {
        "panel": bar.panel,
        "name": bar.name,
        "value": held[0],
        "low": held[1],
        "high": held[2],
        "dots": [dot for dot in bar.dots if low <= dot <= high],
        "label": format_signed(bar.value) + (" off the scale" if off else ""),
        "tint": bar.tint,
        "shape": "diamond" if bar.tint == "bound" else "circle",
        "off": ("left" if bar.value < low else "right") if off else "",
        "edge": "left" if held[0] < low + 0.2 * (high - low) else "right" if held[0] > high - 0.2 * (high - low) else "middle",
    }


def _panel(
    rows: list[dict[str, Any]],
    panel: str,
    names: Sequence[str],
    domain: tuple[float, float],
    width_px: int,
    ends: tuple[str, str],
    labelled: bool,
) -> Any:
    """One panel. `labelled`: with the rows' names on the left."""
    import altair as alt

    mine = [row for row in rows if row["panel"] == panel]
    order = list(names)
    y = alt.Y(
        "name:N",
        sort=order,
        title=None,
        scale=alt.Scale(domain=order),
        axis=alt.Axis(labels=labelled, ticks=False, domain=False, labelPadding=8, labelLimit=400),
    )
    scale = alt.Scale(domain=list(domain), nice=False, zero=False)
    x = alt.X(
        "value:Q",
        title=None,
        scale=scale,
        axis=alt.Axis(
            tickCount=5 if width_px > 180 else 4,
            ticks=False,
            domain=False,
            labelPadding=6,
            format="+~r",
            labelExpr="datum.value === 0 ? '0' : datum.label",
        ),
    )
    marks = _marks(mine, x, y, scale)
    title = alt.TitleParams(
        panel,
        subtitle=f"\u2190 {ends[0]}   |   {ends[1]} \u2192",
        anchor="start",
        frame="group",
        fontSize=14,
        subtitleFontSize=12,
        subtitlePadding=3,
        offset=8,
    )
    return alt.layer(*marks).properties(width=width_px, height=_ROW_PX * len(order), title=title)


def _marks(rows: list[dict[str, Any]], x: Any, y: Any, scale: Any) -> list[Any]:
    """Zero line, interval bars, seeds, means, arrows for what is off the scale, and the numbers."""
    import altair as alt

    tint = alt.Color(
        "tint:N",
        legend=None,
        scale=alt.Scale(domain=["main", "control", "bound"], range=[_COLOUR["main"], _COLOUR["control"], _COLOUR["bound"]]),
    )
    base = alt.Chart(alt.InlineData(values=rows))
    zero = alt.Chart(alt.InlineData(values=[{"value": 0}])).mark_rule(color=_COLOUR["ink"], strokeWidth=1.2).encode(x=x)
    inside = base.transform_filter("datum.off == ''")
    bars = base.mark_rule(strokeWidth=2.5, strokeCap="round").encode(x=alt.X("low:Q", scale=scale), x2="high:Q", y=y, color=tint)
    dots = (
        base.transform_flatten(["dots"])
        .mark_circle(size=20, opacity=0.65, yOffset=9)
        .encode(x=alt.X("dots:Q", scale=scale), y=y, color=tint)
    )
    means = inside.mark_point(size=95, filled=True, opacity=1, stroke=_COLOUR["paper"], strokeWidth=1.5).encode(
        x=x, y=y, color=tint, shape=alt.Shape("shape:N", scale=None)
    )
    arrows = [
        base.transform_filter(f"datum.off == '{side}'")
        .mark_point(size=110, filled=True, opacity=1, shape=f"triangle-{side}")
        .encode(x=x, y=y, color=tint)
        for side in ("left", "right")
    ]
    texts = []
    for edge, align, dx in _EDGES:
        mine = base.transform_filter(f"datum.edge == '{edge}'")
        place: dict[str, Any] = {"align": align, "dy": -12, "dx": dx, "fontSize": 12, "fontWeight": 600}
        halo = mine.mark_text(**place, color=_COLOUR["paper"], stroke=_COLOUR["paper"], strokeWidth=4, strokeJoin="round")
        texts += [halo.encode(x=x, y=y, text="label:N"), mine.mark_text(**place).encode(x=x, y=y, text="label:N", color=tint)]
    return [zero, bars, dots, means, *arrows, *texts]


def _to_svg(views: list[Any], layout: str, axis: str) -> str:
    """The panels in one SVG, its colours as variables of the page and its ids its own."""
    import altair as alt
    import vl_convert

    chart = alt.hconcat(*views, spacing=24) if layout == "wide" else alt.vconcat(*views, spacing=26)
    ink, soft, grid = _COLOUR["ink"], _COLOUR["soft"], _COLOUR["grid"]
    chart = chart.properties(
        padding=2,
        background="transparent",
        title=alt.TitleParams(axis, orient="bottom", anchor="middle", fontSize=12, fontWeight="normal", color=soft, offset=6),
    )
    chart = chart.configure(font=_FONT).configure_view(stroke=None).configure_title(color=ink, subtitleColor=soft, fontWeight=600)
    chart = chart.configure_axisX(grid=True, gridColor=grid, labelColor=soft, labelFontSize=12).configure_axisY(
        grid=False, labelColor=ink, labelFontSize=13
    )
    svg = vl_convert.vegalite_to_svg(chart.to_dict(), vl_version=".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2]))
    own = f"{layout}-{hash_text(svg)[:8]}"
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{own}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{own}-\1)", svg)
    svg = re.sub(r' aria-(label|roledescription)="[^"]*"| role="[^"]*"', "", svg)
    for token, variable in _TOKENS.items():
        svg = svg.replace(f'"{token}"', f'"var({variable})"')
    left = re.findall(r'(?:fill|stroke)="(#[0-9a-fA-F]{3,8}|rgb[^"]*|black|white)"', svg)
    if left:
        raise RuntimeError(f"a colour is not one of the page's: {json.dumps(sorted(set(left)))}")
    return str(svg).replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)


def _alternative(bars: Sequence[Bar], panels: Sequence[str], names: Sequence[str], axis: str, zero: str) -> str:
    """The figure in words: every mean with its interval."""
    parts = [f"{axis}; zero is {zero}."]
    for panel in panels:
        rows = sorted((bar for bar in bars if bar.panel == panel), key=lambda bar: list(names).index(bar.name))
        parts.append(
            f"{panel}: "
            + "; ".join(f"{bar.name} {format_signed(bar.value)}, interval {format_interval(bar.low, bar.high)}" for bar in rows)
            + "."
        )
    return " ".join(parts)
