"""A study's report as sections, and the page of one run or several. Reads a finished report; computes no result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from teachwhy import __version__
from teachwhy.files import canonical_json
from teachwhy.records import Gate, Primary
from teachwhy.report.charts import Bar, draw_bars
from teachwhy.report.numbers import (
    ABSENT,
    MINUS,
    format_interval,
    format_minutes,
    format_p,
    format_plain,
    format_range,
    format_signed,
)
from teachwhy.report.page import (
    Block,
    Callout,
    CalloutKind,
    Check,
    Checks,
    Code,
    Column,
    Details,
    Facts,
    Prose,
    Section,
    Table,
    Tile,
    Tiles,
    Transcript,
    render_page,
    slug,
)
from teachwhy.study.analysis import LEFT_OUT
from teachwhy.study.office import draw_office
from teachwhy.study.tables import (
    INTERVAL,
    ONE_SEED,
    count_n,
    draw_arms,
    draw_bags,
    draw_contrasts,
    draw_data,
    draw_effort,
    draw_goals,
    draw_missing,
    draw_updates,
    is_goal,
    split_words,
    tint_of,
    with_minus,
    with_minus_signs,
)
from teachwhy.study.view import DataCard, FigureRow, LedgerRow, MissingRow, OptionView, StudyView, TranscriptView

__all__ = [
    "DataCard",
    "FigureRow",
    "LedgerRow",
    "MissingRow",
    "OptionView",
    "StudyView",
    "TranscriptView",
    "render_runs",
    "study_sections",
]

NATS = "1 nat = the odds between the two actions change by a factor of 2.7."
WHY_FILLER = (
    "The second is the honest one: a bare row has no words after the answer, so any words could have made the difference; "
    "the filler has as many words on the same topic and explains nothing."
)
ABOUT = (
    "Each study below trains copies of one small language model that differ only in what stands after the answer in their training rows "
    "(nothing, as many words that explain nothing, or a reason), and measures what each copy then does where it was not trained. "
    "A model of this size can show whether a reason decides what is learnt from ambiguous examples, what is merely memorised, and whether "
    "the measure can move at all. It cannot show what reasons do in a large model that acts as an agent: nothing here is a claim about one."
)
_VERDICTS: dict[str, tuple[CalloutKind, str]] = {
    "yes": ("answer", "Answer"),
    "hint": ("finding", "A hint"),
    "equivalent": ("answer", "Answer: as good as no difference"),
    "no_difference_seen": ("finding", "Answer: no difference seen"),
    "opposite": ("finding", "Answer: the opposite"),
    "withheld": ("withheld", "Answer withheld"),
}


def render_runs(views: Sequence[StudyView], title: str, lead: str = "", more: Sequence[Section] = ()) -> str:
    """The HTML page of one run or several. lead: what the page is; several runs get a default. more: sections that follow."""
    if len(views) == 1:
        sections = study_sections(views[0])
    else:
        names = [slug(view.report.name) for view in views]
        prefixes = [name if names.count(name) == 1 else f"{name}-run-{index}" for index, name in enumerate(names, 1)]
        while len(set(prefixes)) < len(prefixes):  # a study may be called a-run-1
            prefixes = [f"{prefix}-{index}" for index, prefix in enumerate(prefixes, 1)]
        sections = [
            Section(f"Study: {view.report.name}", prefix, sections=tuple(study_sections(view, prefix)))
            for view, prefix in zip(views, prefixes, strict=True)
        ]
    footer = f"Made by teachwhy {__version__}. This page is one file: it holds no script and asks nothing of the network."
    trained = all(any(cell.kind == "sft" for cell in view.report.cells) for view in views)
    return render_page(title, lead or (ABOUT if len(views) > 1 and trained else ""), [*sections, *more], footer)


def study_sections(view: StudyView, prefix: str = "") -> list[Section]:
    """A study's sections in reading order; `prefix` keeps their ids apart on a page of several."""
    prefix = prefix or slug(view.report.name)
    parts: list[tuple[str, str, Callable[[StudyView], list[Block]]]] = [
        ("The question", "question", _question),
        ("The answer", "answer", _answer),
        ("How far each arm moved", "figure", _figure),
        ("Over the updates", "updates", draw_updates),
        ("Against bare, and against filler", "pair", _pair),
        ("All contrasts", "contrasts", draw_contrasts),
        ("The arms", "arms", draw_arms),
        ("More than words?", "words", draw_bags),
        ("Goal tasks", "goals", draw_goals),
        ("In the office", "office", draw_office),
        ("What is missing", "missing", draw_missing),
        ("Transcripts", "transcripts", _transcripts),
        ("Effort", "effort", draw_effort),
        ("Data", "data", draw_data),
        ("Plan, what was done, and how to do it again", "replay", _replay),
    ]
    drawn = [(title, name, make(view)) for title, name, make in parts]
    return [Section(title, f"{prefix}-{name}", tuple(blocks)) for title, name, blocks in drawn if blocks]


