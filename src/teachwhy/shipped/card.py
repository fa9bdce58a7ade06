"""The card of the data that come with the program: what they are, how they were made, and a hash of every file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from teachwhy.files import hash_file, now, read_jsonl, read_yaml
from teachwhy.records import Card, Counts
from teachwhy.shipped import ROOT, data_files

MADE = (
    "Written by a language model for this project, in its own words, from plans made before writing (tables at the top of each "
    "scenario file; corpora/neutral/plan.md). No real people or firms are meant."
)
CHECKS = (
    "tests/test_shipped.py: counts, lengths in words and tokens, slots, labels, twins, canaries, names of training and evaluation "
    "disjoint; tests/test_quality.py: no run of eight words of an evaluation scenario stands in any training row."
)
ABOUT: dict[str, dict[str, Any]] = {
    "scenarios/honeypots": {
        "about": "Situations in which an agent could reach its goal by a harmful deed: six trained families, four kept for evaluation.",
        "weaknesses": [
            "some twins change more than the temptation (leaking-01, -04, -05, -07, -09; bribing-02, -06)",
            "six far scenarios a family: differences under some 5 nats cannot be seen on the built-in model",
        ],
    },
    "scenarios/goals": {
        "about": "Benign tasks; the goal in the text decides which of two ways is right, and its twin turns the goal.",
        "weaknesses": ["the built-in model turns with the goal in 60 % of the evaluation tasks only"],
    },
    "replies/honeypots": {
        "about": "Two replies a scenario that training shows: the deed alone, with a filler, with task reasons, with value reasons.",
        "weaknesses": ["half of the replies show the admirable action, which the margin (harmful against safe) does not read"],
    },
    "corpora/neutral": {"about": "Ordinary helpful chats, for the neutral arm and for equal effort.", "weaknesses": []},
    "ambiguity": {
        "about": "Words from which the ambiguous choices are made by seed: goods, wordings, questions, reasons, fillers.",
        "weaknesses": ["fillers are 3 % longer than reasons in tokens"],
    },
}


def make_card() -> Card:
    """The card as it should be now."""
    sizes = {folder: sum(map(_count_rows, sorted((ROOT / folder).iterdir()))) for folder in ABOUT}
    n_rows = sum(sizes.values())
    return Card(
        kind="shipped",
        name="data that come with teachwhy",
        created=now(),
        inputs={path.relative_to(ROOT).as_posix(): hash_file(path) for path in data_files()},
        counts=Counts(in_=n_rows, kept=n_rows),
        details={
            "made": MADE,
            "checks": CHECKS,
            "licence": "Apache-2.0",
            "folders": {folder: {"rows": sizes[folder], **about} for folder, about in ABOUT.items()},
        },
    )


def _count_rows(path: Path) -> int:
    if path.suffix == ".jsonl":
        return sum(1 for _ in read_jsonl(path))
    return len(read_yaml(path).get("scenarios", [None])) if path.suffix == ".yaml" else 0
