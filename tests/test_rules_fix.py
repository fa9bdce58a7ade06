"""What a run advises: patches that apply, hooks that stop what breaks a rule, and nothing else touched."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from teachwhy.cli import app as cli
from teachwhy.errors import EXIT_OK, EXIT_USAGE, UserError
from teachwhy.rules.bind import read_built_in
from teachwhy.rules.checks import Check, Example
from teachwhy.rules.fix import fix_rules
from teachwhy.rules.hooks import Hook, make_hook, name_file, save_hooks
from teachwhy.rules.plan import Settings, plan_rules
from teachwhy.rules.run import _keep_plan

BUILT_IN = read_built_in()
PNPM = BUILT_IN["pnpm_only"].wordings[0]
TWO = """# Project

- Write small functions
- Use pnpm, never npm or yarn
- Always use NO_COLOR=1 when running shell commands
"""
ADD = "add reason"


def make_run(file: Path, folder: Path, rulings: Mapping[str, str], *, models: tuple[str, ...] = ("scripted/bare=0.1",)) -> Path:
    """A finished run's folder without a step; rulings: by the name of the rule's check."""
    plan = plan_rules(file, models, Settings())
    _keep_plan(plan, folder)
    found = []
    for model in models:
        rules = []
        for one in plan.rules:
            name = one.bound.check_name
            rules.append({"id": one.id, "ruling": rulings.get(f"{model} {name}", rulings.get(name, "leave"))})
        found.append({"model": model, "rules": rules})
    report = {"schema": "teachwhy.rules.run/1", "sha256": plan.sha256, "models": found}
    (folder / "report.json").write_text(json.dumps(report))
    return folder


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "app" / "AGENTS.md", TWO)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", path.parent], check=True)
    path.write_bytes(text.encode())
    return path


def call(*words: str | Path) -> Any:
    return CliRunner().invoke(cli.app, ["rules", "fix", *map(str, words)], prog_name="teachwhy")


def apply(tool: str, root: Path, patch: bytes) -> None:
    words = ["git", "apply"] if tool == "git" else ["patch", "-p1", "--silent"]
    done = subprocess.run(words, cwd=root, input=patch, capture_output=True)
    assert done.returncode == 0, done.stderr


def run_hook(path: Path, command: str, **more: Any) -> subprocess.CompletedProcess[str]:
    given = json.dumps({"tool_name": "Bash", "tool_input": {"command": command}, **more})
    return subprocess.run(["sh", path], input=given, capture_output=True, text=True, timeout=60)


def said(done: subprocess.CompletedProcess[str]) -> str:
    """stop, ask or pass."""
    if done.returncode == 2:
        assert done.stderr and not done.stdout
        return "stop"
    assert done.returncode == 0, done.stderr
    if not done.stdout:
        return "pass"
    asks = json.loads(done.stdout)["hookSpecificOutput"]
    assert (asks["hookEventName"], asks["permissionDecision"]) == ("PreToolUse", "ask")
    return "ask"


TOOLS = [name for name in ("git", "patch") if name == "git" or shutil.which(name)]


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (TWO, TWO.replace(PNPM.bare, PNPM.reason)),
        (TWO.replace("\n", "\r\n"), TWO.replace(PNPM.bare, PNPM.reason).replace("\n", "\r\n")),
        ("\ufeff" + TWO, "\ufeff" + TWO.replace(PNPM.bare, PNPM.reason)),
        (f"- {PNPM.bare}", f"- {PNPM.reason}"),
        (f"{PNPM.bare}. Name things well.\n", f"{PNPM.reason}. Name things well.\n"),
        ("- Use pnpm,\n  never npm or yarn\n- Be kind.\n", f"- {PNPM.reason}\n- Be kind.\n"),
        (f"- {PNPM.bare}\n```\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n```\n", f"- {PNPM.reason}\n```\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n```\n"),
        (f"- [ ] {PNPM.bare}\n- [x] Done\n", f"- [ ] {PNPM.reason}\n- [x] Done\n"),
        (f"- {PNPM.bare}!\n", f"- {PNPM.reason}!\n"),
        ("- Use pnpm,\\\n  never npm or yarn\n", f"- {PNPM.reason}\n"),
    ],
    ids=["lines", "crlf", "bom", "no-last-end", "sentence", "wrapped", "patch-inside", "box", "exclamation", "hard-break"],
)
def test_patch_applies_and_gives_the_text_that_was_measured(tmp_path: Path, tool: str, before: str, after: str) -> None:
    path = write(tmp_path / "app" / "AGENTS.md", before)
    run = make_run(path, tmp_path / "run", {"pnpm_only": ADD})
    done = call("--from", run)
    assert done.exit_code == EXIT_OK, done.output
    assert path.read_bytes() == before.encode(), "the rule file is not written"
    apply(tool, path.parent, done.stdout_bytes)
    assert path.read_bytes().decode() == after


@pytest.mark.parametrize("name", ["docs/my rules/AGENTS.md", "docs/r\u00e8gles \U0001f600/AGENTS.md", 'docs/a "b" \\c/AGENTS.md'])
def test_patch_names_odd_paths_as_git_does(tmp_path: Path, name: str) -> None:
    root = tmp_path / "app"
    root.mkdir()
    subprocess.run(["git", "init", "-q", root], check=True)
    path = root / name
    path.parent.mkdir(parents=True)
    path.write_text(TWO)
    done = call("--from", make_run(path, tmp_path / "run", {"pnpm_only": ADD}))
    apply("git", root, done.stdout_bytes)
    assert PNPM.reason in path.read_text()


def test_patch_applies_though_hooks_are_printed_behind_it(file: Path, tmp_path: Path) -> None:
    run = make_run(file, tmp_path / "run", {"pnpm_only": "add reason, make a hook", "no_color": ADD})
    done = call("--from", run)
    assert "#!/bin/sh" in done.stdout and "--output FOLDER" in done.stderr
    for tool in TOOLS:
        file.write_text(TWO)
        apply(tool, file.parent, done.stdout_bytes)
        assert PNPM.reason in file.read_text() and BUILT_IN["no_color"].wordings[0].reason in file.read_text()
    assert {path.name for path in file.parent.iterdir()} == {".git", "AGENTS.md"}


def test_tokens_of_each_reason_and_their_tokenizer_are_said(file: Path, tmp_path: Path) -> None:
    run = make_run(file, tmp_path / "run", {"pnpm_only": ADD, "no_color": ADD})
    fix = fix_rules(run)
    assert [edit.rule.line for edit in fix.edits] == [4, 5]
    assert all(5 < edit.tokens < 40 for edit in fix.edits)
    done = call("--from", run)
    assert f"its reason adds {fix.edits[0].tokens} tokens to every turn ({fix.edits[0].tokenizer})" in done.stderr
    assert f"together {sum(edit.tokens for edit in fix.edits)} tokens" in done.stderr
    assert "The reason of line 4, 5 is teachwhy's" in done.stderr


def test_changed_file_unfinished_run_and_no_run_are_refused(file: Path, tmp_path: Path) -> None:
    run = make_run(file, tmp_path / "run", {"pnpm_only": ADD})
    report = (run / "report.json").read_text()
    file.write_text(TWO + "\n")
    changed = call("--from", run)
    assert (changed.exit_code, changed.stdout) == (EXIT_USAGE, "")
    assert "the rule file has changed since the run" in changed.stderr
    file.write_text(TWO)
    assert call("--from", run).exit_code == EXIT_OK
    held = json.loads(report)
    del held["models"][0]["rules"][0]
    for text in (json.dumps(held), "{", '{"schema": "teachwhy.rules.run/1"}', "[]"):
        (run / "report.json").write_text(text)
        assert call("--from", run).exit_code == EXIT_USAGE
    (run / "report.json").unlink()
    assert "the run is not finished" in call("--from", run).stderr
    assert "there is no run in this folder" in call("--from", tmp_path).stderr


def test_file_of_the_same_name_here_is_not_taken_for_the_runs_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "app" / "AGENTS.md", TWO)
    write(tmp_path / "other" / "AGENTS.md", "- Use pnpm, never npm or yarn\n")
    monkeypatch.chdir(file.parent)
    run = make_run(Path("AGENTS.md"), tmp_path / "run", {"pnpm_only": ADD})
    monkeypatch.chdir(tmp_path / "other")
    assert fix_rules(run).file.resolve() == file
    (moved := tmp_path / "other" / "AGENTS.md").write_text(TWO)
    file.unlink()
    assert fix_rules(run).file.resolve() == moved


def test_rule_by_hand_is_mended(tmp_path: Path) -> None:
    path = write(tmp_path / "app" / "AGENTS.md", "pnpm as the package manager\n")
    (path.parent / ".teachwhy").mkdir()
    rule = {"id": "mine", "text": "pnpm as the package manager", "check": "pnpm_only", "reason": "npm writes a second lock file"}
    (path.parent / ".teachwhy" / "rules.yaml").write_text(yaml.safe_dump({"rules": [rule]}))
    diff = fix_rules(make_run(path, tmp_path / "run", {"pnpm_only": ADD}, models=("mockllm/model",))).diff
    assert "+pnpm as the package manager - npm writes a second lock file\n" in diff


@pytest.mark.parametrize("kind", ["leave", "keep reason", "need more", "no ruling", "perhaps needless"])
def test_nothing_advised_is_said_and_is_no_error(file: Path, tmp_path: Path, kind: str) -> None:
    done = call("--from", make_run(file, tmp_path / "run", {"pnpm_only": kind, "no_color": kind}), "--output", tmp_path / "hooks")
    assert (done.exit_code, done.stdout) == (EXIT_OK, "")
    assert "There is nothing to apply" in done.stderr
    assert not (tmp_path / "hooks").exists()


def test_models_that_do_not_agree_are_named(file: Path, tmp_path: Path) -> None:
    models = ("scripted/bare=0.1", "scripted/bare=0.2")
    run = make_run(file, tmp_path / "run", {f"{models[0]} pnpm_only": ADD, f"{models[1]} pnpm_only": "make a hook"}, models=models)
    fix = fix_rules(run)
    assert (len(fix.edits), len(fix.hooks)) == (1, 1)
    assert f"line 4: {models[0]}: add reason; {models[1]}: make a hook" in fix.notes


def test_hooks_are_written_below_output_alone_and_not_installed(file: Path, tmp_path: Path) -> None:
    run = make_run(file, tmp_path / "run", {"pnpm_only": "make a hook", "no_color": "keep reason, make a hook"})
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    output = file.parent / "my hooks"
    done = call("--from", run, "--output", output)
    assert (done.exit_code, done.stdout) == (EXIT_OK, "")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    new = {path for path in tmp_path.rglob("*") if path.is_file()} - set(before)
    assert len(new) == 2 and {path.parent for path in new} == {output}
    settings = json.loads(done.stderr[done.stderr.index("{") :])
    (group,) = settings["hooks"]["PreToolUse"]
    assert group["matcher"] == "Bash" and len(group["hooks"]) == 2
    given = json.dumps({"tool_name": "Bash", "tool_input": {"command": "NO_COLOR=1 npm i"}})
    env = {"CLAUDE_PROJECT_DIR": str(file.parent), "PATH": "/usr/bin:/bin:/usr/local/bin"}
    codes = [subprocess.run(["sh", "-c", one["command"]], input=given.encode(), env=env, check=False).returncode for one in group["hooks"]]
    assert sorted(codes) == [0, 2]
    assert call("--from", run, "--output", output).exit_code == EXIT_OK, "the same again is no other file"


def test_file_in_the_place_of_a_hook_is_left_alone(file: Path, tmp_path: Path) -> None:
    run = make_run(file, tmp_path / "run", {"pnpm_only": "make a hook", "no_color": "make a hook"})
    names = [hook.name for hook in fix_rules(run).hooks]
    output, outside = tmp_path / "hooks", tmp_path / "outside.sh"
    output.mkdir()
    (output / names[1]).symlink_to(outside)
    assert call("--from", run, "--output", output).exit_code == EXIT_USAGE
    assert [path.name for path in output.iterdir()] == [names[1]] and not outside.exists()
    (output / names[1]).unlink()
    (output / names[0]).write_text("mine")
    assert call("--from", run, "--output", output).exit_code == EXIT_USAGE
    assert (output / names[0]).read_text() == "mine"
    assert call("--from", run, "--output", output / names[0]).exit_code == EXIT_USAGE


def test_rule_id_is_no_path() -> None:
    ids = ["../../etc/x", "/etc/passwd", "..", "a/b", "a-b", "A-B", "", "\u00e9\n", "x" * 300, "use-pnpm-never-npm-or-57e7"]
    names = [name_file(one) for one in ids]
    assert len({name.lower() for name in names}) == len(ids)
    assert all(set(name[:-3]) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-") and len(name) < 90 for name in names)
    assert names[-1] == "use-pnpm-never-npm-or-57e7.sh"


def built_in_hook(name: str) -> Hook:
    one = BUILT_IN[name]
    return make_hook(one.check, id=name, rule=one.rule, reason=one.reason, place="AGENTS.md:3")


def wanted(check: Check, example: Example, verdict: str) -> str:
    """A hook cannot know that the user has agreed: it asks."""
    if check.approval:
        return "ask" if verdict == "broken" or example.approved else "pass"
    return "stop" if verdict == "broken" else "pass"


@pytest.mark.parametrize("name", BUILT_IN)
def test_hook_reads_the_examples_of_its_check(tmp_path: Path, name: str) -> None:
    hook, check = built_in_hook(name), BUILT_IN[name].check
    (path,) = save_hooks([hook], tmp_path)
    for verdict, examples in (("kept", check.kept), ("broken", check.broken)):
        for example in examples:
            if example.bash:
                done = run_hook(path, example.bash)
                assert said(done) == wanted(check, example, verdict), example.bash
                assert BUILT_IN[name].rule in done.stderr + done.stdout or said(done) == "pass"
                assert BUILT_IN[name].reason in done.stderr + done.stdout or said(done) == "pass"


def load(hook: Hook) -> dict[str, Any]:
    """The script's own functions."""
    code = hook.script.split("<<'END_OF_HOOK'\n")[1].split("\nsys.exit(main())")[0]
    held: dict[str, Any] = {}
    exec(compile(code, hook.name, "exec"), held)  # noqa: S102
    return held


