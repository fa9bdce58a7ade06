"""Outcomes: the CSV loses nothing, what was not read never becomes a number, means are over fills."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from teachwhy.errors import UserError
from teachwhy.outcomes import (
    COLUMNS,
    FIXED_SEED,
    Outcomes,
    Selection,
    contrast_table,
    measure_table,
    read_log,
    read_outcomes,
    write_outcomes,
)
from teachwhy.records import Outcome

FAR = Selection("honeypots", ("far",))


def outcome(**parts: Any) -> Outcome:
    whole: dict[str, Any] = {
        "cell": "c0ffee", "arm": "bare", "seed": 1, "update": 0, "evaluation": "honeypots", "version": 1, "reading": "direct",
        "split": "far", "family": "bribing", "scenario": "bribing-01", "fill": 0, "twin": False, "harm": 0.25, "acted": 0.5,
        "margin": -1.5, "status": "ok", "log": "a.eval", "sample_id": "bribing-01/0",
    }  # fmt: skip
    return Outcome.model_validate({**whole, **parts})


AWKWARD = [
    outcome(margin=0.1 + 0.2, harm=1 / 3, acted=5e-324),
    outcome(margin=-1.7976931348623157e308, harm=0.0, acted=1.0, twin=True),
    outcome(margin=None, harm=None, acted=None, status="dead"),
    outcome(harm=None, arm='a, "b"\nc', scenario="=1+1", log="ünï.eval", sample_id="x'y"),
    outcome(arm="", family=""),
]


def test_csv_round_trip_keeps_every_bit(tmp_path: Path) -> None:
    write_outcomes(tmp_path / "outcomes.csv", AWKWARD)
    assert read_outcomes(tmp_path / "outcomes.csv") == AWKWARD
    assert [path.name for path in tmp_path.iterdir()] == ["outcomes.csv"]


def test_no_outcomes_is_a_header_and_no_rows(tmp_path: Path) -> None:
    write_outcomes(tmp_path / "outcomes.csv", [])
    assert (tmp_path / "outcomes.csv").read_text().strip() == ",".join(COLUMNS)
    assert read_outcomes(tmp_path / "outcomes.csv") == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: line.replace("-1.5", "low"),
        lambda line: line.replace(",ok,", ",fine,"),
        lambda line: line.rpartition(",")[0],
        lambda line: line + ",more",
        lambda line: "",
    ],
    ids=["no number", "unknown status", "too short", "too long", "fine"],
)
def test_unreadable_line_is_a_user_error_with_its_number(tmp_path: Path, spoil: Any, request: pytest.FixtureRequest) -> None:
    path = tmp_path / "outcomes.csv"
    write_outcomes(path, [outcome(), outcome(), outcome()])
    lines = path.read_text().splitlines()
    lines[2] = spoil(lines[2])
    path.write_text("\n".join(lines) + "\n")
    if request.node.callspec.id == "fine":  # a blank line is no row
        assert len(read_outcomes(path)) == 2
        return
    with pytest.raises(UserError, match="line 3 is no outcome") as found:
        read_outcomes(path)
    assert found.value.where == str(path)


def test_csv_that_is_no_text_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "outcomes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="UTF-8"):
        read_outcomes(tmp_path / "outcomes.csv")


def test_missing_csv_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="teachwhy study run"):
        read_outcomes(tmp_path / "outcomes.csv")


def sample(number: int, **parts: Any) -> Any:
    about = {"scenario": f"s-{number}", "family": "f", "split": "far", "version": 3, "fill": 0, "twin": False}
    score = SimpleNamespace(value={"margin": -0.5, "acted": 0.75, "harm": 0.25})
    whole = {"id": f"s-{number}/0", "metadata": about, "epoch": 1, "error": None, "limit": None, "scores": {"direct_scorer": score}}
    return SimpleNamespace(**{**whole, **parts})


def scored(**value: float) -> dict[str, Any]:
    return {"direct_scorer": SimpleNamespace(value={"margin": -0.5, "acted": 0.75, "harm": 0.25, **value})}


def read(*samples: Any) -> list[Outcome]:
    log = SimpleNamespace(eval=SimpleNamespace(task="teachwhy/honeypots"), samples=list(samples), location="/a/b/c.eval")
    return read_log(log, cell="c", arm="bare", seed=1, update=0)  # type: ignore[arg-type]


def test_sample_becomes_a_row() -> None:
    (row,) = read(sample(1))
    assert (row.evaluation, row.scenario, row.version, row.log, row.sample_id) == ("honeypots", "s-1", 3, "c.eval", "s-1/0")
    assert (row.margin, row.acted, row.harm, row.status) == (-0.5, 0.75, 0.25, "ok")


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ({"error": SimpleNamespace(message="out of memory")}, "dead"),
        ({"error": SimpleNamespace(message="late"), "scores": None}, "dead"),
        ({"limit": SimpleNamespace(type="time")}, "overrun"),
        ({"scores": None}, "unscored"),
        ({"scores": {}}, "unscored"),
        ({"scores": scored(margin=math.nan)}, "invalid"),
        ({"scores": scored(margin=math.inf)}, "invalid"),
        ({"scores": scored(acted=math.nan)}, "invalid"),
    ],
)
def test_what_was_not_read_is_never_safe(parts: dict[str, Any], status: str) -> None:
    (row,) = read(sample(1, **parts))
    assert (row.status, row.harm, row.acted, row.margin) == (status, None, None, None)


def test_nothing_vanishes_from_a_log() -> None:
    assert len(read(sample(1), sample(2, scores=None), sample(3, error=SimpleNamespace(message="x")))) == 3
    assert read() == []


def test_harm_without_a_harmful_action_is_empty_and_not_zero() -> None:
    (row,) = read(sample(1, scores=scored(harm=math.nan)))
    assert (row.status, row.harm, row.margin) == ("ok", None, -0.5)


def test_margin_is_the_mean_over_fills() -> None:
    rows = [outcome(scenario=name, fill=fill, margin=margin) for name, fill, margin in (("a", 0, 1.0), ("a", 1, 4.0), ("b", 0, 7.0))]
    np.testing.assert_array_equal(measure_table(rows, FAR, "bare", (1,), ["a", "b"]), [[2.5, 7.0]])


def test_row_of_the_start_stands_for_every_seed() -> None:
    rows = [outcome(arm="start", seed=0, scenario="a", margin=2.0), outcome(seed=5, scenario="a", margin=3.0)]
    np.testing.assert_array_equal(measure_table(rows, FAR, "start", (5, 9), ["a"]), [[2.0], [2.0]])
    np.testing.assert_array_equal(measure_table(rows, FAR, "bare", (5, 9), ["a"]), [[3.0], [np.nan]])


def test_twins_other_splits_and_unread_rows_are_left_out() -> None:
    rows = [
        outcome(scenario="a", margin=1.0),
        outcome(scenario="a", margin=50.0, twin=True),
        outcome(scenario="b", margin=50.0, split="near"),
        outcome(scenario="c", margin=50.0, evaluation="goals"),
        outcome(scenario="d", margin=None, harm=None, acted=None, status="dead"),
    ]
    assert [row.scenario for row in Outcomes(rows).select(FAR)] == ["a", "d"]
    np.testing.assert_array_equal(measure_table(rows, FAR, "bare", (1,), ["a", "d"]), [[1.0, np.nan]])


def test_contrast_is_paired_and_leaves_out_scenarios_that_an_arm_lacks() -> None:
    margins = {("plus", 1): (5.0, 7.0, 9.0), ("plus", 2): (6.0, 8.0, 1.0), ("minus", 1): (1.0, 2.0, 3.0), ("minus", 2): (1.0, 1.0, None)}
    rows = [
        outcome(arm=arm, seed=seed, scenario=name, margin=margin, status="ok" if margin is not None else "dead")
        for (arm, seed), values in margins.items()
        for name, margin in zip("abc", values, strict=True)
    ]
    np.testing.assert_array_equal(contrast_table(rows, FAR, ("plus",), ("minus",), (1, 2)).values, [[4.0, 5.0], [5.0, 7.0]])
    np.testing.assert_array_equal(contrast_table(rows, FAR, ("plus", "minus"), ("minus", "plus"), (1, 2)).values, [[0.0, 0.0], [0.0, 0.0]])


def test_arm_without_rows_leaves_no_scenario() -> None:
    found = contrast_table([outcome()], FAR, ("bare",), ("filler",), (1,))
    assert (found.values.shape, found.families) == ((1, 0), ())


def test_what_was_done_once_is_one_row_however_many_seeds_there_are() -> None:
    def fixed(arm: str) -> list[Outcome]:
        return [outcome(arm=arm, seed=FIXED_SEED, scenario=name, margin=1.0) for name in ("a", "b")]

    rows = [
        *fixed("one"),
        *fixed("two"),
        *(outcome(arm="own", seed=seed, scenario=name, margin=2.0) for seed in (1, 2) for name in ("a", "b")),
    ]
    assert contrast_table(rows, FAR, ["one"], ["two"], (1, 2, 3, 4, 5)).values.shape == (1, 2)
    assert contrast_table(rows, FAR, ["own"], ["two"], (1, 2)).values.shape == (2, 2)
    np.testing.assert_array_equal(contrast_table(rows, FAR, ["own"], ["two"], (1, 2)).values, np.ones((2, 2)))


def test_bounds_of_harm_are_those_of_probabilities() -> None:
    harm = Selection("honeypots", ("far",), measure="harm")
    read = [outcome(arm=arm, scenario=name, harm=0.5) for arm in ("one", "two") for name in "ab"]
    assert contrast_table(read, harm, ["one"], ["two"], (1,)).bounds is None
    lost = [*read[:3], outcome(arm="two", scenario="b", harm=None, acted=None, status="invalid")]
    assert contrast_table(lost, harm, ["one"], ["two"], (1,)).bounds == (-0.25, 0.25)
    repeats = [*read, outcome(arm="two", scenario="b", repeat=1, harm=None, acted=None, status="invalid")]
    assert contrast_table(repeats, harm, ["one"], ["two"], (1,)).bounds == (-0.125, 0.125), "a lost repeat is half of its scenario"
    gone = [one for one in read if (one.arm, one.scenario) != ("two", "b")]
    assert contrast_table(gone, harm, ["one"], ["two"], (1,)).bounds == (-0.25, 0.25), "no row at all is missing, too"


def test_seeds_that_are_not_asked_for_are_left_out() -> None:
    rows = [outcome(seed=seed, scenario="a", margin=float(seed)) for seed in (1, 2, 3)]
    np.testing.assert_array_equal(measure_table(rows, FAR, "bare", (1, 2), ["a"]), [[1.0], [2.0]])


def test_text_that_lacks_an_order_is_not_read_at_all() -> None:
    text = Selection("honeypots", ("far",), reading="text", measure="harm")
    shown = {"reading": "text", "margin": None}
    orders = [outcome(scenario="a", repeat=number, harm=float(number == 0), **shown) for number in range(4)]
    np.testing.assert_array_equal(measure_table(orders, text, "bare", (1,), ["a"]), [[0.25]])
    broken = [*orders[:3], outcome(scenario="a", repeat=3, **{**shown, "harm": None, "acted": None, "status": "invalid"})]
    assert np.isnan(measure_table(broken, text, "bare", (1,), ["a"])).all(), "a letter that is liked would look like an action"
    np.testing.assert_array_equal(measure_table(broken, text, "bare", (1,), ["a"], 1.0), [[0.5]])


def test_fills_are_paired_and_what_is_missing_is_bounded() -> None:
    """Two arms that are alike, of which one has lost a fill that is worth much: no difference, and bounds that say what it could be."""
    rows = [
        outcome(arm=arm, scenario=name, margin=8.0 * (fill == 3) + place, fill=fill)
        for arm in ("a", "b")
        for place, name in enumerate(("x", "y", "z"))
        for fill in range(4)
        if (arm, name, fill) != ("a", "x", 3)
    ]
    lost = outcome(arm="a", scenario="x", margin=None, fill=3, status="invalid")
    table = contrast_table([*rows, lost], FAR, ["a"], ["b"], [1])
    np.testing.assert_array_equal(table.values, [[0.0, 0.0, 0.0]])
    assert table.ends is not None
    assert table.bounds == (0.0, 0.0), "what was read differs nowhere, and a margin has no ends of its own"
    moved = [one.model_copy(update={"margin": one.margin + one.fill}) if one.arm == "a" and one.margin is not None else one for one in rows]
    table = contrast_table([*moved, lost], FAR, ["a"], ["b"], [1])
    np.testing.assert_allclose(table.values, [[1.0, 1.5, 1.5]])
    assert table.bounds == pytest.approx((np.mean([0.75, 1.5, 1.5]), np.mean([1.5, 1.5, 1.5])))
