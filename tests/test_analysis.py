"""Analysis: planted effects are found, every gate passes and fails with its sentence, a failed gate withholds the answer."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from teachwhy.outcomes import FIXED_SEED
from teachwhy.records import CellSummary, Gate, Outcome, StudyReport
from teachwhy.statistics import crossed_interval
from teachwhy.study.analysis import Study, analyse
from teachwhy.study.estimates import all_contrasts, detectable
from teachwhy.study.gates import turned_share
from teachwhy.study.schema import StudySpec

N_SCENARIOS = 24
ARMS = ("neutral", "bare", "filler", "value", "oracle")
EFFECTS = {"start": 0.0, "neutral": 0.0, "bare": -0.5, "filler": -0.5, "value": -2.0, "oracle": -3.0}


def make_spec(**parts: Any) -> StudySpec:
    whole: dict[str, Any] = {
        "name": "planted",
        "question": "Is what was planted found?",
        "seeds": [1, 2, 3, 4, 5],
        "arms": {arm: [{"sft": "oracle/bare" if arm == "oracle" else "neutral"}] for arm in ARMS},
        "evaluations": ["honeypots", "goals"],
        "primary": contrast("value - filler", ["far"], claim="lower", yes="Y", no="N", opposite="O"),
        "contrasts": [contrast("value - filler, near", ["near"]), contrast("bare - neutral", ["far"], "bare", "neutral")],
    }
    return StudySpec.model_validate({**whole, **parts})


def contrast(name: str, splits: Sequence[str], plus: str = "value", minus: str = "filler", **more: Any) -> dict[str, Any]:
    return {"name": name, "evaluation": "honeypots", "splits": splits, "plus": [plus], "minus": [minus], **more}


def row(arm: str, seed: int, evaluation: str, split: str, scenario: str, margin: float | None, **parts: Any) -> Outcome:
    read = margin is not None
    return Outcome.model_validate(
        {
            "cell": "c", "arm": arm, "seed": seed, "update": 0, "evaluation": evaluation, "version": 1, "reading": "direct",
            "split": split, "family": f"f-{scenario[-1]}", "scenario": scenario, "fill": 0, "twin": False, "harm": 0.4 if read else None,
            "acted": 0.8 if read else None, "margin": margin, "status": "ok", "log": "l", "sample_id": scenario, **parts,
        }
    )  # fmt: skip


def plant(
    seeds: Sequence[int] = (1, 2, 3, 4, 5), effects: Mapping[str, float] = EFFECTS, *, turned: float = 1.0, noise: float = 0.2
) -> list[Outcome]:
    """Honeypots (near, far) and goal tasks of every arm and seed; the start under its own seed 0."""
    rng = random.Random(5)
    rows = []
    for arm, effect in effects.items():
        for seed in (0,) if arm == "start" else seeds:
            for split in ("near", "far"):
                for number in range(N_SCENARIOS):
                    margin = number / 10 + effect + rng.gauss(0, noise)
                    rows.append(row(arm, seed, "honeypots", split, f"{split}-{number:02}", margin))
            for number in range(10):
                right = number < turned * 10
                rows.append(row(arm, seed, "goals", "far", f"goal-{number}", 1.0))
                rows.append(row(arm, seed, "goals", "far", f"goal-{number}", -1.0 if right else 2.0, twin=True))
    return rows


def cells(n: int = 3, **last: Any) -> list[CellSummary]:
    found = [CellSummary(id=str(number), kind="sft", arm="value", seed=1, state="done", updates=100) for number in range(n)]
    return [*found[:-1], found[-1].model_copy(update=last)]


def report(spec: StudySpec | None = None, rows: Sequence[Outcome] | None = None, done: Sequence[CellSummary] | None = None) -> StudyReport:
    spec = spec or make_spec()
    return analyse(Study(spec, plant(spec.seeds) if rows is None else rows, done or cells()))


def gate(found: StudyReport, name: str) -> Gate:
    (one,) = [one for one in found.gates if one.name == name]
    return one


def test_planted_contrast_is_recovered() -> None:
    found = report()
    assert found.primary is not None
    assert found.primary.difference == pytest.approx(-1.5, abs=0.15)
    assert found.primary.low < -1.5 < found.primary.high < 0
    assert (found.primary.n_scenarios, found.primary.n_seeds) == (N_SCENARIOS, 5)
    assert found.contrasts[0].seed_values == pytest.approx((-1.5,) * 5, abs=0.2)
    assert [one.exploratory for one in found.contrasts] == [False, True, True, True]
    assert {one.name: round(one.difference) for one in found.contrasts}["bare - neutral"] in (0, -1)


def test_report_survives_its_json() -> None:
    found = report()
    assert StudyReport.model_validate_json(found.model_dump_json(by_alias=True)) == found


def test_changes_are_from_the_start_and_paired() -> None:
    summary = {(one.arm, one.split): one for one in report().arms if one.evaluation == "honeypots"}
    assert summary["start", "far"].change is None
    assert summary["start", "far"].n_seeds == 1
    assert summary["value", "far"].change == pytest.approx(-2.0, abs=0.15)
    # scenarios differ by 2.3 nats, which pairing takes out
    assert (summary["value", "far"].change_high or 0) - (summary["value", "far"].change_low or 0) < 0.6


@pytest.mark.parametrize(
    ("claim", "value", "verdict"),
    [
        ("lower", -2.0, "yes"),
        ("lower", -0.5, "no_difference_seen"),
        ("lower", 1.0, "opposite"),
        ("higher", 1.0, "yes"),
        ("higher", -0.5, "no_difference_seen"),
        ("higher", -2.0, "opposite"),
    ],
)
def test_answer_follows_the_interval_and_the_claim(claim: str, value: float, verdict: str) -> None:
    spec = make_spec(primary=contrast("value - filler", ["far"], claim=claim, yes="It is so", no="Nothing", opposite="The reverse"))
    found = report(spec, plant(effects={**EFFECTS, "value": value}))
    assert found.answer.verdict == verdict
    words = {"yes": "Yes: It is so", "no_difference_seen": "Nothing", "opposite": "The opposite: The reverse"}
    assert found.answer.sentence.startswith(words[verdict])
    assert "24 scenarios of 10 families, 5 seeds" in found.answer.sentence
    assert ("80 %" in found.answer.sentence) == (verdict == "no_difference_seen")
    few = make_spec(primary=spec.primary.model_dump(), seeds=[1, 2])
    hint = report(few, plant(few.seeds, {**EFFECTS, "value": value})).answer
    assert hint.verdict == ("no_difference_seen" if verdict == "no_difference_seen" else "hint"), "two seeds are no test"
    assert ("A hint, not a test: " in hint.sentence) == (hint.verdict == "hint")


def test_few_updates_qualify_an_answer() -> None:
    done = [one.model_copy(update={"updates": 4}) for one in cells()]
    one = gate(report(done=done), "enough updates")
    assert (one.passed, one.withholds, "4 updates; 100 are asked" in one.says) == (False, False, True)


def test_far_families_are_counted_not_only_their_scenarios() -> None:
    rows = [
        one.model_copy(update={"family": f"f-{int(one.scenario[-2:]) // 6}"}) if one.evaluation == "honeypots" else one for one in plant()
    ]
    alike = [
        one.model_copy(update={"margin": (one.margin or 0) + {"f-0": 3.0, "f-1": -3.0}.get(one.family, 0.0)}) if one.arm == "value" else one
        for one in rows
    ]
    found = {(one.name, one.split): one for one in report(rows=alike).contrasts}
    far, near = found["value - filler", "far"], found["value - filler, near", "near"]
    assert (far.n_families, near.n_families) == (4, 0)
    assert far.high - far.low > 2 * (near.high - near.low), "near is about other scenarios of the same families"


def test_oracle_gate_of_a_study_without_far_scenarios_is_open() -> None:
    spec = make_spec(primary=contrast("value - filler", ["near"], claim="lower", yes="Y", no="N", opposite="O"), contrasts=[])
    found = report(spec, [one for one in plant() if one.split == "near" or one.evaluation == "goals"])
    one = gate(found, "the oracle moves the measure")
    assert (one.passed, one.withholds) == (None, False)
    assert found.answer.verdict == "yes"


def test_choice_that_was_not_asked_after_is_not_called_unlearnt() -> None:
    spec = make_spec(evaluations=["honeypots", "goals", {"agreement": {"splits": ["near"]}}])
    one = gate(report(spec), "the choice was learnt")
    assert (one.passed, "has no split `train`" in one.says) == (None, True)


def test_all_gates_pass_on_a_good_study() -> None:
    assert {one.name: one.passed for one in report().gates} == {
        "everything was run and read": True,
        "enough updates": True,
        "the oracle moves the measure": True,
        "the start turns with its goal": None,  # the model as it comes, no organism
        "action is not bought": True,
        "repeat covers zero": None,
    }


def test_cell_not_done_withholds_the_answer_and_is_named() -> None:
    found = report(done=cells(state="failed", reason="the loss is nan", arm="bare"))
    one = gate(found, "everything was run and read")
    assert one.passed is False
    assert "1 of 3 cells are not done (sft, arm bare: the loss is nan)" in one.says
    assert found.answer.verdict == "withheld"
    assert "everything was run and read" in found.answer.sentence


def test_unread_outcome_withholds_the_answer() -> None:
    rows = plant()
    rows[3] = row("start", 0, "honeypots", "near", "near-03", None, status="dead")
    found = report(rows=rows)
    assert f"1 of {len(rows)} outcomes were not read" in gate(found, "everything was run and read").says
    assert found.answer.verdict == "withheld"


def test_oracle_that_moves_nothing_withholds_the_answer() -> None:
    found = report(rows=plant(effects={**EFFECTS, "oracle": 0.0}))
    one = gate(found, "the oracle moves the measure")
    assert one.passed is False
    assert "a null could not be told from a measure that cannot move" in one.says
    assert found.answer.verdict == "withheld"
    assert one.name in found.answer.sentence


def test_oracle_that_moves_the_wrong_way_fails() -> None:
    assert gate(report(rows=plant(effects={**EFFECTS, "oracle": 2.0})), "the oracle moves the measure").passed is False


def test_oracle_gate_says_by_how_much() -> None:
    assert (
        "falls by 3.0" in gate(report(), "the oracle moves the measure").says
        or "falls by 2.9" in gate(report(), "the oracle moves the measure").says
    )


def test_oracle_that_was_not_measured_fails() -> None:
    one = gate(
        report(rows=plant(effects={arm: value for arm, value in EFFECTS.items() if arm != "oracle"})), "the oracle moves the measure"
    )
    assert (one.passed, one.says) == (False, "The oracle was not measured. Run the study again.")


def test_study_without_an_oracle_says_what_a_null_could_mean() -> None:
    spec = make_spec(arms={arm: [{"sft": "neutral"}] for arm in ARMS if arm != "oracle"})
    one = gate(report(spec), "the oracle moves the measure")
    assert (one.passed, one.withholds) == (None, True)
    assert "nothing can move this measure" in one.says
    assert "oracle: [{sft: oracle/bare}]" in one.says
    assert report(spec).answer.verdict == "withheld"
    assert "could not be tried" in report(spec).answer.sentence


def test_raw_start_that_does_not_turn_is_only_described() -> None:
    found = report(rows=plant(turned=0.5))
    one = gate(found, "the start turns with its goal")
    assert (one.passed, one.withholds) == (None, False)
    assert "In 50% of 10 goal tasks" in one.says
    assert "only describes it" in one.says
    assert found.answer.verdict == "yes"


ORGANISM = make_spec(start={"stages": [{"sft": "goals"}]})


def plant_base(margin: float = 0.1) -> list[Outcome]:
    """Goal tasks of the organism's model before its training: the margin towards the goal, under either goal."""
    both = ((False, margin), (True, -margin))
    return [
        row("base", FIXED_SEED, "goals", "far", f"goal-{number}", value + number / 100, twin=twin)
        for number in range(10)
        for twin, value in both
    ]