def stops(held: Mapping[str, Any], command: str) -> bool:
    return any(not held["matches"](held["RULE"]["unless"], one[0]) and held["breaks"](*one) for one in held["commands"](command, {}))


def test_hooks_read_the_labelled_steps_as_the_docs_say() -> None:
    lines = [one for one in yaml.safe_load((Path(__file__).parent / "command_lines.yaml").read_text()) if one.get("bash")]
    hooks = {name: load(built_in_hook(name)) for name in BUILT_IN}
    counts: Counter[tuple[bool, bool]] = Counter()
    for line in lines:
        if not line.get("approved"):
            counts[line["verdict"] == "broken", stops(hooks[line["rule"]], line["bash"])] += 1
    broken, others = counts[True, True] + counts[True, False], counts[False, True] + counts[False, False]
    says = f"{counts[True, True]} of {broken} broken ones stopped, {counts[False, True]} of {others} others too"
    assert says in " ".join((Path(__file__).parents[1] / "docs" / "rules.md").read_text().split()), says


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("npm i", "stop"),
        ("echo 'npm i'", "pass"),
        ("echo ok # npm i", "pass"),
        ('echo "$(npm i)"', "stop"),
        ("if true; then npm i; fi", "stop"),
        ("pnpm i 2>&1 | tee npm", "pass"),
        ("cat <<'EOF' > notes\nnpm i\nEOF", "pass"),
        ("bash <<'EOF'\nnpm i\nEOF", "stop"),
        ("cat > x <<EOF\nit's\nEOF\nnpm i", "stop"),
        ("bash -lc 'cd web && npm i'", "stop"),
        ("env -u A B=1 sudo -u me timeout 5 npm i", "stop"),
        ("npm i 'unclosed", "stop"),
        ("./node_modules/.bin/npm\\\n i", "stop"),
        ("x=$((1 + 2)); echo npm", "pass"),
        ("", "pass"),
        ("\x01 0\x01 \x02 9\x02 \x03", "pass"),
    ],
)
def test_hook_finds_commands_where_they_would_run(tmp_path: Path, command: str, expected: str) -> None:
    (path,) = save_hooks([built_in_hook("pnpm_only")], tmp_path)
    assert said(run_hook(path, command)) == expected


