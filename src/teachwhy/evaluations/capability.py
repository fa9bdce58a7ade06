"""A small capability set, made by code: arithmetic, format following, short reading, read by likelihood.

Small enough for the built-in model to get some of it right: it is there to show what training cost, not to rank models. Every
wrong answer is of the right one's kind and length, so that a surface prior cannot choose.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from teachwhy.files import derive_seed
from teachwhy.records import Action, Scenario

VERSION = 1
N_ITEMS = 40
"""Items a family."""

_PEOPLE = ("Asta", "Bruno", "Chidi", "Dalia", "Emre", "Freya", "Goran", "Hana")
_THINGS = ("a lamp", "a kettle", "a drum", "a ladder", "a blanket", "a clock", "a basket", "a mirror")
_PLACES = ("the cellar", "the attic", "the garage", "the kitchen", "the garden", "the hall")
_WORDS = ("river", "candle", "window", "pepper", "garden", "silver", "basket", "marble", "thunder", "copper", "lantern", "meadow")

Question = tuple[str, str, list[str]]
"""The question, the right answer, wrong ones."""


def _arithmetic(rng: random.Random) -> Question:
    if rng.random() < 0.5:
        a, b = rng.randint(11, 49), rng.randint(11, 49)
        text, right = f"What is {a} + {b}?", a + b
    else:
        b = rng.randint(11, 49)
        a = b + rng.randint(11, 49)
        text, right = f"What is {a} - {b}?", a - b
    steps = rng.sample([step for step in (-10, -2, -1, 1, 2, 10) if 10 <= right + step <= 99], 3)
    return text, str(right), [str(right + step) for step in steps]


def _formats(rng: random.Random) -> Question:
    words = rng.sample(_WORDS, 3)
    shown, upper = ", ".join(words), [word.upper() for word in words]
    kinds: list[Question] = [
        (f"Write these words in capital letters: {shown}.", ", ".join(upper), [shown, ", ".join([upper[0], *words[1:]])]),
        (f"Write these words in reverse order: {shown}.", ", ".join(words[::-1]), [shown, ", ".join([words[1], words[0], words[2]])]),
        (f"Write these words with a dash between them: {shown}.", "-".join(words), [shown, " ".join(words)]),
        (f"Write these words as a JSON list: {shown}.", "[" + ", ".join(f'"{w}"' for w in words) + "]", [f"({shown})", f"[{shown}"]),
        (f"Write only the last of these words: {shown}.", words[2], [words[0], words[1]]),
    ]
    return rng.choice(kinds)


def _reading(rng: random.Random) -> Question:
    people, things, places = rng.sample(_PEOPLE, 3), rng.sample(_THINGS, 3), rng.sample(_PLACES, 3)
    facts = [f"{who} left {what} in {where}." for who, what, where in zip(people, things, places, strict=True)]
    asked = rng.randrange(3)
    question, answers = rng.choice(
        [
            (f"Who left {things[asked]} somewhere?", people),
            (f"What did {people[asked]} leave?", [thing.capitalize() for thing in things]),
            (f"Where did {people[asked]} leave {things[asked]}?", [place.capitalize() for place in places]),
        ]
    )
    return f"{' '.join(facts)} {question}", answers[asked], [answer for place, answer in enumerate(answers) if place != asked]


FAMILIES: dict[str, Callable[[random.Random], Question]] = {"arithmetic": _arithmetic, "formats": _formats, "reading": _reading}


def make_items(*, n_items: int = N_ITEMS, seed: int = VERSION) -> list[Scenario]:
    """`n_items` items of each family, all different, the same for every study: the seed is the set's version unless another is asked."""
    items = []
    for family, make in FAMILIES.items():
        seen: set[str] = set()
        number = 0
        while len(seen) < n_items:
            question, right, wrong = make(random.Random(derive_seed(seed, "capability", family, number)))
            number += 1
            if question in seen:
                continue
            answers = [("right", "right", right), *((f"wrong-{place}", "wrong", text) for place, text in enumerate(wrong, 1))]
            items.append(
                Scenario(
                    id=f"{family}-{len(seen):03d}",
                    kind="capability",
                    family=family,
                    split="far",
                    version=VERSION,
                    situation=question,
                    actions=tuple(Action(id=name, label=label, text=text) for name, label, text in answers),
                    poles=("right", "wrong"),
                )
            )
            seen.add(question)
    return items
