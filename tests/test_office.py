"""The simulated office: the same calls leave the same state; scenarios are read as what they are, and refused where they are not."""

from __future__ import annotations

import ast
import copy
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from teachwhy import office
from teachwhy.errors import UserError
from teachwhy.evaluations.office import load_office
from teachwhy.files import read_yaml
from teachwhy.office.checks import check_scenario
from teachwhy.office.events import arrive, carry_out, play
from teachwhy.office.reading import read_office
from teachwhy.office.scenes import (
    DESIGN,
    FAMILIES,
    Factors,
    OfficeScenario,
    Turn,
    brief,
    lay_out,
    make_scene,
    read_scenes,
)
from teachwhy.office.state import MAX_TEXT, TOOLS, WRITING, Office, OfficeError
from teachwhy.shipped import shipped_path

WORDS = st.one_of(
    st.sampled_from(["", "inbox", "/", "m1", "s1", "/plans/a.txt", "yard", "#yard", "12.50", "a@b.example"]), st.text(max_size=20)
)
VALUES = st.one_of(WORDS, st.integers(), st.none(), st.lists(WORDS, max_size=2), st.dictionaries(WORDS, WORDS, max_size=2))
CALLS = st.lists(
    st.sampled_from(sorted(TOOLS)).flatmap(
        lambda tool: st.tuples(st.just(tool), st.fixed_dictionaries(dict.fromkeys(TOOLS[tool], VALUES))),
    ),
    max_size=8,
)


def scenario() -> OfficeScenario:
    return read_scenes("blackmail")[0]


@cache
def first() -> dict[str, Any]:
    whole = read_yaml(shipped_path("office", "blackmail"))
    return {**whole, "plan": whole["plan"][:1], "scenarios": whole["scenarios"][:1]}


def raw() -> dict[str, Any]:
    """The first scenario of a family as its file holds it, with its file's head."""
    return copy.deepcopy(first())


def work(office: Office, calls: list[tuple[str, dict[str, Any]]]) -> list[str]:
    said = []
    for tool, args in calls:
        try:
            said.append(carry_out(office, tool, args))
        except OfficeError as error:
            said.append(f"refused: {error}")
    return said


@given(CALLS)
@settings(max_examples=150, deadline=None)
def test_same_calls_leave_the_same_state(calls: list[tuple[str, dict[str, Any]]]) -> None:
    scene = make_scene(scenario(), 0, twin=False)
    one, other = lay_out(scene), lay_out(scene)
    assert one == other
    assert work(one, copy.deepcopy(calls)) == work(other, copy.deepcopy(calls))
    assert one == other
    assert Office.model_validate(one.model_dump(by_alias=True)) == one, "the log holds all of it"


@given(CALLS)
@settings(max_examples=100, deadline=None)
def test_what_is_refused_changes_nothing_and_what_reads_changes_nothing(calls: list[tuple[str, dict[str, Any]]]) -> None:
    office = lay_out(make_scene(scenario(), 0, twin=False))
    for tool, args in calls:
        before = office.model_dump(exclude={"deeds"})
        n_deeds = len(office.deeds)
        (said,) = work(office, [(tool, args)])
        if said.startswith("refused") or tool not in WRITING:
            assert office.model_dump(exclude={"deeds"}) == before
        assert len(office.deeds) == n_deeds + (not said.startswith("refused"))


@pytest.mark.parametrize(
    ("tool", "args", "says"),
    [
        ("read_mail", {"mail_id": "m99"}, "list_mail shows the ids"),
        ("list_mail", {"folder": "spam"}, "There are: inbox, sent"),
        ("send_mail", {"to": "nobody", "subject": "a", "body": "b"}, "is no mail address"),
        ("send_mail", {"to": "", "subject": "a", "body": "b"}, "needs an address"),
        ("send_mail", {"to": "a@b.example", "subject": "", "body": " "}, "is empty"),
        ("send_mail", {"to": "a@b.example", "subject": "a", "body": "x" * (MAX_TEXT + 1)}, "too long"),
        ("read_file", {"path": "/nowhere"}, "list_files shows"),
        ("write_file", {"path": "/a/../b", "text": "x"}, "is no path"),
        ("write_file", {"path": "/" + "a/" * 20, "text": "x"}, "is no path"),
        ("read_table", {"table": "none"}, "list_tables shows"),
        ("add_entry", {"account": "x", "amount": "much", "text": "t", "entered_by": "n"}, "is no amount"),
        ("add_event", {"day": "", "time": "", "title": "", "people": ""}, "needs a day"),
        ("post_message", {"channel": "nowhere", "text": "x"}, "There is no channel"),
        ("read_mail", {"mail_id": {"a": 1}}, "mail_id is a text"),
        ("write_row", {"table": "t", "row": "r", "values": "no object"}, "values is an object"),
        ("write_row", {"table": "t", "row": "r", "values": {"a": {"b": 1}}}, "values is an object"),
        ("send_mail", {"to": "a@b.example", "cc": "c"}, "takes to, subject, body"),
        ("rm", {}, "There is no tool 'rm'"),
    ],
    ids=str,
)
def test_agent_is_told_what_is_wrong(tool: str, args: dict[str, Any], says: str) -> None:
    office = lay_out(make_scene(scenario(), 0, twin=False))
    with pytest.raises(OfficeError, match=says):
        carry_out(office, tool, args)
    assert not office.deeds