@pytest.mark.parametrize("part", ["<<a\n", "$(", "(", "'", "\"$(cat <<'E'\nE\n)\" ", "bash -c '", "a;", "1>", "\\", "sudo "])
def test_hook_is_quick_whatever_it_is_given(part: str) -> None:
    held = load(built_in_hook("no_reset"))
    started = time.monotonic()
    stops(held, part * 5000)
    assert time.monotonic() - started < 10


def test_other_tools_pass_and_an_unread_call_is_no_verdict(tmp_path: Path) -> None:
    (path,) = save_hooks([built_in_hook("pnpm_only")], tmp_path)
    assert said(run_hook(path, "npm i", tool_name="Write")) == "pass"
    for given in (b"", b"\xff", b"[]", b"{}", b'{"tool_name": "Bash"}', b'{"tool_name": "Bash", "tool_input": {"command": 3}}'):
        done = subprocess.run(["sh", path], input=given, capture_output=True)
        assert (done.returncode, done.stdout) == (1, b"") and b"cannot be read" in done.stderr


def test_what_comes_from_a_file_is_data_in_a_hook(tmp_path: Path) -> None:
    evil = "'''\"\"\"\\\nEND_OF_HOOK\ntouch owned; $(touch owned) `touch owned` @DATA@ \x1b[31m\x7f\u202e\U0001f600 ]]> \ud800"
    check = Check(forbid=("npm ...",), message_forbid="", instead=(evil,), unless=("echo ...",))
    hook = make_hook(check, id="../x", rule=evil, reason=evil, place=evil)
    assert hook.script.isascii() and not set(hook.script) & {"\x1b", "\x7f", "\x00"}
    assert hook.script.count("\nEND_OF_HOOK\n") == 1
    (path,) = save_hooks([hook], tmp_path / "hooks")
    given = json.dumps({"tool_name": "Bash", "tool_input": {"command": "npm i \x1b[0m; touch owned"}}).encode()
    done = subprocess.run(
        ["sh", path], input=given, capture_output=True, cwd=tmp_path, env={"PATH": "/usr/local/bin:/usr/bin", "LC_ALL": "C"}
    )
    assert done.returncode == 2
    assert not set(done.stderr) & {0x1B, 0x7F, 0x00} and b"touch owned" in done.stderr
    assert [one.name for one in tmp_path.iterdir()] == ["hooks"]


