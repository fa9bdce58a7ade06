"""The command line: fast, lazy, errors for people, exit codes, no key ever shown."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from teachwhy import __version__
from teachwhy.cli import app as cli
from teachwhy.cli import doctor
from teachwhy.errors import EXIT_CAP, EXIT_FINDINGS, EXIT_INTERRUPTED, EXIT_USAGE, MissingExtra, UserError

HEAVY = set(
    "accelerate altair anthropic inspect_ai jinja2 numpy openai peft pydantic scipy statsmodels torch transformers yaml".split()  # noqa: SIM905
)
MAX_HELP_SECONDS = 0.3
MAX_HELP_MODULES = 550


@pytest.fixture(autouse=True)
def narrow_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    if "builtin" not in request.keywords:
        monkeypatch.setenv("TEACHWHY_CACHE", str(tmp_path / "cache"))
    for name in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)


def call(*words: str) -> Any:
    return CliRunner().invoke(cli.app, words, prog_name="teachwhy")


def call_process(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "teachwhy", *words]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)


@pytest.fixture
def add_noun(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Put a noun `probe` into the table, which calls the function given."""

    def add(function: Callable[[], None]) -> None:
        module = types.ModuleType("probe_noun")
        module.probe = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "probe_noun", module)
        monkeypatch.setitem(cli.NOUNS, "probe", cli.Noun("For tests.", "probe_noun"))

    return add


COUNT = """
import os, sys
sys.argv = ["teachwhy", "--help"]
from teachwhy.cli import main
try:
    main()
except SystemExit as error:
    assert not error.code
used = os.times()
print(used.user + used.system, *sys.modules, file=sys.stderr)
"""


def test_help_is_fast_and_imports_nothing_heavy() -> None:
    runs = [subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=True).stderr.split() for _ in range(4)]
    modules = {name.split(".")[0] for name in runs[0][1:]}
    assert not modules & HEAVY
    assert not {name for name in runs[0] if name.startswith("teachwhy.")} - {"teachwhy.cli", "teachwhy.cli.app", "teachwhy.errors"}
    assert len(runs[0]) < MAX_HELP_MODULES
    assert min(float(run[0]) for run in runs) < MAX_HELP_SECONDS  # CPU seconds, so that a busy machine does not fail it


def test_version_is_printed_on_stdout() -> None:
    found = call("--version")
    assert (found.exit_code, found.stdout) == (0, f"teachwhy {__version__}\n")


def test_module_and_script_are_the_same() -> None:
    assert call_process("--version").stdout == f"teachwhy {__version__}\n"


def test_help_lists_every_noun_with_its_line() -> None:
    text = " ".join(call("--help").stdout.replace("│", " ").split())
    for name, noun in cli.NOUNS.items():
        assert f"{name} {noun.help}" in text


@pytest.mark.parametrize("name", cli.NOUNS)
def test_every_noun_loads_and_fits_80_columns(name: str) -> None:
    found = call(name, "--help")
    assert found.exit_code == 0, found.output
    assert f"Usage: teachwhy {name}" in found.stdout
    assert max(map(len, found.stdout.splitlines())) <= 80


def test_misspelt_noun_names_the_nearest() -> None:
    found = call("modles")
    assert found.exit_code == EXIT_USAGE
    assert "'models'" in found.stderr
    assert found.stdout == ""


@pytest.mark.parametrize(("typed", "completed"), [("teachwhy do", "doctor"), ("teachwhy models g", "get")])
def test_shell_completion_knows_nouns_and_verbs(typed: str, completed: str) -> None:
    found = call_process(_TEACHWHY_COMPLETE="complete_bash", COMP_WORDS=typed, COMP_CWORD=str(typed.count(" ")))
    assert completed in found.stdout.split()


def test_user_error_says_what_where_and_what_next(add_noun: Any) -> None:
    def fail() -> None:
        raise UserError("no such file", where="study.yaml", hint="Type: teachwhy doctor")

    add_noun(fail)
    found = call("probe")
    assert found.exit_code == EXIT_USAGE
    assert found.stdout == ""
    assert found.stderr == "Error: no such file\n  in study.yaml\n  Type: teachwhy doctor\n"


def test_markup_and_control_codes_in_an_error_do_nothing(add_noun: Any) -> None:
    def fail() -> None:
        raise UserError("[red]bad[/nothing] \x1b[31mred\x1b]0;title\x07 \x9b2J\u202egnp\x00\r", where="[link=x]y")

    add_noun(fail)
    found = call("probe")
    assert found.exit_code == EXIT_USAGE
    assert found.stderr == "Error: [red]bad[/nothing] red 2Jgnp\n  in [link=x]y\n"