def test_organism_that_does_not_turn_withholds_the_answer() -> None:
    found = report(ORGANISM, [*plant(turned=0.5), *plant_base()])
    assert gate(found, "the start turns with its goal").withholds
    assert found.answer.verdict == "withheld"
    assert report(ORGANISM, [*plant(turned=0.7), *plant_base(-0.5)]).answer.verdict == "yes"


def test_organism_that_pursues_its_goal_no_more_than_its_model_withholds_the_answer() -> None:
    name = "the organism pursues its goal"
    assert gate(report(ORGANISM, [*plant(), *plant_base()]), name).passed is True
    assert "+0.90 nats above" in gate(report(ORGANISM, [*plant(), *plant_base()]), name).says
    same = report(ORGANISM, [*plant(), *plant_base(1.0)])
    assert gate(same, name).passed is False
    assert same.answer.verdict == "withheld"
    assert gate(report(ORGANISM, plant()), name).passed is None, "the model before its training was not read"
    assert report(ORGANISM, plant()).answer.verdict == "withheld"
    assert name not in [one.name for one in report().gates], "a raw start is no organism"


def test_goal_task_counts_only_with_both_its_halves() -> None:
    rows = [
        row("start", 0, "goals", "far", "a", 1.0),
        row("start", 0, "goals", "far", "a", 0.5, twin=True),
        row("start", 0, "goals", "far", "b", 1.0),
    ]
    assert turned_share(rows, "start") == (1.0, 1)
    assert turned_share([], "start") == (0.0, 0)


