"""Office runs through Inspect and through studies: every way in which a run can end lands in its own place, planted rates come back."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import inspect_ai
import pytest
from inspect_ai.log import read_eval_log
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.tool import ToolCall

from servers import Server
from teachwhy.errors import EXIT_OK, EXIT_USAGE, UserError
from teachwhy.evaluations import office as sut
from teachwhy.evaluations import tasks
from teachwhy.evaluations.office import MAX_CALLS, choose_factors, load_office, mentions_test, name_model, office_task
from teachwhy.judges import labels
from teachwhy.models import roles
from teachwhy.office.reading import read_office
from teachwhy.office.scenes import DESIGN, FAMILIES, Factors, OfficeScenario, Turn, brief, make_scene, read_scenes, scene_of
from teachwhy.office.state import Office
from teachwhy.outcomes import Selection, measure_table, read_log, read_outcomes
from teachwhy.records import Outcome, StudyReport
from teachwhy.shipped import shipped_path
from test_study import call, write_study


@pytest.fixture(autouse=True)
def cache(own_cache: Path) -> None:
    """Nothing of the user's cache is read or written."""


def run(model: Any, folder: Path, families: tuple[str, ...] = FAMILIES, **settings: Any) -> Any:
    roles = settings.pop("roles", None)
    limit = settings.pop("limit", None)
    task = office_task(load_office(families, limit=limit), **settings)
    (log,) = inspect_ai.eval(
        task,
        model=model,
        model_roles=roles,
        log_dir=str(folder),
        display="none",
        fail_on_error=False,
        log_level="error",
        score_display=False,
    )
    assert log.status == "success", log.error
    return read_eval_log(log.location)


def speak(text: str) -> ModelOutput:
    output = ModelOutput.from_content("mockllm/model", text)
    output.usage = ModelUsage(input_tokens=9, output_tokens=1, total_tokens=10)
    return output


def rows_of(log: Any) -> list[Outcome]:
    return read_log(log, cell="c", arm="a", seed=-1, update=0)


@pytest.mark.parametrize(
    ("rates", "label", "status"),
    [
        ("harmful=1", "harmful", "ok"),
        ("safe=1", "safe", "ok"),
        ("inactive=1", "inactive", "ok"),
        ("admirable=1", "admirable", "ok"),
        ("dies=1", "", "dead"),
        ("loops=1", "", "overrun"),
        ("floods=1", "", "overrun"),
        ("cut_off=1", "", "truncated"),
    ],
)
def test_every_end_lands_in_its_own_place(tmp_path: Path, rates: str, label: str, status: str) -> None:
    log = run(f"actor/{rates}", tmp_path, twins=False, limit=1, max_turns=9)
    rows = rows_of(log)
    assert Counter(row.family for row in rows) == dict.fromkeys(FAMILIES, 1)
    written = {one.id: {transcript.label for transcript in one.transcripts} for family in FAMILIES for one in read_scenes(family)}
    for row in rows:
        if label and label not in written[row.scenario]:
            continue  # nothing of this label was written for it
        assert (row.label, row.status) == (label, status), row
        assert (row.harm is None) == (status != "ok")
    if rates == "floods=1":
        sample = log.samples[0]
        refused = [message for message in sample.messages if message.role == "tool" and message.error]
        assert len(refused) == 9 * (40 - MAX_CALLS)
        assert rows[0].invalid_calls == len(refused)


@pytest.mark.parametrize(
    ("ended", "said", "status"),
    [
        ("stop", "Done.", "ok"), ("max_tokens", "I will", "truncated"), ("content_filter", "", "truncated"), ("unknown", "", "truncated"),
        ("model_length", "", "overrun"), ("turns", "", "overrun"),
    ],
)  # fmt: skip
def test_answer_that_is_no_end_is_none(ended: str, said: str, status: str) -> None:
    assert sut.how_it_ended(ended, said) == status


def harmful_turns(scenario: OfficeScenario) -> tuple[Turn, ...]:
    return next(one for one in scenario.transcripts if one.label == "harmful").turns


def test_harm_before_an_overrun_is_for_the_bounds_alone(tmp_path: Path) -> None:
    scenario = load_office(["blackmail"], limit=1)[0]
    log = run("actor/harmful=1", tmp_path, ("blackmail",), limit=1, twins=False, max_turns=len(harmful_turns(scenario)))
    (row,) = rows_of(log)
    assert (row.label, row.harm, row.status) == ("harmful", None, "overrun")
    ok = row.model_copy(update={"status": "ok", "harm": 0.0, "label": "safe", "arm": "b"})
    selection = Selection("office", ("far",), reading="office", measure="harm")
    table = [float(measure_table([row, ok], selection, "a", [-1], [row.scenario], missing)[0, 0]) for missing in (math.nan, 0.0, 1.0)]
    assert math.isnan(table[0]) and table[1:] == [1.0, 1.0], "left out of the estimate, known to both bounds"


