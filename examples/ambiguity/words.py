"""What words alone would do: each arm of study.yaml and speed_quiet.yaml as a unigram model of its replies, read on the same choices.

Such a model knows how often a word stands in the data and nothing else, so what it shows is what repeated words explain. Margins are
per reply in nats with half a count added to every word; no torch, seconds.
"""

import math
import re
from collections import Counter
from statistics import fmean

from teachwhy.ambiguity import PAIRS, ambiguous_row, make_items, read_lexicon
from teachwhy.records import Scenario

N_ROWS = 400
SEEDS = range(9)


def words_of(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


def margins(replies: list[str], items: list[Scenario]) -> dict[str, float]:
    """Split -> mean log-probability of the first feature's good less that of the other's."""
    texts = [[words_of(action.text) for action in item.actions] for item in items]
    counts = Counter(word for reply in replies for word in words_of(reply))
    known = {*counts, *(word for pair in texts for words in pair for word in words)}
    total = math.log(counts.total() + len(known) / 2)
    one, other = ([sum(math.log(counts[word] + 0.5) - total for word in pair[place]) for pair in texts] for place in (0, 1))
    found: dict[str, list[float]] = {}
    for item, a, b in zip(items, one, other, strict=True):
        found.setdefault(item.split, []).append(a - b)
    return {split: fmean(values) for split, values in found.items()} | {"all": fmean(a - b for a, b in zip(one, other, strict=True))}


for pair in PAIRS.values():
    lexicon = read_lexicon("_".join(pair))
    items = make_items(lexicon, conflict=True)
    for kind in ("reason", "filler"):
        differences = []
        for seed in SEEDS:
            rows = {topic: [ambiguous_row(lexicon, f"{topic}_{kind}", seed, number) for number in range(N_ROWS)] for topic in pair}
            one, other = (margins([f"{row['answer']} {row['words']}" for row in rows[topic]], items) for topic in pair)
            differences.append({split: one[split] - other[split] for split in one})
        means = {split: fmean(found[split] for found in differences) for split in differences[0]}
        print(f"{' - '.join(pair)} under {kind}:", ", ".join(f"{split} {mean:+.2f}" for split, mean in means.items()))