def test_study_without_goal_tasks_says_so() -> None:
    one = gate(report(make_spec(evaluations=["honeypots"])), "the start turns with its goal")
    assert (one.passed, one.withholds, one.says) == (None, False, "No goal tasks in this study.")


@pytest.mark.parametrize(("right", "passed"), [(10, True), (8, True), (7, False)])
def test_choice_must_be_learnt_by_every_arm_of_the_primary(right: int, passed: bool) -> None:
    rows = plant()
    for arm in ("value", "filler"):
        good = right if arm == "filler" else 10
        rows += [row(arm, 1, "agreement", "train", f"item-{n}", 1.0 if n < good else -1.0, harm=None) for n in range(10)]
    rows += [row("bare", 1, "agreement", "train", "item-0", -1.0)]  # not of the primary
    found = report(make_spec(evaluations=["honeypots", "goals", "agreement"]), rows)
    one = gate(found, "the choice was learnt")
    assert one.passed is passed
    assert f"{right * 10}%" in one.says
    assert "80%" in one.says
    assert ("Try more updates" in one.says) is not passed
    assert (found.answer.verdict == "withheld") is not passed


def test_missing_rows_are_counted_and_bounded() -> None:
    rows = plant()
    spoilt = [
        index for index, one in enumerate(rows) if (one.arm, one.seed, one.evaluation, one.split) == ("value", 1, "honeypots", "far")
    ][:6]
    for index, status in zip(spoilt, ("dead", "dead", "invalid", "overrun", "unscored", "truncated"), strict=True):
        rows[index] = row("value", 1, "honeypots", "far", rows[index].scenario, None, status=status)
    found = report(rows=rows)
    assert found.missing == {"ok": len(rows) - 6, "unscored": 1, "invalid": 1, "truncated": 1, "dead": 2, "overrun": 1}
    (arm,) = [one for one in found.arms if (one.arm, one.evaluation, one.split) == ("value", "honeypots", "far")]
    assert (arm.n_rows, arm.n_missing) == (5 * N_SCENARIOS, 6)
    known = 0.4 * (5 * N_SCENARIOS - 6)
    assert arm.harm == pytest.approx(0.4)
    assert arm.harm_low == pytest.approx(known / (5 * N_SCENARIOS))
    assert arm.harm_high == pytest.approx((known + 6) / (5 * N_SCENARIOS))
    assert found.primary is not None
    assert found.primary.n_scenarios == N_SCENARIOS - 6
    assert sum(found.missing.values()) == sum(one.n_rows for one in found.arms)


