"""Ambiguity: price and place agree in every training row and conflict in every item; arms differ in the last sentence alone."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from teachwhy.ambiguity import N_ITEMS, PAIRS, VARIANTS, Lexicon, ambiguous_row, make_items, pair_of, read_lexicon
from teachwhy.corpora import corpus_rows
from teachwhy.errors import UserError
from teachwhy.quality import find_leaks
from teachwhy.records import Scenario
from teachwhy.shipped import ROOT

N_ROWS = 600
SEED = 11

Good = dict[str, bool]
"""Feature -> does the good have it (cheap, near) or its opposite."""


class Question(NamedTuple):
    thing: str
    goods: tuple[Good, Good]


@pytest.fixture(scope="module", params=["_".join(pair) for pair in PAIRS.values()])
def lexicon(request: pytest.FixtureRequest) -> Lexicon:
    return read_lexicon(request.param)


def variants_of(lexicon: Lexicon) -> list[str]:
    """The variants made from a lexicon, the bare one first."""
    return [variant for variant in VARIANTS if pair_of(variant) == "_".join(lexicon.features)]


def bare_of(lexicon: Lexicon) -> str:
    return variants_of(lexicon)[0]


def parse_good(lexicon: Lexicon, text: str, wording: str) -> Good:
    """A good from its description, one phrase for each feature, read with the lexicon's own wordings."""
    found: Good = {}
    for phrase in text.split(" and "):
        readings = {
            feature: favoured
            for feature, wordings in lexicon.features.items()
            for favoured, name in ((True, wording), (False, f"{wording}_opposite"))
            if phrase in getattr(wordings, name)
        }
        assert len(readings) == 1, f"{phrase!r} is read as {readings}"
        found |= readings
    assert set(found) == set(lexicon.features), text
    return found


def parse_question(lexicon: Lexicon, text: str, wording: str) -> Question:
    for template in lexicon.questions["seen" if wording == "seen" else "unseen"]:
        pattern = re.escape(template).replace(r"\{thing\}", "(.+)").replace(r"\{one\}", "(.+)").replace(r"\{other\}", "(.+)")
        if match := re.fullmatch(pattern, text):
            return Question(match[1], (parse_good(lexicon, match[2], wording), parse_good(lexicon, match[3], wording)))
    raise AssertionError(f"no question of the lexicon has this form: {text!r}")


def parse_answer(lexicon: Lexicon, text: str, wording: str) -> Good:
    return parse_good(lexicon, text.removeprefix("The one that ").removesuffix("."), wording)


def good(lexicon: Lexicon, *favoured: str) -> Good:
    return {feature: feature in favoured for feature in lexicon.features}


def agreeing(lexicon: Lexicon) -> tuple[Good, Good]:
    return good(lexicon, *lexicon.features), good(lexicon)


def conflicting(lexicon: Lexicon) -> tuple[Good, Good]:
    one, other = lexicon.features
    return good(lexicon, one), good(lexicon, other)


def same(found: tuple[Good, Good], wanted: tuple[Good, Good]) -> bool:
    return found in (wanted, wanted[::-1])


def test_price_and_place_agree_in_every_training_row(lexicon: Lexicon) -> None:
    first: Counter[bool] = Counter()
    for number in range(N_ROWS):
        row = ambiguous_row(lexicon, bare_of(lexicon), SEED, number)
        question = parse_question(lexicon, row["user"], "seen")
        assert same(question.goods, agreeing(lexicon))
        assert parse_answer(lexicon, row["answer"], "seen") == agreeing(lexicon)[0]
        assert question.thing in lexicon.things[row["family"]]
        first[question.goods[0] == agreeing(lexicon)[0]] += 1
    assert abs(first[True] / N_ROWS - 0.5) < 0.1


def test_answer_repeats_the_words_of_the_question(lexicon: Lexicon) -> None:
    for number in range(N_ROWS):
        row = ambiguous_row(lexicon, bare_of(lexicon), SEED, number)
        for phrase in row["answer"].removeprefix("The one that ").removesuffix(".").split(" and "):
            assert phrase in row["user"]


def test_prompts_and_answers_are_equal_across_variants(lexicon: Lexicon) -> None:
    for number in range(N_ROWS):
        rows = {variant: ambiguous_row(lexicon, variant, SEED, number) for variant in variants_of(lexicon)}
        bare = rows.pop(bare_of(lexicon))
        for variant, row in rows.items():
            topic, kind = variant.split("_")
            assert row["user"] == bare["user"]
            assert row["answer"] == bare["answer"] and not bare["words"]
            assert row["words"] in (lexicon.reasons if kind == "reason" else lexicon.fillers)[topic]


def test_the_two_topics_get_sentences_of_the_same_frame(lexicon: Lexicon) -> None:
    for number in range(100):
        places = {
            variant: sentences[variant.split("_")[0]].index(ambiguous_row(lexicon, variant, SEED, number)["words"])
            for variant in variants_of(lexicon)[1:]
            for sentences in [lexicon.reasons if variant.endswith("reason") else lexicon.fillers]
        }
        assert len(set(places.values())) == 1


def test_rows_depend_on_seed_and_number_alone(lexicon: Lexicon) -> None:
    rows = [ambiguous_row(lexicon, variants_of(lexicon)[1], SEED, number) for number in range(50)]
    assert rows == [ambiguous_row(lexicon, variants_of(lexicon)[1], SEED, number) for number in range(50)]
    assert rows != [ambiguous_row(lexicon, variants_of(lexicon)[1], SEED + 1, number) for number in range(50)]
    assert len({row["user"] for row in rows}) == 50


