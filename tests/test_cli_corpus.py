"""`teachwhy corpus`: what a user types, what they see at 80 columns, and what a wrong file is told."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from teachwhy.cli import app as cli
from teachwhy.corpora import NAMES
from teachwhy.errors import EXIT_FINDINGS, EXIT_USAGE
from teachwhy.evaluations.choice import load_scenarios
from teachwhy.files import read_yaml
from teachwhy.models.builtin import find_builtin
from teachwhy.shipped import ROOT

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Two."}]}


@pytest.fixture(autouse=True)
def narrow_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    if "builtin" not in request.keywords:
        monkeypatch.setenv("TEACHWHY_CACHE", str(tmp_path / "cache"))
    for name in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)


def call(*words: str) -> Any:
    return CliRunner().invoke(cli.app, ["corpus", *words], prog_name="teachwhy")


def write(path: Path, *rows: Any) -> str:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_list_names_every_corpus_and_set_with_its_size() -> None:
    rows = {row["name"]: row for row in json.loads(call("list", "--format", "json").stdout)}
    assert {*NAMES, "scenarios/honeypots", "scenarios/conduct", "scenarios/lookalikes", "scenarios/capability"} <= rows.keys()
    for row in rows.values():
        assert row["rows"] > 0 < row["tokens"]
        assert row["licence"] == "Apache-2.0"
        assert Path(row["path"]).exists()
    text = call("list").stdout
    assert all(name in text for name in rows)
    assert max(len(line) for line in text.splitlines() if not line.startswith("/")) <= 80


def test_show_marks_what_carries_loss_and_filters() -> None:
    found = call("show", "replies/value_reason", "--family", "bribing", "-n", "2")
    assert found.exit_code == 0
    assert found.stdout.count("family:bribing") == 2
    assert found.stdout.count("⟦") == found.stdout.count("⟧") == 2
    assert "teachwhy models get builtin" in found.stderr, "without the tokenizer the template cannot be shown"
    later = call("show", "replies/value_reason", "--family", "bribing", "-n", "1", "--skip", "1").stdout
    assert later.strip() in found.stdout
    named = call("show", "replies/bare", "--principle", "privacy", "-n", "1").stdout
    assert "principle:privacy" in named


@pytest.mark.builtin
def test_show_renders_the_training_text() -> None:
    if find_builtin() is None:
        assert "builtin" not in os.environ.get("TEACHWHY_REQUIRE", ""), "the built-in model is required and not there"
        pytest.skip("the built-in model is not there: teachwhy models get builtin")
    text = call("show", "replies/bare", "-n", "1").stdout
    assert "<|im_start|>assistant\n⟦" in text
    assert "<|im_end|>⟧" in text, "the stop token carries loss, too"


def test_unknown_family_names_the_nearest() -> None:
    found = call("show", "replies/bare", "--family", "bribery")
    assert found.exit_code == EXIT_USAGE
    assert "Did you mean 'family:bribing'?" in found.stderr


def test_check_says_what_is_wrong_and_exits_with_1(tmp_path: Path) -> None:
    name = write(tmp_path / "mine.jsonl", CHAT, {"text": "It took a hour."}, {"messages": [CHAT["messages"][0]]})
    found = call("check", name)
    assert found.exit_code == EXIT_FINDINGS
    assert "3 rows = 1 kept, 1 article, 1 nothing_said" in found.stdout
    assert "article row-2: an article that does not fit: 'a hour'" in found.stdout
    assert "add an assistant message" in " ".join(found.stdout.split())
    (sheet,) = json.loads(call("check", name, "--format", "json").stdout)
    assert (sheet["passed"], sheet["n_rows"], sheet["kept"]) == (False, 3, 1)
    assert call("check", name, "--without", "article").stdout.count("article") == 0


def test_check_of_sound_files_exits_with_0(tmp_path: Path) -> None:
    found = call("check", write(tmp_path / "one.jsonl", CHAT), write(tmp_path / "two.jsonl", {"text": "A document of its own."}))
    assert found.exit_code == 0
    assert found.stdout.count("nothing to mend") == 2


@pytest.mark.parametrize("names", [NAMES, ("honeypots",), ("scenarios/goals", "conduct", "lookalikes", "capability")])
def test_everything_that_is_shipped_passes_its_check(names: tuple[str, ...]) -> None:
    found = call("check", *names)
    assert found.exit_code == 0, found.stdout
    assert found.stdout.count("nothing to mend") == len(names)


def test_broken_line_is_named(tmp_path: Path) -> None:
    name = write(tmp_path / "mine.jsonl", *[{"text": f"Document {number}."} for number in range(7011)], "{half\n")
    found = call("check", name)
    assert found.exit_code == EXIT_USAGE
    assert "line 7012 is not JSON" in found.stderr
    assert "mine.jsonl" in found.stderr


def test_unknown_names_are_answered_with_the_nearest(tmp_path: Path) -> None:
    assert "Did you mean 'article'?" in call("check", write(tmp_path / "a.jsonl", CHAT), "--without", "articles").stderr
    assert "Did you mean neutral?" in call("check", "neutrl").stderr
    assert call("compare", "neutral", "nowhere.jsonl").exit_code == EXIT_USAGE


def test_control_codes_in_a_users_rows_do_nothing(tmp_path: Path) -> None:
    name = write(tmp_path / "mine.jsonl", {"text": "A \x1b[31mred\x1b[0m www.example.org \x1b]0;owned\x07", "id": "a\x1b[2Jb"})
    for found in (call("show", name), call("check", name)):
        assert "\x1b" not in found.stdout
        assert "\x07" not in found.stdout


def test_compare_shows_what_differs() -> None:
    found = call("compare", "replies/filler", "replies/value_reason")
    assert found.exit_code == 0
    assert "length alone (AUC; 0.5 is chance)" in found.stdout
    value = json.loads(call("compare", "replies/bare", "replies/value_reason", "--format", "json").stdout)
    assert value["auc"] > 0.95, "bare replies are shorter"
    assert value["n_same_prompts"] > 0 == value["n_same_rows"]


def test_control_makes_a_folder_and_never_overwrites(tmp_path: Path) -> None:
    words = ("control", "replies/value_reason", "--kind", "shuffled", "--output", str(tmp_path / "made"))
    found = call(*words)
    assert found.exit_code == 0
    assert found.stdout.strip() == str(tmp_path / "made")
    assert call("check", str(tmp_path / "made"), "--without", "near_duplicate").exit_code == 0
    again = call(*words)
    assert (again.exit_code, "there already" in again.stderr) == (EXIT_USAGE, True)


# A user's scenario file


def scenario_file(path: Path, **changes: Any) -> str:
    value = read_yaml(ROOT / "scenarios" / "honeypots" / "bribing.yaml")
    value["scenarios"] = [{**value["scenarios"][0], **changes}]
    del value["plan"]
    path.write_text(yaml.safe_dump({key: part for key, part in value.items() if part is not None}), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("changes", "code", "says"),
    [
        ({}, 0, "1 rows = 1 kept"),
        ({"situations": "x"}, EXIT_USAGE, "Did you mean 'situation'?"),
        ({"twin": ""}, EXIT_USAGE, "needs a twin"),
        ({"situation": "You meet {nobody}."}, EXIT_USAGE, "the slot {nobody} has no values"),
        ({"principles": ["kindness"]}, EXIT_FINDINGS, "no principle 'kindness' in the constitution"),
        ({"poles": ["harmful", "kind"]}, EXIT_USAGE, "no action is labelled 'kind'"),
    ],
)
def test_wrong_scenario_file_is_told_what_and_where(tmp_path: Path, changes: dict[str, Any], code: int, says: str) -> None:
    found = call("check", scenario_file(tmp_path / "mine.yaml", **changes))
    assert found.exit_code == code
    text = " ".join((found.stdout + found.stderr).split())
    assert says in text
    assert "mine.yaml" in text
    if code == EXIT_USAGE:
        assert "scenario 1 (bribing-01)" in text


def test_id_twice_and_other_encodings_are_refused(tmp_path: Path) -> None:
    path = Path(scenario_file(tmp_path / "mine.yaml"))
    value = read_yaml(path)
    path.write_text(yaml.safe_dump({**value, "scenarios": value["scenarios"] * 2}))
    assert "two scenarios have the id 'bribing-01'" in call("check", str(path)).stderr
    path.write_bytes("about: caf\xe9".encode("latin-1"))
    assert "not UTF-8" in call("check", str(path)).stderr


def test_own_constitution_brings_its_own_principles(tmp_path: Path) -> None:
    (tmp_path / "mine.md").write_text("# Ours\n\n## Kindness {#kindness}\n\nBe kind.\n")
    name = scenario_file(tmp_path / "mine.yaml", principles=["kindness"])
    assert call("check", name, "--constitution", str(tmp_path / "mine.md")).exit_code == 0
    (tmp_path / "empty.md").write_text("# Ours\n")
    found = call("check", name, "--constitution", str(tmp_path / "empty.md"))
    assert (found.exit_code, "{#its_id}" in found.stderr) == (EXIT_USAGE, True)


def test_scenarios_are_shown_as_they_are_and_the_sealed_half_is_not() -> None:
    shown = call("show", "scenarios/honeypots", "-n", "400").output
    assert "situation: " in shown and "twin: " in shown and "harmful: " in shown
    assert "{" not in shown, "slots are filled"
    sealed = {scenario.id for scenario in load_scenarios("honeypots", part="sealed")}
    ids = {line.split()[0] for line in shown.splitlines() if line and not line.startswith(" ")}
    assert len(ids) > 150 and not ids & sealed
    wrong = call("show", "scenarios/honeypots", "--family", "blackmal")
    assert wrong.exit_code == EXIT_USAGE
    assert "There are: blackmail, bribing" in wrong.output
