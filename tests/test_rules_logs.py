"""Session logs: which steps count for which rule, where one was broken, and what of the logs was not read."""

from __future__ import annotations

import json
import os
import subprocess
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from teachwhy.cli import app as cli
from teachwhy.errors import EXIT_USAGE, UserError
from teachwhy.rules.bind import KEPT
from teachwhy.rules.formats import Odd, Said
from teachwhy.rules.logs import CountedLogs, CountedRule, count_logs
from teachwhy.rules.transcripts import LoggedStep, read_head, read_log

PNPM = "- Use pnpm, never npm or yarn - the lock file is pnpm's\n"
PUSH = "- Never push without asking me\n"
Row = dict[str, Any]


def at(minute: int, day: int = 2) -> str:
    return f"2026-03-{day:02d}T10:{minute:02d}:00.000Z"


def claude(folder: Path, *rows: Row) -> list[Row]:
    return [
        {"cwd": str(folder), "sessionId": "c1", "isSidechain": False, "timestamp": at(number), **row} for number, row in enumerate(rows)
    ]


def answer(text: str = "", *commands: str, **more: Any) -> Row:
    """One line of Claude Code with an answer of its own."""
    blocks: list[Row] = [{"type": "text", "text": text}] if text else []
    blocks += [{"type": "tool_use", "id": f"t-{text}-{command}", "name": "Bash", "input": {"command": command}} for command in commands]
    return {"type": "assistant", "uuid": f"u-{text}-{commands}", "message": {"role": "assistant", "content": blocks}, **more}


