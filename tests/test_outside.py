"""Arms from outside: checkpoints, adapters, logs and the user's own trainer; without torch where none is needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from inspect_ai import Task, eval_set
from inspect_ai import eval as inspect_eval
from inspect_ai.log import write_eval_log
from inspect_ai.model import ModelOutput, ModelUsage, get_model

import teachwhy._registry  # noqa: F401
from teachwhy.errors import EXIT_FINDINGS, EXIT_OK, UserError
from teachwhy.evaluations.choice import choice_task, load_scenarios
from teachwhy.files import read_card
from teachwhy.models.checkpoints import load_model
from teachwhy.outcomes import FIXED_SEED, read_outcomes
from teachwhy.records import StudyReport
from test_study import call, refuse, study_of, write_study


@pytest.fixture(autouse=True)
def cache(own_cache: Path) -> None:
    """Nothing of the user's cache is read or written."""


def report_of(run_dir: Path) -> StudyReport:
    return StudyReport.model_validate_json((run_dir / "report.json").read_text())


def test_checkpoints_stand_for_their_seeds_or_for_all(tmp_path: Path, tiny_model_dir: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(tiny_model_dir, other)
    arms = {"price": {"checkpoint": {1: str(tiny_model_dir), 2: "other"}}, "place": {"checkpoint": str(tiny_model_dir)}}
    file = write_study(tmp_path, study_of(tiny_model_dir, seeds=[1, 2], arms=arms, start="none"))
    refuse(file, "seeds 1 and 2 are the same weights")
    same = {"price": {"checkpoint": str(tiny_model_dir)}, "place": {"checkpoint": str(tiny_model_dir)}}
    found = call(
        "study", "run", write_study(tmp_path, study_of(tiny_model_dir, arms=same, start="none")), "--plan", "--output", tmp_path / "p"
    )
    assert "price, place: one and the same model" in " ".join(found.stderr.split())
    file = write_study(tmp_path, study_of(tiny_model_dir, seeds=[1, 2], arms=arms, start="none"))
    from safetensors.torch import load_file, save_file

    weights = load_file(other / "model.safetensors")
    save_file({name: one * (1 + 1e-7) for name, one in weights.items()}, other / "model.safetensors", metadata={"format": "pt"})
    found = call("study", "run", file, "--yes", "--workers", "0", "--output", tmp_path / "run")
    assert found.exit_code == EXIT_OK, found.output
    rows = read_outcomes(tmp_path / "run" / "outcomes.csv")
    assert {(row.arm, row.seed) for row in rows} == {("price", 1), ("price", 2), ("place", FIXED_SEED)}
    report = report_of(tmp_path / "run")
    assert report.primary is not None
    assert report.primary.difference == pytest.approx(0.0, abs=1e-4), "the same weights under three names"
    assert (report.primary.n_seeds, report.primary.n_scenarios) == (2, 4)
    assert "nan" not in (tmp_path / "run" / "report.html").read_text().lower().split("<main")[1][:20000].replace("finance", "")


TRAINER = """
import json, pathlib, shutil, sys
start, corpus, seed, output = sys.argv[1:]
rows = [json.loads(line) for line in open(corpus)]
assert len(rows) == 6 and set(rows[0]) >= {"messages", "id"} and seed in "12", (len(rows), seed)
shutil.copytree(start, output)
(pathlib.Path(output) / "training_args.json").write_text(seed)
"""


def test_own_trainer_gets_rows_and_seed_and_its_model_is_adopted(tmp_path: Path, tiny_model_dir: Path) -> None:
    (tmp_path / "train.py").write_text(TRAINER)
    command = f"{sys.executable} {tmp_path / 'train.py'} {{start}} {{corpus}} {{seed}} {{output}}"
    arms = {"price": {"command": command, "corpus": "price.jsonl"}, "place": [{"sft": "place.jsonl"}]}
    settings = {"updates": 3, "rows_per_update": 2, "learning_rate": 1e-3, "rank": 2, "dtype": "float32"}
    file = write_study(tmp_path, study_of(tiny_model_dir, arms=arms, settings=settings))
    found = call("study", "run", file, "--yes", "--workers", "0", "--output", tmp_path / "run")
    assert found.exit_code == EXIT_OK, found.output
    (cell,) = (tmp_path / "run" / "cells").glob("command-*")
    assert (cell / "model" / "model.safetensors").is_file()
    assert read_card(cell).details["adopted"]
    changes = {arm.arm: arm.change for arm in report_of(tmp_path / "run").arms if arm.split == "far"}
    assert changes["price"] == pytest.approx(0.0, abs=1e-4), "it trained nothing"
    assert abs(changes["place"] or 0) > 1e-4


def test_own_trainer_that_heeds_no_seed_is_one_training(tmp_path: Path, tiny_model_dir: Path) -> None:
    (tmp_path / "train.py").write_text(TRAINER)
    command = f"{sys.executable} {tmp_path / 'train.py'} {{start}} {{corpus}} {{seed}} {{output}}"
    arms = {"price": {"command": command, "corpus": "price.jsonl"}, "place": {"checkpoint": str(tiny_model_dir)}}
    file = write_study(tmp_path, study_of(tiny_model_dir, arms=arms, seeds=[1, 2], settings={"updates": 3, "rows_per_update": 2}))
    found = call("study", "run", file, "--yes", "--workers", "0", "--output", tmp_path / "run")
    assert found.exit_code == EXIT_FINDINGS, found.output
    failed = [cell for cell in report_of(tmp_path / "run").cells if cell.state == "failed"]
    assert {(cell.kind, cell.seed) for cell in failed} == {("command", 2), ("ambiguity", 2)}
    assert all("does not heed {seed}" in cell.reason for cell in failed)


def test_own_trainer_that_fails_fails_its_cells_alone(tmp_path: Path, tiny_model_dir: Path) -> None:
    scripts = {
        "speaks": ("raise SystemExit('no data')", "exit code 1: no data"),
        "idle": ("pass", "left no folder at {output}"),
        "empty": ("import os, sys; os.mkdir(sys.argv[4])", "no config.json"),
        "rude": ("import os, sys; os.mkdir(sys.argv[4]); os.utime(sys.argv[1] + '/config.json', (1, 1))", "changed the study's start"),
    }
    arms: dict[str, Any] = {"price": {"checkpoint": str(tiny_model_dir)}, "place": {"checkpoint": str(tiny_model_dir)}}
    for name, (script, _) in scripts.items():
        (tmp_path / f"{name}.py").write_text(script)
        command = f"{sys.executable} {tmp_path / name}.py {{start}} {{corpus}} {{seed}} {{output}}"
        arms[name] = {"command": command, "corpus": "price.jsonl"}
    own = tmp_path / "start"
    shutil.copytree(tiny_model_dir, own)
    file = write_study(tmp_path, study_of(own, arms=arms))
    found = call("study", "run", file, "--yes", "--workers", "0", "--output", tmp_path / "run")
    assert found.exit_code == EXIT_FINDINGS, found.output
    failed = [cell for cell in report_of(tmp_path / "run").cells if cell.state == "failed"]
    assert {cell.arm for cell in failed} == set(scripts)
    reasons = {cell.arm: cell.reason for cell in failed if cell.kind == "command"}
    for name, (_, says) in scripts.items():
        assert says in reasons[name]


def make_logs(folder: Path, text: str, limit: int = 2) -> None:
    run_text(choice_task("honeypots", load_scenarios("honeypots", limit=limit, part="dev"), reading="text", twins=False), folder, text)


def run_text(task: Task, folder: Path, text: str) -> None:
    usage = ModelUsage(input_tokens=9, output_tokens=1, total_tokens=10)
    outputs = [ModelOutput.from_content("mockllm/model", text).model_copy(update={"usage": usage}) for _ in task.dataset]
    eval_set(
        task, log_dir=str(folder), model=get_model("mockllm/model", custom_outputs=outputs, memoize=False), display="none",
        score_display=False, log_level="error",
    )  # fmt: skip


def text_study(model: Path, **parts: Any) -> dict[str, Any]:
    whole = study_of(model, **parts)
    primary = {**whole["primary"], "evaluation": "honeypots", "reading": "text", "measure": "harm"}
    return {**whole, "evaluations": [{"honeypots": {"limit": 2, "reading": "text", "twins": False}}], "primary": primary}


def test_logs_are_adopted_without_torch(tmp_path: Path, tiny_model_dir: Path) -> None:
    make_logs(tmp_path / "one", "A")
    make_logs(tmp_path / "two", "no idea")
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "torch.py").write_text("raise ImportError('torch is not installed')\n")
    arms = {"price": {"logs": "one"}, "place": {"logs": "two"}}
    file = write_study(tmp_path, text_study(tiny_model_dir, arms=arms, start="none"))
    done = subprocess.run(
        [sys.executable, "-m", "teachwhy", "study", "run", str(file), "--yes", "--output", str(tmp_path / "run")],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(blocked)},
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    report = report_of(tmp_path / "run")
    assert {cell.state for cell in report.cells} == {"done"}, done.stderr
    arms_found = {arm.arm: arm for arm in report.arms if arm.split == "far"}
    assert arms_found["price"].n_missing == 0
    assert arms_found["place"].n_missing == arms_found["place"].n_rows == 8, "two scenarios, four options in four places; none was named"