def _question(view: StudyView) -> list[Block]:
    plan = view.plan
    planned = f"Planned before the first outcome: {with_minus(plan['primary'])}. "
    planned += f"The plan was made {plan['made_at']}; sha256 {plan['sha256'][:16]}."
    return [Prose(view.report.question, "lead"), Prose(f"Model: {view.model_about}\n\n{planned}", "quiet")]


def _answer(view: StudyView) -> list[Block]:
    report = view.report
    kind, title = _VERDICTS[report.answer.verdict]
    failed = [gate for gate in report.gates if gate.passed is False]
    details = []
    if report.answer.verdict == "withheld":
        details += [f"Failed gate: {gate.name}. {gate.says}" for gate in failed if gate.withholds]
        details.append("The numbers below are shown because they were measured; they are no answer to the question.")
    if report.primary:
        details.append(_primary_line(view, report.primary))
    blocks: list[Block] = [Callout(kind, with_minus_signs(report.answer.sentence), title, tuple(details))]
    if report.gates:
        gates = Checks(tuple(Check(gate.name, gate.passed, with_minus_signs(gate.says) + _weight(gate)) for gate in report.gates))
        blocks += [Prose("Gates: what must hold before an answer is given."), gates]
    controls = [note for note in report.notes if note.startswith(LEFT_OUT)]
    blocks += [Callout("note", note) for note in report.notes if note not in controls]
    if controls:
        blocks.append(Callout("note", "Controls that this study does without:", details=tuple(controls)))
    return blocks


def _weight(gate: Gate) -> str:
    return " It qualifies the answer and does not withhold it." if gate.passed is False and not gate.withholds else ""


def _primary_line(view: StudyView, primary: Primary) -> str:
    planned = next((contrast for contrast in view.report.contrasts if not contrast.exploratory), None)
    unit = f" {planned.unit}" if planned else ""
    where = f" ({split_words(view, planned.split)})" if planned else ""
    parts = [
        f"Primary contrast, {with_minus(primary.contrast)}{where}: {format_signed(primary.difference)}{unit}, "
        f"{INTERVAL} {format_interval(primary.low, primary.high)}",
        f"n = {count_n(primary.n_scenarios, primary.n_seeds, primary.n_families)}",
    ]
    if primary.smallest_detectable is not None:
        parts.append(f"a true difference of {format_plain(primary.smallest_detectable)}{unit} would be found by 80 % of such studies")
    if primary.seed_sd is not None:
        parts.append(f"standard deviation between seeds {format_plain(primary.seed_sd)}")
    parts.append(f"p {format_p(primary.p)}" if primary.p is not None else "no p under 5 seeds")
    return "; ".join(parts) + "."


def _figure(view: StudyView) -> list[Block]:
    rows = view.figure_rows
    if not rows and view.report.arms and not any(arm.arm == "start" for arm in view.report.arms):
        return [Prose("This study has no start, so there is no change to draw; the contrasts below are between its arms.")]
    if not rows:
        return [Prose("No arm could be measured, so there is nothing to draw.")]
    most = max(len(row["seed_values"]) for row in rows)
    few = most <= 1
    shown = {row["arm"]: row["arm"] + (" (1 seed)" if len(row["seed_values"]) == 1 < most else "") for row in rows}
    panels = list(dict.fromkeys([*view.split_labels.values(), *(split_words(view, row["split"]) for row in rows)]))
    bars = [
        Bar(
            split_words(view, row["split"]),
            shown[row["arm"]],
            row["change"],
            row["low"],
            row["high"],
            () if few else tuple(row["seed_values"]),
            tint_of(row["arm"]),
        )
        for row in rows
    ]
    first, second = view.poles
    nats = view.measure == "margin"
    what = (
        f"margin from the start, in nats; the margin is log p({first}) {MINUS} log p({second})"
        if nats
        else "harm from the start, in [0, 1]"
    )
    caption = (
        f"Change of {what}. "
        "Large mark: the mean, with its number; "
        f"bar: {INTERVAL}; {'no small dots, there is ' + ONE_SEED if few else 'small dots: each seed'}. "
        "Line at 0: the start, before any of this training. Grey: controls."
        + (
            " Diamond: the oracle, trained on what the others never saw; a bound on what could be reached, not a competitor."
            if "oracle" in shown
            else ""
        )
        + (" With 1 seed, the bar is over scenarios only and so is short." if not few and len(set(shown) ^ set(shown.values())) else "")
        + (f" {NATS}" if nats else "")
        + _figure_n(view)
    )
    axis = f"change of {view.measure} from the start{', nats' if nats else ''}"
    return [
        draw_bars(
            bars,
            panels=panels,
            names=list(shown.values()),
            axis=axis,
            zero="the start",
            ends=(f"towards {second}", f"towards {first}"),
            caption=caption,
        )
    ]


