"""Runs: end to end, resumed after any kill to the same outcomes, one at a time, failures counted. Each waits for real workers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from test_study import add_rows, call, leaking_row, study_of, write_study

pytest.importorskip("torch")


from typer.testing import Result

from teachwhy.errors import EXIT_FINDINGS, EXIT_INTERRUPTED, EXIT_USAGE
from teachwhy.files import read_card, read_jsonl
from teachwhy.outcomes import read_outcomes
from teachwhy.records import StudyReport
from teachwhy.study import run as study_run

PATIENCE = 300  # seconds, for a machine that does something else as well


def start(file: Path, output: Path, workers: int = 2) -> subprocess.Popen[str]:
    """`teachwhy study run`, in a process group and session of its own."""
    command = [sys.executable, "-m", "teachwhy", "study", "run", str(file), "--yes", "--output", str(output), "--workers", str(workers)]
    environment = {**os.environ, "TEACHWHY_CACHE": str(file.parent / "cache")}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment
    )  # fmt: skip


class Ended(NamedTuple):
    """A finished command."""

    code: int
    stdout: str
    stderr: str
    seconds: float


def finish(process: subprocess.Popen[str], started: float) -> Ended:
    stdout, stderr = process.communicate(timeout=PATIENCE)
    return Ended(process.returncode, stdout, stderr, time.monotonic() - started)


def run(file: Path, output: Path, workers: int = 2) -> Ended:
    started = time.monotonic()
    return finish(start(file, output, workers), started)


def wait_for_cell(output: Path, process: subprocess.Popen[str]) -> None:
    """Until a cell is begun."""
    until = time.monotonic() + PATIENCE
    while not any((output / "cells").glob("*")):
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.05)


def report_of(output: Path) -> StudyReport:
    return StudyReport.model_validate_json((output / "report.json").read_text())


def times_of(output: Path) -> dict[str, int]:
    return {path.relative_to(output).as_posix(): path.stat().st_mtime_ns for path in sorted(output.rglob("*")) if path.name != ".lock"}


class Whole(NamedTuple):
    """A study that was run to its end, and what a second command in its folder said meanwhile."""

    file: Path
    output: Path
    ended: Ended
    second: Ended


def make_study(factory: pytest.TempPathFactory, model: Path, **parts: Any) -> Path:
    return write_study(factory.mktemp("study"), study_of(model, **parts))


@pytest.fixture(scope="module")
def whole(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Two arms, two seeds."""
    file = make_study(tmp_path_factory, tiny_model_dir, seeds=[1, 2])
    output = file.parent / "run"
    started = time.monotonic()
    process = start(file, output)
    wait_for_cell(output, process)
    second = run(file, output)
    return Whole(file, output, finish(process, started), second)


def test_run_ends_well_and_prints_its_page(whole: Whole) -> None:
    assert whole.ended.code == 0, whole.ended.stderr
    assert whole.ended.stdout == f"{whole.output / 'report.html'}\n"
    assert "9/9 " in whole.ended.stderr
    assert "Traceback" not in whole.ended.stderr
    names = {path.name for path in whole.output.iterdir()} - {".lock"}
    assert names == {"study.yaml", "plan.json", "cells", "outcomes.csv", "report.json", "report.html", "card.json"}
    assert read_card(whole.output).counts.kept == len(list((whole.output / "cells").glob("*/card.json")))


def test_second_command_in_the_folder_is_refused(whole: Whole) -> None:
    assert whole.second.code == EXIT_USAGE, whole.second
    assert "another process is running a study in this folder" in whole.second.stderr
    assert f"in {whole.output}" in whole.second.stderr
    assert "Traceback" not in whole.second.stderr


