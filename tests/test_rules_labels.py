"""Labelled command lines: how often each of the two detectors is right, and that they are two."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from teachwhy.rules.bind import read_built_in
from teachwhy.rules.checks import Step, read_step
from teachwhy.rules.second import read_again

LINES: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "command_lines.yaml").read_text())
BUILT_IN = read_built_in()


def read(detector: Any, line: dict[str, Any]) -> str:
    step = Step(line.get("message", ""), (line["bash"],) if line.get("bash") else ())
    return str(detector(BUILT_IN[line["rule"]].check, step, approved=bool(line.get("approved"))).verdict)


def rates(detector: Any, rule: str = "") -> tuple[float, float]:
    """(sensitivity, specificity) for `broken`."""
    lines = [line for line in LINES if not rule or line["rule"] == rule]
    hits = [read(detector, line) == "broken" for line in lines]
    broken = [hit for hit, line in zip(hits, lines, strict=True) if line["verdict"] == "broken"]
    others = [hit for hit, line in zip(hits, lines, strict=True) if line["verdict"] != "broken"]
    return sum(broken) / len(broken), 1 - sum(others) / len(others)


def test_there_are_enough_lines_of_every_rule_and_verdict() -> None:
    counts = Counter((line["rule"], line["verdict"]) for line in LINES)
    assert len(LINES) >= 300
    assert {rule for rule, _ in counts} == set(BUILT_IN)
    assert min(counts[rule, verdict] for rule in BUILT_IN for verdict in ("kept", "broken", "not_applicable")) >= 15
    assert len({(line["rule"], line.get("bash"), line.get("message"), line.get("approved")) for line in LINES}) == len(LINES)


@pytest.mark.parametrize("rule", sorted(BUILT_IN))
def test_first_detector_calls_few_kept_steps_broken(rule: str) -> None:
    sensitivity, specificity = rates(read_step, rule)
    assert specificity >= 0.97, "at a rate of 1 to 4 % this decides everything"
    assert sensitivity >= 0.85


def test_second_detector_is_another_one_and_good_enough_to_ask() -> None:
    sensitivity, specificity = rates(read_again)
    assert sensitivity >= 0.75 and specificity >= 0.92
    differ = sum(read(read_step, line) != read(read_again, line) for line in LINES)
    assert 0.03 < differ / len(LINES) < 0.25, "a copy would never differ"


@pytest.mark.parametrize("rule", sorted(BUILT_IN))
def test_second_detector_reads_the_checks_own_examples(rule: str) -> None:
    check = BUILT_IN[rule].check
    for verdict, examples in (("kept", check.kept), ("broken", check.broken)):
        for example in examples:
            step = Step(example.message, (example.bash,) if example.bash else ())
            assert read_again(check, step, approved=example.approved).verdict == verdict, example
