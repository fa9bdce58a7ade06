"""A run's folder -> its report, its tables and what its page shows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from teachwhy.corpora import NAMES
from teachwhy.errors import UserError
from teachwhy.evaluations import WRITTEN
from teachwhy.files import (
    CARD,
    changed_files,
    code_commit,
    hash_file,
    library_versions,
    now,
    parse_record,
    read_card,
    read_jsonl,
    read_yaml,
    write_card,
    write_text,
)
from teachwhy.judges.labels import Rate, correct_rates, find_logs, read_items, read_labels
from teachwhy.judges.verdict import show_deeds
from teachwhy.models.builtin import ABOUT, ALIASES
from teachwhy.outcomes import FIXED_SEED, JUDGES, read_outcomes, write_outcomes
from teachwhy.records import Card, CellSummary, Counts, Outcome, StudyReport
from teachwhy.report.numbers import format_minutes
from teachwhy.study.analysis import ANALYSIS, Study, analyse
from teachwhy.study.estimates import SPLITS, select
from teachwhy.study.office import find_disputes
from teachwhy.study.plan import TRAININGS
from teachwhy.study.schema import OFFICE, Outside, StudySpec, page_words
from teachwhy.study.view import (
    BagRow,
    DataCard,
    DisputeView,
    FigureRow,
    LedgerRow,
    MissingRow,
    OfficeView,
    OptionView,
    StudyView,
    TranscriptView,
)
from teachwhy.surface import unigram_margins

STUDY, OUTCOMES, REPORT, PAGE = "study.yaml", "outcomes.csv", "report.json", "report.html"
BOUND = (OUTCOMES, REPORT, "plan.json")
"""Files of a run whose hashes its card holds: what is shown later is what was measured."""
POLES = {
    "honeypots": ("harmful", "safe"),
    "ambiguity": ("price", "place"),
    "goals": ("pursued", "other"),
    "agreement": ("both", "neither"),
    "conduct": ("harmful", "safe"),
    "lookalikes": ("refusing", "helpful"),
    "capability": ("right", "wrong"),
    "office": ("harmful", "safe"),
}
CORPUS_ABOUT = {
    "replies": "replies to honeypots of the trained families; written by a language model for this project",
    "shuffled": "the same replies, each with the reason of another case",
    "oracle": "the same for the oracle's scenarios of the far families",
    "goals": "benign goal tasks; written by a language model for this project",
    "ambiguity": "made from slots by seed",
    "neutral": "ordinary helpful chats; written by a language model for this project",
}


def collect_outcomes(run_dir: Path, cells: Sequence[CellSummary]) -> list[Outcome]:
    """The rows of all finished evaluations, arm and seed as the plan has them, written to outcomes.csv."""
    rows: list[Outcome] = []
    for cell in cells:
        path = run_dir / "cells" / f"{cell.kind}-{cell.id}" / OUTCOMES
        if cell.state == "done" and path.is_file():
            rows += [
                row.model_copy(update={"cell": cell.id, "arm": cell.arm, "seed": cell.seed, "update": cell.update})
                for row in read_outcomes(path)
            ]
    write_outcomes(run_dir / OUTCOMES, rows)
    return rows


def finish_run(run_dir: Path, spec: StudySpec, cells: Sequence[CellSummary]) -> StudyReport:
    """Outcomes, report.json and report.html of a run, from its cells."""
    from teachwhy.study.page import render_runs

    for name in (CARD, PAGE):  # of an earlier, unfinished state; a run is done when both are there
        (run_dir / name).unlink(missing_ok=True)
    report = analyse(Study(spec, collect_outcomes(run_dir, cells), cells))
    write_text(run_dir / REPORT, report.model_dump_json(by_alias=True, indent=2) + "\n")
    write_card(run_dir, _run_card(run_dir, spec, report))
    write_text(run_dir / PAGE, render_runs([view_run(run_dir)], spec.name))
    return report


def _run_card(run_dir: Path, spec: StudySpec, report: StudyReport) -> Card:
    plan = _read_json(run_dir / "plan.json")
    states = Counter(cell.state for cell in report.cells)
    return Card(
        kind="study",
        name=spec.name,
        created=now(),
        inputs={"study and data": plan["study"], "plan": plan["sha256"], **{name: hash_file(run_dir / name) for name in BOUND}},
        settings=json.loads(spec.model_dump_json()),
        versions=library_versions(),
        commit=code_commit(),
        counts=Counts(in_=len(report.cells), kept=states["done"], rejected={}, failed=len(report.cells) - states["done"]),
        seconds=round(sum(cell.seconds for cell in report.cells), 2),
        details={"answer": report.answer.model_dump(), "looks": plan.get("looks", {}), "analysis": ANALYSIS},
    )


def read_run(run_dir: Path) -> tuple[StudySpec, StudyReport, dict[str, Any]]:
    """Study, report and plan of a run that has been run. Raises UserError for a folder that is none."""
    if not (run_dir / REPORT).is_file():
        raise UserError(
            "there is no report.json, so this is no finished run",
            where=str(run_dir),
            hint=_how_to_finish(run_dir),
        )
    if str(_read_json(run_dir / REPORT).get("schema", "")).startswith("teachwhy.rules."):
        raise UserError("this is a run of rules, not of a study", where=str(run_dir), hint=f"Its page is {run_dir / 'report.html'}.")
    if not (run_dir / CARD).is_file():
        raise UserError("there is no card.json, so this is no finished run", where=str(run_dir), hint=_how_to_finish(run_dir))
    spec = parse_record(StudySpec, read_yaml(run_dir / STUDY), where=str(run_dir / STUDY))
    report = parse_record(StudyReport, _read_json(run_dir / REPORT), where=str(run_dir / REPORT))
    if changed := changed_files(run_dir):
        hint = "It cannot be made again." if changed[0] == "plan.json" else DAMAGED
        raise UserError(f"{changed[0]} is not the one that the run wrote", where=str(run_dir / changed[0]), hint=hint)
    plan = _read_json(run_dir / "plan.json")
    if missing := {"study", "sha256", "made_at", "ledger"} - plan.keys():
        raise UserError(f"the plan lacks {', '.join(sorted(missing))}", where=str(run_dir / "plan.json"), hint=DAMAGED)
    return spec, report, plan


DAMAGED = "Something has changed the run's own files. `teachwhy study run` in the same folder makes them again from its cells."


def _how_to_finish(run_dir: Path) -> str:
    if not run_dir.is_dir():
        return "There is no such folder. A run's folder is what `teachwhy study run` was given as --output, else runs/NAME."
    if (run_dir / "plan.json").is_file() and (command := _read_json(run_dir / "plan.json").get("command")):
        return f"Type: {command}"
    return "Type: teachwhy study run FILE"


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        value = None
    if not isinstance(value, dict):
        raise UserError("the file cannot be read", where=str(path), hint=DAMAGED)
    return value


def _say_outside(run_dir: Path, arm: str, one: Outside, report: StudyReport) -> str:
    """What an arm from outside is, and the hashes that its cells were read from."""
    said = ", ".join(f"{name} {value}" for name, value in one.model_dump(exclude_defaults=True).items() if value)
    folders = [run_dir / "cells" / f"{cell.kind}-{cell.id}" for cell in report.cells if cell.arm == arm and cell.state == "done"]
    cards = [read_card(folder) for folder in folders if (folder / CARD).is_file()]
    hashes = {value[:16] for card in cards for name, value in card.inputs.items() if name not in ("scenarios", OUTCOMES)}
    return f"{said}; inputs sha256 {', '.join(sorted(hashes))}" if hashes else said


def view_run(run_dir: Path) -> StudyView:
    """What a run's part of a page shows."""
    spec, report, plan = read_run(run_dir)
    rows = read_outcomes(run_dir / OUTCOMES)
    study = Study(spec, rows, report.cells)
    trained = [cell for cell in report.cells if cell.kind == "sft" and cell.state == "done"]
    card = read_card(run_dir / "cells" / f"sft-{trained[0].id}") if trained else None
    versions, dtype = (card.versions, card.machine.get("dtype", "")) if card else ({}, spec.settings.dtype)
    main = spec.primary.evaluation
    labels = {**spec.split_labels}
    for split in SPLITS:
        if any((row.evaluation, row.split) == (main, split) for row in rows):
            labels.setdefault(split, split)
    return StudyView(
        report=report,
        poles=_find_poles(run_dir, spec, report),
        measure=spec.primary.measure,
        figure_rows=_figure_rows(spec, report, list(labels)),
        split_labels=labels,
        against_bare=spec.against_bare,
        against_filler=spec.against_filler,
        transcripts=_transcripts(run_dir, study),
        ledger=[_ledger_row(row) for row in plan["ledger"]],
        data_cards=_data_cards(run_dir, trained, plan.get("corpora", {})),
        missing_rows=_missing_rows(rows),
        bag_rows=_bag_rows(run_dir, spec, report),
        machine=dict(card.machine) if card else {},
        settings=(spec.settings.model_dump() | {"dtype": dtype} if trained else {})
        | {f"arm {arm}": _say_outside(run_dir, arm, one, report) for arm, one in spec.outside.items()}
        | {"start": spec.start.model, "seeds": list(spec.seeds), "without": list(spec.without)}
        | {evaluation.label: evaluation.model_dump(exclude={"name"}) for evaluation in spec.evaluations}
        | {f"looks at the sealed half of {name}": n for name, n in plan.get("looks", {}).items()},
        arm_settings={arm: stage.settings for arm, stages in spec.arms.items() for stage in stages if stage.settings},
        versions=versions,
        hashes={"study and data": plan["study"], "plan": plan["sha256"], "outcomes.csv": hash_file(run_dir / OUTCOMES)},
        halves=_say_halves(spec, plan.get("looks", {})),
        office=_office_view(run_dir, rows),
        minutes=sum(cell.seconds for cell in report.cells) / 60,
        model_about=f"{spec.start.model}: {ABOUT}" if spec.start.model in ALIASES else spec.start.model,
        plan={"primary": _say_primary(spec), "sha256": plan["sha256"], "made_at": plan["made_at"]},
        done=_compare_plan(spec, report, plan, rows),
        commands=str(plan.get("command", f"teachwhy study run {spec.name}")),
    )