def output(text: str = "done") -> Row:
    return {"type": "user", "message": {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": text}]}}


def said(text: str, **more: Any) -> Row:
    return {"type": "user", "message": {"role": "user", "content": text}, **more}


def codex(folder: Path, *items: Row, kind: str = "response_item") -> list[Row]:
    head = {"timestamp": at(0), "type": "session_meta", "payload": {"id": "x1", "cwd": str(folder), "source": "cli"}}
    return [head, *({"timestamp": at(number), "type": kind, "payload": item} for number, item in enumerate(items, 1))]


def shell(name: str = "shell", call: str = "1", **given: Any) -> Row:
    return {"type": "function_call", "name": name, "arguments": json.dumps(given), "call_id": call}


def write(path: Path, rows: Sequence[Row | str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "AGENTS.md").write_text(PNPM + PUSH)
    return folder


def count(project: Path, *logs: Path) -> CountedLogs:
    return count_logs(project / "AGENTS.md", logs)


def rule(counted: CountedLogs, check: str) -> CountedRule:
    return next(one for one in counted.rules if one.check == check)


def call(*words: str | Path) -> Any:
    return CliRunner().invoke(cli.app, ["rules", "logs", *map(str, words)], prog_name="teachwhy", env={"COLUMNS": "160"})


def test_step_of_claude_code_that_breaks_a_rule_is_found_with_its_line(project: Path, tmp_path: Path) -> None:
    rows = claude(project, answer("", "pnpm add zod"), output(), answer("", "ls"), answer("Now", "cd web && npm install"))
    found = rule(count(project, write(tmp_path / "logs" / "c.jsonl", rows)), "pnpm_only")
    assert (found.opportunities, found.broken, found.before) == (2, 1, 0)
    assert [(one.line, one.command) for one in found.violations] == [(4, "npm install")]
    assert found.violations[0].log == str(tmp_path / "logs" / "c.jsonl")
    assert found.reason == "the lock file is pnpm's"


@pytest.mark.parametrize(
    "item",
    [
        shell(command=["bash", "-lc", "cd web && npm install"]),
        shell(command=["npm", "install"]),
        shell("container.exec", command=["/bin/zsh", "-c", "npm install"]),
        shell("shell_command", command="npm install"),
        shell("exec_command", cmd="npm install", yield_time_ms=1000),
        {"type": "local_shell_call", "call_id": "1", "status": "completed", "action": {"type": "exec", "command": ["npm", "install"]}},
    ],
)
def test_shell_calls_of_codex_are_read_in_every_form(project: Path, tmp_path: Path, item: Row) -> None:
    counted = count(project, write(tmp_path / "rollout-1.jsonl", codex(project, item)))
    found = rule(counted, "pnpm_only")
    assert [(one.line, one.command) for one in found.violations] == [(2, "npm install")]
    assert (counted.sessions, counted.steps, counted.unknown) == (1, 1, {})


def test_answer_over_several_lines_is_one_step(project: Path, tmp_path: Path) -> None:
    def part(**block: Any) -> Row:
        return {"type": "assistant", "message": {"id": "m1", "role": "assistant", "content": [block]}}

    bash = [{"type": "tool_use", "id": f"t{n}", "name": "Bash", "input": {"command": f"echo {n}"}} for n in (1, 2)]
    rows = claude(project, part(type="text", text="Two calls"), part(**bash[0]), output(), part(**bash[1]), output(), answer("Done"))
    steps = list(read_log(write(tmp_path / "c.jsonl", rows), set()))
    assert [(one.message, [(call.line, call.command) for call in one.calls]) for one in steps if isinstance(one, LoggedStep)] == [
        ("Two calls", [(2, "echo 1"), (4, "echo 2")]),
        ("Done", []),
    ]
    message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look"}]}
    result = {"type": "function_call_output", "call_id": "1", "output": "x"}
    rows = codex(project, message, shell(command="ls"), shell(command="pwd"), result, result, shell(command="id"))
    steps = list(read_log(write(tmp_path / "x.jsonl", rows), set()))
    assert [len(one.calls) for one in steps if isinstance(one, LoggedStep)] == [2, 1]


ASK = answer("All is green. Shall I push it?")


@pytest.mark.parametrize(
    ("between", "verdict"),
    [
        ([ASK, said("Yes, go ahead.")], (2, 0)),
        ([ASK, said("ok")], (2, 0)),
        ([ASK, said("sure!"), answer("First the tests", "make test"), output()], (2, 0)),
        ([ASK, said("Yes, but not yet")], (2, 1)),
        ([ASK, said("ok, don't")], (2, 1)),
        ([ASK, said("What is in it?")], (2, 1)),
        ([ASK, said("yesterday it broke")], (2, 1)),
        ([ASK], (2, 1)),
        ([answer("All is green."), said("yes")], (1, 1)),
        ([said("push it please")], (1, 1)),
        ([ASK, said("yes"), said("and now the docs")], (2, 1)),
        ([ASK, said("<task-notification>\nyes\n</task-notification>")], (2, 1)),
        ([ASK, said("yes", isMeta=True)], (2, 1)),
        ([ASK, said("yes"), said("<system-reminder>Keep going</system-reminder>")], (2, 0)),
        ([ASK, {"type": "attachment", "attachment": {"type": "queued_command", "commandMode": "prompt", "prompt": "yes"}}], (2, 0)),
    ],
)
def test_push_is_kept_after_a_yes_to_the_question(project: Path, tmp_path: Path, between: list[Row], verdict: tuple[int, int]) -> None:
    rows = claude(project, said("Fix it"), *between, answer("Pushing", "git push origin main"))
    found = rule(count(project, write(tmp_path / "c.jsonl", rows)), "ask_before_push")
    assert (found.opportunities, found.broken) == verdict


def test_question_by_the_tool_for_questions_is_asked_and_answered(project: Path, tmp_path: Path) -> None:
    asked = {"type": "tool_use", "id": "q", "name": "AskUserQuestion", "input": {"questions": [{"question": "May I push this?"}]}}
    ask = {"type": "assistant", "message": {"role": "assistant", "content": [asked]}}
    given = output() | {"toolUseResult": {"answers": {"May I push this?": "Yes, now"}}}
    found = rule(count(project, write(tmp_path / "c.jsonl", claude(project, ask, given, answer("", "git push")))), "ask_before_push")
    assert (found.opportunities, found.broken) == (2, 0)


def test_codex_user_says_yes_and_what_the_program_adds_is_not_the_users(project: Path, tmp_path: Path) -> None:
    def message(role: str, *texts: str) -> Row:
        return {"type": "message", "role": role, "content": [{"type": "input_text", "text": text} for text in texts]}

    added = message("user", "<environment_context>\n<cwd>/x</cwd>\n</environment_context>", "# AGENTS.md instructions for /x\n\nyes")
    rows = codex(project, added, message("assistant", "May I push?"), added, message("user", "yes"), shell(command="git push"))
    log = write(tmp_path / "x.jsonl", rows)
    assert [one.text for one in read_log(log, set()) if isinstance(one, Said)] == ["yes"]
    found = rule(count(project, log), "ask_before_push")
    assert (found.opportunities, found.broken) == (2, 0)


def test_other_agents_messages_are_no_users_word(project: Path, tmp_path: Path) -> None:
    more = {"isSidechain": True, "agentId": "a1"}
    rows = claude(project, ASK | more, said("yes") | more, answer("", "git push") | more)
    assert rule(count(project, write(tmp_path / "c.jsonl", rows)), "ask_before_push").broken == 1
    rows = claude(project, ASK, said("yes"), answer("Agent", "ls") | more, answer("", "git push"))
    assert rule(count(project, write(tmp_path / "d.jsonl", rows)), "ask_before_push").broken == 0


def test_sessions_of_other_projects_are_left_out_and_counted(project: Path, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    write(logs / "a.jsonl", claude(project / "web", answer("", "npm i")))
    write(logs / "b.jsonl", claude(tmp_path / "app2", answer("", "npm i"), {"type": "new thing"}))
    write(logs / "deep" / "c.jsonl", codex(tmp_path, shell(command="npm i")))
    write(logs / "d.jsonl", [{"type": "assistant", "message": {"content": []}}, {"type": "strange"}])
    (project / "web").mkdir()
    counted = count(project, logs)
    assert (counted.sessions, counted.steps, rule(counted, "pnpm_only").broken) == (1, 1, 1)
    assert (counted.left_out["other_projects"], counted.left_out["no_folder"]) == (2, 1)
    assert counted.unknown == {"Claude Code line strange": 1}


def test_session_that_goes_on_with_another_is_counted_once(project: Path, tmp_path: Path) -> None:
    first = claude(project, answer("", "npm i"), ASK, said("yes"))
    write(tmp_path / "logs" / "a.jsonl", first)
    write(tmp_path / "logs" / "b.jsonl", [*first, *claude(project, answer("", "git push"))])
    counted = count(project, tmp_path / "logs")
    assert (rule(counted, "pnpm_only").broken, counted.left_out["copied"], counted.steps) == (1, 2, 3)
    assert rule(counted, "ask_before_push").broken == 0  # the yes stands in what was copied


def test_steps_of_a_forked_codex_session_are_counted_once(project: Path, tmp_path: Path) -> None:
    message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I install it"}]}
    asks = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Shall I push?"}]}
    done = {"type": "function_call_output", "call_id": "1", "output": "x"}
    first = codex(project, message, shell(command="npm i", call="1"), done, asks)
    write(tmp_path / "logs" / "rollout-1.jsonl", first)
    no = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "First the rest"}]}
    write(tmp_path / "logs" / "rollout-2.jsonl", [*first, *codex(project, no, shell(command="npm ci", call="2"))[1:]])
    counted = count(project, tmp_path / "logs")
    assert (rule(counted, "pnpm_only").broken, counted.left_out["copied"], counted.steps) == (2, 2, 3)
    assert rule(counted, "ask_before_push").opportunities == 1


def test_shallow_clone_is_said(project: Path, tmp_path: Path) -> None:
    for words in (["init", "-q"], ["add", "."], [*WHO, "commit", "-qm", "1"], [*WHO, "commit", "-qm", "2", "--allow-empty"]):
        subprocess.run(["git", "-C", project, *words], check=True)
    log = write(tmp_path / "c.jsonl", claude(project, answer("", "npm i")))
    assert not count(project, log).notes
    subprocess.run(["git", "clone", "-q", "--depth", "1", project.as_uri(), tmp_path / "clone"], check=True)
    (note,) = count(tmp_path / "clone", log).notes
    assert "shallow clone" in note and "git fetch --unshallow" in note


WHO = ("-c", "user.name=a", "-c", "user.email=a@b.example")


def test_path_that_is_no_utf8_is_shown(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff"))
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this disk holds no such name")
    (folder / "AGENTS.md").write_text(PNPM)
    log = write(folder / "c.jsonl", claude(folder, answer("", "npm i")))
    done = call(folder / "AGENTS.md", "--sessions", log, "--format", "json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["file"].endswith("/a?/AGENTS.md")
    read = CliRunner().invoke(cli.app, ["rules", "read", str(folder / "AGENTS.md"), "--format", "json"], prog_name="teachwhy")
    assert read.exit_code == 0, read.output


def test_what_is_not_known_is_counted_by_kind(project: Path, tmp_path: Path) -> None:
    odd = {
        "type": "assistant",
        "message": {"content": [{"type": "hologram"}, {"type": "tool_use", "name": "Bash", "input": {"cmd": "ls"}}]},
    }
    power = {"type": "tool_use", "name": "PowerShell", "input": {"command": "ls"}}
    rows: list[Row | str] = [
        *claude(project, answer("", "npm i"), odd, {"type": "user", "message": "x"}, {"type": "new\x1b[31m"}, {}, {"type": "summary"}),
        *claude(project, {"type": "assistant", "message": {"content": [power]}}, answer("", "echo " + "x" * 30_000)),
        *codex(project, {"type": "custom_tool_call", "name": "exec", "input": "tools()"}, {"type": "telepathy"}, shell(command=7))[1:],
        *codex(project, shell("write_stdin", chars="npm i\n"), shell("write_stdin", chars=""), shell("update_plan"))[1:],
        *codex(project, {"type": "turn"}, kind="era")[1:],
        "{broken",
        "[1]",
        "",
    ]
    counted = count(project, write(tmp_path / "c.jsonl", rows))
    assert counted.unknown == {
        "Claude Code block hologram": 1,
        "Claude Code shell call in another form: Bash": 1,
        "Claude Code shell call in another form: PowerShell": 1,
        "Claude Code user line of another form": 1,
        "Claude Code line new[31m": 1,
        "Claude Code line without a name": 1,
        "shell call of more than 20,000 letters": 1,
        "Codex tool exec": 1,
        "Codex item telepathy": 1,
        "Codex shell call in another form: shell": 1,
        "Codex text typed into a program that runs": 1,
        "Codex line era": 1,
        "line that is no JSON": 1,
        "line that is no JSON object": 1,
    }
    assert rule(counted, "pnpm_only").broken == 1


def git(folder: Path, *words: str, day: int = 1) -> None:
    date = f"2026-03-{day:02d}T00:00:00Z"
    own = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    name = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    subprocess.run(["git", "-C", str(folder), *name, *words], check=True, capture_output=True, env={**os.environ, **own})


def commit(folder: Path, text: str, day: int, name: str = "AGENTS.md") -> None:
    (folder / name).write_text(text)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "x", day=day)


def broken_on(project: Path, log: Path, *days: int) -> CountedRule:
    rows = [row | {"timestamp": at(0, day)} for day in days for row in claude(project, answer(f"{day}", "npm i"))]
    return rule(count(project, write(log, rows)), "pnpm_only")


def test_steps_before_a_rule_stood_in_the_file_are_no_opportunities(project: Path, tmp_path: Path) -> None:
    git(project, "init", "-q")
    commit(project, PUSH, 3)
    commit(project, PNPM.replace(" - the lock file is pnpm's", "") + PUSH, 5)
    commit(project, PUSH, 10)
    commit(project, PNPM + PUSH, 15)  # with a reason now: the same rule
    found = broken_on(project, tmp_path / "c.jsonl", 1, 4, 5, 9, 10, 14, 15, 20)
    assert (found.opportunities, found.broken, found.before) == (4, 4, 4)


def test_rule_is_followed_through_a_rename_of_its_file(project: Path, tmp_path: Path) -> None:
    (project / "AGENTS.md").unlink()
    git(project, "init", "-q")
    commit(project, PNPM + PUSH, 5, "CLAUDE.md")
    git(project, "mv", "CLAUDE.md", "AGENTS.md")
    git(project, "commit", "-q", "-m", "x", day=10)
    assert broken_on(project, tmp_path / "c.jsonl", 4, 6, 12).opportunities == 2


def test_rule_that_is_not_committed_holds_from_when_the_file_was_saved(project: Path, tmp_path: Path) -> None:
    git(project, "init", "-q")
    commit(project, PUSH, 5)
    (project / "AGENTS.md").write_text(PNPM + PUSH)
    saved = 1_773_532_800  # 15 March 2026
    os.utime(project / "AGENTS.md", (saved, saved))
    assert broken_on(project, tmp_path / "c.jsonl", 6, 14, 16).opportunities == 1


def test_file_in_no_commit_counts_everything_and_says_so(project: Path, tmp_path: Path) -> None:
    assert broken_on(project, tmp_path / "c.jsonl", 1, 20).opportunities == 2
    git(project, "init", "-q")
    counted = count(project, tmp_path / "c.jsonl")
    assert rule(counted, "pnpm_only").opportunities == 2
    assert "in no commit" in counted.notes[0]


def test_step_without_a_time_counts_only_where_time_does_not_matter(project: Path, tmp_path: Path) -> None:
    rows = [row | {"timestamp": "noon"} for row in claude(project, answer("", "npm i"))]
    log = write(tmp_path / "c.jsonl", rows)
    assert rule(count(project, log), "pnpm_only").opportunities == 1
    git(project, "init", "-q")
    commit(project, PNPM, 1)
    counted = count(project, log)
    assert (rule(counted, "pnpm_only").opportunities, counted.left_out["no_time"], counted.steps) == (0, 1, 0)


def test_disagreements_of_the_detectors_are_counted(project: Path, tmp_path: Path) -> None:
    rows = claude(project, answer("", "alias n=npm\nn install"), answer("", "npm i"))  # the second knows no aliases
    found = rule(count(project, write(tmp_path / "c.jsonl", rows)), "pnpm_only")
    assert (found.broken, found.disagreements) == (2, 1)


def test_rule_in_two_files_is_counted_once(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "CLAUDE.md").write_text(PNPM)
    monkeypatch.chdir(project)
    counted = count_logs(None, [write(tmp_path / "c.jsonl", claude(project, answer("", "npm i")))])
    assert [one.check for one in counted.rules] == ["pnpm_only", "ask_before_push"]
    assert rule(counted, "pnpm_only").broken == 1


def test_commands_are_shown_without_control_codes_and_cut(project: Path, tmp_path: Path) -> None:
    rows = claude(project, answer("", f"npm install '\x1b[31m\u202ered\ud800{'x' * 500}'\r\n"), answer("\x02 9\x02", "echo \x0299\x02"))
    found = rule(count(project, write(tmp_path / "c.jsonl", rows)), "pnpm_only").violations[0].command
    assert len(found) == 200
    assert found.startswith("npm install '[31mredxxx")


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in folder.rglob("*") if ".git/" not in str(path)}


def test_nothing_is_written(project: Path, tmp_path: Path) -> None:
    git(project, "init", "-q")
    commit(project, PNPM, 1)
    log = write(tmp_path / "logs" / "c.jsonl", claude(project, answer("", "npm i")))
    before = snapshot(tmp_path)
    assert call(project / "AGENTS.md", "--sessions", log).exit_code == 0
    assert snapshot(tmp_path) == before


def test_long_log_is_not_held_in_memory(project: Path, tmp_path: Path) -> None:
    def rows() -> Iterator[Row]:
        for number in range(5_000):
            yield from claude(project, answer(f"{number}", *(["npm i"] if number % 500 == 0 else [])), output("x" * 1_000))

    log = tmp_path / "c.jsonl"
    with log.open("w") as file:
        for row in rows():
            file.write(json.dumps(row) + "\n")
    tracemalloc.start()
    found = rule(count(project, log), "pnpm_only")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.broken == 10
    assert peak < log.stat().st_size / 2


KEYS = (
    *("type", "message", "content", "payload", "text", "name", "input"),
    *("command", "arguments", "action", "role", "timestamp", "cwd", "id"),
)
WORDS = st.sampled_from(["npm i", "Bash", "shell", "git push", "\x020\x02"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=8,
)
KINDS = st.sampled_from(
    ["user", "assistant", "attachment", "response_item", "session_meta", "function_call", "tool_use", "tool_result", "text"]
)
ROWS = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6).flatmap(lambda row: KINDS.map(lambda kind: row | {"type": kind}))
BLOCKS = st.lists(ROWS, max_size=3).map(lambda rows: {"type": "assistant", "message": {"content": rows}})
ITEMS = ROWS.map(lambda row: {"type": "response_item", "payload": row})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ROWS | BLOCKS | ITEMS | VALUES, max_size=8), st.binary(max_size=20))
def test_no_line_whatever_crashes_it(project: Path, tmp_path: Path, rows: list[Any], raw: bytes) -> None:
    log = write(tmp_path / "c.jsonl", [json.dumps(row) for row in ({"cwd": str(project), "type": "summary"}, *rows)])
    log.write_bytes(log.read_bytes() + raw)
    counted = count(project, log)
    events = list(read_log(log, set()))
    assert sum(isinstance(one, LoggedStep) for one in events) == counted.steps + counted.left_out["copied"]
    assert sum(isinstance(one, Odd) for one in events) == sum(counted.unknown.values())


