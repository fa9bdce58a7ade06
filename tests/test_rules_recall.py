"""Recall: a rule that was broken is named or not, at the very steps; nothing of it changes what was measured."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from teachwhy.budget import UNLIMITED
from teachwhy.rules.recall import ASK, count_recall, names_rule, read_recall_csv
from teachwhy.rules.results import results_json
from teachwhy.rules.run import choose_steps, read_rows, run_rules
from teachwhy.rules.schemas import make_schemas
from test_rules_run import file, planned, silent  # noqa: F401  # a fixture

BARE = "Always use NO_COLOR=1 when running shell commands"


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (f"1. {BARE}", True),
        ("- use NO_COLOR=1 for shell commands, always, when running them", True),
        ("The rule on NO_COLOR=1: it must be set when running shell commands.", True),
        ("NO_COLOR=1", False),
        ("None of them.", False),
        ("", False),
        ("Write small functions\nUse pnpm, never npm or yarn", False),
        ("Always use\nNO_COLOR=1\nwhen running\nshell\ncommands", False),
    ],
)
def test_a_rule_is_named_by_most_of_its_words_on_one_line(answer: str, named: bool) -> None:
    assert names_rule(answer, BARE) is named


def test_a_rule_of_function_words_alone_is_never_named() -> None:
    assert not names_rule("of it and to it", "of it and to it")


def recall_of(folder: Path) -> list[Path]:
    return sorted((folder / "cells").glob("recall-*/recall.csv"))


def test_planted_recall_is_counted_at_broken_and_at_kept_steps(file: Path, tmp_path: Path) -> None:  # noqa: F811
    plan = planned(file, "none=0.9,bare=0.4,filler=0.4,reason=0.1,recall=0.5", sessions=60)
    (result,) = run_rules(plan, tmp_path / "run", budget=UNLIMITED, listen=silent)
    (rule,) = result.rules
    bare, reason = rule.recalled["bare"], rule.recalled["reason"]
    assert (bare.broken, bare.kept) == (10, 10)
    assert 1 <= reason.broken == reason.kept <= 10
    assert 1 <= bare.broken_named <= 9, "half, by chance"
    (path,) = recall_of(tmp_path / "run")
    rows = read_recall_csv(path)
    assert count_recall(rows) == rule.recalled
    steps = {row.sample_id: row for row in read_rows(tmp_path / "run")}
    assert all(steps[row.sample_id].verdict == row.verdict and steps[row.sample_id].condition == row.condition for row in rows)


@pytest.mark.parametrize(("rate", "share"), [(0, 0.0), (1, 1.0)])
def test_all_or_none_is_named(file: Path, tmp_path: Path, rate: int, share: float) -> None:  # noqa: F811
    plan = planned(file, f"none=0.9,bare=0.4,filler=0.4,reason=0.4,recall={rate}", sessions=40)
    (result,) = run_rules(plan, tmp_path / "run", budget=UNLIMITED, listen=silent)
    for found in result.rules[0].recalled.values():
        assert (found.broken_named, found.kept_named) == (share * found.broken, share * found.kept)


def test_no_recall_is_asked_for_where_it_is_turned_off_or_nothing_broke(file: Path, tmp_path: Path) -> None:  # noqa: F811
    plan = planned(file, "none=0.9,bare=0.4,filler=0.4,reason=0.4", sessions=40, recall=0)
    (result,) = run_rules(plan, tmp_path / "off", budget=UNLIMITED, listen=silent)
    assert not result.rules[0].recalled and not recall_of(tmp_path / "off")
    assert not choose_steps(plan, read_rows(tmp_path / "off"), {plan.rules[0].id: 1})
    run_rules(planned(file, "none=0.9,bare=0", sessions=40), tmp_path / "held", budget=UNLIMITED, listen=silent)
    assert not recall_of(tmp_path / "held")


def test_what_a_compaction_dropped_is_broken_as_without_the_rule(file: Path, tmp_path: Path) -> None:  # noqa: F811
    plan = planned(file, "none=1,bare=0.2,filler=0,reason=0", sessions=40)
    (result,) = run_rules(plan, tmp_path / "run", budget=UNLIMITED, listen=silent)
    rows = [row for row in read_rows(tmp_path / "run") if row.stage == "dropped"]
    assert (len(rows), {row.stratum for row in rows}, {row.verdict for row in rows}) == (20, {"dropped"}, {"broken"})
    counts = result.rules[0].counts
    others = [row for row in read_rows(tmp_path / "run") if (row.stage, row.condition) == ("confirm", "bare")]
    assert counts["bare"].total == len(others), "they count for nothing else"


def test_report_is_of_its_schema(file: Path, tmp_path: Path) -> None:  # noqa: F811
    plan = planned(file, "none=0.9,bare=0.4,filler=0.4,reason=0.1", sessions=40)
    import json

    schema = json.loads(make_schemas()["rules.run.schema.json"])
    held = json.loads(json.dumps(results_json(plan, run_rules(plan, tmp_path / "run", budget=UNLIMITED, listen=silent))))
    jsonschema.validate(held, schema)
    del held["models"][0]["rules"][0]["recall"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(held, schema)
    assert ASK not in json.dumps(held)