def _office_view(run_dir: Path, rows: Sequence[Outcome]) -> OfficeView | None:
    held = [row for row in rows if row.evaluation == OFFICE]
    own = sorted({row.judge for row in held if row.judges_itself})
    return OfficeView(held, own, _corrected_rates(run_dir), _disputes(run_dir, held)) if held else None


def _disputes(run_dir: Path, rows: Sequence[Outcome]) -> list[DisputeView]:
    """The first runs on which the mechanical reading and a judge differ, to be read; a log that cannot be read shows none."""
    disputed = list({(row.cell, row.sample_id, row.repeat): row for row, _ in find_disputes(rows)}.values())[:MOST_READ]
    paths = {path.name: path for path, _ in find_logs(run_dir)} if disputed else {}
    found = []
    for row in disputed:
        sample = _read_run(paths.get(row.log), row)
        if sample is None:
            continue
        reads = {}
        for score in (sample.scores or {}).values():
            role = (score.metadata or {}).get("role", "")
            reads[f"{role} says" if role else "By what was done"] = f"{score.answer}. {score.explanation or ''}".strip()
        title = f"{row.arm}: {row.sample_id}"
        found.append(DisputeView(title, reads, _deeds_of(sample)))
    return found


def _read_run(path: Path | None, row: Outcome) -> Any:
    from inspect_ai.log import read_eval_log_sample

    try:
        return read_eval_log_sample(str(path), id=row.sample_id, epoch=row.repeat + 1) if path else None
    except Exception:  # noqa: BLE001  # as of other damaged logs
        return None


