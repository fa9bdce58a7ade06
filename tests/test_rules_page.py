"""Sections about rules on a page of studies: what they say, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from teachwhy.cli import app as cli
from teachwhy.cli.report import _rules_sections
from teachwhy.errors import EXIT_USAGE
from teachwhy.report.page import render_page
from teachwhy.rules.page import preference_section, simulation_section


def preference(**parts: Any) -> dict[str, Any]:
    found = [{"first": "bare", "second": "none", "estimate": 3.2, "low": 1.0, "high": 5.4}]
    found.append({"first": "reason", "second": "bare", "estimate": -0.2, "low": None, "high": None})
    rule = {"text": "Use <b>uv</b>\x1b[1m", "n_histories": 3, "contrasts": found}
    return {"schema": "teachwhy.rules.preference/1", "says": "preference of builtin: 3 of 4 histories", "rules": [rule], **parts}


def simulated(reason: float) -> dict[str, Any]:
    numbers = {
        "power": 0.79,
        "coverage": 0.98,
        "mean_sessions_per_arm": 518.2,
        "max_sessions_per_arm": 781,
        "fixed_sessions_per_arm": 660.0,
    }
    about = {"bare": 0.04, "reason": reason, "repeats": 2000, "histories": 40, "seed": 0}
    return {"schema": "teachwhy.rules.simulate/1", **numbers, **about}


def test_preference_is_shown_with_its_n_and_called_no_rate() -> None:
    page = render_page("T", "", [preference_section(preference(), "rules-1")], "")
    for says in ("+3.20 (+1.00 to +5.40)", "−0.20", "This is a preference and no rate", "3 of 4 histories", "&lt;b&gt;uv"):
        assert says in page
    assert "\x1b" not in page


@pytest.mark.parametrize(("reason", "says"), [(0.015, "the difference is found"), (0.04, "a difference that is not there is found")])
def test_simulation_says_that_no_model_was_asked(reason: float, says: str) -> None:
    page = render_page("T", "", [simulation_section(simulated(reason), "rules-1")], "")
    assert says in page and "Planted rates, no model" in page and "79.0%" in page


def test_paths_are_told_apart_by_the_schema_of_their_json(tmp_path: Path) -> None:
    (tmp_path / "preference").mkdir()
    (tmp_path / "preference" / "report.json").write_text(json.dumps(preference()))
    (tmp_path / "simulate.json").write_text(json.dumps(simulated(0.04)))
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "report.json").write_text('{"schema": "teachwhy.report/1"}')
    paths = [tmp_path / name for name in ("study", "preference", "simulate.json", "nowhere")]
    assert [path.name for path, _ in _rules_sections(paths)] == ["preference", "simulate.json"]


def test_rules_alone_make_no_page_of_studies(tmp_path: Path) -> None:
    (tmp_path / "simulate.json").write_text(json.dumps(simulated(0.04)))
    found = CliRunner().invoke(cli.app, ["report", str(tmp_path / "simulate.json")], prog_name="teachwhy")
    assert found.exit_code == EXIT_USAGE
    assert "none of these is the run of a study" in found.stderr


@pytest.mark.parametrize("model", ["builtin", "teachwhy/builtin"])
def test_local_weights_judge_no_file(tmp_path: Path, model: str) -> None:
    (tmp_path / "AGENTS.md").write_text("- Always use NO_COLOR=1 when running shell commands\n")
    found = CliRunner().invoke(cli.app, ["rules", "run", str(tmp_path / "AGENTS.md"), "--model", model, "--yes"], prog_name="teachwhy")
    assert found.exit_code == EXIT_USAGE
    assert "too small to judge a file" in found.stderr and "teachwhy rules prefer" in found.stderr