def test_every_cell_has_a_card_whose_counts_add_up(whole: Whole) -> None:
    plan = json.loads((whole.output / "plan.json").read_text())
    folders = {path.name for path in (whole.output / "cells").iterdir()}
    assert folders == {f"{cell['kind']}-{cell['id']}" for cell in plan["cells"]}
    for name in folders:
        folder = whole.output / "cells" / name
        card = read_card(folder)  # which refuses counts that do not add up
        n_made = len(list(read_jsonl(folder / "rows.jsonl"))) if card.kind == "sft" else len(read_outcomes(folder / "outcomes.csv"))
        assert card.counts.in_ == card.counts.kept == n_made > 0
        assert card.settings and card.versions and card.inputs["model"]
        assert (folder / "adapter" / "adapter_model.safetensors").is_file() == (card.kind == "sft")


def test_every_arm_seed_and_scenario_has_one_outcome(whole: Whole) -> None:
    rows = read_outcomes(whole.output / "outcomes.csv")
    assert len({(row.arm, row.seed, row.sample_id) for row in rows}) == len(rows) == 4 * 5
    assert {(row.arm, row.seed) for row in rows} == {("start", 0), *((arm, seed) for arm in ("price", "place") for seed in (1, 2))}
    assert {row.status for row in rows} == {"ok"}
    assert len({tuple(row.margin for row in rows if (row.arm, row.seed) == key) for key in {(row.arm, row.seed) for row in rows}}) == 5


def test_report_is_of_these_outcomes(whole: Whole) -> None:
    report = report_of(whole.output)
    assert {cell.state for cell in report.cells} == {"done"}
    assert report.missing["ok"] == 20 == sum(arm.n_rows for arm in report.arms)
    assert report.primary is not None
    assert (report.primary.n_scenarios, report.primary.n_seeds, report.primary.p) == (4, 2, None)
    page = (whole.output / "report.html").read_text()
    assert report.question in page
    assert f"{report.primary.n_scenarios} scenarios" in page


def test_plan_is_older_than_every_outcome(whole: Whole) -> None:
    made = (whole.output / "plan.json").stat().st_mtime_ns
    assert all(path.stat().st_mtime_ns > made for path in (whole.output / "cells").glob("*/outcomes.csv"))


def test_second_run_makes_nothing_anew(whole: Whole) -> None:
    before = times_of(whole.output)
    again = run(whole.file, whole.output)
    assert (again.code, again.stdout) == (0, whole.ended.stdout), again.stderr
    assert times_of(whole.output) == before
    assert again.seconds < whole.ended.seconds / 2


def test_another_study_in_the_folder_is_refused(whole: Whole, tmp_path: Path, own_cache: Path) -> None:
    held = json.loads((whole.output / "plan.json").read_text())
    model = Path(study_model(whole))
    for parts, says in (({"name": "other"}, "a run of another study (tiny)"), ({"seeds": [1]}, "(seeds: [1, 2] there, [1] here)")):
        found = call(
            "study", "run", write_study(tmp_path, study_of(model, **{"seeds": [1, 2], **parts})), "--yes", "--output", whole.output
        )
        assert found.exit_code == EXIT_USAGE
        assert says in found.stderr
        assert "Name another folder with --output." in found.stderr
    assert json.loads((whole.output / "plan.json").read_text()) == held


def study_model(whole: Whole) -> str:
    import yaml

    return str(yaml.safe_load(whole.file.read_text())["start"]["model"])


def test_other_rows_after_the_outcomes_are_refused(whole: Whole, tmp_path: Path, own_cache: Path) -> None:
    file = write_study(tmp_path, study_of(Path(study_model(whole)), seeds=[1, 2]))
    for arm in ("price", "place"):
        add_rows(tmp_path / f"{arm}.jsonl", {**leaking_row(), "id": f"new-{arm}"})
    before = times_of(whole.output)
    found = call("study", "run", file, "--yes", "--output", whole.output)
    assert found.exit_code == EXIT_USAGE, found.output
    assert "outcomes of another plan" in found.stderr
    assert times_of(whole.output) == before


