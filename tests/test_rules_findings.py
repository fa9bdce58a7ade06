"""What a build stops on: broken rules, regressions, no answer; and what is printed of them is well-formed whatever a rule says."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from teachwhy.cli import app as cli
from teachwhy.errors import EXIT_FINDINGS, EXIT_INCONCLUSIVE, EXIT_OK, EXIT_USAGE, UserError
from teachwhy.rules.findings import Finding, count_known, exit_code, find_findings, read_baseline, show_github, show_junit
from teachwhy.rules.read import name_rule
from teachwhy.statistics import wilson_interval

MODEL = "scripted/bare=0.1"
EVIL = "Never \u202e\u2066\x00\x1b[31m\x7f\x85\ud800\ufffe <b>&amp;</b> ]]> \U0001f600 100%, a:b\r\n::error::no\t'\""


def rate(broken: int, n: int) -> dict[str, Any]:
    found = wilson_interval(broken, n) if n else None
    limits = {"rate": broken / n, "low": found.low, "high": found.high} if found else {"rate": None, "low": None, "high": None}
    return {"n": n, "broken": broken, "acted": n, "missing": 1, **limits}


def make_report(
    *rules: tuple[str, str, dict[str, tuple[int, int]]], model: str = MODEL, judged: bool = True, text: str = "Use pnpm"
) -> dict[str, Any]:
    """rules: (id, ruling, broken and n by condition)."""
    rows = []
    for line, (id_, ruling, conditions) in enumerate(rules, 1):
        row: dict[str, Any] = {"id": id_, "line": line, "text": text, "check": "pnpm_only", "ruling": ruling, "says": f"says {text}"}
        row |= {"more": None, "stopped": "", "rounds": 2, "disagreements": 0, "comparisons": []}
        row["conditions"] = {name: rate(*value) for name, value in conditions.items()}
        rows.append(row)
    models = [{"model": model, "judged": judged, "acts": 1.0, "told": True, "rules": rows}]
    return {"schema": "teachwhy.rules.run/1", "file": "AGENTS.md", "sha256": "0", "settings": {"tolerance": 0.02}, "models": models}


def kinds(found: list[Finding]) -> list[tuple[str, str]]:
    return [(one.rule, one.kind) for one in found]


def test_rule_is_broken_when_its_lower_limit_is_over_the_tolerance() -> None:
    report = make_report(
        ("high", "make a hook", {"bare": (40, 100)}), ("some", "leave", {"bare": (3, 100)}), ("none", "leave", {"bare": (0, 400)}),
        ("unread", "leave", {"bare": (0, 0)}),
    )  # fmt: skip
    assert kinds(find_findings(report)) == [("high", "broken")]
    assert find_findings(report)[0].says == "bare: 40 of 100 steps broke it (30.9% to 49.8%); at least 30.9%, 2.0% are tolerated"


def test_rule_with_its_reason_in_the_file_is_taken_at_its_better_rate() -> None:
    conditions = {"bare": (40, 100), "filler": (40, 100), "reason": (0, 100)}
    report = make_report(("a", "keep reason", conditions))
    assert kinds(find_findings(report)) == [("a", "broken")]
    assert not find_findings(report, with_reason={"a"})
    still = make_report(("a", "keep reason, make a hook", {**conditions, "reason": (20, 100)}))
    assert find_findings(still, with_reason={"a"})[0].says.startswith("reason: 20 of 100")


def test_model_that_is_not_fit_to_judge_breaks_no_rule() -> None:
    report = make_report(("a", "no ruling", {"bare": (40, 100)}), judged=False)
    assert kinds(find_findings(report)) == [("a", "inconclusive")]


def test_regression_is_an_interval_wholly_above_that_of_the_baseline() -> None:
    before = make_report(("a", "leave", {"bare": (1, 200)}), ("b", "leave", {"bare": (1, 200)}), ("d", "leave", {"bare": (0, 0)}))
    now = make_report(
        ("a", "need more", {"bare": (20, 200)}), ("b", "leave", {"bare": (5, 200)}), ("c", "leave", {"bare": (9, 200)}),
        ("d", "leave", {"bare": (9, 200)}),
    )  # fmt: skip
    found = [one for one in find_findings(now, baseline=before) if one.kind == "regression"]
    assert kinds(found) == [("a", "regression")]
    assert found[0].says.endswith("before 1 of 200 steps broke it (0.1% to 2.8%)")
    assert not [one for one in find_findings(before, baseline=now) if one.kind == "regression"], "better is no regression"
    other = make_report(("a", "leave", {"bare": (1, 200)}), model="another")
    unfit = make_report(("a", "leave", {"bare": (1, 200)}), judged=False)
    assert not [one for each in (other, unfit) for one in find_findings(now, baseline=each) if one.kind == "regression"]
    lost = make_report(("a", "no ruling", {"bare": (100, 200)}), judged=False)
    assert ("a", "regression") in kinds(find_findings(lost, baseline=before)), (
        "rules that are no longer heeded at all are no smaller matter"
    )


@pytest.mark.parametrize("ruling", ["need more", "no ruling"])
def test_no_answer_is_inconclusive_and_no_finding(ruling: str) -> None:
    found = find_findings(make_report(("a", ruling, {"bare": (0, 40)})))
    assert kinds(found) == [("a", "inconclusive")]


@pytest.mark.parametrize(
    ("fail_on", "code"),
    [
        ((), EXIT_OK),
        (("never",), EXIT_OK),
        (("broken",), EXIT_FINDINGS),
        (("regression",), EXIT_OK),
        (("inconclusive",), EXIT_INCONCLUSIVE),
        (("regression", "inconclusive"), EXIT_INCONCLUSIVE),
        (("broken", "inconclusive"), EXIT_FINDINGS),
    ],
)
def test_exit_code_is_of_the_kinds_that_were_asked_for(fail_on: tuple[str, ...], code: int) -> None:
    found = find_findings(make_report(("a", "need more", {"bare": (40, 100)})))
    assert kinds(found) == [("a", "broken"), ("a", "inconclusive")]
    assert exit_code(found, fail_on) == code
    assert exit_code([], fail_on) == EXIT_OK


def test_junit_has_a_case_a_rule_and_model_with_its_counts() -> None:
    report = make_report(
        ("a", "make a hook", {"bare": (40, 100), "reason": (39, 100)}),
        ("b", "need more", {"bare": (1, 40)}),
        ("c", "leave", {"bare": (0, 400)}),
    )
    report["models"] += make_report(("a", "leave", {"bare": (0, 400)}), model="other")["models"]
    whole = ElementTree.fromstring(show_junit(report, find_findings(report), ["broken"], "docs/AGENTS.md"))  # noqa: S314
    suite, other = whole.findall("testsuite")
    assert [suite.get(name) for name in ("tests", "failures", "skipped", "errors")] == ["3", "1", "1", "0"]
    assert [other.get(name) for name in ("tests", "failures", "skipped", "errors")] == ["1", "0", "0", "0"]
    a, b, c = suite.findall("testcase")
    assert (a.get("classname"), a.get("file"), a.get("line")) == (MODEL, "docs/AGENTS.md", "1")
    failure = a.find("failure")
    assert failure is not None and failure.get("type") == "broken" and "40 of 100" in str(failure.get("message"))
    held = {one.get("name"): one.get("value") for one in a.findall("properties/property")}
    assert (held["bare.broken"], held["bare.n"], held["bare.missing"], held["ruling"]) == ("40", "100", "1", "make a hook")
    assert b.find("skipped") is not None, "what has no answer has not passed"
    assert [child.tag for child in c] == ["properties", "system-out"]
    strict = ElementTree.fromstring(show_junit(report, find_findings(report), ["inconclusive"], "AGENTS.md"))  # noqa: S314
    assert [one.get("type") for one in strict.iter("failure")] == ["inconclusive"]


def test_junit_is_well_formed_whatever_a_rule_says() -> None:
    report = make_report((EVIL, "make a hook", {"bare": (40, 100)}), (f"{EVIL}2", "need more", {"bare": (0, 9)}), model=EVIL, text=EVIL)
    text = show_junit(report, find_findings(report), ["broken"], EVIL)
    whole = ElementTree.fromstring(text)  # noqa: S314
    case = next(whole.iter("testcase"))
    assert "<b>&amp;</b> ]]> \U0001f600 100%" in str(case.get("name"))
    assert not set(text.decode()) & {"\x00", "\x1b", "\x7f", "\x85", "\ufffe", "\u202e", "\u2066"}
    assert not whole.findall(".//b")


def test_workflow_commands_are_one_line_each_and_escaped() -> None:
    report = make_report((EVIL, "make a hook", {"bare": (40, 100)}), text=EVIL, model="a,b:c%\nd")
    text = show_github(find_findings(report), "docs/a, b:%.md")
    assert text.count("\n") == 1 and "\r" not in text and not set(text) & {"\x00", "\x1b", "\x7f", "\u202e", "\u2066"}
    head, _, message = text.removeprefix("::").partition("::")
    assert head == "warning file=docs/a%2C b%3A%25.md,line=1,title=broken%3A a%2Cb%3Ac%25%0Ad"
    assert "100%25, a:b%0D%0A::error::no" in message
    assert not show_github([], "AGENTS.md")


def test_baseline_that_could_never_be_compared_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    file, path = tmp_path / "AGENTS.md", tmp_path / "report.json"
    file.write_text("- Use pnpm, never npm or yarn\n")

    def call(*words: str | Path) -> Any:
        given = ["rules", "run", str(file), "--model", MODEL, "--plan", *map(str, words)]
        return CliRunner().invoke(cli.app, given, prog_name="teachwhy")

    path.write_text(json.dumps(make_report(("another", "leave", {"bare": (0, 400)}))))
    for words, says in (
        (("--baseline", path), "none of these rules under these models"),
        (("--baseline", tmp_path / "no.json"), "there is no such file"),
        (("--fail-on", "regression"), "needs something to be compared with"),
        (("--fail-on", "never", "--fail-on", "broken"), "never stands beside another kind"),
        (("--fail-on", "sometimes"), "--fail-on"),
    ):
        found = call(*words)
        assert found.exit_code == EXIT_USAGE and says in found.stderr, (words, found.stderr)
    id_ = name_rule("Use pnpm, never npm or yarn")
    path.write_text(json.dumps(make_report((id_, "leave", {"bare": (0, 400)}))))
    known = call("--baseline", path, "--fail-on", "regression", "--fail-on", "inconclusive")
    assert known.exit_code == EXIT_OK and "compared with the baseline: 1 of 1" in known.stderr
    assert count_known(read_baseline(path), [MODEL, "other"], [id_, "b"]) == 1
    bare = {"n": 9, "broken": 1, "low": 0.1, "high": 0.2}
    for wrong in (None, [], "x", {}, {**bare, "n": "9"}, {**bare, "high": None}, {**bare, "low": float("nan")}, {"n": 9, "broken": 1}):
        damaged = make_report((id_, "leave", {"bare": (0, 400)}))
        damaged["models"][0]["rules"][0]["conditions"]["bare"] = wrong
        path.write_text(json.dumps(damaged))
        found = call("--baseline", path)
        assert found.exit_code == EXIT_USAGE and "not a whole report" in found.stderr, (wrong, found.output)
    for text in ("{", "[]", '{"schema": "teachwhy.rules.run/1"}', '{"schema": "other/1", "models": []}'):
        path.write_text(text)
        with pytest.raises(UserError):
            read_baseline(path)
