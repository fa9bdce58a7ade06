"""Automatic arms: which a study gets, what is said of those it leaves out, and that a repeat differs in its seeds alone."""

from __future__ import annotations

from typing import Any

import pytest

from teachwhy.corpora import corpus_reader
from teachwhy.errors import UserError
from teachwhy.study.automatic import MISSED, complete_study, say_missed
from teachwhy.study.plan import draw_seed
from teachwhy.study.schema import AUTOMATIC, StudySpec


def spec_of(**parts: Any) -> StudySpec:
    whole: dict[str, Any] = {
        "name": "a", "question": "?", "seeds": [1], "arms": {"value": [{"sft": "replies/value_reason"}], "bare": [{"sft": "replies/bare"}]},
        "evaluations": ["honeypots"],
        "primary": {
            "name": "value - bare", "claim": "lower", "evaluation": "honeypots", "splits": ["far"], "plus": ["value"], "minus": ["bare"],
            "yes": "y", "no": "n", "opposite": "o",
        },
        **parts,
    }  # fmt: skip
    return StudySpec.model_validate(whole)


def corpora_of(spec: StudySpec) -> dict[str, list[str]]:
    return {arm: [name for stage in stages for name in stage.corpora] for arm, stages in spec.arms.items()}


def test_study_of_reasons_gets_all_five() -> None:
    full = complete_study(spec_of())
    assert corpora_of(full) == {
        "value": ["replies/value_reason"],
        "bare": ["replies/bare"],
        "neutral": ["neutral"],
        "filler": ["replies/filler"],
        "shuffled": ["shuffled/value_reason"],
        "oracle": ["oracle/value_reason"],
        "repeat": ["replies/value_reason"],
    }
    assert full.added == AUTOMATIC
    assert not say_missed(full)


def test_completing_twice_changes_nothing() -> None:
    full = complete_study(spec_of())
    assert complete_study(full) == full
    assert StudySpec.model_validate_json(full.model_dump_json()) == full, "the run's own file reads back"


def test_arm_under_another_name_is_not_added_again() -> None:
    arms = {
        "value": [{"sft": "replies/value_reason"}], "bare": [{"sft": "replies/bare"}], "words": [{"sft": "replies/filler"}],
        "chat": [{"sft": "neutral"}],
    }  # fmt: skip
    assert set(complete_study(spec_of(arms=arms)).arms) == {*arms, "shuffled", "oracle", "repeat"}


def test_two_kinds_of_reasons_share_a_filler_and_are_shuffled_each() -> None:
    arms = {"value": [{"sft": "replies/value_reason"}], "task": [{"sft": "replies/task_reason"}], "bare": [{"sft": "replies/bare"}]}
    full = corpora_of(complete_study(spec_of(arms=arms)))
    assert full["shuffled_value"] == ["shuffled/value_reason"]
    assert full["shuffled_task"] == ["shuffled/task_reason"]
    assert full["filler"] == ["replies/filler"]


def test_settings_and_order_of_the_reasoned_arm_go_to_its_controls() -> None:
    stage = {"sft": "replies/value_reason", "order": "before", "settings": {"rank": 4}}
    full = complete_study(spec_of(arms={"value": [stage], "bare": [{"sft": "replies/bare"}]}))
    for arm in ("filler", "shuffled", "repeat"):
        assert full.arms[arm][0].order == "before"
        assert full.arms[arm][0].settings == {"rank": 4}


def test_what_is_left_out_is_said() -> None:
    spec = spec_of(without=["repeat", "shuffled"])
    assert set(complete_study(spec).added) == {"neutral", "filler", "oracle"}
    assert say_missed(complete_study(spec)) == {"repeat": MISSED["repeat"], "shuffled": MISSED["shuffled"]}


def test_study_without_reasons_and_honeypots_gets_neutral_and_repeat() -> None:
    primary = {
        "name": "p", "claim": "higher", "evaluation": "ambiguity", "splits": ["far"], "plus": ["price"], "minus": ["place"],
        "yes": "y", "no": "n", "opposite": "o",
    }  # fmt: skip
    arms = {"price": [{"sft": "ambiguity/price_reason"}], "place": [{"sft": "ambiguity/place_reason"}]}
    assert complete_study(spec_of(arms=arms, evaluations=["ambiguity"], primary=primary)).added == ("neutral", "repeat")