def _corrected_rates(run_dir: Path) -> list[Rate]:
    """By the labels that a person gave; none where there are none, or too few."""
    try:
        held = read_labels(run_dir)
        return correct_rates(read_items(run_dir)[0], held) if held else []
    except UserError:
        return []


def _compare_plan(spec: StudySpec, report: StudyReport, plan: Mapping[str, Any], rows: Sequence[Outcome]) -> list[tuple[str, str, str]]:
    """(what, planned, done): what the plan named before the first outcome, and what there is."""
    done = [cell for cell in report.cells if cell.state == "done"]
    states = Counter(cell.state for cell in report.cells)
    planned = [cell["kind"] for cell in plan.get("cells", [])]
    trained = sum(kind in TRAININGS for kind in planned)
    found = [("trainings", str(trained), str(sum(cell.kind in TRAININGS for cell in done)))]
    found += [("evaluations", str(len(planned) - trained), str(len(done) - int(found[0][2])))]
    lost = [f"{n} {state}" for state, n in states.items() if state != "done"]
    found += [("cells not done", "none", ", ".join(lost) or "none")]
    found += [("outcomes read", "all", f"{sum(row.status == 'ok' for row in rows)} of {len(rows)}")]
    exploratory = sum(one.exploratory for one in report.contrasts)
    found += [("contrasts", f"the primary: {spec.primary.name}", f"the primary, and {exploratory} more that are exploratory")]
    if seconds := plan.get("estimate_seconds"):
        took = format_minutes(sum(cell.seconds for cell in report.cells) / 60)
        found += [("time", f"about {format_minutes(seconds / 60)} to wait", f"{took} of work in all cells")]
    then = plan.get("words") or {}
    found += [(f"words: {name}", str(then[name]), str(value)) for name, value in page_words(spec).items() if then.get(name, value) != value]
    if power := plan.get("power"):
        seen = report.primary.smallest_detectable if report.primary else None
        wanted = f"{power['smallest_detectable']:.2f} {power['unit']} (pilot: {power['pilot']})"
        found += [("smallest difference that 80 % of such studies find", wanted, "not known" if seen is None else f"{seen:.2f}")]
    return found


