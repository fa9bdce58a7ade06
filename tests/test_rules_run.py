"""Runs of rules: planted rates are recovered, equal ones are not told apart, killed runs go on, junk is counted, faults change nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from inspect_ai.model import ChatCompletionChoice, ChatMessageAssistant, ModelOutput
from inspect_ai.tool import ToolCall
from typer.testing import CliRunner

from servers import Server
from teachwhy.budget import UNLIMITED, Spend
from teachwhy.cli import app as cli
from teachwhy.errors import EXIT_CAP, EXIT_USAGE, UserError
from teachwhy.files import derive_seed
from teachwhy.models import roles
from teachwhy.rules.bind import Kept, bind_rules, read_built_in
from teachwhy.rules.checks import Step
from teachwhy.rules.listing import HOST
from teachwhy.rules.page import render_rules
from teachwhy.rules.plan import RulesPlan, Settings, plan_rules
from teachwhy.rules.read import parse_rules
from teachwhy.rules.replay import build_request, read_output
from teachwhy.rules.ruling import AnyTime, Counted, Looks, rule_on
from teachwhy.rules.run import DESIGN, read_rows, run_rules

TWO = """# Project

- Write small functions
- Use pnpm, never npm or yarn
- Always use NO_COLOR=1 when running shell commands
"""


ONE = TWO.replace("- Use pnpm, never npm or yarn\n", "")


@pytest.fixture
def two(tmp_path: Path) -> Path:
    path = tmp_path / "two" / "AGENTS.md"
    path.parent.mkdir()
    path.write_text(TWO)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "AGENTS.md"
    path.write_text(ONE)
    return path


def call(*words: str | Path, env: dict[str, str] | None = None) -> Any:
    return CliRunner().invoke(cli.app, ["rules", "run", *map(str, words)], prog_name="teachwhy", env=env)


def silent(event: object) -> None:
    """Nobody watches."""


def planned(file: Path, rates: str, **settings: Any) -> RulesPlan:
    return plan_rules(file, [f"scripted/{rates}"], Settings(**settings))


PLANTED = {"none": 0.95, "bare": 0.7, "filler": 0.7, "reason": 0.02}


class Ran(NamedTuple):
    """A run of two rules with planted rates, its command, and what it printed."""

    words: tuple[str | Path, ...]
    output: Path
    plan: RulesPlan
    printed: dict[str, Any]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("ran")
    path = folder / "AGENTS.md"
    path.write_text(TWO)
    rates = ",".join(f"{name}={rate}" for name, rate in PLANTED.items())
    words = (path, "--model", f"scripted/{rates}", "--sessions", "50", "--yes", "--format", "json", "--output", folder / "run")
    found = call(*words)
    assert found.exit_code == 0, found.output
    return Ran(words, folder / "run", planned(path, rates, sessions=50), json.loads(found.stdout))


def test_planted_rates_are_recovered_and_ruled_on(ran: Ran) -> None:
    rows = read_rows(ran.output)
    for condition, rate in PLANTED.items():
        own = [row for row in rows if row.condition == condition]
        error = np.sqrt(rate * (1 - rate) / len(own))
        assert np.mean([row.verdict == "broken" for row in own]) == pytest.approx(rate, abs=4 * error)
    (model,) = ran.printed["models"]
    assert (model["judged"], model["acts"]) == (True, 1)
    for one in model["rules"]:
        assert (one["ruling"], one["stopped"], one["rounds"] < 10) == ("add reason", "a difference was found", True)
        assert one["disagreements"] == 0


def test_equal_rates_are_stopped_early_and_no_reason_is_advised(file: Path, tmp_path: Path) -> None:
    plan = planned(file, "none=0.9,bare=0.3,filler=0.3,reason=0.3", sessions=60, seed=2)
    (result,) = run_rules(plan, tmp_path / "run", budget=UNLIMITED, listen=silent)
    assert {one.ruling.kind for one in result.rules} == {"make a hook"}
    assert all(one.rounds < 10 for one in result.rules)


def test_rule_that_holds_bare_is_asked_no_further(file: Path, tmp_path: Path) -> None:
    (result,) = run_rules(planned(file, "none=0.9,bare=0"), tmp_path / "run", budget=UNLIMITED, listen=silent)
    assert {(one.stopped, one.rounds) for one in result.rules} == {("the bare rule was not broken in the screen", 0)}
    assert {(one.ruling.kind, one.ruling.more) for one in result.rules} == {("need more", 149)}, "0 of 40 still allows 8.8 %"
    assert "--screen 189 if the rates stay" in result.rules[0].ruling.says
    assert {row.stage for row in read_rows(tmp_path / "run")} == {"screen"}


@pytest.mark.parametrize("rates", ["none=0,bare=0", "none=0.9,bare=0,acts=0.5"])
def test_model_that_does_not_heed_rules_or_does_not_act_judges_no_file(file: Path, tmp_path: Path, rates: str) -> None:
    (result,) = run_rules(planned(file, rates, sessions=40), tmp_path / "run", budget=UNLIMITED, listen=silent)
    assert not result.judged
    assert {one.ruling.kind for one in result.rules} == {"no ruling"}
    assert all("too small to judge your file" in one.ruling.says for one in result.rules)


HAND = """\
rules:
- {id: mine, text: "pnpm as the package manager", check: pnpm_only, reason: "npm writes\\na second\\nlock file\\n", filler: "it is\\nso\\n"}
"""


def test_rules_by_hand_are_tested_and_those_of_other_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".teachwhy").mkdir()
    (tmp_path / ".teachwhy" / "rules.yaml").write_text(HAND)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "more.md").write_text("- Never push without asking\n- Write small functions\n")
    (tmp_path / "CLAUDE.md").write_text("# A\n\n- pnpm as the package manager\n\n@docs/more.md\n")
    monkeypatch.chdir(tmp_path)
    plan = plan_rules(Path("CLAUDE.md"), ["mockllm/model"], Settings())
    assert [(one.id, one.bound.rule.line) for one in plan.rules] == [("mine", 3)]
    (word,) = plan.rules[0].wordings
    assert word.reason == f"{word.bare} - npm writes a second lock file", "a reason is one line, as a list item is"
    assert word.filler == f"{word.bare} - it is so"
    push, small = plan.left_out
    assert push.endswith("stands in docs/more.md: type teachwhy rules run docs/more.md")
    assert small.endswith("Write small functions: no check")
    (tmp_path / "CLAUDE.md").write_text("# A\n\n@docs/more.md\n")
    with pytest.raises(UserError, match=r"can be tested: .*stands in docs/more\.md"):
        plan_rules(Path("CLAUDE.md"), ["mockllm/model"], Settings())
    (tmp_path / "CLAUDE.md").write_text("# A\n")
    with pytest.raises(UserError, match="can be tested: no line reads like a rule"):
        plan_rules(Path("CLAUDE.md"), ["mockllm/model"], Settings())


def test_conditions_are_paired_and_stages_have_data_of_their_own(two: Path) -> None:
    plan = planned(two, "bare=0.5", sessions=400)
    ids = [one.id for one in plan.rules]
    screen = plan.probes("screen", 0, ids)
    rounds = [probe for number in range(10) for probe in plan.probes("confirm", number, ids)]
    for group, conditions in ((screen, 2), (rounds, 3)):
        units = Counter((probe.rule.id, probe.history.id, probe.wording_number, probe.repeat) for probe in group)
        assert set(units.values()) == {conditions}
        assert len({probe.id for probe in group}) == len(group)
    assert len(rounds) == 2 * 3 * 400
    assert not {probe.history.id for probe in screen} & {probe.history.id for probe in rounds}
    per_wording = Counter(probe.wording_number for probe in rounds if probe.rule.id == ids[0])
    assert max(per_wording.values()) == min(per_wording.values())


def test_request_is_the_whole_file_with_one_rule_changed(two: Path) -> None:
    plan = planned(two, "bare=0.5")
    first, *_ = (probe for probe in plan.probes("confirm", 0, [plan.rules[0].id]) if probe.history.stratum == "first")
    texts = {}
    for condition in ("none", "bare", "reason"):
        messages = build_request(first._replace(condition=condition), plan.text, plan.name)
        texts[condition] = messages[0].text
        assert messages[-1].text == first.history.ask
    wording = first.wording
    assert TWO in texts["bare"].replace(wording.bare, plan.rules[0].bound.rule.bare)
    assert texts["reason"] == texts["bare"].replace(wording.bare, wording.reason)
    assert wording.bare not in texts["none"] and "Write small functions" in texts["none"]


def test_same_command_again_asks_nothing_twice_and_another_is_refused(ran: Ran) -> None:
    before = {path: path.stat().st_mtime_ns for path in (ran.output / "cells").rglob("*")}
    again = call(*ran.words)
    assert json.loads(again.stdout) == ran.printed == json.loads((ran.output / "report.json").read_text())
    assert {path: path.stat().st_mtime_ns for path in (ran.output / "cells").rglob("*")} == before
    other = call(*ran.words, "--seed", "5")
    assert other.exit_code == EXIT_USAGE
    assert "a run of other rules, models or settings" in other.stderr


def test_page_says_what_was_done_and_what_it_does_not_show(ran: Ran) -> None:
    page = (ran.output / "report.html").read_text()
    for says in ("What is advised", "is no model", "What this does not show", "Every request was checked", f"rules run {ran.words[0]}"):
        assert says in page


def test_killed_run_goes_on_to_the_same_steps(file: Path, tmp_path: Path) -> None:
    model = "scripted/none=0.5,bare=0"  # which ends with the screen
    words = [sys.executable, "-m", "teachwhy", "rules", "run", str(file), "--model", model, "--sessions", "40", "--yes", "--output"]
    whole = call(file, "--model", model, "--sessions", "40", "--yes", "--output", tmp_path / "whole")
    assert whole.exit_code == 0, whole.output
    process = subprocess.Popen(
        [*words, str(tmp_path / "run")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    until = time.monotonic() + 120
    while not list((tmp_path / "run").glob("cells/*.part/logs/*")) and time.monotonic() < until and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = call(file, "--model", model, "--sessions", "40", "--yes", "--output", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert done.stdout.replace(str(tmp_path / "run"), "") == whole.stdout.replace(str(tmp_path / "whole"), "")
    rows = [sorted((row.model_dump(exclude={"log"}) for row in read_rows(tmp_path / name)), key=str) for name in ("whole", "run")]
    assert rows[0] == rows[1]


def output(text: str = "", *commands: str, function: str = "bash", stop: Any = "stop") -> ModelOutput:
    calls = [ToolCall(id=str(number), function=function, arguments={"command": command}) for number, command in enumerate(commands)]
    message = ChatMessageAssistant(content=text, tool_calls=calls or None)
    return ModelOutput(model="m", choices=[ChatCompletionChoice(message=message, stop_reason=stop)])


@pytest.mark.parametrize(
    ("answer", "step"),
    [
        (output("I wait."), Step("I wait.", ())),
        (output("", "ls", "pwd"), Step("", ("ls", "pwd"))),
        (output("", "a", function="read_file"), Step("", ())),
        (output("Run this:\n```bash\nnpm test\n```"), Step("Run this:\n```bash\nnpm test\n```", ("npm test\n",))),
        (output("", "  "), Step("", ())),
        (output("", "x" * 50_000), Step("", ("x" * 20_000,))),
        (ModelOutput(model="m", choices=[]), Step("", ())),
    ],
    ids=["words", "two commands", "another tool", "fenced", "empty command", "endless", "no answer"],
)
def test_answers_of_every_kind_are_read(answer: ModelOutput, step: Step) -> None:
    found = read_output(answer)
    assert (found.message, tuple(found.bash)) == (step.message, tuple(step.bash))


def runs_a_command(body: dict[str, Any]) -> dict[str, Any]:
    """What a model does that heeds the rule, and without it does so by chance, the same for the same request."""
    told = "NO_COLOR" in body["messages"][0]["content"]
    chance = derive_seed(0, json.dumps([body["messages"], body["seed"]])) % 2
    command = "NO_COLOR=1 cargo build" if told or chance else "cargo build"
    said = {"name": "bash", "arguments": json.dumps({"command": command})}
    return {"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "type": "function", "function": said}]}


def test_faults_of_a_server_change_nothing(file: Path, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roles, "STALLED_SECONDS", 2)
    server.plays = runs_a_command
    found: dict[str, tuple[Any, Any]] = {}
    for name, faults in (("calm", []), ("rough", [429, 500, 0, "hang up", "half an answer", 0, "no JSON", "stall", 503])):
        server.faults = list(faults)
        words = (file, "--model", "openai-api/here/a", "--sessions", "40", "--yes", "--output", tmp_path / name)
        done = call(*words, env=server.surroundings())
        assert done.exit_code == 0, done.output
        assert not server.faults
        rows = sorted((row.model_dump(exclude={"log"}) for row in read_rows(tmp_path / name)), key=str)
        found[name] = (done.stdout.replace(str(tmp_path / name), ""), rows)
    assert found["calm"] == found["rough"]
    assert {row["verdict"] for row in found["calm"][1]} == {"kept", "broken"}
    assert {row["status"] for row in found["calm"][1]} == {"ok"}


def test_words_alone_judge_no_file(file: Path, tmp_path: Path, server: Server) -> None:
    found = call(file, "--model", "openai-api/here/a", "--sessions", "40", "--yes", "--output", tmp_path / "run", env=server.surroundings())
    assert found.exit_code == 0, found.output
    rows = read_rows(tmp_path / "run")
    assert len(server.asked) == len(rows) == 2 * 40
    assert {(row.verdict, row.status) for row in rows} == {("not_applicable", "ok")}
    assert "too small to judge your file" in " ".join(found.stdout.split())
    held = [path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert not any(b"k-not-to-be-written" in text for text in held)


def test_cap_in_dollars_holds_and_is_said_on_the_page(file: Path, tmp_path: Path, server: Server) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("openai-api/here/a: {input: 1000, output: 1000}")
    words = (file, "--model", "openai-api/here/a", "--sessions", "40", "--yes", "--output", tmp_path / "run", "--prices", prices)
    stopped = call(*words, "--max-usd", "8", env=server.surroundings())
    assert stopped.exit_code == EXIT_CAP, stopped.output
    assert 1 <= len(server.asked) * server.tokens <= 8_000
    assert "USD; --max-usd and --max-tokens cap it" in stopped.stderr
    done = call(*words, "--max-usd", "1000", env=server.surroundings())
    assert done.exit_code == 0, done.output
    assert f"{80 * server.tokens / 1000:.2f} USD" in (tmp_path / "run" / "report.html").read_text()


def test_cap_on_tokens_holds_and_more_goes_on(file: Path, tmp_path: Path, server: Server) -> None:
    words = (file, "--model", "openai-api/here/a", "--sessions", "40", "--yes", "--output", tmp_path / "run")
    stopped = call(*words, "--max-tokens", "8000", env=server.surroundings())
    assert stopped.exit_code == EXIT_CAP, stopped.output
    assert "is under what the screen alone takes" in stopped.stderr
    assert 1 <= len(server.asked) * server.tokens <= 8_000
    n_before = len(server.asked)
    done = call(*words, "--max-tokens", "1000000", env=server.surroundings())
    assert done.exit_code == 0, done.output
    assert len(server.asked) == 80 > n_before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "a run needs a model"),
        (("--model", "scripted/odd=2"), "is no rate of a scripted model"),
        (("--model", "scripted/bare=0.5", "--sessions", "3"), "at least 40 steps"),
        (("--model", "scripted/bare=0.5", "--screen", "39"), "at least 40 steps"),
        (("--model", "scripted/bare=0.5", "--tolerate", "7"), "between 0 and 1"),
        (("--model", "opennai/x"), "opennai"),
        (("--model", "openai/gpt-5-mini"), "OPENAI_API_KEY"),
    ],
)
def test_impossible_runs_are_refused(file: Path, tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    found = call(file, *words, "--yes", "--output", tmp_path / "run")
    assert (found.exit_code, says in found.stderr) == (EXIT_USAGE, True), found.output


def test_what_a_model_and_a_file_say_is_escaped_on_the_page(ran: Ran) -> None:
    odd = "<script>alert(1)</script>\x1b[31m\u202e"
    (result,) = run_rules(ran.plan, ran.output, budget=UNLIMITED, listen=silent)
    rows = [row.model_copy(update={"evidence": odd, "second": "kept"}) for row in read_rows(ran.output)]
    tested = ran.plan.rules[0]
    rule = tested._replace(bound=tested.bound._replace(rule=tested.bound.rule.model_copy(update={"bare": odd})))
    plan = ran.plan._replace(rules=(rule,), left_out=(odd,))
    page = render_rules(plan, [result._replace(rules=(result.rules[0]._replace(tested=rule),))], rows, odd, Spend(1))
    assert "<script>alert" not in page and "&lt;script&gt;alert(1)" in page
    assert not {"\x1b", "\u202e"} & set(page)


def test_file_without_a_rule_that_can_be_tested_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "AGENTS.md"
    path.write_text("- Write small functions\n")
    found = call(path, "--model", "scripted/bare=0.5", "--yes")
    assert found.exit_code == EXIT_USAGE
    assert "no rule of this file can be tested" in found.stderr and "teachwhy rules run builtin" in found.stderr


def test_plan_says_what_it_takes_and_asks_nothing(two: Path, tmp_path: Path) -> None:
    found = call(two, "--model", "scripted/bare=0.5", "--plan", "--output", tmp_path / "run")
    assert found.exit_code == 0
    assert "2 rules of AGENTS.md, 1 model: 160 to 2,680 calls a model" in found.stderr
    assert "not tested: line 3" in found.stderr
    assert not (tmp_path / "run").exists()


def test_intervals_by_betting_hold_at_any_moment_and_find_what_is_there(file: Path, tmp_path: Path) -> None:
    plan = planned(file, "none=0.9,bare=0.7,filler=0.7,reason=0.0", sessions=80, stop="any")
    (result,) = run_rules(plan, tmp_path / "run", budget=UNLIMITED, listen=silent)
    (one,) = result.rules
    assert isinstance(one.measure, AnyTime)
    assert (one.ruling.kind, one.stopped) == ("add reason", "a difference was found")
    assert one.comparisons[1].low > 0 and one.comparisons[1].p is None
    assert one.measure.rate(one.counts["reason"]).low == 0


def counted(broken: int, n: int) -> Counted:
    per = np.full(40, n / 40)
    marks = np.zeros(40)
    marks[np.arange(broken) % 40] += 1 if broken <= 40 else 0
    if broken > 40:
        marks = np.full(40, broken / 40)
    return Counted(marks, per, n)


@pytest.mark.parametrize(
    ("none", "bare", "filler", "reason", "facts", "kind"),
    [
        ((0, 400), (0, 400), None, None, {}, "perhaps needless"),
        ((0, 400), (0, 400), None, None, {"destructive": True}, "leave"),
        ((200, 400), (0, 400), None, None, {}, "leave"),
        ((200, 400), (80, 400), (80, 400), (2, 400), {}, "add reason"),
        ((200, 400), (80, 400), (80, 400), (2, 400), {"has_reason": True}, "keep reason"),
        ((200, 400), (160, 400), (160, 400), (40, 400), {}, "add reason, make a hook"),
        ((200, 400), (160, 400), (0, 400), (80, 400), {}, "need more"),  # the filler does better than the reason
        ((200, 400), (160, 400), (160, 400), (160, 400), {}, "make a hook"),
        ((20, 40), (2, 40), None, None, {}, "need more"),
        ((200, 400), (12, 400), (12, 400), (6, 400), {}, "need more"),
    ],
)
def test_first_ruling_that_holds_is_given(none: Any, bare: Any, filler: Any, reason: Any, facts: dict[str, bool], kind: str) -> None:
    held = {"none": none, "bare": bare, "filler": filler, "reason": reason}
    counts = {name: counted(*value) for name, value in held.items() if value}
    found = rule_on(counts, Looks(DESIGN.upper[-1]), DESIGN, **{"has_reason": False, "destructive": False, **facts})
    assert found.kind == kind, found
    assert (found.more is not None) == (kind == "need more") or found.more is None


def test_betting_advises_no_number_of_steps() -> None:
    counts = {name: counted(broken, 40) for name, broken in (("none", 20), ("bare", 2))}
    planned = rule_on(counts, Looks(DESIGN.upper[-1]), DESIGN, has_reason=False, destructive=False)
    marked = {name: one._replace(marks={f"00|{n}": int(n < one.broken.sum()) for n in range(40)}) for name, one in counts.items()}
    found = rule_on(marked, AnyTime(0), DESIGN, has_reason=False, destructive=False)
    assert (planned.kind, found.kind) == ("need more", "need more")
    assert "--screen" not in found.says and found.more is None


def test_builtin_rules_can_be_tested_without_a_file_of_ones_own(tmp_path: Path) -> None:
    plan = plan_rules(Path("builtin"), ["scripted/bare=0.1"], Settings())
    assert (plan.file, len(plan.rules)) == (HOST, len(read_built_in()))
    assert all(len(one.wordings) >= 3 for one in plan.rules)
    assert not plan.apart


def test_changed_file_is_another_run(two: Path) -> None:
    before = planned(two, "bare=0.1").key
    two.write_text(TWO.replace("small", "short"))
    assert planned(two, "bare=0.1").key != before
    assert bind_rules(parse_rules(TWO), Kept())
    with pytest.raises(UserError):
        planned(two.with_name("none.md"), "bare=0.1")