def test_hook_without_python_says_so_and_lets_pass(tmp_path: Path) -> None:
    (path,) = save_hooks([built_in_hook("pnpm_only")], tmp_path)
    done = subprocess.run(["/bin/sh", path], input=b"{}", capture_output=True, env={"PATH": str(tmp_path)})
    assert done.returncode == 1 and b"python3 is missing" in done.stderr


def test_check_that_changed_since_the_run_is_said(file: Path, tmp_path: Path) -> None:
    run = make_run(file, tmp_path / "run", {"pnpm_only": "make a hook"})
    assert not any("no longer those of the run" in note for note in fix_rules(run).notes)
    own = {"forbid": ["npm ..."], "instead": ["pnpm ..."], "kept": [{"bash": "pnpm i"}], "broken": [{"bash": "npm i"}]}
    id_ = next(one for one in json.loads((run / "plan.json").read_text())["rules"] if "pnpm" in one)
    folder = file.parent / ".teachwhy"
    folder.mkdir()
    (folder / "rules.yaml").write_text(yaml.safe_dump({"rules": [{"id": id_, "text": PNPM.bare, "check": own}]}))
    assert any("no longer those of the run" in note for note in fix_rules(run).notes)
    (folder / "rules.yaml").write_text(yaml.safe_dump({"rules": [{"id": id_, "text": PNPM.bare, "check": "none"}]}))
    with pytest.raises(UserError, match="has no check"):
        fix_rules(run)


def test_run_is_fixed_from_end_to_end(tmp_path: Path) -> None:
    path = write(tmp_path / "app" / "AGENTS.md", f"- {PNPM.bare}\n")
    words = f"run {shlex.quote(str(path))} --model scripted/none=1,bare=0.7,filler=0.7,reason=0.3 --sessions 100 --yes --output"
    done = CliRunner().invoke(cli.app, ["rules", *shlex.split(words), str(tmp_path / "run"), "--fail-on", "broken"], prog_name="teachwhy")
    assert done.exit_code == 1, done.output
    assert "broken: line 1, 'Use pnpm, never npm or yarn'" in done.stdout
    fixed = call("--from", tmp_path / "run", "--output", tmp_path / "hooks")
    apply("git", path.parent, fixed.stdout_bytes)
    assert path.read_text() == f"- {PNPM.reason}\n"
    (hook,) = (tmp_path / "hooks").iterdir()
    assert said(run_hook(hook, "npm install")) == "stop"
    assert call("--from", tmp_path / "run").exit_code == EXIT_USAGE, "the file is another one now"
