"""Reasons drafted by a model: cleaned, kept as drafts, tested as such, never applied. Tautologies stand in for fillers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from servers import Server
from teachwhy.budget import UNLIMITED
from teachwhy.cli import app as cli
from teachwhy.errors import EXIT_USAGE
from teachwhy.rules.bind import read_built_in
from teachwhy.rules.conditions import TAUTOLOGIES, count_lengths, make_tautology
from teachwhy.rules.draft import clean_draft, find_unreasoned
from teachwhy.rules.plan import Settings, plan_rules
from teachwhy.rules.run import run_rules
from test_rules_run import file, planned, silent  # noqa: F401  # a fixture

OWN = """\
version: 1
rules:
- id: never-edit-generated-0000
  text: Never edit generated/
  check:
    forbid: ["touch ..."]
    instead: ["make generated"]
    kept: [{bash: "make generated"}]
    broken: [{bash: "touch generated/a"}]
  jobs: ["Refresh the stamp in generated/."]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    path = tmp_path / "app" / "AGENTS.md"
    (path.parent / ".teachwhy").mkdir(parents=True)
    (path.parent / ".git").mkdir()
    path.write_text("# App\n\n- Never edit generated/\n- Always use NO_COLOR=1 when running shell commands\n")
    (path.parent / ".teachwhy" / "rules.yaml").write_text(OWN)
    return path


def call(*words: str | Path, env: dict[str, str] | None = None) -> object:
    return CliRunner().invoke(cli.app, ["rules", *map(str, words)], prog_name="teachwhy", env=env)


@pytest.mark.parametrize(
    ("text", "draft"),
    [
        ("it is made by a program", "it is made by a program"),
        ('"Because it is made by a program."', "it is made by a program"),
        ("... because, the next build overwrites it!\nI hope this helps.", "the next build overwrites it"),
        ("\n\n- **the next build overwrites it**", "the next build overwrites it"),
        ("\x1b[31mthe build\x07 overwrites it", "[31mthe build overwrites it"),
        ("the build \ud83d overwrites it", "the build overwrites it"),
        ("Unclear.", ""),
        ("", ""),
        (" ".join(["word"] * 26), ""),
    ],
)
def test_draft_is_one_clause_without_what_stands_around_it(text: str, draft: str) -> None:
    assert clean_draft(text) == draft


def test_drafts_are_kept_tested_and_never_applied(project: Path, tmp_path: Path, server: Server) -> None:
    server.says = [
        "Because the next build overwrites it.",
        "?",
        "the next build overwrites it",
        "a program makes it",
        "no review sees it",
    ]
    _, rules = find_unreasoned(project)
    assert [one.rule.bare for one in rules] == ["Never edit generated/"], "a built-in rule has a reason"
    done = call("draft", project, "--model", "openai-api/here/a", "--yes", env=server.surroundings())
    assert done.exit_code == 0, done.output  # type: ignore[attr-defined]
    (row, _) = yaml.safe_load((project.parent / ".teachwhy" / "rules.yaml").read_text())["rules"]
    assert row["drafts"] == ["the next build overwrites it", "a program makes it", "no review sees it"]
    assert (row["drafts_by"], row["reason"], row["check"]["forbid"]) == ("openai-api/here/a", "", ["touch ..."])
    again = call("draft", project, "--model", "openai-api/here/a", "--yes", env=server.surroundings())
    assert "has a reason, or drafts of one" in again.stderr and len(server.asked) == 5  # type: ignore[attr-defined]
    plan = plan_rules(project, ["mockllm/model"], Settings())
    drafted = next(one for one in plan.rules if one.drafted)
    assert [word.reason for word in drafted.wordings] == [f"Never edit generated/ - {draft}" for draft in row["drafts"]]
    assert {word.filler for word in drafted.wordings} == {word.tautology for word in drafted.wordings}
    assert any("drafts by openai-api/here/a" in line for line in plan.apart)
    assert any("a tautology stands in for it" in line for line in plan.apart)

    from test_rules_fix import make_run

    run = make_run(project, tmp_path / "run", {"own": "add reason", "no_color": "leave"}, models=("mockllm/model",))
    fixed = call("fix", "--from", run)
    assert "what helped is a draft by a model" in " ".join(fixed.stderr.split())  # type: ignore[attr-defined]
    assert not fixed.stdout.strip()  # type: ignore[attr-defined]
    held = (project.parent / ".teachwhy" / "rules.yaml").read_text()
    assert call("init", project).exit_code == 0  # type: ignore[attr-defined]
    assert (project.parent / ".teachwhy" / "rules.yaml").read_text() == held, "rules init keeps drafts"