def test_page_can_be_made_again_from_the_folder_alone(whole: Whole, tmp_path: Path, own_cache: Path) -> None:
    found = call("report", whole.output, "--output", tmp_path / "sub" / "page.html")
    assert found.exit_code == 0, found.output
    assert found.stdout == f"{tmp_path / 'sub' / 'page.html'}\n"
    assert report_of(whole.output).question in (tmp_path / "sub" / "page.html").read_text()


def test_page_of_other_runs_is_never_handed_back(whole: Whole, tmp_path: Path, own_cache: Path) -> None:
    page = tmp_path / "page.html"
    assert call("report", whole.output, "--output", page).exit_code == 0
    first = page.read_text()
    assert call("report", whole.output, whole.output, "--output", page, "--title", "Another").exit_code == 0
    assert page.read_text() != first
    assert call("report", whole.output, tmp_path / "nowhere", "--output", page).exit_code == EXIT_USAGE


@pytest.mark.parametrize("name", ["report.json", "report.html", "outcomes.csv"])
def test_derived_file_that_is_lost_or_damaged_is_made_again(whole: Whole, tmp_path: Path, own_cache: Path, name: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole.output, folder)
    before = {path: path.stat().st_mtime_ns for path in (folder / "cells").rglob("*")}
    (folder / name).unlink()
    if name == "report.json":
        (folder / name).write_text("{")
        found = call("report", folder)
        assert (found.exit_code, "cannot be read" in found.stderr) == (EXIT_USAGE, True)
    assert call("study", "run", whole.file, "--yes", "--output", folder).exit_code == 0
    assert (folder / name).stat().st_size > 100
    assert {path: path.stat().st_mtime_ns for path in (folder / "cells").rglob("*")} == before, "no cell is done again"


@pytest.mark.parametrize("name", ["report.json", "outcomes.csv"])
def test_result_that_somebody_changed_is_not_shown_and_is_made_again(whole: Whole, tmp_path: Path, own_cache: Path, name: str) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole.output, folder)
    text = (folder / name).read_text()
    (folder / name).write_text(text.replace("price", "place", 1))
    for words in (("report", folder, "--output", tmp_path / "page.html"), ("study", "table", folder), ("study", "compare", folder, folder)):
        found = call(*words)
        assert (found.exit_code, f"{name} is not the one that the run wrote" in found.stderr) == (EXIT_USAGE, True), words
    assert call("study", "run", whole.file, "--yes", "--output", folder).exit_code == 0
    assert (folder / name).read_text() == text


def test_words_of_the_page_can_be_mended_after_a_run(whole: Whole, tmp_path: Path, own_cache: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole.output, folder)
    study = yaml.safe_load(whole.file.read_text())
    file = whole.file.with_name("mended.yaml")
    file.write_text(yaml.safe_dump({**study, "question": "In other words?"}, sort_keys=False))
    found = call("study", "run", file, "--yes", "--output", folder)
    assert found.exit_code == 0, found.output
    page = (folder / "report.html").read_text()
    assert "In other words?" in page
    assert page.count(study["question"]) == 1, "the words of the plan stand beside what was done"


def test_run_without_its_card_is_made_again(whole: Whole, tmp_path: Path, own_cache: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole.output, folder)
    text = (folder / "report.json").read_text()
    (folder / "card.json").unlink()
    (folder / "report.json").write_text(text.replace('"verdict": "', '"verdict": "no_'))
    found = call("report", folder, "--output", tmp_path / "page.html")
    assert (found.exit_code, "no card.json" in found.stderr) == (EXIT_USAGE, True)
    assert call("study", "run", whole.file, "--yes", "--output", folder).exit_code == 0
    assert (folder / "report.json").read_text() == text
    assert (folder / "card.json").is_file()


