"""What readers of a run could be misled by: copies of a rule, other jobs in one folder, cut-off steps, histories that differ."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from inspect_ai.model import ChatCompletionChoice, ChatMessageAssistant, ModelOutput
from inspect_ai.tool import ToolCall
from typer.testing import CliRunner

from teachwhy.cli import app as cli
from teachwhy.errors import EXIT_USAGE, UserError
from teachwhy.rules.bind import Kept, KeptRule, bind_rules, draft_kept
from teachwhy.rules.plan import Settings, plan_rules
from teachwhy.rules.read import parse_rules
from teachwhy.rules.recall import names_rule
from teachwhy.rules.ruling import Counted, Z, compare, design_effect, rate_interval
from teachwhy.rules.run import found_apart
from test_rules_run import file  # noqa: F401  # a fixture

RULE = "Use pnpm, never npm or yarn"
OTHER = "Always use NO_COLOR=1 when running shell commands"


@pytest.mark.parametrize("copy", [RULE, RULE.upper(), f"{RULE}, in web/ too", f"{RULE} - for the lockfile"])
def test_a_rule_whose_words_stand_twice_is_left_out_and_the_others_go_on(tmp_path: Path, copy: str) -> None:
    path = tmp_path / "AGENTS.md"
    path.write_text(f"- {RULE}\n- {OTHER}\n\nAnd once more: {copy}.\n")
    plan = plan_rules(path, ["mockllm/model"], Settings())
    assert RULE not in [one.bound.rule.bare for one in plan.rules]
    assert OTHER in [one.bound.rule.bare for one in plan.rules]
    assert any("stand in the file a second time" in line for line in plan.left_out)


def test_other_jobs_are_another_run(tmp_path: Path) -> None:
    path = tmp_path / "AGENTS.md"
    path.write_text(f"- {OTHER}\n")
    kept = tmp_path / ".teachwhy" / "rules.yaml"
    kept.parent.mkdir()
    keys = []
    for more in ({"jobs": ["Run the tests."]}, {"jobs": ["Build it."]}, {"jobs": ["Build it."], "destructive": True}):
        rule = {"id": bind_rules(parse_rules(path.read_text()), Kept())[0].rule.id, "text": OTHER, **more}
        kept.write_text(yaml.safe_dump({"version": 1, "rules": [rule]}))
        keys.append(plan_rules(path, ["mockllm/model"], Settings()).key)
    assert len(set(keys)) == 3


def test_rules_init_keeps_what_cannot_be_undone() -> None:
    bound = bind_rules(parse_rules(f"- {RULE}"), Kept())
    held = Kept(rules=(KeptRule(id=bound[0].rule.id, text=RULE, destructive=True),))
    assert yaml.safe_load(draft_kept(bound, held))["rules"][0]["destructive"] is True


def test_drafts_that_say_nothing_or_the_same_are_dropped() -> None:
    assert KeptRule(id="a", text="b", drafts=("x y z", " ", "x y z ", "")).drafts == ("x y z",)


def test_a_model_named_twice_is_refused(file: Path) -> None:  # noqa: F811
    with pytest.raises(UserError, match="named twice"):
        plan_rules(file, ["mockllm/model", "mockllm/model"], Settings())


def test_a_scripted_model_is_not_asked_about_what_it_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "AGENTS.md"
    path.write_text("- Never run pip or pip3; use uv for everything in Python\n")
    done = CliRunner().invoke(cli.app, ["rules", "run", str(path), "--model", "scripted/bare=0.1", "--plan"], prog_name="teachwhy")
    assert done.exit_code == EXIT_USAGE
    assert "in their own words alone" in " ".join(done.stderr.split())


@pytest.mark.parametrize("verdict", ["kept", "broken"])
def test_cut_off_steps_are_missing_whatever_they_read_as(verdict: str) -> None:
    import asyncio

    from inspect_ai.model import ModelName
    from inspect_ai.scorer import Target
    from inspect_ai.solver import TaskState

    from teachwhy.rules.bind import read_built_in
    from teachwhy.rules.replay import rule_scorer

    command = {"kept": "NO_COLOR=1 make", "broken": "make"}[verdict]
    call = ToolCall(id="1", function="bash", arguments={"command": command})
    choice = ChatCompletionChoice(message=ChatMessageAssistant(content="", tool_calls=[call]), stop_reason="max_tokens")
    check = read_built_in()["no_color"].check.model_dump(exclude_defaults=True)
    output = ModelOutput(model="m", choices=[choice])
    state = TaskState(model=ModelName("mockllm/m"), sample_id=1, epoch=1, input="?", messages=[], output=output, metadata={"check": check})
    score = asyncio.run(rule_scorer()(state, Target("")))  # type: ignore[arg-type]
    assert score is not None and score.metadata is not None
    assert (score.answer, score.metadata["truncated"]) == (verdict, True)


@pytest.mark.parametrize(("rate", "spread"), [(0.05, 0.0), (0.05, 2.0), (0.10, 3.0), (0.3, 2.0)])
def test_a_rate_holds_where_histories_differ(rate: float, spread: float) -> None:
    rng = np.random.default_rng(5)
    middle = np.log(rate / (1 - rate))
    many = 1 / (1 + np.exp(-(middle + spread * rng.standard_normal(200_000))))
    held = []
    for _ in range(1500):
        chances = 1 / (1 + np.exp(-(middle + spread * rng.standard_normal(40))))
        counted = Counted(rng.binomial(10, chances).astype(float), np.full(40, 10.0), 400)
        found = rate_interval(counted, Z)
        held.append(found.low <= many.mean() <= found.high)
        assert design_effect(counted) >= 1
    assert np.mean(held) >= 0.89


@pytest.mark.parametrize("n_rules", [1, 7])
def test_many_rules_that_do_not_matter_seldom_make_a_model_fit(n_rules: int) -> None:
    """A/A of none and bare: the share of files in which some rule is told is 5 % and Monte Carlo error at most."""
    rng = np.random.default_rng(n_rules)
    told = []
    for _ in range(300):
        rules = []
        for _ in range(n_rules):
            counts = {name: Counted(rng.binomial(1, 0.5, 40).astype(float), np.ones(40), 40) for name in ("none", "bare")}
            rules.append(SimpleNamespace(comparisons=(compare(counts, "none", "bare", Z),)))
        told.append(any(found_apart(rule, n_rules) for rule in rules))  # type: ignore[arg-type]
    assert np.mean(told) <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / 300)


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ("Use npm scripts, never pnpm dlx", False),
        ("None: I used npm, pnpm is not relevant", False),
        ("- Use pnpm,\n  never npm or yarn", True),
        ("It says to use pnpm and never npm", True),
    ],
)
def test_words_in_another_order_name_no_rule(answer: str, named: bool) -> None:
    assert names_rule(answer, "Use pnpm, never npm") is named


def test_rules_in_other_scripts_can_be_named() -> None:
    assert names_rule("Правило: никогда не пиши в main без разрешения", "Никогда не пиши в main без разрешения")
