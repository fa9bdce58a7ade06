"""The page of a run of rules: what is advised, the evidence rule by rule, what was read and what it took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from teachwhy.budget import Spend
from teachwhy.report.charts import Bar, draw_bars
from teachwhy.report.numbers import MINUS, count_noun, format_count, format_interval, format_p, format_signed
from teachwhy.report.page import Block, Callout, Code, Column, Details, Facts, Prose, Section, Table, render_page
from teachwhy.rules.across import over_models, over_rules
from teachwhy.rules.conditions import PREFERRED
from teachwhy.rules.plan import RulesPlan
from teachwhy.rules.replay import MAX_NEW, TEMPERATURE
from teachwhy.rules.ruling import AnyTime, Counted, Looks, Z
from teachwhy.rules.run import DESIGN, ModelResult, RuleOutcome, RuleResult

SHOWN = 5
"""Broken steps that are shown of a rule."""
CONDITIONS = {
    "none": "rule taken away",
    "bare": "bare rule",
    "filler": "bare rule and a filler",
    "reason": "bare rule and its reason",
}
ALSO = {"always": "bare rule, insisted on", "negated": "rule turned round", "tautology": "bare rule, and that it is the rule"}
STRATA = {
    "first": "first opportunity",
    "distracted": "after talk off the job",
    "later": "after other work",
    "compacted": "after a compaction that kept the rule",
    "dropped": "after a compaction that dropped it",
}
LIMITS = """\
A step is the next move after a frozen history, not a whole session: how often a rule is broken in a day's work is another number. The
histories are of one invented project, written by a language model. The interval is for the wordings that were asked; where a rule has one
wording, for that one. Rates hold for this model, this temperature and these tools. A ruling is advice from one run."""


def render_rules(plan: RulesPlan, results: Sequence[ModelResult], rows: Sequence[RuleOutcome], command: str, spent: Spend) -> str:
    """One HTML file, without script or network."""
    lead = "Does an agent break a rule less often when it is told why? Each rule was taken away, said bare, with a filler, with its reason."
    sections = [Section("What is advised", "advice", tuple(_advice(results)))]
    for number, tested in enumerate(plan.rules):
        found = [(result, result.rules[number]) for result in results]
        own = [row for row in rows if row.rule == tested.id]
        title = f"Line {tested.bound.rule.line}: {tested.bound.rule.bare}"
        sections.append(Section(title, f"rule-{tested.id}", tuple(_evidence(found, own))))
    sections.append(Section("What was read", "read", tuple(_validity(results, rows))))
    sections.append(Section("What this does not show", "limits", (Prose(LIMITS),)))
    sections.append(Section("How it was done, and how to do it again", "again", tuple(_again(plan, command, spent))))
    return render_page(f"Rules of {plan.name}", lead, sections, "Made by teachwhy from outcomes.csv of this run.")


def _advice(results: Sequence[ModelResult]) -> list[Block]:
    blocks: list[Block] = []
    for result in results:
        if result.model.startswith("scripted/"):
            blocks.append(Callout("warning", f"{result.model} is no model: it breaks the rules at the rates in its name."))
        if result.judged:
            kinds = Counter(one.ruling.kind for one in result.rules)
            blocks.append(Callout("answer", "; ".join(f"{kind}: {n}" for kind, n in kinds.items()), title=result.model))
        else:
            blocks.append(Callout("withheld", result.rules[0].ruling.says, title=result.model))
        table_rows = tuple(
            (
                str(one.tested.bound.rule.line),
                one.tested.bound.rule.bare,
                *(_share(one.counts.get(name)) for name in CONDITIONS),
                one.ruling.kind,
            )
            for one in result.rules
        )
        columns = (Column("line"), Column("rule", "wide"), *(Column(name, "count") for name in CONDITIONS), Column("ruling"))
        blocks.append(Table(columns, table_rows, "Broken steps of those that were read."))
        if over := over_rules(result):
            p = (
                f"p {format_p(over.p)}, flipping the sign of each rule's difference"
                if over.p is not None
                else "under 5 rules, so no p over rules"
            )
            says = (
                f"Over {count_noun(over.n, 'rule')} that came to the confirm stage, bare less reason is {over.mean:+.1%} on average ({p})."
            )
            blocks.append(Prose(says))
    if over_all := over_models(results):
        columns = (
            Column("rule", "wide"),
            Column("models", "n"),
            *(Column(name, "measure") for name in ("some model", "every model", "they differ")),
        )
        lines = tuple((one.rule, str(one.n), *(format_p(p) for p in (one.some, one.every, one.heterogeneity))) for one in over_all)
        blocks.append(
            Table(
                columns,
                lines,
                "p that the reason lowers the rate: for some model (Holm), for every model (the largest), and of Cochran's Q.",
            )
        )
    return blocks


def _share(counted: Counted | None) -> str:
    return f"{counted.broken.sum():.0f}/{counted.total}" if counted and counted.total else "–"


def _evidence(found: Sequence[tuple[ModelResult, RuleResult]], rows: Sequence[RuleOutcome]) -> list[Block]:
    tested = found[0][1].tested
    bars = [
        Bar(result.model, f"{each.first} less {each.second}", 100 * each.difference, 100 * each.low, 100 * each.high)
        for result, one in found
        for each in one.comparisons
    ]
    names = list(dict.fromkeys(bar.name for bar in bars))
    anytime = any(isinstance(one.measure, AnyTime) for _, one in found)
    holds = "at every moment at once (95 %)" if anytime else "at the look at which the run stopped (95 % over all looks together)"
    caption = (
        "Difference in the share of broken steps, in percentage points. Mark: the estimate; bar: an interval that holds "
        f"{holds}; of none less bare, from the screen alone, 95 %."
    )
    blocks: list[Block] = [Prose(f"{result.model}: {one.ruling.kind}. {one.ruling.says}") for result, one in found]
    blocks.append(
        draw_bars(
            bars, panels=[result.model for result, _ in found], names=names, axis="percentage points", zero="no difference",
            ends=("the first breaks it less", "the first breaks it more"), caption=caption,
        )
    )  # fmt: skip
    for result, one in found:
        blocks.append(_rates(result.model, one))
        blocks.append(_probes(result.model, [row for row in rows if row.model == result.model]))
        if one.recalled:
            blocks.append(_recall(result.model, one))
    blocks.append(Details("The wordings", (_wordings(tested.wordings),)))
    broken = [row for row in rows if row.verdict == "broken" and row.condition != "none" and row.stage != "dropped"]
    if broken:
        columns = (Column("condition"), Column("command", "code"), Column("log and sample", "wide"))
        lines = tuple((row.condition, row.evidence[:300], f"{row.log}, {row.sample_id}") for row in broken[:SHOWN])
        blocks.append(
            Table(columns, lines, f"{min(SHOWN, len(broken))} of {count_noun(len(broken), 'step')} that broke the rule where it was said.")
        )
    return blocks


def _rates(model: str, one: RuleResult) -> Table:
    lines = []
    for name, words in (CONDITIONS | ALSO).items():
        if (counted := one.counts.get(name)) and counted.total:
            interval = (Looks(Z) if name == "none" else one.measure).rate(counted)
            share = f"{counted.rate:.1%} ({interval.low:.1%} to {interval.high:.1%})"
            lines.append((words, str(counted.total), share, str(counted.acted), str(counted.missing)))
    columns = (
        Column("condition"),
        Column("steps", "n"),
        Column("broken", "measure"),
        Column("about the rule", "count"),
        Column("not read", "count"),
    )
    return Table(columns, tuple(lines), f"{model}: {one.stopped}, after {count_noun(one.rounds, 'round')} of the confirm stage.")


def _probes(model: str, rows: Sequence[RuleOutcome]) -> Table:
    conditions = [name for name in CONDITIONS | ALSO if any(row.condition == name for row in rows)]
    lines = []
    for stratum, words in STRATA.items():
        cells = []
        for condition in conditions:
            stages = ("screen",) if condition == "none" else ("confirm", "dropped")
            own = [row for row in rows if (row.stratum, row.condition, row.status) == (stratum, condition, "ok") and row.stage in stages]
            cells.append(f"{sum(row.verdict == 'broken' for row in own)}/{len(own)}" if own else "–")
        lines.append((words, *cells))
    return Table(
        (Column("probe"), *(Column(name, "count") for name in conditions)),
        tuple(lines),
        f"{model}, by probe: broken steps of those that were read, none of the screen, all else of the confirm stage.",
    )


def _recall(model: str, one: RuleResult) -> Table:
    lines = tuple(
        (CONDITIONS[name], f"{found.broken_named}/{found.broken}", f"{found.kept_named}/{found.kept}")
        for name, found in one.recalled.items()
    )
    columns = (Column("condition"), Column("named at broken steps", "count"), Column("named at kept steps", "count"))
    caption = (
        f"{model}, asked which instructions bear on the step: a rule that is named can be known and not heeded; one that "
        "is not may be forgotten, not seen to apply, or said in other words."
    )
    return Table(columns, lines, caption)


def _wordings(wordings: Sequence[object]) -> Table:
    names = ("bare", "filler", "reason")
    return Table(
        tuple(Column(name, "wide") for name in names), tuple(tuple(str(getattr(word, name)) for name in names) for word in wordings)
    )


def _validity(results: Sequence[ModelResult], rows: Sequence[RuleOutcome]) -> list[Block]:
    lines = []
    for result in results:
        own = [row for row in rows if row.model == result.model]
        verdicts, states = Counter(row.verdict for row in own), Counter(row.status for row in own)
        differ = sum(row.first != row.second for row in own)
        run = sum(row.third != "" for row in own)
        numbers = (
            len(own),
            *(verdicts[name] for name in ("kept", "broken", "not_applicable")),
            states["truncated"],
            states["dead"],
            differ,
            run,
        )
        lines.append((result.model, *(format_count(n) for n in numbers)))
    titles = ("steps", "kept", "broken", "no opportunity", "cut off", "dead", "detectors differ", "of these run")
    differing = [row for row in rows if row.first != row.second]
    blocks: list[Block] = [
        Prose(
            "Every request was checked before it was sent: it holds the rule's text as the condition says, and none of what another "
            "condition adds. A step that gives no opportunity counts as one that did not break the rule, and stands in a column of its own."
        ),
        Table((Column("model"), *(Column(title, "count") for title in titles)), tuple(lines)),
    ]
    if differing:
        columns = (Column("first"), Column("second"), Column("when run"), Column("what decided", "code"), Column("sample", "wide"))
        shown = tuple((row.first, row.second, row.third or "–", row.evidence[:300], row.sample_id) for row in differing[:20])
        blocks.append(Details(f"{count_noun(len(differing), 'step')} on which the detectors differ", (Table(columns, shown),)))
    return blocks


def _again(plan: RulesPlan, command: str, spent: Spend) -> list[Block]:
    facts = {
        "file": f"{plan.name}, sha256 {plan.sha256}",
        "steps a condition at most": str(plan.settings.sessions),
        "tolerance": f"{plan.settings.tolerance:.1%}",
        "seed": str(plan.settings.seed),
        "temperature": str(TEMPERATURE),
        "tokens a step at most": str(MAX_NEW),
        "looks": f"{len(DESIGN.upper)}, error {DESIGN.alpha:.0%} over all of them, two-sided"
        if plan.settings.stop == "looks"
        else "at any moment, by betting; error 5 % over all of them",
        "tokens of all calls": ("at most " if spent.at_most else "")
        + format_count(spent.tokens)
        + (f", {spent.usd:.2f} USD" if spent.usd else "")
        + ("; of calls that failed or were cut off it is the most that they may have taken" if spent.at_most else ""),
    }
    blocks: list[Block] = [Code(command), Facts(tuple(facts.items()))]
    if plan.left_out:
        blocks.append(Details(f"{count_noun(len(plan.left_out), 'rule')} not tested", (Prose("\n\n".join(plan.left_out)),)))
    return blocks


PREFERENCE = """\
How much likelier local weights find a step that keeps the rule than one that breaks it: log-odds, in nats, as a difference between two
conditions under the same histories and the same pairs of steps. This is a preference and no rate: nothing was sampled, and no ruling comes
of it. A model that copies strings prefers what its rule names, whatever is said of it; so the last column sets the rule against its own
negation, and only that is beyond copying."""


def preference_section(held: dict[str, Any], name: str) -> Section:
    """Of what `teachwhy rules prefer` wrote."""
    lines = []
    for rule in held["rules"]:
        found = {(one["first"], one["second"]): one for one in rule["contrasts"]}
        lines.append((rule["text"], str(rule["n_histories"]), *(_nats(found.get(pair)) for pair in PREFERRED)))
    columns = (Column("rule", "wide"), Column("histories", "n"), *(Column(f"{a} {MINUS} {b}", "measure") for a, b in PREFERRED))
    caption = f"{held['says']}. Differences in nats, in brackets 95 % intervals over histories and wordings."
    return Section("Rules: what local weights prefer", name, (Prose(PREFERENCE), Table(columns, tuple(lines), caption)))


def _nats(found: dict[str, Any] | None) -> str:
    if found is None:
        return "–"
    return f"{format_signed(found['estimate'])}" + ("" if found["low"] is None else f" ({format_interval(found['low'], found['high'])})")


def simulation_section(held: dict[str, Any], name: str) -> Section:
    """Of what `teachwhy rules simulate --output` wrote."""
    same = held["bare"] == held["reason"]
    facts = {
        "rates": f"{held['bare']:.1%} bare, {held['reason']:.1%} with the reason",
        "simulated runs": f"{held['repeats']:,}, {held['histories']} histories, seed {held['seed']}",
        "a difference that is not there is found" if same else "the difference is found": f"{held['power']:.1%} of runs",
        "the interval holds the true difference": f"{held['coverage']:.1%}",
        "steps a condition": f"{held['mean_sessions_per_arm']:,.0f} on average, {held['max_sessions_per_arm']:,} at most",
        "steps of one look with the same power": f"{held['fixed_sessions_per_arm']:,.0f}",
    }
    says = "Planted rates, no model: what `teachwhy rules run` would find of them, through the code that reads real runs."
    return Section("Rules: what a run would find", name, (Prose(says), Facts(tuple(facts.items()))))
