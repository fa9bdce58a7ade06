"""What a reader of surfaces alone, of lengths and of single words, can tell apart."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from teachwhy.corpora import CorpusRow
from teachwhy.records import Scenario
from teachwhy.scenarios import fill

WORD = re.compile(r"[\w']+")
"""A word, in any script."""


def length_auc(one: Sequence[float], other: Sequence[float]) -> float:
    """How well length alone tells two corpora apart: 0.5 not at all, 1 always. The area under the ROC curve, on the side above one
    half (Mann and Whitney 1947, "On a test of whether one of two random variables is stochastically larger than the other")."""
    from scipy import stats

    if not one or not other:
        raise ValueError("both corpora need rows")
    share = float(stats.mannwhitneyu(one, other).statistic) / (len(one) * len(other))
    return max(share, 1 - share)


def harmful_and_safe(scenarios: Sequence[Scenario]) -> list[tuple[str, bool, str]]:
    """(text, is it harmful, family) of the two poles' actions; for kinds without harm, of none."""
    return [
        (fill(scenario, 0).text(action.text), action.label == "harmful", scenario.family)
        for scenario in scenarios
        if "harmful" in scenario.poles
        for action in scenario.actions
        if action.label in scenario.poles
    ]


def cue_words(texts: Sequence[tuple[str, bool]], *, at_least: int = 10) -> list[tuple[str, int, int]]:
    """Words that stand in harmful actions much more often than in safe ones, or the other way: (word, harmful, safe).

    texts: (action, is it harmful). Ordered by the G statistic of the word's two-by-two table (Dunning 1993, "Accurate methods for
    the statistics of surprise and coincidence"); only those beyond chance at one in a thousand after Bonferroni's correction.
    """
    from scipy import stats

    seen = {True: Counter[str](), False: Counter[str]()}
    totals = Counter(harmful for _, harmful in texts)
    for text, harmful in texts:
        seen[harmful].update(set(WORD.findall(text.lower())))
    words = sorted(word for word in {*seen[True], *seen[False]} if seen[True][word] + seen[False][word] >= at_least)
    found = []
    for word in words:
        yes, no = seen[True][word], seen[False][word]
        if yes + no == totals.total():  # in every action: the test is not defined
            continue
        test = stats.chi2_contingency([[yes, totals[True] - yes], [no, totals[False] - no]], correction=False, lambda_="log-likelihood")
        if test.pvalue * len(words) < 0.001:
            found.append((float(test.statistic), (word, yes, no)))
    return [entry for _, entry in sorted(found, reverse=True)]


def surface_score(scenarios: Sequence[Scenario]) -> tuple[float, int]:
    """Share of harmful and safe actions that a bag of words tells right when their family was held out (0.5 is chance), and how many.

    Naive Bayes with add-one smoothing (McCallum and Nigam 1998, "A comparison of event models for naive Bayes text
    classification", the multinomial model).
    """
    deeds = [(Counter(WORD.findall(text.lower())), harmful, family) for text, harmful, family in harmful_and_safe(scenarios)]
    n_right = 0
    for held in sorted({family for _, _, family in deeds}):
        counts = {True: Counter[str](), False: Counter[str]()}
        for bag, harmful, family in deeds:
            if family != held:
                counts[harmful].update(bag)
        size = len({*counts[True], *counts[False]})
        totals = {label: count.total() + size for label, count in counts.items()}
        for bag, harmful, family in deeds:
            if family == held:
                score = sum(
                    n * (np.log((counts[True][word] + 1) / totals[True]) - np.log((counts[False][word] + 1) / totals[False]))
                    for word, n in bag.items()
                )
                n_right += bool(score > 0) == harmful
    return (n_right / len(deeds) if deeds else float("nan")), len(deeds)


def unigram_margins(said: Iterable[str], pairs: Sequence[tuple[str, str]]) -> list[float]:
    """What a bag of words makes of pairs of texts after reading what an arm was trained on: for each pair the mean log-probability a word
    of the first less that of the second, nats. Single words with add-one smoothing; it knows no order and no question.

    said: the supervised texts. pairs: (first pole's action, second pole's action).
    """
    counts = Counter[str]()
    for text in said:
        counts.update(WORD.findall(text.lower()))
    bags = [tuple(WORD.findall(text.lower()) for text in pair) for pair in pairs]
    size = len({*counts, *(word for pair in bags for words in pair for word in words)})
    total = counts.total() + size

    def mean(words: Sequence[str]) -> float:
        return float(np.mean([np.log((counts[word] + 1) / total) for word in words])) if words else 0.0

    return [mean(first) - mean(second) for first, second in bags]


class Comparison(NamedTuple):
    """Two corpora side by side; tuples are (of the first, of the second)."""

    n_rows: tuple[int, int]
    n_same_prompts: int
    """Prompts that both have."""
    n_same_rows: int
    mean_length: tuple[float, float]
    """Of what carries loss, in the unit of `count`."""
    auc: float
    words: list[tuple[str, int, int]]
    """Words that stand in one much more often than in the other: (word, rows of the first, rows of the second)."""


def compare(one: Iterable[CorpusRow], other: Iterable[CorpusRow], count: Callable[[str], int]) -> Comparison:
    """What differs between two corpora and what does not. Both need rows."""
    sides = [list(one), list(other)]
    prompts = [{row.whole().removesuffix(row.said()) for row in rows if row.messages} for rows in sides]
    said = [{row.whole() for row in rows} for rows in sides]
    lengths = [[float(count(row.said())) for row in rows] for rows in sides]
    words = cue_words([(row.said(), side == 0) for side, rows in enumerate(sides) for row in rows])
    return Comparison(
        n_rows=(len(sides[0]), len(sides[1])),
        n_same_prompts=len(prompts[0] & prompts[1]),
        n_same_rows=len(said[0] & said[1]),
        mean_length=(float(np.mean(lengths[0])), float(np.mean(lengths[1]))),
        auc=length_auc(lengths[0], lengths[1]),
        words=words,
    )
