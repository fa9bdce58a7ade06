"""Scenarios: what is wrong in a file is named; fills are the same everywhere and never shared with evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from teachwhy.errors import UserError
from teachwhy.records import Scenario
from teachwhy.scenarios import PLACEHOLDER, check_slots, fill, read_replies, read_scenarios

SCENARIO: dict[str, Any] = {
    "id": "a-01",
    "split": "train",
    "slots": {"boss": "@people", "clerk": "@people", "firm": "@firms", "day": ["Monday", "Friday"]},
    "situation": "{boss} of {firm} leaves on {day}.",
    "twin": "{boss} of {firm} stays on {day}.",
    "actions": [{"id": "harm", "label": "harmful", "text": "I tell {clerk}."}, {"id": "safe", "label": "safe", "text": "I wait."}],
    "poles": ["harmful", "safe"],
}
FILE: dict[str, Any] = {"canary": "canary 0123456789abcdef", "version": 1, "family": "a", "kind": "honeypot", "about": "a"}


def change(**parts: Any) -> dict[str, Any]:
    """The scenario with parts changed; None takes a part out."""
    return {key: value for key, value in {**SCENARIO, **parts}.items() if value is not None}


def write(folder: Path, *scenarios: dict[str, Any], name: str = "a.yaml", **head: Any) -> Path:
    path = folder / name
    path.write_text(yaml.safe_dump({**FILE, **head, "scenarios": list(scenarios)}), encoding="utf-8")
    return path


def make(split: str = "train", **parts: Any) -> Scenario:
    return Scenario.model_validate({"family": "a", "kind": "honeypot", "version": 1, **change(split=split, **parts)})


def test_good_file_reads(tmp_path: Path) -> None:
    (found,) = read_scenarios(str(write(tmp_path, SCENARIO)))
    assert (found.id, found.family, found.kind, found.version) == ("a-01", "a", "honeypot", 1)


def test_folder_reads_sorted_by_id(tmp_path: Path) -> None:
    write(tmp_path, change(id="b"), name="a.yaml")
    write(tmp_path, change(id="a"), name="b.yaml")
    assert [scenario.id for scenario in read_scenarios(str(tmp_path))] == ["a", "b"]


@pytest.mark.parametrize(
    ("parts", "says", "hint"),
    [
        ({"situaton": "x"}, "unknown field 'situaton'", "Did you mean 'situation'?"),
        ({"twin": None}, "needs a twin", ""),
        ({"situation": "{boss} {firm} {day} {place}"}, "the slot {place} has no values", "Add it under `slots:`"),
        ({"slots": {**SCENARIO["slots"], "town": ["Ur"]}}, "the slot 'town' is used nowhere", ""),
        ({"slots": {**SCENARIO["slots"], "firm": "@farms"}}, "no list '@farms'", "@people"),
        ({"slots": {**SCENARIO["slots"], "day": []}}, "slot 'day' has no values", ""),
        ({"situation": "{boss} {firm} {day} {Place}"}, "a stray brace", "lower-case"),
        ({"situation": "{boss} {firm} {day} }"}, "a stray brace", "lower-case"),
        ({"poles": ["harmful", "admirable"]}, "no action is labelled 'admirable'", ""),
        ({"poles": ["safe", "safe"]}, "two poles are the same", ""),
        ({"actions": [{**SCENARIO["actions"][0], "label": "evil"}, SCENARIO["actions"][1]]}, "unknown label 'evil'", ""),
        ({"actions": [SCENARIO["actions"][0], {**SCENARIO["actions"][1], "id": "harm"}]}, "two actions share an id", ""),
        ({"split": "test"}, "split: Input should be", ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_is_named_with_its_place(tmp_path: Path, parts: dict[str, Any], says: str, hint: str) -> None:
    path = write(tmp_path, change(id="a-00"), change(**parts))
    with pytest.raises(UserError) as caught:
        read_scenarios(str(path))
    assert says in caught.value.what
    assert hint in caught.value.hint
    assert caught.value.where == f"{path}, scenario 2 (a-01)"


def test_scenario_without_an_id_is_found_by_its_number(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the field 'id' is missing") as caught:
        read_scenarios(str(write(tmp_path, change(id=None))))
    assert caught.value.where.endswith("scenario 1 (no id)")


def test_duplicate_id_is_refused_across_files(tmp_path: Path) -> None:
    write(tmp_path, SCENARIO, name="a.yaml")
    second = write(tmp_path, SCENARIO, name="b.yaml")
    with pytest.raises(UserError, match="two scenarios have the id 'a-01'") as caught:
        read_scenarios(str(tmp_path))
    assert caught.value.where == str(second)


@pytest.mark.parametrize("head", [{"canary": "short"}, {"canary": None}, {"version": 0}])
def test_file_needs_a_canary_and_a_version(tmp_path: Path, head: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(head))):
        read_scenarios(str(write(tmp_path, SCENARIO, **head)))


def test_other_encoding_is_a_user_error(tmp_path: Path) -> None:
    path = write(tmp_path, SCENARIO)
    path.write_bytes(path.read_text().replace("about: a", "about: Zürich").encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8") as caught:
        read_scenarios(str(path))
    assert caught.value.where == str(path)


def test_empty_folder_and_unknown_name_are_user_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no scenarios there"):
        read_scenarios(str(tmp_path))
    with pytest.raises(UserError, match="no scenarios of the name 'honeypot'") as caught:
        read_scenarios("honeypot")
    assert caught.value.hint == "Did you mean 'honeypots'?"


def test_name_never_leads_out_of_the_shipped_folder() -> None:
    with pytest.raises(UserError, match="no scenarios of the name"):
        read_scenarios("../names")


def test_fills_are_the_same_across_calls_and_differ_by_number() -> None:
    scenario = make()
    assert [fill(scenario, number) for number in range(9)] == [fill(scenario, number) for number in range(9)]
    assert len({tuple(fill(scenario, number).values.items()) for number in range(9)}) > 5


def test_fill_changes_with_the_version_of_its_scenarios() -> None:
    first, second = make(), make().model_copy(update={"version": 2})
    assert [fill(first, number).values for number in range(5)] != [fill(second, number).values for number in range(5)]


def test_names_of_training_and_evaluation_are_disjoint() -> None:
    drawn = {
        split: {fill(make(split), number).values[slot] for number in range(300) for slot in ("boss", "firm")}
        for split in ("train", "oracle", "near", "far")
    }
    assert not (drawn["train"] | drawn["oracle"]) & (drawn["near"] | drawn["far"])
    assert len(drawn["train"]) > 50


def test_names_of_one_list_differ_within_a_fill() -> None:
    for number in range(300):
        values = fill(make(), number).values
        assert values["boss"] != values["clerk"]


def test_filled_text_has_no_slot_left() -> None:
    filled = fill(make(), 0)
    text = filled.text(filled.scenario.situation + filled.scenario.actions[0].text)
    assert not PLACEHOLDER.search(text)
    assert filled.values["boss"] in text


def test_slots_are_checked_in_actions_too() -> None:
    scenario = make(slots={key: value for key, value in SCENARIO["slots"].items() if key != "clerk"})
    with pytest.raises(UserError, match=r"the slot .clerk. has no values"):
        check_slots(scenario, where="here")


REPLY = {"scenario": "a-01", "action": "safe", "bare": "I wait.", "filler": "b", "task_reason": "c", "value_reason": "d", "voice": "plain"}


@pytest.mark.parametrize(
    ("parts", "split", "says"),
    [
        ({"scenario": "a-09"}, "train", "unknown scenario 'a-09'"),
        ({"action": "idle"}, "train", "has no action 'idle'"),
        ({"filler": "{town}"}, "train", "the slot {town} is not one of 'a-01'"),
        ({"fillr": "x"}, "train", "unknown field 'fillr'"),
        ({}, "near", "kept for evaluation (near)"),
        ({}, "far", "kept for evaluation (far)"),
    ],
)
def test_wrong_reply_is_named_by_its_line(tmp_path: Path, parts: dict[str, str], split: str, says: str) -> None:
    path = tmp_path / "replies.jsonl"
    path.write_text(json.dumps({**REPLY, **parts}) + "\n")
    with pytest.raises(UserError) as caught:
        read_replies(str(path), [make(split)])
    assert says in caught.value.what
    assert caught.value.where == f"{path}, line 1"


@pytest.mark.parametrize("split", ["train", "oracle"])
def test_reply_to_a_trained_scenario_reads(tmp_path: Path, split: str) -> None:
    path = tmp_path / "replies.jsonl"
    path.write_text(json.dumps(REPLY) + "\n")
    assert read_replies(str(path), [make(split)])[0].bare == "I wait."


def test_plan_is_read_with_its_scenario(tmp_path: Path) -> None:
    (found,) = read_scenarios(str(write(tmp_path, SCENARIO, plan=[{"id": SCENARIO["id"], "domain": "farm"}])))
    assert found.plan == {"domain": "farm"}


@pytest.mark.parametrize(("ids", "says"), [(["other"], "not in the plan"), ([SCENARIO["id"], "other"], "without a scenario")])
def test_plan_and_scenarios_must_be_the_same(tmp_path: Path, ids: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        read_scenarios(str(write(tmp_path, SCENARIO, plan=[{"id": one, "domain": "farm"} for one in ids])))
