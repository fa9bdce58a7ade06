"""One study in one folder, from its file to its page."""

from __future__ import annotations

import json
import shlex
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from teachwhy.budget import UNLIMITED, Budget
from teachwhy.errors import UserError
from teachwhy.files import CARD, changed_files, explain_os_error, lock_folder, parse_record, read_card, read_yaml, write_text
from teachwhy.records import StudyReport
from teachwhy.shipped import ROOT
from teachwhy.study.automatic import complete_study
from teachwhy.study.looks import count_looks, refuse_sealed, sealed_sets
from teachwhy.study.schema import StudySpec, comparable, page_words, place_errors

if TYPE_CHECKING:
    from teachwhy.study.plan import Plan
    from teachwhy.study.run import Clock, Listener

STUDY, PLAN, REPORT = "study.yaml", "plan.json", "report.json"


class Session:
    """A study and the folder of its run. Light until `prepare`: a run that is done is recognised without torch."""

    plan: Plan
    clock: Clock
    body: dict[str, Any]
    """What plan.json holds."""
    workers: int
    seconds_left: float

    def __init__(self, spec: StudySpec, source: Path, run_dir: Path, *, unseal: bool = False) -> None:
        with place_errors(str(source)):
            refuse_sealed(spec, unseal=unseal)
            spec = complete_study(spec)
        self.spec, self.source, self.beside, self.run_dir = spec, source, source.parent, run_dir
        held = run_dir / STUDY
        if held.is_file():
            _refuse_other(parse_record(StudySpec, read_yaml(held), where=str(held)), spec, run_dir)

    @property
    def n_cells(self) -> int:
        """Cells of the whole study."""
        return len(self.plan.distinct_cells)

    def already_done(self) -> bool:
        """Whether every cell is there and the report was made from the same study and the same shipped data."""
        from teachwhy.study.analysis import ANALYSIS
        from teachwhy.study.planned import study_hash

        try:
            plan = json.loads((self.run_dir / PLAN).read_text(encoding="utf-8"))
            self.read_report()
            held = parse_record(StudySpec, read_yaml(self.run_dir / STUDY), where=STUDY)
            cells = [self.run_dir / "cells" / f"{cell['kind']}-{cell['id']}" / "card.json" for cell in plan["cells"]]
            finished = not changed_files(self.run_dir) and all(
                path.is_file() for path in [*cells, *(self.run_dir / name for name in ("outcomes.csv", "report.html", CARD))]
            )
            same = read_card(self.run_dir).details.get("analysis") == ANALYSIS if finished else False
            return same and held == self.spec and bool(plan["study"] == study_hash(self.spec, self.beside))
        except (OSError, ValueError, KeyError, TypeError, UserError):  # what is wrong is said when the plan is made
            return False

    def command(self) -> str:
        """What to type to run the study in this folder."""
        shipped = ROOT / "studies"
        name = self.source.relative_to(shipped).parts[0] if self.source.is_relative_to(shipped) else str(self.source)
        return shlex.join(
            ["teachwhy", "study", "run", name, "--output", str(self.run_dir), *(["--unseal"] if sealed_sets(self.spec) else [])]
        )

    def read_report(self) -> StudyReport:
        """report.json of the run."""
        path = self.run_dir / REPORT
        return parse_record(StudyReport, json.loads(path.read_text(encoding="utf-8")), where=str(path))

    def locked(self) -> AbstractContextManager[None]:
        """Hold the folder: two studies in it at once are refused."""
        return lock_folder(self.run_dir, "running a study")

    def prepare(self, workers: int | None) -> None:
        """Make the plan: every check that can fail does so here, before anything is spent."""
        from teachwhy.study import planned, run
        from teachwhy.study.plan import make_plan

        with place_errors(str(self.source)):
            self.plan = make_plan(self.spec, beside=self.beside)
            self.body = planned.describe_plan(self.plan, self.beside)
        todo = [cell for cell in self.plan.distinct_cells if not run.is_done(self.run_dir / planned.CELLS, cell)]
        local = any(cell.source == "local" for cell in todo)
        self.workers = run.choose_workers(len(todo) or 1, local=local) if workers is None else workers
        pace = run.measure_pace(self.run_dir, self.plan)
        self.seconds_left = run.estimate_seconds(self.plan, todo, self.workers, pace)
        self.clock = run.Clock(self.plan, todo, self.workers, pace)
        run.check_disk(self.run_dir, self.plan)
        planned.check_plan(self.run_dir, self.body)

    def keep_plan(self, pilot: Path | None, wished: float | None) -> list[str]:
        """Write plan.json before anything is run; returns what the plan could see, for people."""
        from teachwhy.study import planned
        from teachwhy.study.plan import count_scenarios
        from teachwhy.study.power import plan_power

        power = plan_power(self.spec, count_scenarios(self.spec, self.beside), pilot, wished) if pilot else None
        seen = {"power": power._asdict()} if power else {}
        planned.write_plan(self.run_dir, self.body, self.seconds_left, self.command(), {}, seen, page_words(self.spec))
        return power.lines() if power else ["What it could see is not known: give a run of the same contrast with --pilot RUN."]

    def _written(self) -> str:
        """study.yaml of the run, as a person would write it, so that it says what was done."""
        whole = json.loads(self.spec.model_dump_json())
        head = f"# A copy of {self.source.name}, with every default and the study's own arms. Paths are from that file's folder.\n"
        return head + yaml.safe_dump(whole, sort_keys=False, allow_unicode=True)

    def run(self, listen: Listener, budget: Budget = UNLIMITED) -> StudyReport:
        """Write the plan, do what is not done yet, then make outcomes.csv, report.json and report.html. budget: of calls to APIs."""
        from teachwhy.study import planned, run
        from teachwhy.study.gather import finish_run

        held = planned.check_plan(self.run_dir, self.body)
        planned.check_cells(self.run_dir, self.plan, planned.plan_hash(self.body))
        looks = {} if held and held.get("looks") else count_looks(sealed_sets(self.spec))
        planned.write_plan(self.run_dir, self.body, self.seconds_left, self.command(), looks, words=page_words(self.spec))
        write_text(self.run_dir / STUDY, self._written())
        try:
            failed = run.run_cells(self.run_dir, self.plan, workers=self.workers, listen=listen, budget=budget)
            return finish_run(self.run_dir, self.spec, run.summarise_cells(self.run_dir, self.plan.cells, failed))
        except OSError as error:
            raise explain_os_error(error, self.run_dir) from error


def _refuse_other(held: StudySpec, spec: StudySpec, run_dir: Path) -> None:
    """Raise UserError where a folder holds a run of another study."""
    there, here = comparable(held), comparable(spec)
    if there == here:
        return
    what = f"the folder holds a run of another study ({held.name})"
    if held.name == spec.name:
        what = f"the folder holds a run of this study with other settings ({'; '.join(_differences(there, here)[:3])})"
    raise UserError(what, where=str(run_dir), hint="Name another folder with --output.")


def _differences(there: Any, here: Any, place: str = "") -> list[str]:
    """What two studies differ in, by the name of the setting."""
    if isinstance(there, dict) and isinstance(here, dict):
        keys = [*there, *(key for key in here if key not in there)]
        return [line for key in keys for line in _differences(there.get(key), here.get(key), f"{place}.{key}" if place else str(key))]
    if there == here:
        return []
    shown = [text if len(text := json.dumps(value)) <= 40 else f"{text[:37]}..." for value in (there, here)]
    return [f"{place}: {shown[0]} there, {shown[1]} here"]
