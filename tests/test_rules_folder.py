"""A run's folder: one process at a time, nobody else's report, and what is damaged in it is said with what to do."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from typer.testing import CliRunner

from servers import Server
from teachwhy.budget import UNLIMITED, Cap, MostSpend, Spend, first_error, kept_cap, read_spent, spent_in
from teachwhy.cli import app as cli
from teachwhy.errors import EXIT_USAGE, UserError
from teachwhy.rules.across import OverModels
from teachwhy.rules.fix import fix_rules
from teachwhy.rules.page import render_rules
from teachwhy.rules.plan import Settings, plan_rules
from teachwhy.rules.run import read_rows, run_rules
from test_rules_run import ONE, file, planned, silent  # noqa: F401  # a fixture

MODEL = "scripted/none=0.9,bare=0"  # which ends with the screen


def call(*words: str | Path, env: dict[str, str] | None = None) -> Any:
    return CliRunner().invoke(cli.app, ["rules", *map(str, words)], prog_name="teachwhy", env=env)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a rule file and the folder of its run."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "AGENTS.md").write_text(ONE)
    done = again(folder)
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def own(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "own")
    return tmp_path / "own"


def again(folder: Path, *words: str) -> Any:
    return call("run", folder / "AGENTS.md", "--model", MODEL, "--sessions", "40", "--yes", "--output", folder / "run", *words)


def test_two_processes_in_one_folder_are_refused(own: Path) -> None:
    commands = (
        (own / "run", ("run", own / "AGENTS.md", "--model", MODEL, "--yes", "--output", own / "run")),
        (own / "liked", ("prefer", own / "AGENTS.md", "--output", own / "liked")),
    )
    for folder, words in commands:
        folder.mkdir(exist_ok=True)
        with FileLock(folder / ".lock"):
            done = call(*words)
        assert done.exit_code == EXIT_USAGE and "another process is at work" in done.stderr, (words, done.output)


def test_preference_leaves_the_folders_of_runs_alone(own: Path) -> None:
    before = (own / "run" / "report.json").read_bytes()
    done = call("prefer", own / "AGENTS.md", "--output", own / "run")
    assert done.exit_code == EXIT_USAGE and "holds a run" in done.stderr, done.output
    assert (own / "run" / "report.json").read_bytes() == before


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema": "teachwhy.rules.plan/1"'])
def test_damaged_plan_is_said(own: Path, text: str) -> None:
    (own / "run" / "plan.json").write_text(text)
    done = again(own)
    assert done.exit_code == EXIT_USAGE and "remove plan.json" in " ".join(done.stderr.split()), done.output
    (own / "run" / "plan.json").unlink()
    assert again(own).exit_code == 0, "as the hint says"


@pytest.mark.parametrize(
    "change",
    [{"rules": []}, {"rules": {"a": [{"bare": 1}]}}, {"models": None}, {"settings": {}, "sha256": 1}, {"rules": {"a": []}}, {"file": None}],
)
def test_fix_says_that_a_plan_is_damaged(own: Path, change: dict[str, Any]) -> None:
    path = own / "run" / "plan.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match="damaged"):
        fix_rules(own / "run")


def test_cut_rows_are_said_and_asked_again(own: Path) -> None:
    (path,) = (own / "run" / "cells").glob("screen-*/outcomes.csv")
    text = path.read_text()
    for damaged in (text[: len(text) // 2], text[: text.rindex("\n", 0, -1) + 1], "", "\x00"):
        path.write_text(damaged)
        done = again(own)
        assert done.exit_code == EXIT_USAGE and "Remove the folder" in done.stderr, done.output
    shutil.rmtree(path.parent)
    assert again(own).exit_code == 0, "as the hint says"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"tokens": "a", "usd": 0}', '{"tokens": 1, "usd": NaN}', '{"tokens": -1, "usd": 0}', "null"]
)
def test_damaged_spending_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "spent.json").write_text(text)
    with pytest.raises(UserError, match="Remove it"):
        read_spent(tmp_path / "spent.json")


def test_nothing_else_stands_on_stdout(own: Path) -> None:
    (cell,) = (own / "run" / "cells").glob("screen-*")
    part = cell.rename(cell.with_name(cell.name + ".part"))
    (part / "card.json").unlink()  # as after a kill between the last step and the card
    words = [sys.executable, "-m", "teachwhy", "rules", "run", own / "AGENTS.md", "--model", MODEL, "--sessions", "40", "--yes"]
    done = subprocess.run([*words, "--output", own / "run", "--format", "json"], capture_output=True, check=True)
    assert json.loads(done.stdout)["schema"] == "teachwhy.rules.run/1"


def test_what_a_failed_call_may_have_taken_is_called_at_most(tmp_path: Path) -> None:
    cap = kept_cap(tmp_path / "spent.json", Cap().limits, None)

    async def answered() -> None:
        async with cap.call(10, 5) as made:
            assert read_spent(tmp_path / "spent.json").at_most, "nobody knows yet"
            made.took(None, kept=True)

    async def failed() -> None:
        async with cap.call(10, 5):
            raise RuntimeError

    asyncio.run(answered())
    assert cap.used == read_spent(tmp_path / "spent.json") == Spend() and not cap.used.at_most
    with pytest.raises(RuntimeError):
        asyncio.run(failed())
    assert cap.used == Spend(15) == read_spent(tmp_path / "spent.json")
    assert cap.used.at_most and read_spent(tmp_path / "spent.json").at_most
    part = tmp_path / "cells" / "a.part"
    part.mkdir(parents=True)
    (tmp_path / "spent.json").replace(part / "spent.json")
    assert spent_in(tmp_path / "cells").at_most


def test_page_says_at_most_how_long_an_interval_holds_and_no_p_of_nought(
    file: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = planned(file, "none=0.9,bare=0.3,filler=0.3,reason=0.3", sessions=40, stop="any")
    results = run_rules(plan, tmp_path / "run", budget=UNLIMITED, listen=silent)
    rows = read_rows(tmp_path / "run")
    page = render_rules(plan, results, rows, "again", MostSpend(7))
    assert "at most 7" in page and "at every moment at once" in page and "the look at which the run stopped" not in page
    monkeypatch.setattr("teachwhy.rules.page.over_models", lambda held: [OverModels("a", 2, 1e-9, 0.5, 0.25)])
    small = render_rules(plan, results, rows, "again", Spend(7))
    assert "&lt; 0.001" in small and "0.000" not in small
    assert "at most 7" not in render_rules(plan, results, rows, "again", Spend(7))


REFUSED = "BadRequestError(\"Error code: 400 - {'error': 'no such model'}\")"


@pytest.mark.parametrize(
    "said",
    [
        f'\nRequest:\n{{"messages": "a\\n\\nb"}}\n\n{REFUSED}',
        repr(RuntimeError(f'\nRequest:\n{{"messages": "a\\n\\nb"}}\n\n{REFUSED}')),
    ],
)
def test_cause_of_a_refused_call_is_shown_and_not_its_prompt(said: str) -> None:
    shown = first_error([said])
    assert "Error code: 400" in shown and "no such model" in shown and "messages" not in shown


def test_refused_calls_of_a_run_are_said_with_their_cause(file: Path, tmp_path: Path, server: Server) -> None:  # noqa: F811
    server.faults = [400] * 400
    done = call("run", file, "--model", "openai-api/here/a", "--yes", "--output", tmp_path / "run", env=server.surroundings())
    assert done.exit_code == EXIT_USAGE and "400" in done.stderr and "messages" not in done.stderr, done.output


def test_plan_of_another_schema_is_no_run(own: Path) -> None:
    (own / "run" / "plan.json").write_text('{"schema": "teachwhy.study.plan/1"}')
    assert again(own).exit_code == EXIT_USAGE
    assert plan_rules(own / "AGENTS.md", [MODEL], Settings()).rules