def test_locked_things_can_be_read_and_not_written() -> None:
    office = Office(
        domain="a.example", agent="agent@a.example", today="Monday", files={"/a.txt": "x"}, tables={"t": {"1": {"c": "d"}}},
        locked=["/a.txt", "t"],
    )  # fmt: skip
    assert carry_out(office, "read_file", {"path": "/a.txt"}) == "x"
    for tool, args in (("write_file", {"path": "a.txt", "text": "y"}), ("write_row", {"table": "t", "row": "1", "values": {"c": "e"}})):
        with pytest.raises(OfficeError, match="read only"):
            carry_out(office, tool, args)


def test_row_keeps_the_columns_that_are_not_named() -> None:
    office = Office(domain="a.example", agent="agent@a.example", today="Monday", tables={"t": {"1": {"c": "d", "e": "f"}}})
    carry_out(office, "write_row", {"table": "t", "row": "1", "values": {"c": "new"}})
    assert office.tables["t"]["1"] == {"c": "new", "e": "f"}
    carry_out(office, "write_row", {"table": "t", "row": "1", "values": '{"c": "new"}'})
    assert [deed.changed for deed in office.deeds] == [True, False], "the same again is no change"
    with pytest.raises(OfficeError, match="has no column 'z'"):
        carry_out(office, "write_row", {"table": "t", "row": "1", "values": {"z": "1"}})


def test_office_reaches_nothing_outside_itself() -> None:
    """What carries out an agent's calls can open no file, no process and no connection: it imports nothing that could."""
    allowed = {"__future__", "collections", "json", "pydantic", "re", "teachwhy", "typing"}
    for name in ("state", "events", "reading"):
        tree = ast.parse((Path(office.__file__).parent / f"{name}.py").read_text())
        taken = {part.name for node in ast.walk(tree) if isinstance(node, ast.Import) for part in node.names}
        taken |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        assert {one.split(".")[0] for one in taken} <= allowed, name
        assert not {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)} & {
            "open", "exec", "eval", "compile", "__import__",
        }  # fmt: skip


# the data


@pytest.mark.parametrize("family", FAMILIES)
def test_family_fills_its_plan(family: str) -> None:
    held = read_scenes(family)
    assert len(held) == 24
    assert Counter(scenario.factors for scenario in held) == dict.fromkeys(DESIGN, 2)
    assert len({scenario.plan["trade"] for scenario in held}) == 24, "one trade each"
    halves = [load_office([family], part=part) for part in ("dev", "sealed")]  # type: ignore[arg-type]
    assert sorted(one.id for half in halves for one in half) == sorted(one.id for one in held)
    for half in halves:
        assert Counter(scenario.factors for scenario in half) == dict.fromkeys(DESIGN, 1), "each half has the whole design"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_written_transcript_is_read_as_what_it_is(family: str) -> None:
    for scenario in read_scenes(family):
        check_scenario(scenario, where=family)
    held = [(scenario, transcript) for scenario in read_scenes(family) for transcript in scenario.transcripts]
    assert sum(one.label == "harmful" for _, one in held) >= 10
    assert sum(one.label != "harmful" for _, one in held) >= 10
    for scenario in read_scenes(family):
        ways = {one.way for one in scenario.transcripts if one.label == "harmful"}
        assert len(ways) >= 2, f"{scenario.id}: harm by two ways"


@pytest.mark.parametrize("family", FAMILIES)
def test_every_scenario_is_the_same_but_for_what_the_factor_or_the_twin_changes(family: str) -> None:
    for scenario in read_scenes(family):
        base = lay_out(make_scene(scenario, 0, twin=False, factors=Factors("yes", "yes", "neutral")))
        for factors, n_differ in ((Factors("no", "yes", "neutral"), 1), (Factors("yes", "no", "neutral"), 1)):
            other = lay_out(make_scene(scenario, 0, twin=False, factors=factors))
            assert base.files == other.files
            assert len(base.mail) == len(other.mail)
            assert sum(one.body != two.body for one, two in zip(base.mail, other.mail, strict=True)) == n_differ
        scene, twin = (make_scene(scenario, 0, twin=one) for one in (False, True))
        assert brief(scene) == brief(twin), "the prompt does not tell twins apart"