def test_contrast_may_name_an_automatic_arm_and_not_one_that_is_left_out() -> None:
    primary = {**spec_of().primary.model_dump(), "minus": ["filler"]}
    assert "filler" in complete_study(spec_of(primary=primary)).arms
    with pytest.raises(UserError, match="needs the arm 'filler', which this study leaves out"):
        complete_study(spec_of(primary=primary, without=["filler"]))


def test_repeat_draws_other_rows_than_its_arm_under_every_seed() -> None:
    seeds = range(20)
    assert not {draw_seed("repeat", seed) for seed in seeds} & {draw_seed("value", seed) for seed in seeds}
    assert [draw_seed("value", seed) for seed in seeds] == list(seeds)


def test_controls_of_reasons_have_the_prompts_of_the_reasons() -> None:
    prompts = [
        [row.messages[:-1] for row in corpus_reader(name)()] for name in ("replies/value_reason", "replies/filler", "shuffled/value_reason")
    ]
    assert prompts[0] == prompts[1] == prompts[2]


def test_far_families_are_for_the_oracle_alone() -> None:
    arms = {"value": [{"sft": "replies/value_reason"}], "bare": [{"sft": "oracle/bare"}]}
    with pytest.raises(ValueError, match="only the arm `oracle` may be"):
        spec_of(arms=arms)
    with pytest.raises(ValueError, match="no part of the primary"):
        spec_of(
            arms={**spec_of().model_dump()["arms"], "oracle": [{"sft": "oracle/bare"}]},
            primary={**spec_of().primary.model_dump(), "minus": ["oracle"]},
        )


def test_corpus_of_the_users_has_no_filler_and_that_is_said() -> None:
    full = complete_study(spec_of(arms={"value": [{"sft": "mine.jsonl"}], "bare": [{"sft": "replies/bare"}]}))
    assert set(full.added) == {"neutral", "oracle", "repeat"}
    assert set(say_missed(full)) == {"filler", "shuffled"}
    assert "teachwhy corpus control" in say_missed(full)["filler"]


def test_name_that_leaves_no_room_is_an_error_for_people() -> None:
    long = "a" * 38
    arms = {long: [{"sft": "replies/value_reason"}], "task": [{"sft": "replies/task_reason"}], "bare": [{"sft": "replies/bare"}]}
    with pytest.raises(UserError, match="do not fit"):
        complete_study(spec_of(arms=arms, primary={**spec_of().primary.model_dump(), "plus": [long]}))


def contrasts_of(spec: StudySpec) -> dict[str, tuple[str, ...]]:
    return {one.name: one.minus for one in spec.contrasts}


def test_primary_arm_is_contrasted_with_every_control() -> None:
    full = complete_study(spec_of())
    assert contrasts_of(full) == {"value - neutral": ("neutral",), "value - filler": ("filler",), "value - shuffled": ("shuffled",)}
    assert (full.against_bare, full.against_filler) == ("value - bare", "value - filler"), "the primary is the one against bare"
    assert all((one.splits, one.evaluation) == (("far",), "honeypots") for one in full.contrasts)


def test_contrast_that_the_study_names_is_not_made_twice() -> None:
    own = {"name": "reasons over words", "evaluation": "honeypots", "splits": ["far"], "plus": ["value"], "minus": ["filler"]}
    full = complete_study(spec_of(contrasts=[own], against_bare="reasons over words"))
    assert contrasts_of(full) == {"reasons over words": ("filler",), "value - neutral": ("neutral",), "value - shuffled": ("shuffled",)}
    assert (full.against_bare, full.against_filler) == ("reasons over words", "reasons over words")
    taken = {**own, "name": "value - neutral"}
    assert "value - neutral, far" in contrasts_of(complete_study(spec_of(contrasts=[taken])))


def test_difference_of_differences_gets_no_contrasts_of_its_own() -> None:
    whole = spec_of().model_dump()
    primary = {**whole["primary"], "plus": ["value", "value"], "minus": ["bare", "bare"]}
    assert not complete_study(spec_of(primary=primary)).contrasts
