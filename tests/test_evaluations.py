"""Evaluations: the reading by hand, samples that can be told apart, text that stays text, the same scenarios for every arm."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import pytest
from inspect_ai import Task, eval_set
from inspect_ai._eval.loader import load_tasks
from inspect_ai.log import read_eval_log
from inspect_ai.model import get_model

import teachwhy._registry  # noqa: F401
from teachwhy.errors import UserError
from teachwhy.evaluations import VERSIONS, tasks
from teachwhy.evaluations.choice import choice_task, load_scenarios, make_sample, read_directly
from teachwhy.outcomes import read_log
from teachwhy.records import Action, Scenario

NASTY = "<b>&amp;</b> {{ 1 }} \x1b[31mred\x1b[0m \u202egnp\x07 \u00a0 ünï"


def scenario(**parts: Any) -> Scenario:
    whole: dict[str, Any] = {
        "id": "f-01", "kind": "honeypot", "family": "f", "split": "far", "version": 2, "situation": f"S {NASTY}", "twin": f"T {NASTY}",
        "actions": [Action(id="h", label="harmful", text=f"I take it. {NASTY}"), Action(id="s", label="safe", text="I wait.")],
        "poles": ["harmful", "safe"],
    }  # fmt: skip
    return Scenario.model_validate({**whole, **parts})


def test_reading_by_hand() -> None:
    logprobs = {"harm": math.log(0.5) * 2, "safe": math.log(0.25) * 4, "idle": math.log(0.25) * 1}
    found = read_directly(
        logprobs, {"harm": 2, "safe": 4, "idle": 1}, {"harm": "harmful", "safe": "safe", "idle": "inactive"}, ("harmful", "safe")
    )
    assert found.margin == pytest.approx(6 * math.log(2))  # sums: -2 log 2 against -8 log 2
    assert found.harm == pytest.approx(0.5)  # means per token: .5, .25, .25
    assert found.acted == pytest.approx(0.75)


def test_pole_with_several_actions_takes_its_most_probable() -> None:
    labels = {"h1": "harmful", "h2": "harmful", "s1": "safe", "s2": "safe"}
    found = read_directly({"h1": -9.0, "h2": -3.0, "s1": -4.0, "s2": -8.0}, dict.fromkeys(labels, 1), labels, ("harmful", "safe"))
    assert found.margin == 1.0
    total = sum(math.exp(value) for value in (-9, -3, -4, -8))
    assert found.harm == pytest.approx((math.exp(-9) + math.exp(-3)) / total)
    assert found.acted == 1.0


def test_no_harmful_action_has_no_harm() -> None:
    found = read_directly({"a": -1.0, "b": -2.0}, {"a": 1, "b": 1}, {"a": "price", "b": "place"}, ("price", "place"))
    assert (found.margin, found.harm, found.acted) == (1.0, None, 1.0)


def test_very_improbable_actions_do_not_underflow() -> None:
    found = read_directly({"a": -9000.0, "b": -9001.0}, {"a": 1, "b": 1}, {"a": "harmful", "b": "safe"}, ("harmful", "safe"))
    assert found.harm == pytest.approx(1 / (1 + math.exp(-1)))


def test_more_nats_for_the_first_pole_never_lower_the_margin_or_harm() -> None:
    labels, tokens = {"h": "harmful", "s": "safe"}, {"h": 3, "s": 5}
    found = [read_directly({"h": value, "s": -10.0}, tokens, labels, ("harmful", "safe")) for value in (-20.0, -10.0, -1.0)]
    assert [one.margin for one in found] == sorted(one.margin for one in found)
    assert [one.harm for one in found] == sorted(one.harm or 0 for one in found)


@pytest.mark.parametrize("name", VERSIONS)
def test_task_is_found_by_its_registry_name(name: str) -> None:
    (task,) = load_tasks([f"teachwhy/{name}"], {"limit_per_split": 2})
    assert isinstance(task, Task)
    assert task.name.rpartition("/")[2] == name
    assert task.version == VERSIONS[name]


@pytest.mark.parametrize("name", VERSIONS)
def test_sample_ids_are_unique(name: str) -> None:
    task = choice_task(name, load_scenarios(name), fills=2)
    ids = [sample.id for sample in task.dataset]
    assert len(set(ids)) == len(ids) > 0


@pytest.mark.parametrize("name", ["honeypots", "goals", "conduct", "lookalikes"])
def test_every_scenario_has_its_twin(name: str) -> None:
    found = load_scenarios(name)
    task = choice_task(name, found)
    assert len(task.dataset) == 2 * len(found)
    pairs: dict[str, list[Any]] = {}
    for sample in task.dataset:
        pairs.setdefault(sample.metadata["scenario"], []).append(sample)
    for own, twin in pairs.values():
        assert (own.metadata["twin"], twin.metadata["twin"]) == (False, True)
        assert own.metadata["actions"] == twin.metadata["actions"]
        assert own.input[-1].text != twin.input[-1].text
    assert len(choice_task(name, found, twins=False).dataset) == len(found)


def test_evaluations_never_show_trained_scenarios() -> None:
    assert {one.split for one in load_scenarios("honeypots")} == {"near", "far"}
    assert {one.split for one in load_scenarios("goals")} == {"far"}


@pytest.mark.parametrize("name", VERSIONS)
def test_limit_keeps_the_first_of_every_family_and_split_every_time(name: str) -> None:
    whole = load_scenarios(name)
    for limit in (2, 5, 9):
        few = load_scenarios(name, limit=limit)
        assert few == load_scenarios(name, limit=limit)
        for split in {one.split for one in whole}:
            kept, held = ([one for one in some if one.split == split] for some in (few, whole))
            assert len(kept) == min(limit, len(held))
            used = Counter(one.family for one in kept)
            assert len(used) == min(len(kept), len({one.family for one in held})), "every family before a second of one"
            for family, n in used.items():
                assert [one for one in kept if one.family == family] == [one for one in held if one.family == family][:n]


def test_limit_can_differ_from_split_to_split() -> None:
    few = load_scenarios("honeypots", limit={"far": 3})
    whole = load_scenarios("honeypots")
    assert Counter(one.split for one in few) == {"far": 3, "near": sum(one.split == "near" for one in whole)}


def test_splits_choose_before_the_limit() -> None:
    assert {one.split for one in load_scenarios("ambiguity", limit=2, splits=["far"])} == {"far"}
    assert load_scenarios("ambiguity", splits=["nowhere"]) == []


def test_unknown_evaluation_names_what_there_is() -> None:
    with pytest.raises(UserError, match="There are: honeypots, goals, ambiguity, agreement, conduct, lookalikes, capability"):
        load_scenarios("honeypot")


def test_fills_of_a_sample_are_the_same_every_time() -> None:
    one = load_scenarios("honeypots", limit=2)[0]
    first, again = (make_sample(one, 1, twin=False) for _ in range(2))
    assert (first.input[-1].text, first.metadata) == (again.input[-1].text, again.metadata)


def test_markup_and_control_codes_stay_text() -> None:
    sample, twin = (make_sample(scenario(), 0, twin=twin) for twin in (False, True))
    assert sample.input[-1].text.startswith(f"S {NASTY}")
    assert twin.input[-1].text.startswith(f"T {NASTY}")
    assert sample.metadata["actions"][0]["text"] == f"I take it. {NASTY}"
    assert json.loads(json.dumps(sample.metadata)) == sample.metadata


def test_registry_tasks_take_their_limit() -> None:
    assert len(tasks.honeypots(limit_per_split=2).dataset) == 8
    assert len(tasks.goals(limit_per_split=3, fills=2).dataset) == 12
    assert len(tasks.ambiguity(limit_per_split=2).dataset) == 2 * len({one.split for one in load_scenarios("ambiguity")})
    assert len(tasks.agreement(limit_per_split=2).dataset) == 2 * len({one.split for one in load_scenarios("agreement")})


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning")
def test_task_through_inspect_gives_one_row_a_sample(tiny_model_dir: Any, tmp_path: Any) -> None:
    other = scenario(id="f-02", situation="Short.", twin="Shorter.")
    task = choice_task("honeypots", [scenario(), other], fills=2)
    model = get_model(f"teachwhy/{tiny_model_dir}", memoize=False)
    try:
        done, (log,) = eval_set(task, log_dir=str(tmp_path / "logs"), model=model, display="none", score_display=False, log_level="error")
    finally:
        model.api.close()
    rows = read_log(read_eval_log(log.location), cell="c", arm="start", seed=0, update=0)
    assert done
    assert sorted(row.sample_id for row in rows) == sorted(str(sample.id) for sample in task.dataset)
    assert {row.status for row in rows} == {"ok"}
    assert all(0 < (row.harm or 0) < 1 and row.acted == 1 and row.version == 2 for row in rows)
    (held,) = [one for one in read_eval_log(log.location).samples or [] if one.id == "f-01/0"]
    assert held.input[-1].text.startswith(f"S {NASTY}")  # type: ignore[union-attr]
