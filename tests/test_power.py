"""What a plan could see, and contrasts for other programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from teachwhy.errors import EXIT_OK, UserError
from teachwhy.files import write_card
from teachwhy.outcomes import FIXED_SEED, write_outcomes
from teachwhy.records import Outcome
from teachwhy.study.compare import compare_runs, contrast_rows, render_table
from teachwhy.study.estimates import Study
from teachwhy.study.gather import _run_card
from teachwhy.study.power import plan_power
from teachwhy.study.schema import StudySpec
from test_analysis import contrast, make_spec, plant, report
from test_study import call


def write_run(folder: Path, seeds: tuple[int, ...] = (1, 2, 3, 4, 5), noise: float = 0.5, **parts: Any) -> Path:
    """A run's folder as far as a report needs it."""
    folder.mkdir()
    spec = make_spec(seeds=seeds, **parts)
    rows = plant(seeds, noise=noise)
    (folder / "plan.json").write_text(json.dumps({"study": "a" * 64, "sha256": "b" * 64, "made_at": "x", "ledger": []}))
    finish(folder, spec, rows)
    return folder


def finish(folder: Path, spec: StudySpec, rows: Sequence[Outcome]) -> None:
    """Outcomes, report and card of a run."""
    found = report(spec, rows)
    write_outcomes(folder / "outcomes.csv", rows)
    (folder / "study.yaml").write_text(spec.model_dump_json())
    (folder / "report.json").write_text(found.model_dump_json(by_alias=True))
    write_card(folder, _run_card(folder, spec, found))


def test_more_seeds_and_quieter_pilots_see_smaller_differences(tmp_path: Path) -> None:
    quiet, loud = write_run(tmp_path / "quiet", noise=0.2), write_run(tmp_path / "loud", noise=1.5)
    few, many = (make_spec(seeds=list(range(1, n + 1))) for n in (5, 12))
    seen = [plan_power(spec, 24, run, None).smallest_detectable for spec, run in ((few, quiet), (few, loud), (many, loud))]
    assert seen[0] < seen[2] < seen[1]


def test_wished_difference_gets_sizes_that_find_it(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", noise=1.5)
    found = plan_power(make_spec(), 24, run, 0.3)
    assert found.smallest_detectable > 0.3
    assert "For 0.3 nats" in found.lines()[1]
    assert all(seeds >= 5 for seeds, _ in found.pairs)


def test_models_that_nobody_trains_again_are_seen_over_scenarios(tmp_path: Path) -> None:
    arms = {"value": {"checkpoint": "a"}, "filler": {"checkpoint": "b"}, "neutral": {"checkpoint": "c"}, "bare": {"checkpoint": "d"}}
    fixed = make_spec(seeds=[1], arms=arms, start="none")
    folder = write_run(tmp_path / "run", seeds=(1,))
    rows = [one.model_copy(update={"seed": FIXED_SEED}) for one in plant((1,), noise=0.5)]
    finish(folder, fixed, rows)
    few, many = (plan_power(fixed, n, folder, None) for n in (8, 200))
    assert many.smallest_detectable <= few.smallest_detectable
    assert "With these models and 8 scenarios" in few.lines()[0]
    wished = plan_power(fixed, 8, folder, 1.2 * many.smallest_detectable)
    assert wished.n_scenarios_wished is not None
    again = plan_power(fixed, wished.n_scenarios_wished, folder, None)
    assert again.smallest_detectable <= 1.2 * many.smallest_detectable * 1.01
    assert "more than 1,000 scenarios" in plan_power(fixed, 8, folder, 1e-6).lines()[1]
    with pytest.raises(UserError, match="one seed"):
        plan_power(make_spec(), 24, folder, None)


def test_pilot_of_one_seed_or_of_another_reading_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="one seed"):
        plan_power(make_spec(), 24, write_run(tmp_path / "one", seeds=(1,)), None)
    primary = contrast("value - filler", ["far"], claim="lower", yes="Y", no="N", opposite="O", measure="harm")
    run = write_run(tmp_path / "two")
    with pytest.raises(UserError, match="this study's does not"):
        plan_power(make_spec(primary=primary), 24, run, None)
    near = contrast("value - filler", ["near"], claim="lower", yes="Y", no="N", opposite="O")
    with pytest.raises(UserError, match="is over far, this study's over near"):
        plan_power(make_spec(primary=near, contrasts=[]), 24, run, None)


def test_table_has_the_reports_numbers_in_every_format(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    rows = contrast_rows(run)
    assert rows[0]["exploratory"] is False
    assert json.loads(render_table(rows, "json")) == rows
    read = list(csv.DictReader(io.StringIO(render_table(rows, "csv"))))
    assert [float(one["difference"]) for one in read] == [one["difference"] for one in rows]
    latex = render_table([{**rows[0], "name": "50 % & a_b\\c"}], "latex")
    assert r"50 \% \& a\_b\textbackslash{}c" in latex
    assert f"{rows[0]['difference']:+.2f}" in latex
    found = call("study", "table", run, "--format", "csv")
    assert (found.exit_code, found.stdout.count("\n")) == (EXIT_OK, len(rows) + 1)


def test_comparison_names_what_differs_and_what_both_have(tmp_path: Path) -> None:
    one, other = write_run(tmp_path / "one"), write_run(tmp_path / "other", noise=1.0, settings={"updates": 200})
    rows = {what: (a, b) for what, a, b in compare_runs(one, other)}
    assert rows["settings.updates"] == ("120", "200")
    assert "settings.rank" not in rows
    assert rows["value - filler [far]"][0].startswith("-1.")
    found = call("study", "compare", one, other)
    assert found.exit_code == EXIT_OK
    assert "settings.updates" in found.stdout
    named = write_run(tmp_path / "named", primary=contrast("reasons less fillers", ["far"], claim="lower", yes="Y", no="N", opposite="O"))
    assert "value - filler [far]" in {what for what, _, _ in compare_runs(one, named)}, "it is what is compared that counts, not its name"
    turned = contrast("another", ["far"], "neutral", "bare", claim="lower", yes="Y", no="N", opposite="O")
    assert ("contrasts", "none is of the same arms,", "evaluation, split and reading") in compare_runs(
        one, write_run(tmp_path / "none", primary=turned, contrasts=[], arms={arm: [{"sft": "neutral"}] for arm in ("neutral", "bare")})
    )


def test_study_knows_its_arms() -> None:
    assert Study(make_spec(), [], []).arms[0] == "start"


def test_pilot_and_wish_belong_to_a_plan(tmp_path: Path) -> None:
    assert "Add --pilot RUN" in call("study", "run", "ambiguity", "--plan", "--wished", "1").stderr
    assert "Add --plan" in call("study", "run", "ambiguity", "--pilot", tmp_path).stderr


def test_folder_that_is_no_run_says_what_to_type(tmp_path: Path) -> None:
    assert "There is no such folder" in call("study", "table", tmp_path / "nowhere").stderr
    (tmp_path / "plan.json").write_text(json.dumps({"command": "teachwhy study run mine.yaml --output here"}))
    assert "Type: teachwhy study run mine.yaml --output here" in call("study", "table", tmp_path).stderr