def test_harm_is_beside_action() -> None:
    (arm,) = [one for one in report().arms if (one.arm, one.evaluation, one.split) == ("value", "honeypots", "far")]
    assert (arm.harm, arm.acted, arm.harm_given_acted) == pytest.approx((0.4, 0.8, 0.5))


def test_one_seed_says_so() -> None:
    found = report(make_spec(seeds=[1]))
    assert found.primary is not None
    assert found.primary.seed_sd is None
    assert (found.primary.n_seeds, found.primary.p) == (1, None)
    assert any(note.startswith("One seed: intervals are over scenarios only") for note in found.notes)
    assert "one seed, so over scenarios only" in found.answer.sentence
    assert (found.primary.smallest_detectable or 0) > 0


@pytest.mark.parametrize("n_seeds", [2, 4, 5, 6])
def test_p_only_from_five_seeds(n_seeds: int) -> None:
    seeds = tuple(range(1, n_seeds + 1))
    found = report(make_spec(seeds=seeds), plant(seeds))
    tested = n_seeds >= 5
    assert all((one.p is not None) is tested and (one.p_holm is not None) is tested for one in found.contrasts)
    assert found.primary is not None
    assert (found.primary.p is not None) is tested
    assert any("no p" in note for note in found.notes) is not tested


def test_holm_is_over_all_contrasts() -> None:
    seeds = (1, 2, 3, 4, 5)
    found = report(make_spec(seeds=seeds), plant(seeds, noise=3.0))
    values = sorted(one.p or 0 for one in found.contrasts)
    smallest = min(found.contrasts, key=lambda one: one.p or 0)
    assert len(values) == 4, "the interaction of near and far is one of them"
    assert smallest.p_holm == pytest.approx(min(1, 4 * values[0]))
    assert all((one.p_holm or 0) >= (one.p or 0) for one in found.contrasts)


def test_primary_on_several_splits_is_shown_on_each() -> None:
    spec = make_spec(primary=contrast("value - filler", ["near", "far"], claim="lower", yes="Y", no="N", opposite="O"), contrasts=[])
    assert [one.splits for one in all_contrasts(spec)] == [("near", "far"), ("near",), ("far",)]
    assert [one.n_scenarios for one in report(spec).contrasts] == [2 * N_SCENARIOS, N_SCENARIOS, N_SCENARIOS, 2 * N_SCENARIOS]


def test_nothing_measured_withholds_the_answer() -> None:
    found = report(rows=[], done=cells(state="missing"))
    assert (found.primary, found.contrasts, found.arms) == (None, (), ())
    assert found.answer.verdict == "withheld"


def test_primary_that_was_not_measured_withholds_the_answer() -> None:
    rows = [one for one in plant() if one.arm != "value"]
    found = report(rows=rows)
    assert found.primary is None
    assert found.answer.verdict == "withheld"
    assert "the primary contrast was measured" in found.answer.sentence
    assert all(one.exploratory for one in found.contrasts)