def test_table_shows_rates_places_and_what_was_left_out(project: Path, tmp_path: Path) -> None:
    rows = claude(project, *(answer(f"{n}", "npm i") for n in range(7)), answer("", "pnpm i"), {"type": "new"})
    write(tmp_path / "logs" / "c.jsonl", rows)
    write(tmp_path / "logs" / "d.jsonl", claude(tmp_path, answer("", "npm i")))
    done = call(project / "AGENTS.md", "--sessions", tmp_path / "logs")
    assert done.exit_code == 0
    assert "87.5 % (52.9 to 97.8)" in done.stdout
    assert done.stdout.count("c.jsonl:") == 5
    assert "the first 5 of 7" in done.stdout
    assert "1 logs of other projects" in done.stdout
    assert "1 x Claude Code line new" in done.stdout


def test_json_is_the_record(project: Path, tmp_path: Path) -> None:
    log = write(tmp_path / "c.jsonl", claude(project, answer("", "npm i")))
    shown = json.loads(call(project / "AGENTS.md", "--sessions", log, "--format", "json").stdout)
    assert shown["schema"] == "teachwhy.rules.logs/1"
    assert CountedLogs.model_validate(shown) == count(project, log)


def test_logs_are_looked_for_where_the_agents_keep_them(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CLAUDE_CONFIG_DIR", "CODEX_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match="no session log was found"):
        count_logs(project / "AGENTS.md")
    write(tmp_path / ".claude" / "projects" / "-app" / "a.jsonl", claude(project, answer("", "npm i")))
    write(tmp_path / ".codex" / "sessions" / "2026" / "03" / "02" / "rollout-1.jsonl", codex(project, shell(command="npm i")))
    assert count_logs(project / "AGENTS.md").sessions == 2
    monkeypatch.setenv("CODEX_HOME", str(tmp_path / "elsewhere"))
    assert count_logs(project / "AGENTS.md").sessions == 1