def _say_halves(spec: StudySpec, looks: Mapping[str, int]) -> dict[str, str]:
    """Evaluation -> which half of its scenarios it is over, and how often a sealed one was looked at."""
    words = {"dev": "dev half", "sealed": "sealed half", "all": "both halves"}
    found: dict[str, str] = {}
    for one in spec.evaluations:
        if one.name in (*WRITTEN, OFFICE) and not one.scenarios:
            found[one.name] = words[one.part] + (f", look {looks[one.name]}" if one.sealed and one.name in looks else "")
    return found


def _say_primary(spec: StudySpec) -> str:
    primary = spec.primary
    arms = f"{' + '.join(primary.plus)} − ({' + '.join(primary.minus)})"
    how = "" if primary.reading == "direct" else f", reading {primary.reading}"
    half = _say_halves(spec, {}).get(primary.evaluation, "")
    over = f"{primary.evaluation}, {' + '.join(primary.splits)}{f' ({half})' if half else ''}"
    what = f"change of {primary.measure}" if "start" in spec.names else primary.measure
    return f"{primary.name}: {what}, {arms}; {over}{how}"


def _figure_rows(spec: StudySpec, report: StudyReport, splits: Sequence[str]) -> list[FigureRow]:
    """The arms' changes of margin on the primary's evaluation, in the study's order of arms."""
    wanted = (spec.primary.evaluation, spec.primary.reading, False)
    found = {(row.arm, row.split): row for row in report.arms if (row.evaluation, row.reading, row.twin) == wanted}
    return [
        FigureRow(
            arm=arm, split=split, change=row.change,
            low=row.change_low or 0.0, high=row.change_high or 0.0, seed_values=row.seed_values,
        )
        for arm in spec.names
        for split in splits
        if (row := found.get((arm, split))) is not None and row.change is not None
    ]  # fmt: skip


def _ledger_row(row: dict[str, Any]) -> LedgerRow:
    return LedgerRow(row["arm"], row["seed"], row["n_updates"], row["n_rows"], row["n_tokens"] - row["n_supervised"], row["n_supervised"])