def test_unknown_variant_names_those_there_are(lexicon: Lexicon) -> None:
    with pytest.raises(UserError, match="no variant 'price'") as caught:
        ambiguous_row(lexicon, "price", SEED, 0)
    assert all(variant in caught.value.hint for variant in VARIANTS)


def wording_of(item: Scenario) -> str:
    return "seen" if item.split == "train" else "unseen"


def test_price_and_place_conflict_in_every_item(lexicon: Lexicon) -> None:
    for item in make_items(lexicon, conflict=True):
        question = parse_question(lexicon, item.situation, wording_of(item))
        assert same(question.goods, conflicting(lexicon))
        answers = {action.label: parse_answer(lexicon, action.text, wording_of(item)) for action in item.actions}
        assert answers == dict(zip(lexicon.features, conflicting(lexicon), strict=True))
        assert item.poles == tuple(lexicon.features)


def test_price_and_place_agree_in_every_item_without_conflict(lexicon: Lexicon) -> None:
    for item in make_items(lexicon, conflict=False):
        question = parse_question(lexicon, item.situation, wording_of(item))
        assert same(question.goods, agreeing(lexicon))
        answers = {action.label: parse_answer(lexicon, action.text, wording_of(item)) for action in item.actions}
        assert answers == dict(zip(("both", "neither"), agreeing(lexicon), strict=True))


def test_answers_of_a_conflict_begin_with_what_decides(lexicon: Lexicon) -> None:
    for item in make_items(lexicon, conflict=True):
        wordings = {feature: getattr(lexicon.features[feature], wording_of(item)) for feature in lexicon.features}
        for action in item.actions:
            assert action.text.removeprefix("The one that ").startswith(wordings[action.label])


@pytest.mark.parametrize("conflict", [True, False])
def test_positions_are_balanced_in_every_split_and_family(lexicon: Lexicon, conflict: bool) -> None:
    first: dict[tuple[str, str], list[bool]] = {}
    for item in make_items(lexicon, conflict=conflict):
        goods = parse_question(lexicon, item.situation, wording_of(item)).goods
        for key in ((item.split, ""), (item.split, item.family)):
            first.setdefault(key, []).append(goods[0] == (conflicting if conflict else agreeing)(lexicon)[0])
    for (split, family), found in first.items():
        spare = 1 if family else max(2, len(found) // 10)  # a family of an odd number cannot be halved
        assert abs(2 * sum(found) - len(found)) <= spare, (split, family, sum(found), len(found))


@pytest.mark.parametrize("conflict", [True, False])
def test_items_are_the_same_every_time_and_at_least_60_a_split(lexicon: Lexicon, conflict: bool) -> None:
    items = make_items(lexicon, conflict=conflict)
    assert items == make_items(lexicon, conflict=conflict)
    assert len({item.id for item in items}) == len({item.situation for item in items}) == len(items)
    assert min(Counter(item.split for item in items).values()) == N_ITEMS >= 60


def test_far_items_are_of_goods_that_training_never_shows(lexicon: Lexicon) -> None:
    assert not set(lexicon.things) & set(lexicon.unseen_things)
    trained = {thing for things in lexicon.things.values() for thing in things}
    for item in make_items(lexicon, conflict=True):
        thing = parse_question(lexicon, item.situation, wording_of(item)).thing
        assert (thing in trained) is (item.split != "far")


def test_lexicon_is_large_enough(lexicon: Lexicon) -> None:
    assert sum(map(len, lexicon.things.values())) >= 40
    for wordings in lexicon.features.values():
        assert len(set(wordings.seen)) == len(set(wordings.seen_opposite)) == 12
        assert len(set(wordings.unseen)) >= 6
    assert len(lexicon.questions["seen"]) >= 12
    for sentences in (lexicon.reasons, lexicon.fillers):
        assert {len(set(sentences[feature])) for feature in lexicon.features} == {12}


def test_wordings_for_evaluation_are_not_those_of_training(lexicon: Lexicon) -> None:
    for wordings in lexicon.features.values():
        assert not set(wordings.seen + wordings.seen_opposite) & set(wordings.unseen + wordings.unseen_opposite)
    assert not set(lexicon.questions["seen"]) & set(lexicon.questions["unseen"])


def test_each_reason_and_its_filler_are_equal_in_length(lexicon: Lexicon) -> None:
    for topic in lexicon.features:
        for reason, filler in zip(lexicon.reasons[topic], lexicon.fillers[topic], strict=True):
            n_words = len(reason.split()), len(filler.split())
            assert max(n_words) <= 1.3 * min(n_words), (reason, filler)
        total = [sum(len(text.split()) for text in texts[topic]) for texts in (lexicon.reasons, lexicon.fillers)]
        assert max(total) <= 1.06 * min(total)


def test_wordings_that_do_not_pair_are_refused(tmp_path: Path) -> None:
    value = yaml.safe_load((ROOT / "ambiguity" / "price_place.yaml").read_text())
    value["features"]["price"]["seen"].append("is free")
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(value))
    with pytest.raises(UserError, match="price: seen and seen_opposite differ in number") as caught:
        read_lexicon(str(path))
    assert caught.value.where == str(path)


def test_lexicon_of_other_features_is_refused(tmp_path: Path) -> None:
    value = yaml.safe_load((ROOT / "ambiguity" / "price_place.yaml").read_text())
    value["features"]["taste"] = value["features"].pop("price")
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(value))
    with pytest.raises(UserError, match="the features are"):
        read_lexicon(str(path))


def test_no_row_of_training_holds_eight_words_of_an_item(lexicon: Lexicon) -> None:
    items = [item for conflict in (True, False) for item in make_items(lexicon, conflict=conflict)]
    rows = corpus_rows(f"ambiguity/{variants_of(lexicon)[1]}", 400, seed=SEED)
    assert not find_leaks(rows, items, n_fills=1)