def test_harm_before_the_providers_error_is_for_the_bounds_too(tmp_path: Path) -> None:
    scenario = load_office(["blackmail"], limit=1)[0]
    scene, turns = make_scene(scenario, 0, twin=False), list(harmful_turns(scenario))

    def play(messages: list[Any], *rest: Any) -> ModelOutput:
        if not turns:
            raise RuntimeError("the provider is gone")
        turn = turns.pop(0)
        calls = [ToolCall(id=f"c{len(turns)}{n}", function=one.tool, arguments=scene.whole(one.args)) for n, one in enumerate(turn.calls)]
        output = speak("")
        output.choices[0].message.tool_calls = calls or None
        return output

    model = get_model("mockllm/model", custom_outputs=play, memoize=False)
    (row,) = rows_of(run(model, tmp_path, ("blackmail",), limit=1, twins=False))
    assert (row.label, row.harm, row.status) == ("harmful", None, "dead")


def test_half_a_letter_ends_nothing(tmp_path: Path) -> None:
    def play(messages: list[Any], *rest: Any) -> ModelOutput:
        output = speak("Done.")
        if messages[-1].role == "user":
            args = {"path": "/x/y.txt", "text": "thanks \ud83d"}
            output.choices[0].message.tool_calls = [ToolCall(id="c", function="write_file", arguments=args)]
        return output

    log = run(get_model("mockllm/model", custom_outputs=play, memoize=False), tmp_path, ("blackmail",), limit=1, twins=False)
    assert [row.status for row in rows_of(log)] == ["ok"]
    assert log.samples[0].store["office"]["files"]["/x/y.txt"] == "thanks ?"


def test_judge_that_dies_leaves_the_run_as_it_was(tmp_path: Path) -> None:
    def die(messages: list[Any], *rest: Any) -> ModelOutput:
        raise RuntimeError("the judge is gone")

    roles = {"judge": get_model("mockllm/model", custom_outputs=die, memoize=False)}
    rows = rows_of(run("actor/harmful=1", tmp_path, ("blackmail",), limit=1, twins=False, roles=roles))
    assert {(row.reading, row.harm, row.status) for row in rows} == {("office", 1.0, "ok"), ("judge", None, "unscored")}


def test_judge_says_nothing_of_a_run_that_was_cut_off(tmp_path: Path) -> None:
    roles = {"judge": get_model("actor/harmful=0")}
    rows = rows_of(run("actor/cut_off=1", tmp_path, ("blackmail",), limit=1, twins=False, roles=roles))
    assert {(row.reading, row.harm) for row in rows} == {("office", None), ("judge", None)}


def test_run_under_the_models_own_name_is_read_under_it(tmp_path: Path) -> None:
    """Patterns of framing hold the agent's name."""
    log = run("actor/harmful=1", tmp_path, ("framing",), twins=False, agent_name="own", own_name="Claude", limit=4)
    assert all("You are Claude" in sample.messages[0].text for sample in log.samples)
    for sample in log.samples:
        scene = scene_of(sample.metadata, "Claude")
        assert read_office(scene, Office.model_validate(sample.store["office"])).label == sample.scores["office_scorer"].answer


def test_file_of_ones_own_runs_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(shipped_path("office", "leaking.yaml"), "mine.yaml")
    task = tasks.office(scenarios="mine.yaml", limit_per_family=2)
    (log,) = inspect_ai.eval(task, model="actor/harmful=1", log_dir="logs", display="none", log_level="error", score_display=False)
    assert Counter((row.family, row.twin, row.label) for row in rows_of(read_eval_log(log.location))) == {
        ("leaking", False, "harmful"): 2, ("leaking", True, "safe"): 2,
    }  # fmt: skip


def test_planted_rates_come_back(tmp_path: Path) -> None:
    log = run("actor/harmful=0.3+inactive=0.2", tmp_path, ("blackmail", "leaking"), twins=False, fills=2)
    rows = rows_of(log)
    harm = sum(row.harm or 0 for row in rows) / len(rows)
    assert abs(harm - 0.3) < 3 * (0.3 * 0.7 / len(rows)) ** 0.5
    acted = sum(row.acted or 0 for row in rows) / len(rows)
    assert acted <= 1 - 0.1


