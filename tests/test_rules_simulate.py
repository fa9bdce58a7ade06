"""Planted rates through the analysing code: errors, power, coverage after stopping, sessions saved."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from teachwhy.cli import app as cli
from teachwhy.errors import EXIT_USAGE
from teachwhy.rules.simulate import simulate
from teachwhy.sequential import plan_looks

REPEATS = 800


def error_of(rate: float) -> float:
    return float(2.5 * np.sqrt(rate * (1 - rate) / REPEATS))


def sessions_for(bare: float, reason: float) -> int:
    """What a plan says for the power it promises."""
    return round((plan_looks().drift / (bare - reason)) ** 2 * (bare * (1 - bare) + reason * (1 - reason)))


@pytest.mark.parametrize("rate", [0.01, 0.04, 0.15])
def test_equal_rates_are_seldom_told_apart_and_the_interval_holds(rate: float) -> None:
    found = simulate(rate, rate, round(40 / rate**0.8), REPEATS, 1)
    assert found.power + found.opposite <= 0.05 + error_of(0.05)
    assert found.coverage >= 0.93 - error_of(0.93)
    assert found.saved >= 0.30, "sessions saved where there is nothing"


@pytest.mark.parametrize(("bare", "reason"), [(0.04, 0.015), (0.15, 0.08), (0.01, 0.003)])
def test_difference_is_found_as_often_as_the_plan_says(bare: float, reason: float) -> None:
    found = simulate(bare, reason, sessions_for(bare, reason), REPEATS, 2)
    assert found.power == pytest.approx(0.8, abs=0.05)
    assert found.coverage >= 0.93
    assert found.saved >= 0.15
    assert found.opposite == 0


def test_histories_that_differ_more_cost_no_honesty() -> None:
    found = simulate(0.04, 0.04, 600, REPEATS, 3, histories=12, spread=1.5)
    assert found.power + found.opposite <= 0.05 + error_of(0.05)
    assert found.coverage >= 0.93 - error_of(0.93)


def test_same_seed_same_numbers() -> None:
    assert simulate(0.1, 0.05, 100, 50, 7) == simulate(0.1, 0.05, 100, 50, 7) != simulate(0.1, 0.05, 100, 50, 8)


def call(*words: str) -> Any:
    return CliRunner().invoke(cli.app, ["rules", "simulate", *words], prog_name="teachwhy")


def test_command_prints_json() -> None:
    words = "--bare 0.04 --reason 0.015 --sessions 200 --repeats 50 --seed 3 --format json"
    found = json.loads(call(*words.split()).stdout)
    assert found["schema"] == "teachwhy.rules.simulate/1"
    assert {"power", "mean_sessions_per_arm", "fixed_sessions_per_arm", "coverage"} <= found.keys()
    assert found["mean_sessions_per_arm"] <= found["max_sessions_per_arm"] == 200


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--bare 4 --reason 0.1", "a rate lies between 0 and 1"),
        ("--bare 0 --reason 0.1", "a rate lies between 0 and 1"),
        ("--bare 0.1 --reason 0.1 --sessions 5", "at least 20 are needed"),
        ("--bare 0.1 --reason 0.1 --sessions 25 --histories 80", "too few for 80 histories"),
        ("--bare 0.1 --reason 0.1 --repeats 0", "at least 1 are needed"),
        ("--bare 0.1 --reason 0.1 --looks 3", "looks are 1, 2, 4, 5 or 10"),
        ("--bare 0.1 --reason 0.1 --spread -1", "a spread lies between"),
        ("--bare 0.1 --reason 0.1 --spread 50", "a spread lies between"),
        ("--bare 0.1 --reason 0.1 --spread nan", "a spread lies between"),
    ],
)
def test_impossible_wishes_are_refused(words: str, says: str) -> None:
    found = call(*words.split())
    assert found.exit_code == EXIT_USAGE
    assert says in found.stderr