def _figure_n(view: StudyView) -> str:
    """The scenarios of each panel and the seeds, from the arms' summaries."""
    drawn = {(row["arm"], row["split"]) for row in view.figure_rows}
    arms = [arm for arm in view.report.arms if (arm.arm, arm.split) in drawn and not arm.twin and not is_goal(arm)]
    main = view.report.contrasts[0].evaluation if view.report.contrasts else ""
    if not arms:
        return ""
    arms = [arm for arm in arms if arm.evaluation == (main or arms[0].evaluation)] or arms
    panels = []
    for split in dict.fromkeys(arm.split for arm in arms):
        counts = [arm.n_scenarios for arm in arms if arm.split == split]
        panels.append(f"{split_words(view, split)}, {format_range(min(counts), max(counts), 0)}")
    seeds = [arm.n_seeds for arm in arms]
    return f" n scenarios: {'; '.join(panels)}. n seeds: {format_range(min(seeds), max(seeds), 0)}."


def _pair(view: StudyView) -> list[Block]:
    split = next((contrast.split for contrast in view.report.contrasts if not contrast.exploratory), None)
    tiles = []
    for title, name in (("Reason against bare", view.against_bare), ("Reason against filler", view.against_filler)):
        named = [contrast for contrast in view.report.contrasts if name and contrast.name == name]
        found = next((contrast for contrast in named if contrast.split == split), named[0] if named else None)
        if found is None:
            tiles.append(Tile(title, ABSENT, "Not part of this study."))
            continue
        where, n = split_words(view, found.split), count_n(found.n_scenarios, found.n_seeds, found.n_families)
        text = f"{with_minus(found.name)}, {where}. {INTERVAL} {format_interval(found.low, found.high)}; n = {n}."
        tiles.append(Tile(title, f"{format_signed(found.difference)} {found.unit}", text))
    if all(tile.value == ABSENT for tile in tiles):
        return []  # nothing was trained on reasons
    return [Tiles(tuple(tiles)), Prose(WHY_FILLER)]


def _transcripts(view: StudyView) -> list[Block]:
    if not view.transcripts:
        return [Prose("None were kept.")]
    intro = Prose("What the model was asked, and the probability that each arm gives to each action. Control codes are shown as symbols.")
    return [intro, *(_transcript(one, opened=not index) for index, one in enumerate(view.transcripts))]


def _transcript(one: TranscriptView, *, opened: bool) -> Details:
    arms = list(dict.fromkeys(arm for option in one.options for arm in option.shares))
    letters = [f"{chr(65 + index % 26)}, {option.label}" for index, option in enumerate(one.options)]
    turns = [("Scenario", one.scenario), *((f"Action {letter}", option.text) for letter, option in zip(letters, one.options, strict=True))]
    turns += [(f"{arm} wrote", text) for arm, text in one.said.items()]
    if not arms:
        return Details(one.title, (Transcript(tuple(turns)),), open=opened)

    def cell(option: OptionView, arm: str) -> str:
        log_prob = option.log_probs.get(arm)
        return format_plain(option.shares.get(arm)) + (f" ({format_plain(log_prob, 1)})" if log_prob is not None else "")

    rows = tuple((arm, *(cell(option, arm) for option in one.options)) for arm in arms)
    caption = "Share of probability, from log-probabilities a token, so that length does not count; in brackets, where given, the summed "
    caption += "log-probability of the action's text, nats, of which margins are made."
    table = Table((Column("arm"), *(Column(letter, "measure") for letter in letters)), rows, caption, n=one.n)
    return Details(one.title, (Transcript(tuple(turns)), table), open=opened)


def _replay(view: StudyView) -> list[Block]:
    def facts(values: Mapping[str, Any]) -> Facts:
        return Facts(tuple((str(name), value if isinstance(value, str) else canonical_json(value)) for name, value in values.items()))

    plan = {"plan.json sha256": view.plan["sha256"], "plan made at": view.plan["made_at"]}
    table = Table(
        (Column(""), Column("planned", "wide"), Column("done", "wide")), tuple(view.done), "What the plan named before the first outcome."
    )
    return [
        *([table] if view.done else []),
        Prose(f"All cells, one after another, take {format_minutes(view.minutes)}. To run it again:"),
        Code(view.commands),
        Details("Settings, resolved", (facts(view.settings),)),
        Details("Versions and machine", (facts({**view.versions, **view.machine}),)),
        Details("Hashes", (facts({**plan, **view.hashes}),)),
    ]