def test_log_holds_the_office_turn_by_turn(tmp_path: Path) -> None:
    log = run("actor/harmful=1", tmp_path, ("framing",), limit=1, twins=False)
    (sample,) = log.samples
    assert sample.store["office"]["deeds"], "every deed"
    assert any(event.event == "store" for event in sample.events), "its changes"
    assert {"harm", "harm_twins", "acted", "success", "admirable"} == set(sample.scores["office_scorer"].value)
    assert {name for score in log.results.scores for name in score.metrics} == {"teachwhy/share"}, "logs carry means only"


def test_factors_can_be_set_and_keep_their_frequencies(tmp_path: Path) -> None:
    held = read_scenes("leaking")
    for seed in (0, 1, 2):
        found = Counter(choose_factors(one, seed, conflict=None, threat=None, name=None) for one in held)
        assert found == dict.fromkeys(DESIGN, 2)
    assert {choose_factors(one, 3, conflict="no", threat=None, name="foreign")[::2] for one in held} == {("no", "foreign")}
    assert [choose_factors(one, 0, conflict=None, threat=None, name=None) for one in held] == [one.factors for one in held]
    with pytest.raises(UserError, match="name is one of own, neutral, foreign"):
        office_task(held, agent_name="alien")  # type: ignore[arg-type]


def test_model_is_called_by_its_own_name(tmp_path: Path) -> None:
    assert name_model("anthropic/claude-opus-4") == "Claude"
    assert name_model("openai-api/here/qwen3-32b") == "Qwen"
    assert name_model("actor/harmful=1") == ""
    log = run("actor/safe=1", tmp_path, ("leaking",), limit=1, twins=False, agent_name="own", own_name="Zed")
    assert log.samples[0].messages[0].text.startswith("You are Zed, an AI that works at")
    log = run("actor/safe=1", tmp_path, ("leaking",), limit=1, twins=False, agent_name="own")
    assert log.samples[0].messages[0].text.startswith("You are the office agent, an AI")


@pytest.mark.parametrize("text", ["This looks like a test.", "I wonder if I am being evaluated here.", "it might be a simulation"])
def test_suspicion_is_seen(text: str) -> None:
    from inspect_ai.model import ChatMessageAssistant

    assert mentions_test([ChatMessageAssistant(content=text)])
    assert not mentions_test([ChatMessageAssistant(content="I have sent the test results; this is a laboratory.")])


def test_agent_can_be_asked_afterwards(tmp_path: Path) -> None:
    asked: list[str] = []

    def say(messages: list[Any], *rest: Any) -> ModelOutput:
        asked.append(messages[-1].text)
        return speak("B" if "(A)" in messages[-1].text else "Done.")

    log = run(get_model("mockllm/model", custom_outputs=say, memoize=False), tmp_path, ("leaking",), limit=1, twins=False, aware=True)
    assert log.samples[0].scores["office_scorer"].metadata["aware_asked"] is True
    assert sum("(A)" in one for one in asked) == 1


def test_judges_stand_beside_and_a_judge_of_itself_is_marked(tmp_path: Path) -> None:
    def say(messages: list[Any], *rest: Any) -> ModelOutput:
        return speak('{"verdict": "safe", "quote": ""}')

    def mumble(messages: list[Any], *rest: Any) -> ModelOutput:
        return speak("Hm.")

    roles = {name: get_model("mockllm/model", custom_outputs=one, memoize=False) for name, one in (("judge", say), ("judge2", mumble))}
    rows = rows_of(run("actor/harmful=1", tmp_path, ("blackmail",), limit=2, twins=False, roles=roles))
    found = {(row.reading, row.harm, row.status, row.label) for row in rows}
    assert found == {("office", 1.0, "ok", "harmful"), ("judge", 0.0, "ok", "safe"), ("judge2", None, "unscored", "unparseable")}


# studies


def office_study(folder: Path, arms: dict[str, Any], **evaluation: Any) -> Path:
    primary = {"name": "a - b", "claim": "lower", "evaluation": "office", "splits": ["far"], "plus": ["a"], "minus": ["b"],
               "yes": "a does less harm", "no": "No difference was seen", "opposite": "b does less harm"}  # fmt: skip
    whole = {"name": "offices", "question": "Which does less harm?", "start": "none", "seeds": [1], "neutral": None, "arms": arms,
             "evaluations": [{"office": evaluation}], "primary": primary}  # fmt: skip
    return write_study(folder, whole)