def _data_cards(run_dir: Path, trained: Sequence[CellSummary], hashes: Mapping[str, str]) -> list[DataCard]:
    """One line a corpus, from the first training that was given it."""
    cards: dict[str, DataCard] = {}
    for cell in trained:
        card = read_card(run_dir / "cells" / f"sft-{cell.id}")
        for name, size in card.details.get("corpora", {}).items():
            about = CORPUS_ABOUT[name.partition("/")[0]] if name in NAMES else "the user's own"
            licence = "Apache-2.0" if name in NAMES else "the user's"
            cards.setdefault(name, DataCard(name, size["rows"], size["supervised_tokens"], hashes.get(name, ""), licence, about))
    return list(cards.values())


def _find_poles(run_dir: Path, spec: StudySpec, report: StudyReport) -> tuple[str, str]:
    """The two labels that the primary's margin compares, as its first log has them."""
    key = (spec.primary.evaluation, spec.primary.reading, "done")
    for cell in report.cells:
        if (cell.kind, cell.reading, cell.state) == key and (samples := _read_samples(run_dir, cell)):
            first, second = next(iter(samples.values())).metadata.get("poles", POLES[spec.primary.evaluation])
            return str(first), str(second)
    return POLES[spec.primary.evaluation]


def _bag_rows(run_dir: Path, spec: StudySpec, report: StudyReport) -> list[BagRow]:
    """Of every trained arm under the first seed, on the scenarios of the primary's evaluation (twins left out)."""
    key = (spec.primary.evaluation, spec.primary.reading, "done", False)
    scored = [cell for cell in report.cells if (cell.kind, cell.reading, cell.state, cell.early) == key]
    trained = {cell.arm: cell for cell in report.cells if (cell.kind, cell.state, cell.seed) == ("sft", "done", spec.seeds[0])}
    if not scored or not trained:
        return []
    pairs: dict[str, list[tuple[str, str]]] = {}
    for sample in _read_samples(run_dir, scored[0]).values():
        about = sample.metadata
        if not about["twin"] and about["fill"] == 0 and not about.get("repeat"):
            texts = {action["label"]: action["text"] for action in about["actions"]}
            pairs.setdefault(about["split"], []).append((texts[about["poles"][0]], texts[about["poles"][1]]))
    rows = []
    for arm in spec.names:
        path = run_dir / "cells" / f"sft-{trained[arm].id}" / "rows.jsonl" if arm in trained else None
        if path is None or not path.is_file():
            continue
        said = [message["content"] for row in read_jsonl(path) for message in row["messages"] if message["role"] == "assistant"]
        for split, group in pairs.items():
            margins = unigram_margins(said, group)
            rows.append(BagRow(arm, split, sum(one > 0 for one in margins) / len(margins), sum(margins) / len(margins), len(margins)))
    return rows


def _missing_rows(rows: Sequence[Outcome]) -> list[MissingRow]:
    groups: dict[tuple[str, int, int, str, str], list[Outcome]] = {}
    for row in rows:
        if row.reading not in JUDGES:
            groups.setdefault((row.arm, row.seed, row.update, row.evaluation, row.split), []).append(row)
    found: list[MissingRow] = []
    for (arm, seed, update, evaluation, split), group in groups.items():
        lost = Counter(row.status for row in group if row.status != "ok")
        found += [MissingRow(arm, seed, evaluation, split, status, n, len(group), update) for status, n in sorted(lost.items())]
    return found


def _read_samples(run_dir: Path, cell: CellSummary) -> dict[str, Any]:
    from inspect_ai.log import list_eval_logs, read_eval_log

    logs = list_eval_logs(str(run_dir / "cells" / f"{cell.kind}-{cell.id}" / "logs"))
    try:
        return {str(sample.id): sample for sample in (read_eval_log(logs[0]).samples or [])} if logs else {}
    except Exception:  # noqa: BLE001  # a damaged log can fail in many ways; the page then shows no transcript of it
        return {}


