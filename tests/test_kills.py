"""Runs that are killed again and again, at random moments, end with the same outcomes and the same weights."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from test_run import PATIENCE, run, start, wait_for_cell
from test_study import call, study_of, write_study

pytest.importorskip("torch")

import psutil

from teachwhy.outcomes import read_outcomes
from teachwhy.study import run as study_run


def survivors(session: int) -> list[psutil.Process]:
    """Live processes of a session; those that only wait for being reaped are dead."""
    found = []
    for process in psutil.process_iter():
        try:
            if os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


MEASURES = ("margin", "harm", "acted")
NATS = 1e-4
"""What is left of an evaluation that was killed is scored in smaller batches, and fp32 sums of some 400 nats then differ by about 1e-5."""


def assert_same_outcomes(one: Path, other: Path) -> None:
    """Equal apart from the names of logs, which hold times, and from rounding."""
    found = [read_outcomes(folder / "outcomes.csv") for folder in (one, other)]
    assert len(found[0]) == 4 * 3
    plain = [[row.model_dump(exclude={"log", *MEASURES}) for row in rows] for rows in found]
    assert plain[0] == plain[1]
    for name in MEASURES:
        values = [{row.cell + row.sample_id: getattr(row, name) for row in rows if getattr(row, name) is not None} for rows in found]
        assert values[0] == pytest.approx(values[1], abs=NATS, rel=0)


@pytest.fixture(scope="module")
def whole(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The study, done in one go."""
    file = write_study(tmp_path_factory.mktemp("whole"), study_of(tiny_model_dir))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study_run, "count_cores", lambda: 1)  # as many threads as each of two workers has: sums are rounded alike
        ended = call("study", "run", file, "--yes", "--workers", "0", "--output", file.parent / "run")
    assert ended.exit_code == 0, ended.output
    return file.parent / "run"


SPAN = 6.0
"""Seconds in which a study this small starts its workers and does most of its cells."""


def kill_and_go_on(whole: Path, file: Path, n_kills: int, seed: int) -> None:
    """Kill a run at random moments, by turns the parent alone and its whole group; then run to the end and compare."""
    rng, output = random.Random(seed), file.parent / "run"
    n_killed = 0
    while n_killed < n_kills:
        process = start(file, output)
        try:
            if n_killed:  # once while it starts, then while it works
                wait_for_cell(output, process)
            _, stderr = process.communicate(timeout=rng.uniform(0, SPAN))
            assert process.returncode == 0, stderr
            assert_same_outcomes(whole, output)
            shutil.rmtree(output)  # it was done before it could be killed: begin anew
            continue
        except subprocess.TimeoutExpired:
            (os.kill if n_killed % 2 else os.killpg)(process.pid, signal.SIGKILL)
            n_killed += 1
        process.communicate(timeout=PATIENCE)
        until = time.monotonic() + 20
        while survivors(process.pid):
            assert time.monotonic() < until, f"outlived the kill: {survivors(process.pid)}"
            time.sleep(0.05)
        plan = output / "plan.json"
        assert not plan.exists() or json.loads(plan.read_text())["sha256"]
    ended = run(file, output)
    assert ended.code == 0, ended.stderr
    assert_same_outcomes(whole, output)
    assert_same_adapters(whole, output)
    assert not list(output.rglob("*.part"))


def assert_same_adapters(one: Path, other: Path) -> None:
    found: list[Mapping[str, bytes]] = [
        {path.parent.parent.name: path.read_bytes() for path in folder.glob("cells/*/adapter/*.safetensors")} for folder in (one, other)
    ]
    assert len(found[1]) == 2
    assert {**found[0], **found[1]} == found[0]


def test_five_kills_change_nothing(whole: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    kill_and_go_on(whole, write_study(tmp_path, study_of(tiny_model_dir)), 5, seed=int(os.environ.get("TEACHWHY_KILL_SEED", "1")))


@pytest.mark.slow
def test_fifty_kills_change_nothing(whole: Path, tiny_model_dir: Path, tmp_path: Path) -> None:
    kill_and_go_on(whole, write_study(tmp_path, study_of(tiny_model_dir)), 50, seed=2)