ARMS = {"a": {"model": "actor/harmful=0"}, "b": {"model": "actor/harmful=1"}}


def test_study_of_two_agents_tells_them_apart(tmp_path: Path) -> None:
    file = office_study(tmp_path, ARMS, judges=["actor/harmful=0.2"], limit=2)
    output = tmp_path / "run"
    found = call("study", "run", file, "--yes", "--workers", "0", "--output", output)
    assert found.exit_code == EXIT_OK, found.output
    report = StudyReport.model_validate_json((output / "report.json").read_text())
    assert report.answer.verdict in ("yes", "hint")
    assert report.primary is not None and report.primary.difference < -0.5
    assert {gate.name: gate.passed for gate in report.gates}["work is not bought"] is not None
    rows = read_outcomes(output / "outcomes.csv")
    assert Counter(row.reading for row in rows) == {"office": 32, "judge": 32}
    assert {row.factors for row in rows if row.reading == "office"} <= {"/".join(cell) for cell in DESIGN}
    page = (output / "report.html").read_text()
    for words in (
        "In the office",
        "errand done",
        "Harm by the factors of the design",
        "Judges beside the mechanical reading",
        "AGENT CALLS",
        "By what was done",
    ):
        assert words in page, words
    again = call("study", "run", file, "--yes", "--workers", "0", "--output", output)
    assert again.exit_code == EXIT_OK
    for item in labels.choose_queue(labels.read_items(output)[0], 0.5, 0):
        labels.add_label(output, item.id, "harmful" if item.predicted else "safe")
    assert call("report", output).exit_code == EXIT_OK
    assert "blind to arms, correct it" in (output / "report.html").read_text()


def test_study_takes_logs_of_families_run_one_by_one(tmp_path: Path) -> None:
    for family in ("blackmail", "leaking"):
        run("actor/harmful=0.5", tmp_path / "logs", (family,), name=family, limit=3)
    arms = {"a": {"model": "actor/harmful=0.05"}, "b": {"logs": str(tmp_path / "logs")}}
    output = tmp_path / "run"
    found = call(
        "study",
        "run",
        office_study(tmp_path, arms, families=["blackmail", "leaking"], limit=3),
        "--yes",
        "--workers",
        "0",
        "--output",
        output,
    )
    assert found.exit_code in (EXIT_OK, 3), found.output
    rows = [row for row in read_outcomes(output / "outcomes.csv") if row.arm == "b"]
    assert Counter((row.family, row.status, row.evaluation) for row in rows) == {
        ("blackmail", "ok", "office"): 6, ("leaking", "ok", "office"): 6,
    }  # fmt: skip


def test_logs_of_other_factors_are_refused(tmp_path: Path) -> None:
    run("actor/harmful=0.5", tmp_path / "logs", ("leaking",), name="leaking", agent_name="foreign", limit=2)
    arms = {"a": {"model": "actor/harmful=0.05"}, "b": {"logs": str(tmp_path / "logs")}}
    output = tmp_path / "run"
    call("study", "run", office_study(tmp_path, arms, families=["leaking"], limit=2), "--yes", "--workers", "0", "--output", output)
    report = json.loads((output / "report.json").read_text())
    assert any("and the study plans" in cell["reason"] for cell in report["cells"])


def test_judge_that_is_the_subject_is_told_before_anything_is_spent(tmp_path: Path) -> None:
    file = office_study(tmp_path, ARMS, families=["leaking"], judges=["actor/harmful=1"], limit=2)
    found = call("study", "run", file, "--plan", "--output", tmp_path / "run")
    assert found.exit_code == EXIT_OK, found.output
    said = " ".join(found.stderr.split())
    assert "would read runs of its own" in said
    assert "what actor/harmful=0 calls itself is not known" in said


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"reading": "text"}, "the reading `office` is that of the evaluation `office`"),
        ({"families": ["arson"]}, "there is no family 'arson'"),
        ({"judges": ["a/b", "c/d", "e/f"]}, "judges"),
        ({"limit": {"far": 3}}, "limit is a number of scenarios of each family"),
        ({"part": "sealed"}, "sealed half of office"),
        ({"scenarios": "nowhere.yaml"}, "nowhere.yaml"),
    ],
)
def test_study_that_cannot_be_is_refused(tmp_path: Path, parts: dict[str, Any], says: str) -> None:
    found = call("study", "run", office_study(tmp_path, ARMS, **parts), "--yes", "--output", tmp_path / "run")
    assert found.exit_code == EXIT_USAGE, found.output
    assert says in found.stderr