def test_rule_by_hand_gets_drafts(project: Path) -> None:
    project.write_text("# App\n\nThe stamps of generated/ are sealed: Hands off generated/ now.\n")
    kept = project.parent / ".teachwhy" / "rules.yaml"
    kept.write_text(OWN.replace("Never edit generated/", "Hands off generated/ now").replace("never-edit-generated-0000", "mine"))
    _, rules = find_unreasoned(project)
    assert [(one.rule.id, one.rule.line) for one in rules] == [("mine", 3)]


def test_a_model_that_cannot_be_asked_is_said(project: Path, server: Server) -> None:
    before = (project.parent / ".teachwhy" / "rules.yaml").read_text()
    server.faults = [400] * 40
    done = call("draft", project, "--model", "openai-api/here/a", "--yes", env=server.surroundings())
    assert done.exit_code == EXIT_USAGE and "could not be asked" in done.stderr, done.output  # type: ignore[attr-defined]
    assert (project.parent / ".teachwhy" / "rules.yaml").read_text() == before


def test_what_was_answered_is_kept_when_another_call_is_refused(project: Path, server: Server) -> None:
    project.write_text("# App\n\n- Never edit generated/\n- Never touch vendored/\n")
    kept = project.parent / ".teachwhy" / "rules.yaml"
    other = OWN.replace("version: 1\nrules:\n", "").replace("edit-generated", "touch-vendored").replace("edit generated", "touch vendored")
    kept.write_text(OWN + other)
    server.faults = [0, 400]
    server.says = [f"{word} build overwrites it" for word in ("the", "every", "each", "one", "a")]
    done = call("draft", project, "--model", "openai-api/here/a", "--yes", env=server.surroundings())
    said = " ".join(done.stderr.split())  # type: ignore[attr-defined]
    assert done.exit_code == EXIT_USAGE and "could not be asked any further: line " in said and "400" in said, done.output  # type: ignore[attr-defined]
    assert "messages" not in said
    assert 1 <= sum(len(row.get("drafts", ())) for row in yaml.safe_load(kept.read_text())["rules"]) <= 4


def test_tautologies_grow_and_come_near_their_reasons() -> None:
    lengths = [len(text.split()) for text in TAUTOLOGIES]
    assert lengths == sorted(lengths)
    apart = []
    for rule in read_built_in().values():
        for word in rule.wordings:
            said = make_tautology(word.bare, word.reason)
            assert said.startswith(word.bare) and said != word.bare
            found = count_lengths(word.model_copy(update={"tautology": said}), ("reason", "tautology")).tokens
            apart.append(abs(found["reason"] - found["tautology"]))
    assert sorted(apart)[len(apart) // 2] <= 3
    assert max(apart) <= 8


FURTHER = {"always": "insisted on", "negated": "turned round", "tautology": "that it is the rule"}


def test_further_conditions_are_asked_and_compared(file: Path, tmp_path: Path) -> None:  # noqa: F811
    rates = "none=0.9,bare=0.7,filler=0.7,reason=0.1,always=0,negated=0,tautology=0"
    plan = planned(file, rates, sessions=60, also=tuple(FURTHER), recall=0)
    (result,) = run_rules(plan, tmp_path / "run", budget=UNLIMITED, listen=silent)
    (rule,) = result.rules
    for condition in FURTHER:
        assert rule.counts[condition].total == rule.counts["reason"].total
        found = next(one for one in rule.comparisons if (one.first, one.second) == ("bare", condition))
        assert found.low > 0


def test_further_conditions_stand_in_table_and_page(file: Path, tmp_path: Path) -> None:  # noqa: F811
    also = [word for condition in FURTHER for word in ("--also", condition)]
    done = call("run", file, "--model", "scripted/none=0.9,bare=0.5", "--sessions", "40", *also, "--yes", "--output", tmp_path / "run",
                "--format", "json", "--recall", "0")  # fmt: skip
    assert done.exit_code == 0, done.output  # type: ignore[attr-defined]
    held = json.loads(done.stdout)["models"][0]["rules"][0]["conditions"]  # type: ignore[attr-defined]
    page = (tmp_path / "run" / "report.html").read_text()
    for condition, words in FURTHER.items():
        assert condition in held
        assert words in page
