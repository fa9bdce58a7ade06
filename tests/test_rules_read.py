"""Rule files: which lines are rules, where their reasons stand, what is bound to which check, and what cannot be read."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from teachwhy.cli import app as cli
from teachwhy.errors import EXIT_USAGE, UserError
from teachwhy.rules.bind import KEPT, Kept, KeptRule, bind_rules, read_built_in, read_kept
from teachwhy.rules.checks import Check, Example, Step, check_examples, match_argv, read_step
from teachwhy.rules.read import find_rule_files, parse_rules, read_rule_file, split_reason
from teachwhy.rules.schemas import make_schemas


def call(*words: str | Path) -> Any:
    return CliRunner().invoke(cli.app, ["rules", *map(str, words)], prog_name="teachwhy")


@pytest.mark.parametrize(
    ("text", "bare", "reason"),
    [
        ("Always use NO_COLOR=1", "Always use NO_COLOR=1", ""),
        ("Use NO_COLOR=1 - ANSI escape codes waste tokens.", "Use NO_COLOR=1", "ANSI escape codes waste tokens"),
        ("Use NO_COLOR=1 — ANSI codes waste tokens", "Use NO_COLOR=1", "ANSI codes waste tokens"),
        ("Use rg because grep times out.", "Use rg", "grep times out"),
        ("Use rg, since grep times out", "Use rg", "grep times out"),
        ("Ask first so that nobody is paged", "Ask first", "nobody is paged"),
        ("Write tests, otherwise bugs come back", "Write tests", "otherwise bugs come back"),
        ("Never push (it starts a deployment)", "Never push", "it starts a deployment"),
        ("Use uv (e.g. `uv add x`)", "Use uv (e.g. `uv add x`)", ""),
        ("Use pnpm - see the wiki", "Use pnpm - see the wiki", ""),
        ("Never push. It starts a deployment.", "Never push", "It starts a deployment"),
        ("Never push. Reason: it starts a deployment.", "Never push", "it starts a deployment"),
        ("Use tabs - never spaces", "Use tabs - never spaces", ""),
        ("**Never** push", "Never push", ""),
        ("__Never push__ to `main`", "Never push to `main`", ""),
        ("**Use `a/**/b`, never `pnpm --filter **`**", "Use `a/**/b`, never `pnpm --filter **`", ""),
        ("Never edit `packages/**/src` or `__tests__`", "Never edit `packages/**/src` or `__tests__`", ""),
        ("Never edit packages/**/src, docs/** or __init__.py", "Never edit packages/**/src, docs/** or __init__.py", ""),
        ("Never push! It starts a deployment!", "Never push", "It starts a deployment"),
        ("Use NO_COLOR=1. ANSI escape codes waste tokens.", "Use NO_COLOR=1", "ANSI escape codes waste tokens"),
        ("Use uv. See the wiki.", "Use uv. See the wiki", ""),
        ("Never run git reset --hard, git checkout -- or git clean", "Never run git reset --hard, git checkout -- or git clean", ""),
        ("Never run git checkout -- - others would lose work", "Never run git checkout --", "others would lose work"),
        ("Never run git checkout -- x - changes would be lost", "Never run git checkout -- x", "changes would be lost"),
    ],
)
def test_reason_is_told_from_its_rule(text: str, bare: str, reason: str) -> None:
    assert split_reason(text)[:2] == (bare, reason)


FILE = """---
globs: "*.py"
---
# Rules must have a title

The API lives in src. Never push without asking. A push deploys.

- Use `rg`, not grep
  - grep walks into the build folder
  - never use egrep either
- The tests are in tests/
* [ ] Do not run git clean
  for any reason
1. Prefer uv:
2. Always write a test first.

```bash
Use npm
```
> Never quote