def test_log_that_lacks_scenarios_leaves_them_unscored_and_takes_no_others(tmp_path: Path, tiny_model_dir: Path) -> None:
    make_logs(tmp_path / "one", "A", limit=1)
    make_logs(tmp_path / "two", "A", limit=3)
    arms = {"price": {"logs": "one"}, "place": {"logs": "two"}}
    file = write_study(tmp_path, text_study(tiny_model_dir, arms=arms, start="none"))
    found = call("study", "run", file, "--yes", "--workers", "0", "--output", tmp_path / "run")
    rows = read_outcomes(tmp_path / "run" / "outcomes.csv")
    counts = {arm: Counter(row.status for row in rows if row.arm == arm) for arm in arms}
    assert counts == {"price": {"ok": 8, "unscored": 8}, "place": {"ok": 16}}, found.output
    report = report_of(tmp_path / "run")
    assert report.answer.verdict == "withheld"
    assert "8 of 32 outcomes were not read" in report.answer.sentence
    cards = [read_card(path) for path in (tmp_path / "run" / "cells").iterdir()]
    assert sorted(card.details["not_asked_for"] for card in cards) == [0, 8]


def test_logs_that_hold_a_run_twice_or_another_text_are_refused(tmp_path: Path, tiny_model_dir: Path) -> None:
    for folder in ("one", "one/again"):
        make_logs(tmp_path / folder, "A")
    for path in (tmp_path / "one" / "again").glob("*.eval"):
        path.rename(tmp_path / "one" / path.name)
    held = load_scenarios("honeypots", limit=2, part="dev")
    other = [one.model_copy(update={"situation": "Nothing of the kind."}) for one in held]
    task = choice_task("honeypots", other, reading="text", twins=False)
    run_text(task, tmp_path / "two", "A")
    arms = {"price": {"logs": "one"}, "place": {"logs": "two"}}
    file = write_study(tmp_path, text_study(tiny_model_dir, arms=arms, start="none"))
    found = call("study", "run", file, "--yes", "--workers", "0", "--output", tmp_path / "run")
    assert found.exit_code == EXIT_FINDINGS, found.output
    reasons = {cell.arm: cell.reason for cell in report_of(tmp_path / "run").cells}
    assert "hold two runs of" in reasons["price"]
    assert "reads otherwise in" in reasons["place"]