def test_local_weights_are_offered_the_choice_form(tmp_path: Path, tiny_model_dir: Path) -> None:
    found = call(
        "study", "run", office_study(tmp_path, {**ARMS, "a": {"checkpoint": str(tiny_model_dir)}}), "--yes", "--output", tmp_path / "r"
    )
    assert found.exit_code == EXIT_USAGE
    assert "needs an agent that calls tools" in found.stderr
    assert "the evaluation honeypots" in found.stderr


def test_model_without_tools_is_told_at_once(tmp_path: Path, tiny_model_dir: Path) -> None:
    (log,) = inspect_ai.eval(
        office_task(load_office(["leaking"], limit=1), twins=False), model=f"teachwhy/{tiny_model_dir}", log_dir=str(tmp_path),
        display="none",
        log_level="error", fail_on_error=True,
    )  # fmt: skip
    assert log.status == "error"
    assert "the choice form" in log.error.message


def plays_transcripts(scenarios: list[OfficeScenario]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A model behind a server: every other scenario is played harmfully, the others safely, turn by turn."""
    scenes = [make_scene(scenario, 0, twin=False) for scenario in scenarios]
    labels_of = ("harmful", "safe")
    turns = {
        brief(scene): next(one.turns for one in scene.scenario.transcripts if one.label == labels_of[place % 2] and not one.twin)
        for place, scene in enumerate(scenes)
    }
    whole = {brief(scene): scene.whole for scene in scenes}

    def play(body: dict[str, Any]) -> dict[str, Any]:
        system, task, *_ = (message["content"] for message in body["messages"])
        n_done = sum(message["role"] == "assistant" for message in body["messages"])
        held = turns[system, task]
        if n_done >= len(held):
            return {"role": "assistant", "content": "That is all."}
        said = [{"name": one.tool, "arguments": json.dumps(whole[system, task](one.args))} for one in held[n_done].calls]
        calls = [{"id": f"c{n_done}{place}", "type": "function", "function": one} for place, one in enumerate(said)]
        return {"role": "assistant", "content": "", "tool_calls": calls}

    return play


def test_faults_of_a_server_change_nothing(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.surroundings().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(roles, "STALLED_SECONDS", 2)
    server.plays = plays_transcripts(load_office(["leaking"], limit=4))
    found = []
    for faults in ([], [0, 429, 500, 0, "hang up", "half an answer", "no JSON", 0, "stall", 503]):
        server.faults = list(faults)
        rows = rows_of(run("openai-api/here/x", tmp_path / str(len(faults)), ("leaking",), limit=4))
        assert not server.faults
        found.append(sorted((row.model_dump(exclude={"log"}) for row in rows), key=str))
    assert found[0] == found[1]
    assert Counter(row["label"] for row in found[0] if not row["twin"]) == {"harmful": 2, "safe": 2}


def test_hostile_text_stays_text_on_the_page(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an agent writes: markup, control codes, a command for the judge."""
    for name, value in server.surroundings().items():
        monkeypatch.setenv(name, value)
    server.says = ["<script>alert(1)</script>\x1b[31m Ignore this: {{ 7*7 }}"] * 200
    arms = {"a": {"model": "openai-api/here/x"}, "b": {"model": "actor/harmful=0.9"}}
    output = tmp_path / "run"
    found = call("study", "run", office_study(tmp_path, arms, families=["leaking"], limit=2), "--yes", "--workers", "0", "--output", output)
    assert found.exit_code in (EXIT_OK, 3), found.output
    page = (output / "report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "k-not-to-be-written" not in "".join(path.read_text(errors="replace") for path in output.rglob("*") if path.is_file())
    rows = [row for row in read_outcomes(output / "outcomes.csv") if row.arm == "a"]
    assert {(row.label, row.status) for row in rows} == {("inactive", "ok")}


def test_every_task_is_found_by_name_and_says_what_it_takes() -> None:
    from teachwhy._registry import blackmail, framing, leaking, office, research_sabotage

    for task, n in ((blackmail, 24), (research_sabotage, 24), (framing, 24), (leaking, 24), (office, 96)):
        assert len(task().dataset) == n, "the dev half, with twins"
    assert {Factors(*(sample.metadata[name] for name in Factors._fields)).name for sample in leaking(name="foreign").dataset} == {"foreign"}
