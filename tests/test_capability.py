"""The capability set: right answers are right, wrong ones are wrong and of the same kind."""

from __future__ import annotations

import json
import re

from teachwhy.evaluations.capability import FAMILIES, N_ITEMS, make_items
from teachwhy.records import Scenario


def answers(item: Scenario, label: str) -> list[str]:
    return [action.text for action in item.actions if action.label == label]


def of(family: str) -> list[Scenario]:
    return [item for item in make_items(n_items=200) if item.family == family]


def test_as_many_as_planned_and_all_different() -> None:
    items = make_items()
    assert len(items) == len({item.situation for item in items}) == len({item.id for item in items}) == N_ITEMS * len(FAMILIES)
    assert make_items() == items
    assert {item.situation for item in make_items(seed=2)} != {item.situation for item in items}


def test_every_item_has_one_right_answer_and_other_wrong_ones() -> None:
    for item in make_items(n_items=200):
        (right,) = answers(item, "right")
        wrong = answers(item, "wrong")
        assert len(wrong) >= 2
        assert len({right, *wrong}) == len(wrong) + 1, item.situation


def test_sums_are_right_and_wrong_ones_have_as_many_digits() -> None:
    for item in of("arithmetic"):
        a, sign, b = re.fullmatch(r"What is (\d+) ([+-]) (\d+)\?", item.situation).groups()  # type: ignore[union-attr]
        (right,) = answers(item, "right")
        assert int(right) == (int(a) + int(b) if sign == "+" else int(a) - int(b))
        assert {len(text) for text in answers(item, "wrong")} == {len(right)} == {2}


def test_formats_are_as_asked() -> None:
    asked = {
        "in capital letters": lambda words: ", ".join(words).upper(),
        "in reverse order": lambda words: ", ".join(reversed(words)),
        "with a dash between them": lambda words: "-".join(words),
        "as a JSON list": lambda words: json.dumps(words),
        "only the last": lambda words: words[-1],
    }
    seen = set()
    for item in of("formats"):
        way = next(way for way in asked if way in item.situation)
        seen.add(way)
        words = item.situation.partition(": ")[2].rstrip(".").split(", ")
        assert answers(item, "right") == [asked[way](words)]
    assert seen == set(asked)


def test_text_says_the_answer() -> None:
    for item in of("reading"):
        (right,) = answers(item, "right")
        question = item.situation.rpartition(". ")[2]
        asked = [fact for fact in item.situation.split(". ") if right.lower() in fact.lower()]
        named = re.findall(
            r"[A-Z]\w+|(?<=left )an? \w+|(?<=leave )an? \w+", question.removeprefix("Who").removeprefix("What").removeprefix("Where")
        )
        assert named, question
        assert all(name in asked[0] for name in named), (item.situation, right)
        assert len({text[0].isupper() for text in (right, *answers(item, "wrong"))}) == 1