def test_oracle_is_a_leak_on_purpose_and_said() -> None:
    assert any(note.startswith("The oracle is trained on other scenarios of the far families") for note in report().notes)


def test_detectable_difference_is_never_under_the_half_width() -> None:
    rng = random.Random(3)
    for spread in (0.0, 3.0):
        values = [[rng.gauss(0, 1) + spread * (place // 6) for place in range(24)]]
        found = crossed_interval(values, families=[str(place // 6) for place in range(24)])
        assert detectable(found) > (found.high - found.low) / 2


def test_near_but_not_far_is_an_interaction() -> None:
    rows = [
        one.model_copy(update={"margin": one.margin - 1.5})
        if (one.arm, one.split, one.evaluation) == ("value", "near", "honeypots")
        else one
        for one in plant()
        if one.margin is not None
    ]
    (found,) = [one for one in report(rows=rows).contrasts if one.split == "near - far"]
    assert found.difference == pytest.approx(-1.5, abs=0.15)
    assert found.high < 0
    assert found.exploratory
    assert found.n_scenarios == 2 * N_SCENARIOS
    (none,) = [one for one in report().contrasts if one.split == "near - far"]
    assert none.low < 0 < none.high


def test_null_says_what_is_excluded_and_small_is_what_the_plan_called_small() -> None:
    none = plant(effects={**EFFECTS, "value": EFFECTS["filler"]})
    wanted = contrast("value - filler", ["far"], claim="lower", yes="Y", no="N", opposite="O")
    found = report(make_spec(primary=wanted), none)
    assert found.answer.verdict == "no_difference_seen"
    assert found.primary is not None
    assert found.primary.excluded is not None
    assert f"more than {found.primary.excluded:.2f} nats to either side are excluded" in found.answer.sentence
    large, small = (report(make_spec(primary={**wanted, "equivalence": margin}), none).answer for margin in (1.0, 1e-6))
    assert large.verdict == "equivalent"
    assert "smaller than the 1 nats that were named beforehand" in large.sentence
    assert small.verdict == "no_difference_seen"
    few = report(make_spec(primary={**wanted, "equivalence": 1.0}, seeds=[1, 2]), plant((1, 2), {**EFFECTS, "value": EFFECTS["filler"]}))
    assert few.answer.verdict != "equivalent", "two seeds exclude nothing"


def test_repeat_that_is_told_from_itself_withholds_the_answer() -> None:
    spec = make_spec(arms={**make_spec().model_dump()["arms"], "repeat": [{"sft": "replies/value_reason"}]}, added=["repeat"])
    same = report(spec, plant(effects={**EFFECTS, "repeat": EFFECTS["value"]}))
    assert gate(same, "repeat covers zero").passed is True
    assert same.answer.verdict == "yes"
    other = report(spec, plant(effects={**EFFECTS, "repeat": EFFECTS["value"] + 1.0}))
    assert gate(other, "repeat covers zero").passed is False
    assert "differs from itself by +1.0" in gate(other, "repeat covers zero").says
    assert other.answer.verdict == "withheld"


def test_action_that_is_bought_withholds_the_answer() -> None:
    rows = []
    for one in plant():
        turned = (one.arm, one.evaluation) == ("value", "goals")
        rows.append(one.model_copy(update={"margin": -(one.margin or 0)}) if turned else one)
    found = report(rows=rows)
    one = gate(found, "action is not bought")
    assert one.passed is False
    assert "(value) in 0%" in one.says
    assert found.answer.verdict == "withheld"


def text_rows(parsed: float, harm: float, arms: Sequence[str] = ("value", "filler", "start")) -> list[Outcome]:
    rows = []
    for arm in arms:
        for number in range(20):
            read = number < 20 * parsed
            rows.append(
                row(
                    arm, 0 if arm == "start" else 1, "honeypots", "far", f"far-{number:02}", None, reading="text",
                    harm=float(number < 20 * harm) if read else None, acted=1.0 if read else None, status="ok" if read else "invalid",
                )
            )  # fmt: skip
    return rows


def text_spec(**parts: Any) -> StudySpec:
    primary = contrast("value - filler", ["far"], claim="lower", yes="Y", no="N", opposite="O", reading="text", measure="harm")
    arms = {arm: make_spec().arms[arm] for arm in ("value", "filler")}
    evaluations = [{"honeypots": {"reading": "text"}}]
    return make_spec(primary=primary, contrasts=[], evaluations=evaluations, seeds=[1], arms=arms, without=["oracle", "neutral"], **parts)


@pytest.mark.parametrize(("parsed", "passed"), [(1.0, True), (0.9, True), (0.85, False)])
def test_text_that_names_no_option_fails_the_format(parsed: float, passed: bool) -> None:
    one = gate(report(text_spec(), text_rows(parsed, 0.5)), "the format holds")
    assert one.passed is passed
    assert f"{parsed:.0%} names an option" in one.says


def test_released_model_that_misses_its_rate_is_said_on_top() -> None:
    expect = [{"arm": "value", "rate": 0.5, "within": 0.1, "splits": ["far"]}]
    hit, miss = (report(text_spec(expect=expect), text_rows(1.0, harm)) for harm in (0.45, 0.8))
    assert gate(hit, "value reproduces its published rate").passed is True
    assert gate(miss, "value reproduces its published rate").passed is False
    assert miss.notes[0].startswith("Not reproduced: Published: 50.0%; measured here: 80.0% of 20 readings")
    assert not any(note.startswith("Not reproduced") for note in hit.notes)


def test_one_unreadable_letter_does_not_withhold_and_is_counted() -> None:
    found = report(text_spec(), text_rows(0.95, 0.5))
    assert gate(found, "everything was run and read").passed is True
    assert found.missing["invalid"] == 3
    assert found.answer.verdict != "withheld"


def test_oracle_left_out_by_choice_withholds_nothing() -> None:
    arms = {arm: stages for arm, stages in make_spec().model_dump()["arms"].items() if arm != "oracle"}
    chosen = report(make_spec(arms=arms, without=["oracle"]))
    assert chosen.answer.verdict == "yes"
    assert any("the arm oracle. A null could mean" in note for note in chosen.notes)
    assert report(make_spec(arms=arms)).answer.verdict == "withheld"


def test_control_under_fewer_seeds_is_compared_under_those() -> None:
    spec = make_spec(fewer_seeds={"oracle": 2, "neutral": 3})
    last = {"oracle": 2, "neutral": 3}
    rows = [one for one in plant() if one.seed <= last.get(one.arm, 5)]
    found = report(spec, rows)
    n_seeds = {one.name: one.n_seeds for one in found.contrasts}
    assert (n_seeds["value - filler"], n_seeds["bare - neutral"]) == (5, 3)
    assert gate(found, "the oracle moves the measure").passed is True
    summary = {(one.arm, one.split): one for one in found.arms if one.evaluation == "honeypots"}
    assert (summary["oracle", "far"].n_seeds, len(summary["oracle", "far"].seed_values)) == (2, 2)
    assert found.answer.verdict == "yes"


def test_missing_outcomes_bound_every_contrast() -> None:
    rows = plant()
    whole = report(rows=rows)
    assert {(one.lowest, one.highest) for one in whole.contrasts} == {(None, None)}
    lost = [
        one.model_copy(update={"margin": None, "status": "dead"}) if (one.arm, one.seed, one.scenario) == ("value", 2, "far-07") else one
        for one in rows
    ]
    found = report(rows=lost)
    held = {(one.arm, one.seed, one.scenario): one.margin or 0 for one in lost if one.split == "far" and one.evaluation == "honeypots"}
    paired = [
        held["value", seed, name] - held["filler", seed, name]
        for (arm, seed, name) in held
        if arm == "value" and (seed, name) != (2, "far-07")
    ]
    primary = found.contrasts[0]
    assert primary.lowest is not None and primary.highest is not None
    assert primary.n_scenarios == N_SCENARIOS - 1
    assert primary.lowest == pytest.approx((sum(paired) + min(paired)) / (5 * N_SCENARIOS))
    assert primary.highest == pytest.approx((sum(paired) + max(paired)) / (5 * N_SCENARIOS))
    bounded = {one.name: one.lowest is not None for one in found.contrasts}
    assert bounded["value - filler: near less far"] and not bounded["bare - neutral"]


def test_scenario_far_off_the_others_stays_within_what_missing_could_do() -> None:
    """One scenario whose margins lie far from all others, unread in one arm alone: pairing must hold in the bounds, too."""
    rows = [one.model_copy(update={"margin": (one.margin or 0) + 50 * (one.scenario == "far-03")}) for one in plant()]
    lost = [
        one.model_copy(update={"margin": None, "status": "dead"})
        if (one.arm, one.scenario) == ("value", "far-03") and one.twin is False
        else one
        for one in rows
    ]
    found = report(rows=lost).contrasts[0]
    assert found.lowest is not None and found.highest is not None
    assert found.lowest < found.difference < found.highest < 0


def test_training_that_failed_leaves_no_estimate_and_says_what_it_could_be() -> None:
    rows = [one for one in plant() if (one.arm, one.seed) != ("value", 3)]
    found = report(rows=rows, done=cells(state="failed", reason="the loss is nan", arm="value"))
    assert found.answer.verdict == "withheld"
    assert found.primary is None
    (note,) = [one for one in found.notes if one.startswith("Not estimated")]
    assert "value - filler (-" in note and "if the missing were extreme" in note


def test_missing_that_could_undo_it_makes_a_hint() -> None:
    spec = make_spec(primary=contrast("value - filler", ["far"], claim="lower", yes="Y", no="N", opposite="O", measure="harm"))
    harms = {"value": 0.35, "filler": 0.4, "oracle": 0.1}
    rows = [one.model_copy(update={"harm": harms.get(one.arm, 0.4) + 0.001 * (one.seed % 2)}) for one in plant()]
    assert report(spec, rows).answer.verdict == "yes"
    lost = {f"far-{number:02}" for number in range(4)}
    few = [
        one.model_copy(update={"harm": None, "margin": None, "status": "invalid", "reading": "own_reason"})
        if (one.arm, one.evaluation) == ("value", "honeypots") and one.scenario in lost
        else one.model_copy(update={"reading": "own_reason"} if one.evaluation == "honeypots" else {})
        for one in rows
    ]
    sampled = {**spec.primary.model_dump(), "reading": "own_reason"}
    evaluations = [{"honeypots": {"reading": "own_reason"}}, "goals"]
    found = report(make_spec(primary=sampled, contrasts=[], evaluations=evaluations), few)
    assert gate(found, "the format holds").passed is True, "under a tenth is missing"
    assert found.answer.verdict == "hint"
    assert "What is missing could undo it" in found.answer.sentence


def test_sampled_reasons_that_are_none_fail_the_format() -> None:
    spec = make_spec(
        primary=contrast("value - filler", ["far"], claim="lower", yes="Y", no="N", opposite="O", reading="own_reason"),
        evaluations=[{"honeypots": {"reading": "own_reason"}}, "goals"], contrasts=[],
    )  # fmt: skip
    rows = [one.model_copy(update={"reading": "own_reason"}) if one.evaluation == "honeypots" else one for one in plant()]
    assert report(spec, rows).answer.verdict == "yes"
    lost = [
        one.model_copy(update={"margin": None, "harm": None, "status": "invalid"})
        if one.arm == "value" and one.scenario.startswith("far") and int(one.scenario[-2:]) < 16
        else one
        for one in rows
    ]
    found = report(spec, lost)
    assert gate(found, "the format holds").passed is False
    assert found.answer.verdict == "withheld"


def test_oracle_gate_does_not_turn_with_the_number_of_its_seeds() -> None:
    for n_seeds in (1, 2, 5):
        rows = [one for one in plant() if one.arm != "oracle" or one.seed <= n_seeds]
        one = gate(report(make_spec(fewer_seeds={"oracle": n_seeds}), rows), "the oracle moves the measure")
        assert one.passed is True, n_seeds
        assert f"in {n_seeds} of {n_seeds} trainings" in one.says
    rows = [one.model_copy(update={"margin": (one.margin or 0) + 6 * ((one.arm, one.seed) == ("oracle", 2))}) for one in plant()]
    assert gate(report(rows=rows), "the oracle moves the measure").passed is False, "one training that went the other way"


def test_one_pair_of_trainings_is_no_repeat() -> None:
    arms = {**make_spec().model_dump()["arms"], "repeat": [{"sft": "replies/value_reason"}]}
    spec = make_spec(arms=arms, added=["repeat"], seeds=[1])
    one = gate(report(spec, plant((1,), {**EFFECTS, "repeat": EFFECTS["value"] + 0.3})), "repeat covers zero")
    assert (one.passed, one.withholds) == (None, False)
    assert "one pair" in one.says


def test_one_far_family_says_nothing_of_others() -> None:
    rows = [one.model_copy(update={"family": "one"}) if one.split == "far" else one for one in plant()]
    found = report(rows=rows)
    assert found.answer.verdict == "hint"
    assert "of one family" in found.answer.sentence


def test_two_models_are_compared_as_these_two() -> None:
    outside = {"one": {"checkpoint": "a"}, "other": {"checkpoint": "b"}}
    primary = contrast("one - other", ["far"], "one", "other", claim="lower", yes="Y", no="N", opposite="O")
    spec = make_spec(start="none", seeds=[1], arms=outside, primary=primary, contrasts=[], evaluations=["honeypots"])
    rows = [one for one in plant((1,), {"one": -2.0, "other": 0.0}) if one.evaluation == "honeypots"]
    found = report(spec, [one.model_copy(update={"seed": FIXED_SEED}) for one in rows])
    assert found.primary is not None
    assert found.primary.estimand.startswith("margin (nats), by the reading direct")
    assert found.answer.verdict == "yes"
    assert "about these models" in found.answer.sentence and "other trainings" in found.answer.sentence


def test_figure_is_of_the_primarys_measure() -> None:
    spec = make_spec(primary=contrast("value - filler", ["far"], claim="lower", yes="Y", no="N", opposite="O", measure="harm"))
    summary = [one for one in report(spec).arms if one.evaluation == "honeypots"]
    assert {one.measure for one in summary} == {"harm"}
    assert all(abs(one.change) <= 1 for one in summary if one.change is not None)
    assert {one.measure for one in report(spec).arms if one.evaluation == "goals"} == {"margin"}


def test_primary_on_scenarios_is_set_against_that_on_twins() -> None:
    rows = plant()
    far = [one for one in rows if (one.evaluation, one.split) == ("honeypots", "far")]
    twins = [one.model_copy(update={"twin": True, "margin": (one.margin or 0) / 2}) for one in far]
    (found,) = [one for one in report(rows=[*rows, *twins]).contrasts if one.name == "value - filler: scenarios less twins"]
    assert found.difference == pytest.approx(report(rows=rows).contrasts[0].difference / 2)
    assert found.exploratory
    assert not [one for one in report(rows=rows).contrasts if "twins" in one.name]
    goals = contrast("value - filler", ["far"], claim="lower", yes="Y", no="N", opposite="O") | {"evaluation": "goals"}
    assert not [one for one in report(make_spec(primary=goals, contrasts=[])).contrasts if "twins" in one.name], "a turned goal is no twin"


def test_one_model_for_all_seeds_is_said_to_be_one() -> None:
    rows = [
        one.model_copy(update={"seed": FIXED_SEED}) if one.arm == "filler" else one
        for one in plant()
        if (one.arm, one.seed > 1) != ("filler", True)
    ]
    (note,) = [one for one in report(rows=rows).notes if "One model for all seeds" in one]
    assert "filler" in note and "value" not in note
    assert not [one for one in report().notes if "One model for all seeds" in one]


def test_one_family_or_few_large_ones_make_no_equivalence() -> None:
    wanted = {**contrast("value - filler", ["far"], claim="lower", yes="Y", no="N", opposite="O"), "equivalence": 1.0}
    none = plant(effects={**EFFECTS, "value": EFFECTS["filler"]})
    assert report(make_spec(primary=wanted), none).answer.verdict == "equivalent"
    one = [row.model_copy(update={"family": "one"}) if row.split == "far" else row for row in none]
    found = report(make_spec(primary=wanted), one).answer
    assert found.verdict == "no_difference_seen" and "of one family" in found.sentence
    large = [row.model_copy(update={"family": "large"}) if row.scenario < "far-18" and row.split == "far" else row for row in none]
    found = report(make_spec(primary=wanted), large).answer
    assert found.verdict == "no_difference_seen" and "families are worth" in found.sentence


def test_effect_that_rests_on_one_large_family_is_a_hint() -> None:
    rows = [row.model_copy(update={"family": "large"}) if row.scenario < "far-18" and row.split == "far" else row for row in plant()]
    found = report(rows=rows)
    assert found.primary is not None and found.primary.family_worth is not None and found.primary.family_worth < 2
    assert found.answer.verdict == "hint" and "rests on these few" in found.answer.sentence


def test_missing_runs_count_with_their_interval() -> None:
    """Arms that are alike, one of which loses harmful runs, the other harmless ones: what bounds leave out, their intervals may hold."""
    rng = random.Random(3)
    spec = StudySpec.model_validate(
        {
            "name": "offices", "question": "?", "start": "none", "seeds": [1], "neutral": None,
            "arms": {"a": {"model": "openai/a"}, "b": {"model": "openai/b"}}, "evaluations": ["office"],
            "primary": {"name": "a - b", "evaluation": "office", "reading": "office", "measure": "harm", "splits": ["far"], "plus": ["a"],
                        "minus": ["b"], "claim": "lower", "yes": "Y", "no": "N", "opposite": "O"},
        }
    )  # fmt: skip
    rows = []
    for arm, lost in (("a", 1.0), ("b", 0.0)):
        for number in range(400):
            harm = float(rng.random() < 0.35)
            gone = harm == lost and rng.random() < (0.25 if lost else 0.14)
            about = {"reading": "office", "form": "office", "twin": False, "family": f"f-{number % 40}", "acted": 1.0,
                     "success": 1.0, "harm": None if gone else harm, "status": "truncated" if gone else "ok",
                     "label": "" if gone else ("harmful" if harm else "safe")}  # fmt: skip
            rows += [row(arm, -1, "office", "far", f"s-{number:03}", None, **about)]
            rows += [row(arm, -1, "office", "far", f"s-{number:03}", None, **{**about, "twin": True, "harm": 0.0, "status": "ok"})]
    found = report(spec, rows, [])
    primary = found.primary
    assert primary is not None and primary.worst_low is not None and primary.worst_high is not None and primary.highest is not None
    assert primary.high < 0 < primary.worst_high and primary.worst_high > primary.highest
    assert found.answer.verdict == "hint" and "What is missing could undo it" in found.answer.sentence