<!-- Never comment -->
- Use `rg`, not grep
"""


def test_lines_that_direct_are_rules_and_nothing_else_is() -> None:
    rules = parse_rules(FILE, "x.md")
    assert [(rule.line, rule.bare) for rule in rules] == [
        (6, "Never push without asking"),
        (8, "Use `rg`, not grep"),
        (10, "never use egrep either"),
        (12, "Do not run git clean for any reason"),
        (15, "Always write a test first"),
        (23, "Use `rg`, not grep"),
    ]
    assert (rules[0].reason, rules[0].form) == ("A push deploys", "sentence")
    assert (rules[1].reason, rules[1].form) == ("grep walks into the build folder", "sub-item")
    assert rules[5].note == "the same as line 8"


def test_bold_type_over_two_sentences_goes_from_both() -> None:
    assert [rule.bare for rule in parse_rules("**Never push. Always ask first.**")] == ["Never push", "Always ask first"]


def test_lone_carriage_returns_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "AGENTS.md"
    path.write_bytes(b"# A\r\r- Never push\r")
    with pytest.raises(UserError, match="carriage return alone"):
        read_rule_file(path)
    path.write_bytes(b"# A\r\n\r\n- Never push\r\n")
    assert [rule.line for rule in read_rule_file(path)[0].rules] == [3]


def test_id_is_of_the_bare_text_alone() -> None:
    plain, reasoned, spaced, other = (
        parse_rules(f"- {text}")[0].id for text in ("Use rg", "Use rg because it is fast", "use  RG!", "Use fd")
    )
    assert plain == reasoned == spaced != other


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet=st.sampled_from("Use never - because (it) x.\n*`#>1[]—\t\\<!@é"), max_size=200))
def test_any_text_is_read_and_every_rule_lies_in_it(text: str) -> None:
    n_lines = text.count("\n") + text.count("\r") + 1
    for rule in parse_rules(text):
        assert 1 <= rule.line <= n_lines
        assert rule.bare
        assert rule.reason in " ".join(rule.text.split()) or rule.form


def test_imports_of_the_project_are_followed_once_and_others_are_named(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "CLAUDE.md").write_text("Use rg.\n@docs/more.md and @nobody and `@docs/code.md`\n@../outside.md\n")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "more.md").write_text("Never use find.\n@../CLAUDE.md\n")
    (tmp_path / "docs" / "code.md").write_text("Never read me.\n")
    outside = tmp_path.parent / "outside.md"
    outside.write_text("Always stay out.\n")
    first, second = read_rule_file(tmp_path / "CLAUDE.md")
    assert [rule.bare for one in (first, second) for rule in one.rules] == ["Use rg", "Never use find"]
    assert first.skipped == ("@../outside.md: outside the project",)


def test_nearest_folder_with_rules_is_found_up_to_the_repository(tmp_path: Path) -> None:
    (tmp_path / "AGENTS.md").write_text("Use rg.\n")
    inner = tmp_path / "repo"
    (inner / ".git").mkdir(parents=True)
    (inner / "src").mkdir()
    with pytest.raises(UserError, match="no rule file was found"):
        find_rule_files(inner / "src")
    (inner / ".cursor" / "rules").mkdir(parents=True)
    (inner / ".cursor" / "rules" / "a.mdc").write_text("Use fd.\n")
    assert [path.name for path in find_rule_files(inner / "src")] == ["a.mdc"]


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "no line reads like a rule"),
        (b"The API is in src.\n", "no line reads like a rule"),
        (b"\x00\x01", "the file is binary"),
        (b"\xff\xfe", "no text in UTF-8"),
        (b"x" * 5_000_000, "5,000,000 bytes"),
    ],
)
def test_file_that_holds_no_rules_is_refused_with_what_to_do(tmp_path: Path, raw: bytes, says: str) -> None:
    path = tmp_path / "AGENTS.md"
    path.write_bytes(raw)
    found = call("read", path)
    assert found.exit_code == EXIT_USAGE
    assert says in found.output and str(path) in found.output


def test_long_rule_and_control_codes_are_shown_and_harm_nothing(tmp_path: Path) -> None:
    path = tmp_path / "AGENTS.md"
    path.write_text("- Never " + "very " * 20_000 + "slow\n- Use \x1b[31m<b>rg</b>\x1b[0m always\n")
    found = call("read", path)
    assert found.exit_code == 0
    assert "\x1b" not in found.output
    assert "line 1: longer than 2,000 letters" in found.output
    assert len(found.output) < 5000


def test_every_built_in_rule_binds_to_its_own_wording_and_no_other() -> None:
    built_in = read_built_in()
    assert len(built_in) == 7
    for name, one in built_in.items():
        assert check_examples(one.check) == []
        (bound,) = bind_rules(parse_rules(f"- {one.rule} - {one.reason}"), Kept())
        assert (bound.check_name, bound.reason) == (name, one.reason)


@pytest.mark.parametrize("text", ["Never log passwords", "Commit small changes", "Use git for everything", "Push back on bad ideas"])
def test_rule_without_a_check_has_none(text: str) -> None:
    (bound,) = bind_rules(parse_rules(f"- {text}"), Kept())
    assert (bound.check, bound.check_name) == (None, "")


def test_reworded_rule_keeps_its_id_and_what_belongs_to_it() -> None:
    (before,) = parse_rules("- Always use NO_COLOR=1 when running commands")
    kept = Kept(rules=(KeptRule(id=before.id, text=before.bare, reason="colours waste tokens"),))
    (after,) = bind_rules(parse_rules("- Always use NO_COLOR=1 when running shell commands"), kept)
    assert (after.rule.id, after.was) == (before.id, before.bare)
    assert (after.reason, after.reason_from) == ("colours waste tokens", "rules.yaml")
    (other,) = bind_rules(parse_rules("- Never delete the database"), kept)
    assert other.was == ""


def test_init_writes_a_file_to_edit_and_keeps_what_was_edited(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    path = tmp_path / "AGENTS.md"
    path.write_text("- Use rg\n- Write tests first\n")
    assert call("init", path).output.strip() == str(tmp_path / KEPT)
    held = read_kept(tmp_path)
    assert [rule.text for rule in held.rules] == ["Use rg", "Write tests first"]
    own = "check: {forbid: ['make test'], instead: ['make check'], kept: [{bash: make check}], broken: [{bash: make test}]}"
    text = (tmp_path / KEPT).read_text()
    (tmp_path / KEPT).write_text(text.replace("  check: ''\n", f"  {own}\n").replace("reason: ''", "reason: it is so"))
    path.write_text("- Use rg\n- Never push\n")
    call("init", path)
    again = {rule.text: rule for rule in read_kept(tmp_path).rules}
    assert set(again) == {"Use rg", "Write tests first", "Never push"}, "what is no longer in the file is not thrown away"
    assert isinstance(again["Use rg"].check, Check) and again["Use rg"].reason == "it is so"
    listed = json.loads(call("read", path, "--format", "json").output)
    assert [(rule["check"], rule["reason"]) for rule in listed["rules"]] == [("own", "it is so"), ("", "")]


@pytest.mark.parametrize(
    ("check", "says"),
    [
        ({"forbid": ["x ..."], "kept": [{"bash": "x"}], "broken": [{"bash": "x"}]}, "'x' is read as broken, not as kept"),
        ({"forbid": ["never-run ..."], "instead": ["y"], "kept": [{"bash": "y"}], "broken": [{"bash": "x"}]}, "is read as not applicable"),
        ({"env": {"A": "1"}, "broken": [{"bash": "x"}]}, "it has no example that is kept"),
        ({}, "a check is one of env, forbid"),
        ({"env": {"A": "1"}, "forbid": ["x"]}, "here: env, forbid"),
        ({"applies": ["x"], "message_forbid": "("}, "is no regular expression"),
        ("nothing", "there is no check 'nothing'"),
    ],
)
def test_check_that_decides_nothing_is_refused(tmp_path: Path, check: Any, says: str) -> None:
    (tmp_path / KEPT).parent.mkdir()
    (tmp_path / KEPT).write_text(json.dumps({"version": 1, "rules": [{"id": "a", "text": "Use x", "check": check}]}))
    with pytest.raises(UserError) as caught:
        read_kept(tmp_path)
    assert says in str(caught.value)
    assert str(KEPT) in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "argv", "fits"),
    [
        ("git push ...", "git push", True),
        ("git push ...", "git -C app -c a=b push origin", True),
        ("git push ...", "git commit -m push", False),
        ("git push ...", "git", False),
        ("git reset ... --hard ...", "git reset HEAD~1 --hard", True),
        ("git reset ... --hard ...", "git reset --soft", False),
        ("npm|yarn ...", "yarn add x", True),
        ("npm|yarn ...", "pnpm add x", False),
        ("python3.* -m pip ...", "python3.11 -m pip install", True),
        ("git checkout .", "git checkout . src", False),
        ("ls", "/bin/ls", True),
    ],
)
def test_patterns_are_written_like_commands(pattern: str, argv: str, fits: bool) -> None:
    assert match_argv(pattern, argv.split()) is fits


def test_what_gives_no_opportunity_is_not_applicable() -> None:
    built_in = read_built_in()
    steps = {
        "no_color": "cd app",
        "ask_before_push": "git fetch",
        "no_ai_trailer": "git status",
        "uv_only": "make",
        "search_tools": "cat a | grep b",
    }
    for name, bash in steps.items():
        assert read_step(built_in[name].check, Step("Done.", (bash,))).verdict == "not_applicable", name
    assert read_step(built_in["ask_before_push"].check, Step("Shall I push?"), approved=True).verdict == "not_applicable"
    assert Example(bash="x").message == ""


def test_diff_says_what_a_change_did_to_the_rules(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(
            ["git", "-C", str(tmp_path), "-c", "user.name=A", "-c", "user.email=a@example.org", *words], check=True, capture_output=True
        )

    git("init", "-q")
    path = tmp_path / "AGENTS.md"
    path.write_text("- Use rg because grep is slow\n- Never push without asking\n- Always write a test\n")
    git("add", "AGENTS.md")
    git("commit", "-q", "-m", "Rules")
    assert "No rule has changed since HEAD." in call("read", path, "--diff", "HEAD").output
    path.write_text("- Use rg\n- Never push without asking first\n- Prefer small commits\n")
    found = json.loads(call("read", path, "--diff", "HEAD", "--format", "json").output)
    assert [(one["change"], one["rule"]["bare"]) for one in found["changes"]] == [
        ("reason removed", "Use rg"),
        ("reworded", "Never push without asking first"),
        ("added", "Prefer small commits"),
        ("removed", "Always write a test"),
    ]
    shown = call("read", path, "--diff", "HEAD").output
    assert "reason: grep is slow -> none" in shown and "was: Never push without asking" in shown
    wrong = call("read", path, "--diff", "nothing")
    assert wrong.exit_code == EXIT_USAGE
    assert "there is no revision 'nothing'" in wrong.output
    (tmp_path / "CLAUDE.md").write_text("- Always write a test\n")
    assert "added: " in call("read", tmp_path / "CLAUDE.md", "--diff", "HEAD").output, "a file that was not there had no rules"
    assert call("read", path, "--diff", "--output=x").exit_code == EXIT_USAGE


@pytest.mark.parametrize(
    "text",
    [
        "You must run `uv run pytest -q` before you say that a task is done",
        "Run `uv sync` once and then `make dev`",
        "Always run `pnpm lint --fix`",
        "Never use `git reset --soft`",
        "Do not install rg",
        "Use NO_COLOR in the docs theme",
    ],
)
def test_rule_that_only_names_a_tool_binds_to_nothing(text: str) -> None:
    (bound,) = bind_rules(parse_rules(f"- {text}"), Kept())
    assert bound.check_name == "", bound.by


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("pnpm only", "pnpm_only"),
        ("Use `pnpm`, never npm", "pnpm_only"),
        ("Use uv", "uv_only"),
        ("Never use pip, use uv", "uv_only"),
        ("Search with rg", "search_tools"),
        ("Prefer rg over grep", "search_tools"),
        ("Do not run git reset --hard", "no_reset"),
        ("Set NO_COLOR for every command", "no_color"),
    ],
)
def test_rule_binds_to_what_decides_it(text: str, name: str) -> None:
    (bound,) = bind_rules(parse_rules(f"- {text}"), Kept())
    assert bound.check_name == name


def test_tables_hold_no_rules_and_marked_lines_are_each_one() -> None:
    assert parse_rules("| command | when |\n|---|---|\n| `uv run pytest` | always before pushing |\n") == []
    assert [rule.bare for rule in parse_rules("✅ DO: use rg\n❌ DON'T: never push\n")] == ["✅ DO: use rg", "❌ DON'T: never push"]
    assert [rule.bare for rule in parse_rules("- **Naming**: use snake_case\n- 2 spaces, no tabs\n")] == ["Naming: use snake_case"]


def test_items_that_read_like_no_rule_are_counted_and_can_be_added_by_hand(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    path = tmp_path / "AGENTS.md"
    path.write_text("- Use rg\n- 2 spaces and tabs nowhere\n- The API is in src\n")
    shown = call("read", path).output
    assert "2 list items" in shown and "lines 2, 3" in shown
    (tmp_path / KEPT).parent.mkdir()
    rows = [
        {"id": "spaces", "text": "2 spaces and tabs nowhere", "reason": "the linter says so"},
        {"id": "gone", "text": "Not in the file"},
    ]
    (tmp_path / KEPT).write_text(json.dumps({"version": 1, "rules": rows}))
    listed = json.loads(call("read", path, "--format", "json").output)
    assert [(rule["id"], rule["line"], rule["reason"]) for rule in listed["rules"]][1] == ("spaces", 2, "the linter says so")
    assert listed["unread"] == [3]
    assert listed["skipped"] == [f"{KEPT}, gone: no rule of the file is like it"]


def test_check_can_be_taken_off_a_rule(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    path = tmp_path / "AGENTS.md"
    path.write_text("- Never run git reset --hard\n")
    call("init", path)
    (tmp_path / KEPT).write_text((tmp_path / KEPT).read_text().replace("check: ''", "check: none"))
    assert json.loads(call("read", path, "--format", "json").output)["rules"][0]["check"] == ""


@pytest.mark.parametrize("name", sorted(make_schemas()))
def test_published_schema_is_what_is_printed(name: str) -> None:
    path = Path(__file__).parent.parent / "docs" / name
    assert path.read_text() == make_schemas()[name], "type: python -m teachwhy.rules.schemas"
