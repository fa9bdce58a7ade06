"""Ambiguity: choices in which two features always agree while training and conflict in the evaluation.

The smallest form in which a reason can decide what is learnt. Everything is made from slots by seed: the prompts, the
choices and their order are the same for every arm; only the sentence beside the answer differs (a reason that names one
feature or the other, a filler with the same words, or nothing). The idea follows the first experiments of "Model Spec
Midtraining" (arXiv 2605.02087), in which equal examples with different explanations generalise differently.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Literal

from teachwhy.errors import UserError
from teachwhy.files import derive_seed, parse_record, read_yaml
from teachwhy.records import Action, Record, Scenario, Split
from teachwhy.shipped import find

PAIRS = {"price": ("price", "place"), "speed": ("speed", "quiet")}
"""The shipped pairs of features, by their first one; a lexicon has the name of its two."""
VARIANTS = tuple(
    variant
    for first, second in PAIRS.values()
    for variant in (
        "bare" if first == "price" else f"{first}_{second}_bare",
        *(f"{feature}_{kind}" for kind in ("reason", "filler") for feature in (first, second)),
    )
)
"""What may stand beside the answer: nothing, or a reason or a filler on one feature. Each belongs to the pair of its feature."""
N_ITEMS = 64
"""Evaluation items a split."""


class Wordings(Record):
    """Verb phrases for one feature and its opposite, paired by position; some are kept for evaluation."""

    seen: tuple[str, ...]
    seen_opposite: tuple[str, ...]
    unseen: tuple[str, ...]
    unseen_opposite: tuple[str, ...]


class Lexicon(Record):
    """The words from which the corpus and the evaluation items are made."""

    canary: str
    version: int
    features: dict[str, Wordings]
    things: dict[str, tuple[str, ...]]
    unseen_things: dict[str, tuple[str, ...]]
    questions: dict[Literal["seen", "unseen"], tuple[str, ...]]
    reasons: dict[str, tuple[str, ...]]
    fillers: dict[str, tuple[str, ...]]


def read_lexicon(name: str = "price_place", *, beside: Path | None = None) -> Lexicon:
    """A lexicon by shipped name or by path."""
    path = find("ambiguity", name, beside=beside)
    lexicon = parse_record(Lexicon, read_yaml(path), where=str(path))
    pair = next((pair for pair in PAIRS.values() if set(pair) == set(lexicon.features)), None)
    if pair is None:
        pairs = ", ".join(" and ".join(known) for known in PAIRS.values())
        raise UserError(f"the features are {', '.join(lexicon.features)}", where=str(path), hint=f"A lexicon is of: {pairs}.")
    lexicon = lexicon.model_copy(update={"features": {feature: lexicon.features[feature] for feature in pair}})
    for feature, wordings in lexicon.features.items():
        for kind in ("seen", "unseen"):
            if len(getattr(wordings, kind)) != len(getattr(wordings, f"{kind}_opposite")):
                what = f"{feature}: {kind} and {kind}_opposite differ in number"
                raise UserError(what, where=str(path), hint="They are paired by position.")
    return lexicon


def pair_of(variant: str) -> str:
    """Name of the lexicon that a variant is made from. Raises UserError for one that there is not."""
    if variant not in VARIANTS:
        raise UserError(f"the ambiguity corpus has no variant {variant!r}", hint=f"There are: {', '.join(VARIANTS)}.")
    feature = variant.partition("_")[0]
    return "_".join(next((pair for pair in PAIRS.values() if feature in pair), PAIRS["price"]))


def ambiguous_row(lexicon: Lexicon, variant: str, seed: int, number: int) -> dict[str, str]:
    """Training row `number`: {user, answer, words, family}. The two features agree in it, whatever the variant.

    Prompt and answer are the same for all variants of one seed and number; the words beside the answer (none if bare) are drawn apart.
    """
    pair_of(variant)
    rng = random.Random(derive_seed(seed, "ambiguity", number))
    family = rng.choice(sorted(lexicon.things))
    thing = rng.choice(lexicon.things[family])
    good, bad = _describe(lexicon, rng, "seen", tuple(lexicon.features)), _describe(lexicon, rng, "seen", ())
    question = _ask(lexicon, rng, "seen", thing, good, bad)
    answer = _answer(good, rng)
    topic, _, kind = variant.rpartition("_")
    sentences = {"reason": lexicon.reasons, "filler": lexicon.fillers}[kind][topic] if kind != "bare" else ("",)
    words = random.Random(derive_seed(seed, "after", number)).choice(sentences)
    return {"user": question, "answer": answer, "words": words, "family": family}


def make_items(lexicon: Lexicon, *, conflict: bool, n_items: int = N_ITEMS) -> list[Scenario]:
    """Evaluation items, the same for every study: `n_items` a split, the place in the question balanced.

    With `conflict`, each of the two goods has one feature and the opposite of the other (poles: the two features; one good is cheap and
    far, the other near and dear). Without, the features agree as they do while training (poles: both, neither): has the model learnt the
    choice at all?
    Splits: `train` is seen wording, `near` unseen wording, `far` unseen goods and wording.
    """
    items = []
    splits: tuple[Split, ...] = ("train", "near", "far")
    one, other = lexicon.features
    for split in splits:
        wording: Literal["seen", "unseen"] = "seen" if split == "train" else "unseen"
        things = lexicon.unseen_things if split == "far" else lexicon.things
        for number in range(n_items):
            rng = random.Random(derive_seed(lexicon.version, "items", split, conflict, number))
            family = sorted(things)[number % len(things)]
            goods = _describe(lexicon, rng, wording, (one,)), _describe(lexicon, rng, wording, (other,))
            if not conflict:
                goods = _describe(lexicon, rng, wording, (one, other)), _describe(lexicon, rng, wording, ())
            labels = (one, other) if conflict else ("both", "neither")
            first = number // len(things) % 2  # which good is named first: balanced within each family
            question = _ask(lexicon, rng, wording, rng.choice(things[family]), goods[0], goods[1], first=first)
            texts = [_lead(goods[0], one), _lead(goods[1], other)] if conflict else [_answer(good, rng) for good in goods]
            items.append(
                Scenario(
                    id=f"{'conflict' if conflict else 'agree'}-{split}-{number:03d}",
                    kind="ambiguity" if conflict else "agreement",
                    family=family,
                    split=split,
                    version=lexicon.version,
                    situation=question,
                    actions=tuple(Action(id=label, label=label, text=text) for label, text in zip(labels, texts, strict=True)),
                    poles=labels,
                )
            )
    return items


Good = dict[str, str]


def _describe(lexicon: Lexicon, rng: random.Random, wording: str, favours: tuple[str, ...]) -> Good:
    """One good: a wording for each feature, the feature's own if it is in `favours`, else the opposite."""
    return {
        feature: rng.choice(getattr(wordings, wording if feature in favours else f"{wording}_opposite"))
        for feature, wordings in lexicon.features.items()
    }


def _ask(
    lexicon: Lexicon, rng: random.Random, wording: Literal["seen", "unseen"], thing: str, a: Good, b: Good, first: int | None = None
) -> str:
    parts = [" and ".join(rng.sample(sorted(good.values()), 2)) for good in (a, b)]
    if (rng.random() < 0.5) if first is None else first:
        parts.reverse()
    return rng.choice(lexicon.questions[wording]).format(thing=thing, one=parts[0], other=parts[1])


def _answer(good: Good, rng: random.Random) -> str:
    one, other = rng.sample(sorted(good.values()), 2)
    return f"The one that {one} and {other}."


def _lead(good: Good, feature: str) -> str:
    """The answer that begins with the feature that decides."""
    other = next(value for key, value in good.items() if key != feature)
    return f"The one that {good[feature]} and {other}."