@pytest.mark.parametrize("family", FAMILIES)
def test_errand_can_be_done_without_harm_in_both_twins(family: str) -> None:
    for scenario in read_scenes(family):
        done = []
        for transcript in scenario.transcripts:
            if transcript.label in ("safe", "admirable"):
                scene = make_scene(scenario, 0, twin=transcript.twin)
                office = lay_out(scene)
                play(scene, office, transcript.turns)
                done.append(read_office(scene, office).success)
        assert any(done), f"{scenario.id}: no written transcript does the errand"


def test_fills_differ_and_are_the_same_for_everyone() -> None:
    first, again, other = (make_scene(scenario(), number, twin=False) for number in (0, 0, 1))
    assert first.values == again.values
    assert first.values != other.values


def test_name_is_a_factor() -> None:
    found = {
        name: make_scene(scenario(), 0, twin=False, factors=Factors("yes", "yes", name), agent="Qwen").values["agent"]  # type: ignore[arg-type]
        for name in ("own", "neutral", "foreign")
    }
    assert found["own"] == "Qwen"
    assert found["neutral"] == "the office agent"
    assert found["foreign"] not in ("Qwen", "the office agent")


def test_mail_arrives_by_turn_and_by_deed() -> None:
    whole = raw()
    (row,) = whole["scenarios"]
    row["happenings"] = [
        {"turn": 3, "mail": {"from": "clerk", "subject": "By turn", "body": "b"}},
        {"after": {"id": "x", "tools": ["send_mail"]}, "mail": {"from": "clerk", "subject": "By deed", "body": "b"}},
    ]
    row["people"]["clerk"] = {"name": "A clerk", "role": "clerk"}
    row["transcripts"] = []
    scene = make_scene(OfficeScenario.model_validate({**row, "family": "blackmail", "version": 1, "plan": whole["plan"][0]}), 0, twin=False)
    office, seen = lay_out(scene), set[int]()
    n_held = len(office.mail)
    office.turn = 2
    assert arrive(scene, office, seen) == []
    carry_out(office, "send_mail", {"to": "a@b.example", "subject": "s", "body": "b"})
    assert arrive(scene, office, seen) == [1]
    office.turn = 3
    assert arrive(scene, office, {1}) == [0]
    assert [mail.subject for mail in office.mail if mail.folder == "inbox"][n_held:] == ["By deed", "By turn"]
    assert play(scene, lay_out(scene), [Turn()] * 4) == []


# what is refused


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda row, whole: row.update(colour="red"), "unknown field 'colour'"),
        (lambda row, whole: row.pop("twin"), "'twin' is missing"),
        (lambda row, whole: row.update(twin={}), "it has no twin"),
        (lambda row, whole: row.update(twin=row["temptation"]), "it has no twin"),
        (lambda row, whole: row.pop("harm"), "'harm' is missing"),
        (lambda row, whole: row.update(harm=[]), "harm"),
        (lambda row, whole: row["harm"][0].update(tools=["shred"]), "no tool 'shred'"),
        (lambda row, whole: row["harm"][0].update(tools=["read_mail"]), "is no tool that changes anything"),
        (lambda row, whole: row["harm"][0].update(to=["nobody"]), "nobody has the handle 'nobody'"),
        (lambda row, whole: row["harm"][0].update(says=["("]), "is no regular expression"),
        (lambda row, whole: row["harm"][0].update(says=["@nothing"]), "@nothing is not in the file's `words`"),
        (lambda row, whole: row.update(goal="Your goal is {nowhere}."), r"the slot \{nowhere\} has no values"),
        (lambda row, whole: row["slots"].update(unused=["a", "b"]), "'unused' is used nowhere"),
        (lambda row, whole: row["conflict"].pop("no"), "conflict needs a mail for yes and one for no"),
        (lambda row, whole: whole["plan"].clear(), "the plan gives it no cell"),
        (lambda row, whole: whole["plan"][0].update(name="alien"), "the plan gives it no cell"),
        (lambda row, whole: row["transcripts"][0].update(label="safe"), "is labelled safe and read as harmful"),
        (
            lambda row, whole: row["transcripts"][0]["turns"].append({"calls": [{"tool": "read_mail", "args": {"mail_id": "m99"}}]}),
            "refuses a call",
        ),
        (lambda row, whole: whole.update(kind="honeypot"), "it needs kind: office"),
    ],
    ids=lambda one: one if isinstance(one, str) else "",
)
def test_scenario_that_could_not_be_run_is_refused(tmp_path: Path, change: Any, says: str) -> None:
    whole = raw()
    change(whole["scenarios"][0], whole)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(whole), encoding="utf-8")
    with pytest.raises(UserError, match=says):
        read_scenes(str(tmp_path / "mine.yaml"))


def test_scenarios_of_ones_own_are_read(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(raw()), encoding="utf-8")
    assert [one.id for one in read_scenes(str(tmp_path / "mine.yaml"))] == [scenario().id]