def test_outcomes_of_a_cell_that_somebody_changed_do_not_count(whole: Whole, tmp_path: Path, own_cache: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole.output, folder)
    text = (folder / "report.json").read_text()
    path = min((folder / "cells").glob("ambiguity-*/outcomes.csv"))
    path.write_text(path.read_text().replace("0.", "1.", 1))
    (folder / "report.json").unlink()
    found = call("study", "run", whole.file, "--yes", "--output", folder)
    assert (found.exit_code, "outcomes.csv is not the one that the cell wrote" in found.stderr) == (EXIT_USAGE, True)
    shutil.rmtree(path.parent)
    assert call("study", "run", whole.file, "--yes", "--workers", "0", "--output", folder).exit_code == 0
    assert report_of(folder).primary == StudyReport.model_validate_json(text).primary


def test_cells_of_another_plan_are_none_of_this_one(whole: Whole, tmp_path: Path, own_cache: Path) -> None:
    folder = tmp_path / "run"
    study = yaml.safe_load(whole.file.read_text())
    primary = {**study["primary"], "plus": study["primary"]["minus"], "minus": study["primary"]["plus"]}
    file = whole.file.with_name("turned.yaml")
    file.write_text(yaml.safe_dump({**study, "primary": primary}, sort_keys=False))
    assert call("study", "run", file, "--plan", "--output", folder).exit_code == 0
    shutil.copytree(whole.output / "cells", folder / "cells")
    found = call("study", "run", file, "--yes", "--output", folder)
    assert (found.exit_code, "made for another plan" in found.stderr) == (EXIT_USAGE, True), found.output
    assert not (folder / "report.json").exists()


def test_plan_is_no_longer_changed_once_there_are_outcomes(whole: Whole, tmp_path: Path, own_cache: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole.output, folder)
    found = call("study", "run", whole.file, "--plan", "--pilot", folder, "--output", folder)
    assert (found.exit_code, "what a study could see is said before" in found.stderr) == (EXIT_USAGE, True)
    plan = json.loads((folder / "plan.json").read_text())
    for change in ({"ledger": plan["ledger"][1:]}, {"made_at": "2020-01-01T00:00:00Z"}, {"words": {}}):
        (folder / "plan.json").write_text(json.dumps({**plan, **change}))
        found = call("report", folder, "--output", tmp_path / "page.html")
        assert (found.exit_code, "plan.json is not the one" in found.stderr) == (EXIT_USAGE, True)
        found = call("study", "run", whole.file, "--yes", "--output", folder)
        assert (found.exit_code, "plan.json is not the one that was written" in found.stderr) == (EXIT_USAGE, True)