def test_missing_extra_prints_the_command_unchanged(add_noun: Any) -> None:
    def fail() -> None:
        raise MissingExtra("training needs torch, which is not installed")

    add_noun(fail)
    assert 'pip install "teachwhy[train]"' in call("probe").stderr


def test_ctrl_c_is_one_line_and_130(add_noun: Any) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    add_noun(stop)
    found = call("probe")
    assert found.exit_code == EXIT_INTERRUPTED
    assert found.stderr.count("\n") == 1


def test_being_asked_to_end_is_a_ctrl_c(add_noun: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def stop() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    add_noun(stop)
    found = call("probe")
    assert found.exit_code == EXIT_INTERRUPTED
    assert "type the same command to go on" in found.stderr
    assert signal.getsignal(signal.SIGTERM) == before


def test_bug_keeps_its_traceback(add_noun: Any) -> None:
    def fail() -> None:
        raise ZeroDivisionError("a bug")

    add_noun(fail)
    found = call("probe")
    assert isinstance(found.exception, ZeroDivisionError)


@pytest.mark.parametrize("code", [EXIT_FINDINGS, EXIT_CAP])
def test_exit_code_of_a_command_comes_through(add_noun: Any, code: int) -> None:
    import typer

    def end() -> None:
        raise typer.Exit(code)

    add_noun(end)
    assert call("probe").exit_code == code


def test_models_list_says_name_size_state_and_place(tmp_path: Path) -> None:
    text = call("models", "list").stdout
    assert all(word in text for word in ("builtin", "541 MB", "missing", "teachwhy models get builtin", "not comparable"))
    assert max(map(len, text.splitlines())) <= 80
    (row,) = json.loads(call("models", "list", "--format", "json").stdout)
    assert row["state"] == "missing"
    assert Path(row["where"]).is_relative_to(tmp_path / "cache")


def test_unknown_model_is_a_user_error() -> None:
    found = call("models", "get", "gpt")
    assert found.exit_code == EXIT_USAGE
    assert "Type: teachwhy models get builtin" in found.stderr


@pytest.mark.builtin
def test_fetching_a_model_that_is_there_prints_its_folder() -> None:
    from teachwhy.models import builtin

    folder = builtin.find_builtin()
    if folder is None:
        assert "builtin" not in os.environ.get("TEACHWHY_REQUIRE", ""), "the built-in model is required and not there"
        pytest.skip("the built-in model is not there: teachwhy models get builtin")
    found = call("models", "get", "builtin")
    assert (found.exit_code, found.stdout, found.stderr) == (0, f"{folder}\n", "")


@pytest.mark.parametrize("form", ["table", "json"])
def test_doctor_never_shows_a_key(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-value")
    found = call("doctor", "--format", form)
    assert found.exit_code == 0, found.output
    assert "secret" not in found.output
    assert "OPENAI_API_KEY" in found.stdout


def test_doctor_fits_80_columns_and_says_what_to_type() -> None:
    text = call("doctor").stdout
    assert max(map(len, text.splitlines())) <= 80
    assert "Type: teachwhy models get builtin" in text


def test_doctor_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "list_libraries", lambda: {"core": {"numpy": "2.4.6"}, "train": {"torch": None, "peft": "0.21"}})
    monkeypatch.setenv("ANTHROPIC_API_KEY", "x")
    found = json.loads(call("doctor", "--format", "json").stdout)
    assert [step["type"] for step in found["todo"]] == ['pip install "teachwhy[train]"', "teachwhy models get builtin"]
    assert "torch" in found["todo"][0]["what"]
    assert "peft" not in found["todo"][0]["what"]


def test_doctor_measures_this_machine() -> None:
    machine = doctor.examine()["machine"]
    assert machine["cores"] >= 1
    assert machine["memory_gb"] is None or machine["memory_gb"] > 0.1
    assert machine["disk_free_gb"] > 0
    assert machine["bf16"] in (True, False, None)


def test_libraries_are_read_from_the_packages_own_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    required = ["numpy<3,>=2", 'torch<3,>=2.6; extra == "train"', "types-PyYAML; extra == 'dev'", "no-such-library>=1"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda name: required)
    found = doctor.list_libraries()
    assert list(found) == ["core", "train", "dev"]
    assert list(found["core"]) == ["numpy", "no-such-library"]
    assert found["core"]["no-such-library"] is None
