"""Trainings scored before their end: kept adapters are read, later numbers do not change, equal near changes are compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from teachwhy.errors import UserError
from teachwhy.files import hash_folder
from teachwhy.outcomes import read_outcomes
from teachwhy.records import CellSummary, Outcome, StudyReport
from teachwhy.study.analysis import Study, analyse
from teachwhy.study.plan import Plan, make_plan
from teachwhy.study.schema import StudySpec, read_study
from test_analysis import make_spec, row
from test_study import call, study_of, write_study

SEEDS = (1, 2, 3, 4, 5)


def plan_of(folder: Path, model: Path, **parts: Any) -> Plan:
    folder.mkdir(exist_ok=True)
    spec, file = read_study(str(write_study(folder, study_of(model, **parts))))
    return make_plan(spec, beside=file.parent)


@pytest.fixture(scope="module")
def run_dir(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two arms, scored after 1 and 3 of 4 updates and at the end."""
    ambiguity = {"ambiguity": {"splits": ["near", "far"], "limit": 2, "updates": [3, 1]}}
    file = write_study(tmp_path_factory.mktemp("updates"), study_of(tiny_model_dir, evaluations=[ambiguity]))
    ended = call("study", "run", file, "--yes", "--workers", "0", "--output", file.parent / "run")
    assert ended.exit_code == 0, ended.output
    return file.parent / "run"


def test_every_training_is_scored_after_each_of_the_updates(run_dir: Path) -> None:
    rows = read_outcomes(run_dir / "outcomes.csv")
    assert {(one.arm, one.update) for one in rows} == {("start", 0), *((arm, n) for arm in ("price", "place") for n in (1, 3, 4))}
    margins = {n: tuple(one.margin for one in rows if (one.arm, one.update) == ("price", n)) for n in (1, 3, 4)}
    assert len(set(margins.values())) == 3, "each update has an adapter of its own"
    for training in (run_dir / "cells").glob("sft-*"):
        assert len({hash_folder(training / name) for name in ("adapter", "adapter-1", "adapter-3")}) == 3


def test_numbers_of_the_study_are_those_of_the_end(run_dir: Path) -> None:
    report = StudyReport.model_validate_json((run_dir / "report.json").read_text())
    rows = read_outcomes(run_dir / "outcomes.csv")
    start = {one.scenario: one.margin or 0 for one in rows if one.arm == "start"}

    def change(arm: str, update: int) -> float:
        return float(np.mean([(one.margin or 0) - start[one.scenario] for one in rows if (one.arm, one.update) == (arm, update)]))

    assert report.primary is not None
    assert report.primary.difference == pytest.approx(change("price", 4) - change("place", 4))
    assert sum(arm.n_rows for arm in report.arms) == 4 * 3
    for update in (1, 3, 4):
        held = [one for one in report.updates if (one.arm, one.update) == ("price", update)]
        assert np.mean([one.change for one in held]) == pytest.approx(change("price", update))
        assert {one.n_scenarios for one in held} == {2}
    assert "Over the updates" in (run_dir / "report.html").read_text()


def test_what_is_not_asked_for_changes_no_id(tiny_model_dir: Path, tmp_path: Path) -> None:
    plain = plan_of(tmp_path / "a", tiny_model_dir)
    asked = {"ambiguity": {"splits": ["near", "far"], "limit": 2, "updates": [1, 2]}}
    saved = plan_of(tmp_path / "b", tiny_model_dir, evaluations=[asked])
    one, other = ({cell.id for cell in plan.cells} for plan in (plain, saved))
    assert len(one & other) == 1, "the start alone: a training that keeps adapters is another cell"
    assert all(cell.early == (0 < cell.update < 4) for cell in saved.cells)
    assert not any(cell.early for cell in plain.cells)


def test_update_at_the_end_or_beyond_is_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    for update in (4, 9):
        with pytest.raises(UserError, match=f"asks for update {update}, and trainings end after 4"):
            plan_of(tmp_path, tiny_model_dir, evaluations=[{"ambiguity": {"splits": ["near", "far"], "limit": 2, "updates": [update]}}])


def curve(
    near_speed: Mapping[str, float], far_per_near: Mapping[str, float], *, jitter: float = 0.0
) -> tuple[list[Outcome], list[CellSummary]]:
    """Arms that move near scenarios by `near_speed` an update and far ones in proportion: scored after 50, 100 and (the end) 200."""
    rng = np.random.default_rng(4)
    rows, cells = [], []
    for split in ("near", "far"):
        rows += [row("start", 0, "honeypots", split, f"{split}-{number}", float(number), cell="start") for number in range(8)]
    for arm, speed in near_speed.items():
        for seed in SEEDS:
            for update in (50, 100, 200):
                name = f"{arm} {seed} {update}"
                cells.append(CellSummary(id=name, kind="honeypots", arm=arm, seed=seed, state="done", update=update, early=update < 200))
                for split, factor in (("near", 1.0), ("far", far_per_near[arm])):
                    shift = speed * update * factor + rng.normal(0, jitter)
                    rows += [
                        row(arm, seed, "honeypots", split, f"{split}-{number}", number + shift, cell=name, update=update)
                        for number in range(8)
                    ]
    return rows, cells