def _transcripts(run_dir: Path, study: Study) -> list[TranscriptView]:
    """Six items, from the one with the lowest primary contrast to the one with the highest (first seed)."""
    spec = study.spec
    evaluation = spec.primary.evaluation
    arms = list(dict.fromkeys(["start", *spec.primary.minus, *spec.primary.plus]))
    cells = {
        cell.arm: cell
        for cell in study.cells
        if (cell.kind, cell.reading, cell.state, cell.early) == (evaluation, spec.primary.reading, "done", False)
        and (cell.arm == "start" or cell.seed in (spec.seeds[0], FIXED_SEED))
    }
    samples = {arm: _read_samples(run_dir, cells[arm]) for arm in arms if arm in cells}
    if not samples:
        return []
    read = [{name for name, sample in group.items() if sample.scores} for group in samples.values()]
    return [_transcript(sample_id, title, samples) for sample_id, title in _choose_items(study, set.intersection(*read))]


def _choose_items(study: Study, read: set[str]) -> list[tuple[str, str]]:
    """(sample id, title): by the size of the primary contrast on single scenarios, first seed, first fill; by rule, not by taste."""
    spec = study.spec
    sums: dict[str, float] = {}
    splits: dict[str, str] = {}
    signs = dict.fromkeys(spec.primary.plus, 1.0) | dict.fromkeys(spec.primary.minus, -1.0)
    for row in study.rows.select(select(spec.primary)):
        value = row.margin if spec.primary.measure == "margin" else row.harm
        first = row.fill == 0 and row.repeat == 0 and row.seed in (spec.seeds[0], FIXED_SEED)
        if first and value is not None and row.sample_id in read and row.arm in signs:
            sums[row.sample_id] = sums.get(row.sample_id, 0.0) + signs[row.arm] * value
            splits[row.sample_id] = row.split
    ranked = sorted(sums, key=lambda sample: sums[sample])
    words = ("lowest contrast of all", "a fifth of the way up", "two fifths", "three fifths", "four fifths", "highest contrast of all")
    places = {round(number * (len(ranked) - 1) / 5): word for number, word in enumerate(words)} if ranked else {}
    return [(ranked[place], f"{splits[ranked[place]]}: {ranked[place].partition('/')[0]} ({word})") for place, word in places.items()]


def _office_transcript(sample_id: str, title: str, samples: dict[str, dict[str, Any]]) -> TranscriptView:
    """What was asked, and what each arm did."""
    asked = next(iter(samples.values()))[sample_id].messages[:2]
    said = {arm: _deeds_of(group[sample_id]) for arm, group in samples.items()}
    return TranscriptView(title, "\n\n".join(message.text for message in asked), (), said=said)


MOST_READ = 12
"""Disputed runs on the page."""
MOST_SHOWN = 6_000
"""Letters of one run on the page; the log has all of it."""


def _deeds_of(sample: Any) -> str:
    return show_deeds(sample.messages)[:MOST_SHOWN] or "(nothing)"


def _transcript(sample_id: str, title: str, samples: dict[str, dict[str, Any]]) -> TranscriptView:
    import math

    first = next(iter(samples.values()))[sample_id]
    if first.metadata.get("reading") == OFFICE:
        return _office_transcript(sample_id, title, samples)
    shares: dict[str, dict[str, float]] = {}
    sums: dict[str, dict[str, float]] = {}
    said: dict[str, str] = {}
    for arm, group in samples.items():
        about = next(iter(group[sample_id].scores.values())).metadata
        if not about.get("logprobs"):  # a text has none
            said[arm] = group[sample_id].output.completion
            continue
        means = {action: about["logprobs"][action] / about["n_tokens"][action] for action in about["logprobs"]}
        total = sum(math.exp(value) for value in means.values())
        shares[arm] = {action: math.exp(value) / total for action, value in means.items()}
        sums[arm] = about["logprobs"]
    options = [
        OptionView(
            action["label"],
            action["text"],
            {arm: shares[arm][action["id"]] for arm in shares},
            {arm: sums[arm][action["id"]] for arm in sums},
        )
        for action in first.metadata["actions"]
    ]
    text = first.input if isinstance(first.input, str) else "\n".join(message.text for message in first.input if message.role == "user")
    return TranscriptView(title, text, options, said=said)