def test_retried_evaluation_counts_once_and_one_of_several_epochs_is_refused(tmp_path: Path, tiny_model_dir: Path) -> None:
    task = choice_task("honeypots", load_scenarios("honeypots", limit=2, part="dev"), reading="text", twins=False)
    said = iter(range(10_000))

    def answer(*rest: Any) -> ModelOutput:
        if next(said) == 3:
            raise RuntimeError("gone for a moment")
        usage = ModelUsage(input_tokens=9, output_tokens=1, total_tokens=10)
        return ModelOutput.from_content("mockllm/model", "A").model_copy(update={"usage": usage})

    model = get_model("mockllm/model", custom_outputs=answer, memoize=False)
    quiet: dict[str, Any] = {"display": "none", "log_level": "error", "score_display": False}
    (log,) = inspect_eval(task, model=model, log_dir=str(tmp_path / "one"), fail_on_error=False, max_samples=1, **quiet)
    assert sum(sample.error is not None for sample in log.samples or []) == 1
    again = log.model_copy(update={"samples": [one for one in log.samples or [] if one.error is None]})
    again.location = ""
    write_eval_log(again, str(tmp_path / "one" / "2099-01-01T00-00-00-00-00_honeypots_retried.eval"))
    inspect_eval(task, model=model, log_dir=str(tmp_path / "two"), epochs=2, **quiet)
    arms = {"price": {"logs": "one"}, "place": {"logs": "two"}}
    file = write_study(tmp_path, text_study(tiny_model_dir, arms=arms, start="none"))
    call("study", "run", file, "--yes", "--workers", "0", "--output", tmp_path / "run")
    cells = {cell.arm: cell for cell in report_of(tmp_path / "run").cells}
    assert cells["price"].state == "done", cells["price"].reason
    assert "several epochs" in cells["place"].reason


def test_adapter_of_another_base_is_refused(tmp_path: Path, tiny_model_dir: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")).save_pretrained(tmp_path / "good")
    shutil.copytree(tmp_path / "good", tmp_path / "odd")
    tensors = load_file(tmp_path / "odd" / "adapter_model.safetensors")
    save_file(
        {name.replace("layers.1.", "layers.7."): value for name, value in tensors.items()}, tmp_path / "odd" / "adapter_model.safetensors"
    )
    load_model(tiny_model_dir, adapters=[tmp_path / "good"], dtype="float32")
    with pytest.raises(UserError, match=r"does not fit the model: .* tensors have no place in it or are missing"):
        load_model(tiny_model_dir, adapters=[tmp_path / "odd"], dtype="float32")


def test_what_is_not_there_is_said_before_anything_is_spent(tmp_path: Path, tiny_model_dir: Path) -> None:
    place = {"checkpoint": str(tiny_model_dir)}
    for arm, says in [
        ({"checkpoint": "./nowhere"}, "no such folder"),
        ({"adapter": "nowhere"}, "there is no folder"),
        ({"logs": "."}, "no logs of Inspect"),
        ({"checkpoint": {1: "a", 2: "a"}}, "one folder under several seeds"),
        ({"checkpoint": {1: "a", 3: "b"}}, "has the seeds [1, 3], the study [1]"),
        ({"model": "openai/some"}, "of which only text can be read"),
        ({"command": "train {output}"}, "a command needs a corpus"),
        ({"command": "train", "corpus": "price.jsonl"}, "must say where it writes"),
        ({"logs": "a", "model": "b"}, "one of checkpoint, adapter, model, logs, command"),
    ]:
        refuse(write_study(tmp_path, study_of(tiny_model_dir, arms={"price": arm, "place": place})), says)