def test_run_that_was_read_by_other_code_is_read_again(whole: Whole, tmp_path: Path, own_cache: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(whole.output, folder)
    card = json.loads((folder / "card.json").read_text())
    card["details"]["analysis"] = 1
    (folder / "card.json").write_text(json.dumps(card))
    (folder / "report.html").write_text("old")
    assert call("study", "run", whole.file, "--yes", "--output", folder).exit_code == 0
    assert (folder / "report.html").read_text() != "old"


def test_page_says_how_to_run_it_again(whole: Whole) -> None:
    plan = json.loads((whole.output / "plan.json").read_text())
    assert plan["command"] == f"teachwhy study run {whole.file} --output {whole.output}"
    assert plan["command"].partition(" --output")[0] in (whole.output / "report.html").read_text()


def test_folder_that_is_no_run_has_no_page(tmp_path: Path) -> None:
    found = call("report", tmp_path, "--output", tmp_path / "page.html")
    assert found.exit_code == EXIT_USAGE
    assert "this is no finished run" in found.stderr
    assert not (tmp_path / "page.html").exists()


class Failing(NamedTuple):
    """A study with an arm that cannot be trained: interrupted by ctrl-C, then run to its end."""

    file: Path
    output: Path
    interrupted: Ended
    ended: Result


@pytest.fixture(scope="module")
def failing(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Failing:
    absurd = [{"sft": "price.jsonl", "settings": {"learning_rate": 1e30}}]
    file = make_study(tmp_path_factory, tiny_model_dir, arms={"price": absurd, "place": [{"sft": "place.jsonl"}]})
    output = file.parent / "run"
    started = time.monotonic()
    process = start(file, output, workers=1)
    wait_for_cell(output, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    interrupted = finish(process, started)
    return Failing(file, output, interrupted, call("study", "run", file, "--yes", "--workers", "0", "--output", output))


def test_ctrl_c_says_how_to_go_on(failing: Failing) -> None:
    assert failing.interrupted.code == EXIT_INTERRUPTED, failing.interrupted.stderr
    assert "type the same command to go on" in failing.interrupted.stderr
    assert "Traceback" not in failing.interrupted.stderr
    assert failing.interrupted.stdout == ""


def test_failed_cell_has_its_reason_and_the_others_go_on(failing: Failing) -> None:
    assert failing.ended.exit_code == EXIT_FINDINGS, failing.ended.stderr
    assert "Traceback" not in failing.ended.stderr
    assert "sft of price, seed 1 failed: the loss of update" in failing.ended.stderr
    cells = {(cell.kind, cell.arm): cell for cell in report_of(failing.output).cells}
    assert {key: cell.state for key, cell in cells.items()} == {
        ("ambiguity", "start"): "done",
        ("sft", "price"): "failed",
        ("ambiguity", "price"): "failed",
        ("sft", "place"): "done",
        ("ambiguity", "place"): "done",
    }
    assert "try half the learning rate" in cells["sft", "price"].reason
    assert cells["ambiguity", "price"].reason == "a cell that it builds on failed"


def test_failed_cell_withholds_the_answer(failing: Failing) -> None:
    report = report_of(failing.output)
    assert report.answer.verdict == "withheld"
    assert "2 of 5 cells are not done" in report.answer.sentence
    assert "2 of 5 cells are not done" in (failing.output / "report.html").read_text()
    assert {row.arm for row in read_outcomes(failing.output / "outcomes.csv")} == {"start", "place"}


def test_worker_that_is_killed_and_cell_without_room_cost_themselves_alone(tiny_model_dir: Path, tmp_path: Path) -> None:
    murder = {"command": "sh -c 'kill -9 $PPID; sleep 30' {output}", "corpus": "price.jsonl"}  # as the kernel does for want of memory
    plain = {arm: [{"sft": f"{arm}.jsonl"}] for arm in ("price", "place")}
    arms = {**plain, "large": [{"sft": "price.jsonl", "settings": {"rank": 512}}], "murder": murder}
    file = write_study(tmp_path, study_of(tiny_model_dir, arms=arms))
    room = 2 * 2**20  # bytes a file: what a full disk does to large files, to the small ones nothing
    words = [sys.executable, "-m", "teachwhy", "study", "run", str(file), "--yes", "--output", str(tmp_path / "run"), "--workers", "2"]
    limit = f"import resource, os, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room})); os.execv(sys.argv[1], sys.argv[1:])"
    ended = subprocess.run([sys.executable, "-c", limit, *words], capture_output=True, text=True, check=False)
    assert ended.returncode == EXIT_FINDINGS, ended.stderr
    assert "Traceback" not in ended.stderr
    cells = {(cell.kind, cell.arm): cell for cell in report_of(tmp_path / "run").cells}
    lost = {key for key, cell in cells.items() if cell.state != "done"}
    assert lost == {("command", "murder"), ("ambiguity", "murder"), ("sft", "large"), ("ambiguity", "large")}
    assert "ended from outside" in cells["command", "murder"].reason
    assert "File too large" in cells["sft", "large"].reason
    assert "ended from outside" in (tmp_path / "run" / "report.html").read_text()


def test_ctrl_c_while_a_worker_starts_comes_after_it() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), study_run._ctrl_c_held():
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
        done.append("started")
    assert done == ["started"]