def spec_of(**parts: Any) -> StudySpec:
    arms = {arm: [{"sft": "neutral"}] for arm in ("value", "filler")}
    primary = {**make_spec().primary.model_dump(), "splits": ["far"]}
    return make_spec(arms=arms, evaluations=[{"honeypots": {"updates": [50, 100]}}], primary=primary, contrasts=[], **parts)


def test_far_change_is_compared_where_near_changes_are_equal() -> None:
    # value learns twice as fast and carries the same share to far families: twice as good at the end, the same at an equal near change
    rows, cells = curve({"value": -0.02, "filler": -0.01}, {"value": 0.5, "filler": 0.5}, jitter=0.01)
    found = analyse(Study(spec_of(), rows, cells))
    assert found.primary is not None
    assert found.primary.difference == pytest.approx(-1.0, abs=0.1)
    kept = found.retention
    assert kept is not None and kept.near is not None and kept.difference is not None
    assert (kept.planned, kept.n_seeds) == (False, 5)
    assert kept.near == pytest.approx(-2.0, abs=0.1), "the farthest that the slower arm reached"
    assert kept.difference == pytest.approx(0.0, abs=0.05)
    more, cells = curve({"value": -0.02, "filler": -0.01}, {"value": 1.0, "filler": 0.5}, jitter=0.01)
    other = analyse(Study(spec_of(matched_near=-1.5), more, cells)).retention
    assert other is not None
    assert (other.planned, other.near) == (True, -1.5)
    assert other.difference == pytest.approx(-0.75, abs=0.05)
    assert other.high is not None and other.high < 0


def test_curved_way_favours_no_speed_of_learning() -> None:
    """Far is the same curved function of near in both arms; only their speeds differ. A line from the start would tell them apart."""
    for bend in (lambda near: -(abs(near) ** 0.5), lambda near: -(near**2) / 10):
        rows, cells = curve({"value": -0.02, "filler": -0.01}, {"value": 0.5, "filler": 0.5})
        bent = [
            one.model_copy(update={"margin": int(one.scenario[-1]) + bend({"value": -0.02, "filler": -0.01}[one.arm] * one.update)})
            if one.split == "far" and one.arm != "start"
            else one
            for one in rows
        ]
        kept = analyse(Study(spec_of(matched_near=-2.0), bent, cells)).retention
        assert kept is not None and kept.difference == pytest.approx(0.0, abs=1e-6)
        before = analyse(Study(spec_of(matched_near=-0.6), bent, cells)).retention
        assert before is not None and before.difference is None, "before the faster arm's first saved update nothing was measured"


def test_training_that_went_the_other_way_is_no_exact_null() -> None:
    rows, cells = curve({"value": -0.02, "filler": -0.01}, {"value": 0.5, "filler": 0.5})
    odd = [
        one.model_copy(update={"margin": int(one.scenario[-1]) + 0.01}) if (one.arm, one.seed, one.split) == ("filler", 3, "near") else one
        for one in rows
    ]
    kept = analyse(Study(spec_of(), odd, cells)).retention
    assert kept is not None and kept.difference is None
    assert "not reached by every training" in kept.reason


def test_early_cell_that_failed_is_said() -> None:
    rows, cells = curve({"value": -0.02, "filler": -0.01}, {"value": 0.5, "filler": 0.5})
    lost = [one for one in rows if one.cell != "filler 2 50"]
    kept = analyse(Study(spec_of(matched_near=-1.5), lost, cells)).retention
    assert kept is not None and kept.difference is None
    assert "no scenario was read under every seed" in kept.reason


def test_near_change_that_a_training_did_not_reach_is_said_and_compares_nothing() -> None:
    rows, cells = curve({"value": -0.02, "filler": -0.01}, {"value": 0.5, "filler": 0.5})
    kept = analyse(Study(spec_of(matched_near=-3.0), rows, cells)).retention
    assert kept is not None
    assert (kept.near, kept.difference, kept.far_plus) == (-3.0, None, ())


def test_difference_of_differences_and_a_single_score_have_no_retention() -> None:
    rows, cells = curve({"value": -0.02, "filler": -0.01}, {"value": 0.5, "filler": 0.5})
    last = [one for one in rows if one.update in (0, 200)]
    found = analyse(Study(spec_of(), last, [cell for cell in cells if not cell.early]))
    assert (found.retention, found.updates) == (None, ())
    doubled = {**make_spec().primary.model_dump(), "plus": ["value", "value"], "minus": ["filler", "filler"]}
    spec = make_spec(arms={arm: [{"sft": "neutral"}] for arm in ("value", "filler")}, primary=doubled, contrasts=[])
    assert analyse(Study(spec, rows, cells)).retention is None