def test_place_that_is_not_there_is_a_usage_error(project: Path, tmp_path: Path) -> None:
    done = call(project / "AGENTS.md", "--sessions", tmp_path / "nowhere")
    assert done.exit_code == EXIT_USAGE
    assert "--sessions FOLDER" in done.stderr


def test_rule_of_ones_own_is_counted_and_one_without_a_check_is_left_out(project: Path, tmp_path: Path) -> None:
    (project / "AGENTS.md").write_text("- Never use sed on generated files\n- Be kind to readers\n")
    (project / KEPT).parent.mkdir()
    (project / KEPT).write_text(
        "rules:\n- id: sed\n  text: Never use sed on generated files\n"
        "  check: {forbid: ['sed ...'], instead: ['make ...'], kept: [{bash: make x}], broken: [{bash: sed -i s/a/b/ x}]}\n"
    )
    (project / ".git").mkdir()
    counted = count(project, write(tmp_path / "c.jsonl", claude(project, answer("", "sed -n 1p x"))))
    assert [(one.id, one.check, one.broken) for one in counted.rules] == [("sed", "own", 1)]
    assert counted.left_out["no_check"] == 1


def test_head_of_a_log_says_where_and_whether_a_user_speaks(tmp_path: Path) -> None:
    rows = codex(tmp_path, {"type": "message"})
    rows[0]["payload"]["source"] = {"subagent": "review"}
    head = read_head(write(tmp_path / "x.jsonl", rows))
    assert (head.folder, head.session, head.has_user) == (str(tmp_path), "x1", False)
