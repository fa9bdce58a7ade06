"""Run rules: a screen, then rounds of a confirm stage for the rules that broke; counted, resumed, and ruled on."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from datetime import datetime
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple, TypeVar

import numpy as np

from teachwhy.budget import SPENT, Budget, Cap, first_error, kept_cap, spent_in
from teachwhy.errors import CAP_WORDS, CapReached, UserError
from teachwhy.files import (
    CARD,
    canonical_json,
    code_commit,
    hash_text,
    library_versions,
    now,
    publish,
    read_card,
    write_card,
    write_csv,
    write_text,
)  # fmt: skip
from teachwhy.models.roles import open_subject
from teachwhy.records import Card, Counts, Record
from teachwhy.rules import recall, replay
from teachwhy.rules.fix import read_json
from teachwhy.rules.plan import ROUNDS, RulesPlan, Stage, Tested
from teachwhy.rules.ruling import ACTS, AnyTime, Comparison, Counted, Looks, Ruling, Z, compare, pair_rates, rule_on
from teachwhy.sequential import look, plan_looks

CELLS, CALLS, OUTCOMES, RECALL, PLAN = "cells", "calls", "outcomes.csv", "recall.csv", "plan.json"
DESIGN = plan_looks(ROUNDS)
T = TypeVar("T")


class RuleOutcome(Record):
    """One step of one model: a row of outcomes.csv."""

    model: str
    rule: str
    condition: str
    wording: int
    history: str
    stratum: str
    stage: Stage
    round: int
    repeat: int
    verdict: str
    """kept, broken, not_applicable; empty where it was not read."""
    first: str
    second: str
    """What the two detectors read; where they differ, `third` is what running the commands showed, if there is a sandbox."""
    third: str
    acted: bool
    """Whether it ran a shell command, of whatever kind; `acted` of report.json counts opportunities."""
    status: str
    """ok, truncated, dead."""
    evidence: str
    log: str
    sample_id: str


class Event(NamedTuple):
    """Progress: steps read of those of a stage or round."""

    model: str
    stage: str
    round: int
    done: int
    total: int


Listener = Callable[[Event], None]


class RuleResult(NamedTuple):
    """One rule under one model."""

    tested: Tested
    counts: dict[str, Counted]
    comparisons: tuple[Comparison, ...]
    ruling: Ruling
    stopped: str
    """Why no more was asked."""
    rounds: int
    measure: Looks | AnyTime
    """How wide its intervals are, but those of the screen."""
    disagreements: int
    """Steps on which the detectors differ."""
    recalled: Mapping[str, recall.Recalled] = {}
    """By condition: was the rule named at steps that broke it, and at steps that kept it?"""


class ModelResult(NamedTuple):
    """One model."""

    model: str
    rules: tuple[RuleResult, ...]
    acts: float
    """Share of steps in which it did something that could be read."""
    told: bool
    """Whether the bare rule beat none somewhere."""

    @property
    def judged(self) -> bool:
        """Whether the model is fit to judge a file by."""
        return self.told and self.acts >= ACTS


def run_rules(plan: RulesPlan, folder: Path, *, budget: Budget, listen: Listener) -> list[ModelResult]:
    """Ask what is not there yet, model by model; then write outcomes.csv. Raises CapReached where a cap is met, UserError."""
    _keep_plan(plan, folder)
    results = [_run_model(plan, folder, model, budget, listen) for model in plan.models]
    write_csv(folder / OUTCOMES, COLUMNS, read_rows(folder))
    return results


def _keep_plan(plan: RulesPlan, folder: Path) -> None:
    path = folder / PLAN
    if path.is_file():
        hint = (
            f"If it is a run of rules, remove {PLAN} and type the same again: what is done is kept. Else name another folder with --output."
        )
        held = read_json(path, "teachwhy.rules.plan/", "there is no such file", hint=hint).get("key")
        if held != plan.key:
            raise UserError(
                "the folder holds a run of other rules, models or settings", where=str(folder), hint="Name another folder with --output."
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "schema": "teachwhy.rules.plan/1", "key": plan.key, "checks": plan.checks_key, "file": str(plan.file),
        "path": str(plan.file.resolve()), "sha256": plan.sha256, "models": list(plan.models), "settings": plan.settings.model_dump(),
        "drafted": plan.drafted, "left_out": list(plan.left_out), "size": plan.size()._asdict(), "created": now(),
        "rules": {one.id: [word.model_dump() for word in one.wordings] for one in plan.rules},
    }  # fmt: skip
    write_text(path, json.dumps(about, indent=2) + "\n")


def _run_model(plan: RulesPlan, folder: Path, model: str, budget: Budget, listen: Listener) -> ModelResult:
    rows = ask(plan, folder, model, "screen", 0, [one.id for one in plan.rules], budget, listen)
    open_rules = [
        one.id for one in plan.rules if any(row.verdict == "broken" for row in rows if row.rule == one.id and row.condition == "bare")
    ]
    stopped = {one.id: "the bare rule was not broken in the screen" for one in plan.rules if one.id not in open_rules}
    rounds = dict.fromkeys((one.id for one in plan.rules), 0)
    for number in range(ROUNDS):
        if not open_rules:
            break
        rows += ask(plan, folder, model, "confirm", number, open_rules, budget, listen)
        for rule in list(open_rules):
            rounds[rule] = number + 1
            counts = count(row for row in rows if row.rule == rule and row.stage == "confirm")
            if why := _stops(plan, counts, number):
                open_rules.remove(rule)
                stopped[rule] = why
    confirmed = {rule: n for rule, n in rounds.items() if n}
    if confirmed:
        rows += ask(plan, folder, model, "dropped", 0, list(confirmed), budget, listen)
    recalled = ask_recall(plan, folder, model, rows, confirmed, budget, listen)
    found = tuple(
        _result(plan, one, [row for row in rows if row.rule == one.id], rounds[one.id], stopped[one.id])._replace(
            recalled=recall.count_recall(row for row in recalled if row.rule == one.id)
        )
        for one in plan.rules
    )
    read = [row for row in rows if row.status == "ok"]
    acts = sum(row.acted or row.verdict != "not_applicable" for row in read) / max(1, len(read))
    told = any(found_apart(one, len(found)) for one in found)
    if not told or acts < ACTS:
        why = "bare rules changed nothing that could be told" if not told else f"it took a step in {acts:.0%} of histories alone"
        none = Ruling("no ruling", f"This model is too small to judge your file: {why}.")
        found = tuple(one._replace(ruling=none) for one in found)
    return ModelResult(model, found, acts, told)


def found_apart(one: RuleResult, n_rules: int) -> bool:
    """Whether the bare rule lowers the rate against none, or the reason against the bare rule, at 5 % over all rules of the file."""
    z = -NormalDist().inv_cdf(0.025 / n_rules)
    against_none = one.comparisons[0]
    helped = [each.p for each in one.comparisons if (each.first, each.second) == ("bare", "reason") and each.low > 0]
    return against_none.difference > z * against_none.error > 0 or any(p is None or p * n_rules <= 0.05 for p in helped)


def _stops(plan: RulesPlan, counts: dict[str, Counted], number: int) -> str:
    """Why a rule is asked no further after a round (from 0); empty: it is."""
    if plan.settings.stop == "any":
        found = AnyTime(plan.settings.seed).compare(counts, "bare", "reason")
        told, futile = found.low > 0 or found.high < 0, False
    else:
        seen = look(DESIGN, number, pair_rates(counts, "bare", "reason"))
        told, futile = bool(seen.found), bool(seen.futile)
    if told:
        return "a difference was found"
    if number == ROUNDS - 1:
        return "all planned steps were asked for"
    return "the difference that was planned for will hardly be found" if futile else ""


def measure_of(plan: RulesPlan, rounds: int) -> Looks | AnyTime:
    """How wide intervals are after so many rounds of the confirm stage."""
    if plan.settings.stop == "any":
        return AnyTime(plan.settings.seed)
    return Looks(DESIGN.upper[rounds - 1], DESIGN, rounds - 1) if rounds else Looks(Z)


def _result(plan: RulesPlan, tested: Tested, rows: Sequence[RuleOutcome], rounds: int, stopped: str) -> RuleResult:
    measure = measure_of(plan, rounds)
    screen = count(row for row in rows if row.stage == "screen")
    confirm = count(row for row in rows if row.stage == "confirm")
    counts = {"none": screen["none"], "bare": confirm.get("bare", screen["bare"]), **confirm}
    comparisons = [compare(screen, "none", "bare", Z)]
    if rounds:
        comparisons += [measure.compare(confirm, first, "reason") for first in ("bare", "filler")]
        comparisons += [measure.compare(confirm, "bare", other) for other in plan.settings.also]
    ruling = rule_on(
        counts,
        measure,
        DESIGN,
        has_reason=bool(tested.bound.rule.reason),
        destructive=tested.destructive,
        tolerance=plan.settings.tolerance,
    )
    disagreements = sum(row.status == "ok" and row.first != row.second for row in rows)
    return RuleResult(tested, counts, tuple(comparisons), ruling, stopped, rounds, measure, disagreements)


def count(rows: Iterable[RuleOutcome]) -> dict[str, Counted]:
    """Counts by condition over the histories of all these rows; a step that is no opportunity is one that did not break the rule."""
    held = list(rows)
    histories = {name: place for place, name in enumerate(sorted({row.history for row in held}))}
    found: dict[str, Counted] = {}
    for condition in dict.fromkeys(row.condition for row in held):
        broken, n = np.zeros(len(histories)), np.zeros(len(histories))
        own = [row for row in held if row.condition == condition]
        for row in own:
            if row.status == "ok":
                n[histories[row.history]] += 1
                broken[histories[row.history]] += row.verdict == "broken"
        read = [row for row in own if row.status == "ok"]
        acted = sum(row.verdict != "not_applicable" for row in read)
        marks = {f"{row.round:02}|{row.history}|{row.wording}|{row.repeat}": int(row.verdict == "broken") for row in read}
        found[condition] = Counted(broken, n, acted, len(own) - len(read), marks)
    return found


def ask(
    plan: RulesPlan, folder: Path, model: str, stage: Stage, number: int, rules: Sequence[str], budget: Budget, listen: Listener
) -> list[RuleOutcome]:
    """One cell: the steps of a stage or round under one model; from its folder where it was done before."""
    probes = plan.probes(stage, number, rules)
    about = {"plan": plan.key, "model": model, "stage": stage, "round": number, "probes": [probe.id for probe in probes]}
    cell = folder / CELLS / f"{stage}-{hash_text(canonical_json(about))[:16]}"
    if not (cell / CARD).is_file():
        _ask_anew(plan, folder, cell, model, stage, number, probes, budget, listen)
    return _read_cell(cell, OUTCOMES, _read_csv)


def _read_cell(cell: Path, name: str, read: Callable[[Path], Iterable[T]]) -> list[T]:
    """The rows of a cell that is done. Raises UserError where they are not all there."""
    hint = f"Remove the folder {cell} and type the same again: its steps are asked again, all else is kept."
    try:
        rows = list(read(cell / name))
    except (OSError, ValueError, LookupError, csv.Error) as error:
        raise UserError(f"the file cannot be read: {str(error).splitlines()[0]}", where=str(cell / name), hint=hint) from None
    if len(rows) != (n := read_card(cell).counts.in_):
        raise UserError(f"the file has {len(rows)} rows and should have {n}", where=str(cell / name), hint=hint)
    return rows


def _ask_anew(
    plan: RulesPlan, folder: Path, cell: Path, model: str, stage: Stage, number: int, probes: Sequence[replay.Probe],
    budget: Budget, listen: Listener,
) -> None:  # fmt: skip
    task = replay.replay_task(probes, plan.text, plan.name)
    with _asked(folder, cell, model, task, len(probes), budget, listen, (stage, number)) as (part, log):
        rows = _read_steps(log, model, stage, number)
        write_csv(part / OUTCOMES, COLUMNS, rows)
        lost = {name: n for name in ("truncated",) if (n := sum(row.status == name for row in rows))}
        _write_card(part, log, plan, model, stage, number, len(rows), lost, sum(row.status == "dead" for row in rows))


def ask_recall(
    plan: RulesPlan, folder: Path, model: str, rows: Sequence[RuleOutcome], rounds: dict[str, int], budget: Budget, listen: Listener
) -> list[recall.Recall]:
    """Which rules bear on the steps that were broken, and on as many that were kept? From its folder where it was asked before."""
    chosen = choose_steps(plan, rows, rounds)
    if not chosen:
        return []
    about = {"plan": plan.key, "model": model, "stage": "recall", "probes": list(chosen)}
    cell = folder / CELLS / f"recall-{hash_text(canonical_json(about))[:16]}"
    if not (cell / CARD).is_file():
        task = recall.recall_task(chosen, plan.text, plan.name)
        with _asked(folder, cell, model, task, len(chosen), budget, listen, ("recall", 0)) as (part, log):
            found = recall.read_recall(log)
            write_csv(part / RECALL, tuple(recall.Recall.model_fields), found)
            _write_card(part, log, plan, model, "recall", 0, len(found), {}, sum(row.named is None for row in found))
    return _read_cell(cell, RECALL, recall.read_recall_csv)


def choose_steps(plan: RulesPlan, rows: Sequence[RuleOutcome], rounds: dict[str, int]) -> dict[str, tuple[replay.Probe, recall.Verdict]]:
    """By sample id: the first broken steps of every rule and condition in the confirm stage, and as many kept ones."""
    probes = {probe.id: probe for rule, n in rounds.items() for number in range(n) for probe in plan.probes("confirm", number, [rule])}
    found: dict[str, tuple[replay.Probe, recall.Verdict]] = {}
    for rule in rounds:
        for condition in recall.CONDITIONS:
            own = [row for row in rows if (row.rule, row.condition, row.stage, row.status) == (rule, condition, "confirm", "ok")]
            broken, kept = ([row.sample_id for row in own if row.verdict == verdict] for verdict in ("broken", "kept"))
            n = min(plan.settings.recall, len(broken))
            found |= {name: (probes[name], "broken") for name in broken[:n]} | {name: (probes[name], "kept") for name in kept[:n]}
    return found


@contextmanager
def _asked(
    folder: Path, cell: Path, model: str, task: Any, n: int, budget: Budget, listen: Listener, where: tuple[str, int],
) -> Iterator[tuple[Path, Any]]:  # fmt: skip
    """Run an Inspect task in a cell's folder under what is left of the budget; inside, its rows are read and written. Calls that were
    answered are kept until then, so that nothing is asked twice. Raises CapReached, UserError."""
    import inspect_ai
    from inspect_ai.log import read_eval_log

    done = 0

    def tell() -> None:
        nonlocal done
        done += 1
        listen(Event(model, *where, done, n))

    with publish(cell) as part, ExitStack() as after:
        part.mkdir(parents=True, exist_ok=True)
        limits = budget.limits.less(spent_in(folder / CELLS, but=part))
        replay.cap = kept_cap(part / SPENT, limits, budget.price(model))
        after.callback(setattr, replay, "cap", Cap())
        subject = open_subject(model)
        os.environ["INSPECT_CACHE_DIR"] = str(part / CALLS)
        replay.listeners[:] = [tell]
        try:
            with redirect_stdout(io.StringIO()):  # it says when it is done, between what is printed for programs
                _, logs = inspect_ai.eval_set(
                    task, log_dir=str(part / "logs"), model=subject, display="none", max_samples=min(100, n), retry_attempts=0,
                    retry_immediate=False, fail_on_error=False, log_format="eval", log_level="error", score_display=False,
                    log_realtime=False,
                )  # fmt: skip
        finally:
            replay.listeners.clear()
            del os.environ["INSPECT_CACHE_DIR"]
        if not logs or logs[0].status != "success":
            raise UserError(f"the steps of {model} ended as {logs[0].status if logs else 'no log'}", where=str(part / "logs"))
        log = read_eval_log(logs[0].location)
        n_dead = sum(bool(sample.error) for sample in log.samples or [])
        if replay.cap.reached or n_dead > 0.1 * n:
            why = first_error([sample.error.message for sample in log.samples or [] if sample.error])
            shutil.rmtree(part / "logs")
            if replay.cap.reached:
                raise CapReached(f"{CAP_WORDS}; {n - n_dead} of {n} steps of this round are done and kept")
            raise UserError(f"{n_dead} of {n} steps of {model} could not be had: {why}", where=str(folder), hint="Type the same again.")
        yield part, log
        shutil.rmtree(part / CALLS, ignore_errors=True)
        (part / SPENT).unlink(missing_ok=True)


def _write_card(
    part: Path, log: Any, plan: RulesPlan, model: str, stage: str, number: int, n: int, lost: dict[str, int], n_dead: int
) -> None:
    began, ended = (datetime.fromisoformat(moment) for moment in (log.stats.started_at, log.stats.completed_at))
    settings = {"stage": stage, "round": number, "model": model, "temperature": replay.TEMPERATURE, "max_new": replay.MAX_NEW}
    write_card(
        part,
        Card(
            kind="rules", name=f"{stage} {number} of {model}", created=now(), inputs={"file": plan.sha256, "plan": plan.key},
            settings=settings, seed=plan.settings.seed, versions=library_versions(), commit=code_commit(),
            counts=Counts(in_=n, kept=n - n_dead - sum(lost.values()), rejected=lost, failed=n_dead),
            spend=replay.cap.used.to_json(), seconds=(ended - began).total_seconds(), machine={}, details={},
        ),
    )  # fmt: skip


def _read_steps(log: Any, model: str, stage: Stage, number: int) -> list[RuleOutcome]:
    rows = []
    for sample in log.samples or []:
        about = sample.metadata
        score = next(iter(sample.scores.values()), None) if sample.scores else None
        beside = (score.metadata or {}) if score else {}
        status = "dead" if sample.error or score is None else "truncated" if beside["truncated"] else "ok"
        rows.append(
            RuleOutcome(
                model=model, rule=about["rule"], condition=about["condition"], wording=about["wording"], history=about["history"],
                stratum=about["stratum"], stage=stage, round=number, repeat=about["repeat"],
                verdict=str(score.answer) if score and status == "ok" else "",
                **{name: beside.get(name, "") if status == "ok" else "" for name in ("first", "second", "third")},
                acted=bool(beside.get("acted")), status=status, evidence=(score.explanation or "") if score else "",
                log=Path(log.location).name, sample_id=str(sample.id),
            )
        )  # fmt: skip
    return rows


COLUMNS = tuple(RuleOutcome.model_fields)


def read_rows(folder: Path) -> list[RuleOutcome]:
    """All rows of a run's cells, in order of the cells' names."""
    cells = sorted((folder / CELLS).iterdir()) if (folder / CELLS).is_dir() else []
    return [
        row for cell in cells if (cell / CARD).is_file() and (cell / OUTCOMES).is_file() for row in _read_cell(cell, OUTCOMES, _read_csv)
    ]


def _read_csv(path: Path) -> Iterable[RuleOutcome]:
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield RuleOutcome.model_validate({**row, "acted": row["acted"] == "True"})
