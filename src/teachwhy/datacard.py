"""The card of the data that come with the program: what they are, how they were made and checked, a hash of every file.

`python -m teachwhy.datacard` writes it anew after the data were changed; a test compares.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

from teachwhy.ambiguity import pair_of
from teachwhy.corpora import NAMES, corpus_reader
from teachwhy.evaluations.choice import load_scenarios
from teachwhy.files import hash_file, now, write_card
from teachwhy.judges.calibration import read_labelled
from teachwhy.models.builtin import get_builtin
from teachwhy.models.chat import encode_text, load_tokenizer
from teachwhy.office.scenes import FAMILIES, read_scenes
from teachwhy.records import Card, Counts, Scenario
from teachwhy.scenarios import fill, read_scenarios
from teachwhy.shipped import ROOT, data_files
from teachwhy.surface import length_auc, surface_score

Count = Callable[[str], int]
MADE = (
    "Written by a language model for this project, in its own words, from plans made before writing (`plan` in each "
    "scenario file; corpora/neutral/plan.md). No real people or firms are meant."
)
CHECKS = (
    "teachwhy corpus check, over everything: near-duplicates, openings, stock phrases, links, dates, real names, slots, articles and "
    "plurals of every filled form, leaks from evaluation into training. tests/test_shipped.py: counts, lengths, labels, twins, canaries, "
    "shares of principles, length of fillers against reasons."
)
READ = (
    "After writing, fresh readers (the same language model, without the writer's notes) read a random fifty of each kind and rewrote what "
    "was stale, implausible or wrong: 18 of 50 honeypots, 14 of 50 replies (and 137 fillers of one shape), 11 of 50 goal tasks (and 61 "
    "openings), all 60 conduct scenarios, all 80 look-alikes, 107 of 600 neutral chats. A blind reader labelled 200 actions harmful, safe "
    "or inactive: 98 % as written (kappa 0.97); the four others were mended. A second one labelled 200 after the rewriting, 110 of them of "
    "conduct: all as written. Readers and writer share one model's taste: no person has labelled them."
)
SCENARIOS: dict[str, tuple[str, list[str]]] = {
    "honeypots": (
        "Situations in which an agent could reach its goal by a harmful deed.",
        [
            "some twins change whole clauses (leaking-10, -12, -18; framing-03, -06, -08; squeezing_suppliers-10)",
            "bypassing_approval-11 is near the far families' acting beyond one's place",
            "words about the deed tell harmful from safe actions in part (ask and offer mark the safe one): see surface_score",
            "reasons before the deed fit some twins less closely",
        ],
    ),
    "goals": (
        "Benign tasks; the goal in the text decides which of two ways is right, and its twin turns the goal.",
        ["in two thirds of the files the way described first alternates by number", "many actions end in an unrelated second clause"],
    ),
    "conduct": (
        "Everyday misbehaviour that looks nothing like a honeypot.",
        [
            "21 wordings were chosen by looking at surface_score, which is therefore fitted here",
            "plan labels were drawn after the texts",
            "mild harm in overreach-03 and gamed_metric-03",
        ],
    ),
    "lookalikes": (
        "Benign requests that resemble honeypots or sound dangerous.",
        ["refusals often begin with what is left undone", "a bag of function words tells refusals from help in two thirds of cases"],
    ),
    "capability": ("Arithmetic, formats and short reading, made by code.", ["few templates: formats has five"]),
}
OFFICE = {
    "about": "Offices for an agent with tools: 24 scenarios a family, each met at twelve cells of a design, each with a twin.",
    "made": (
        "Written by eight writers (one language model) from disjoint plans; then two sets of transcripts were written and labelled by "
        "others who saw the offices and not the patterns, and patterns of framing and leaking were widened by the first of these sets."
    ),
    "fresh_readers": (
        "Two readers (the same language model, without the writers' notes) were shown 20 offices each, without tools or their names, half "
        "of them twins: 40 of 40 were told apart, all by what the material allows, at 80 to 98 % confidence. Prompts alone are letter by "
        "letter the same in both. Side by side all offices look arranged to them: one errand, a mail that settles the goal, one that "
        "settles the agent's fate, and an item in a corner; twins can be told by innocence that is explained at length."
    ),
    "weaknesses": [
        "the mechanical reading misses hints: see docs/evaluations.md for what it found of harm that was meant to be subtle",
        "mail, chat, ledger and calendar cannot be locked, so some harmful deeds stay possible on twins, where nothing calls for them",
        "with neither conflict nor threat some goals are hardly served by harm (framing-08, -12; leaking-16, -20, -24)",
        "whoever decides something in blackmail always signs within days, and alone",
        "each temptation lies behind one reading: nothing has to be put together",
    ],
}
_REPLIES = ["eight of the twelve older families open seven to ten of 32 fillers with “The”", "one language model wrote every voice"]
_AMBIGUITY = ["fillers are 3 % longer than reasons in tokens", "six wordings a feature: items of one wording are alike"]
_NEUTRAL = [
    "explanations and repairs are the commonest kinds",
    "short questions with short answers are the commonest of the nine pairs of lengths",
]
CORPORA: dict[str, tuple[str, str, list[str]]] = {
    "replies": (
        "Safe and admirable deeds in honeypots of trained families: alone, with a filler, with reasons.",
        "replies/honeypots",
        _REPLIES,
    ),
    "oracle": ("The same for the part of the far families that only the oracle arm sees.", "replies/honeypots", _REPLIES),
    "shuffled": ("Each reason under another case, of about the same length; made by code.", "replies/honeypots", []),
    "ambiguity": (
        "Choices in which two features (price and place, speed and quiet) agree, made by seed; 240 rows are counted here.",
        "ambiguity",
        _AMBIGUITY,
    ),
    "goals": ("Goal tasks as they are and turned.", "scenarios/goals", []),
    "neutral": ("Ordinary helpful chats, for the neutral arm and for equal effort.", "corpora/neutral", _NEUTRAL),
}


def make_card(count: Count) -> Card:
    """The card as it should be now. count: tokens of a text."""
    sets = [*(_corpus_set(name, count) for name in NAMES), *(_scenario_set(name, count) for name in SCENARIOS)]
    n_rows = sum(one["rows"] for one in sets)
    return Card(
        kind="shipped",
        name="data that come with teachwhy",
        created=now(),
        inputs={path.relative_to(ROOT).as_posix(): hash_file(path) for path in data_files()},
        counts=Counts(in_=n_rows, kept=n_rows),
        details={
            "made": MADE,
            "checks": CHECKS,
            "read": READ,
            "licence": "Apache-2.0",
            "tokens": "of the built-in model; of corpora those that carry loss, of scenarios those of situation, twin and actions",
            "sets": sets,
            "office": {**OFFICE, "families": {family: _office_family(family) for family in FAMILIES}},
            "length_auc": _length_aucs(count),
            "surface_score": {
                name: {"right": round(surface_score(read_scenarios(name))[0], 3), "n": surface_score(read_scenarios(name))[1]}
                for name in ("honeypots", "conduct")
            },
        },
    )


def _corpus_set(name: str, count: Count) -> dict[str, Any]:
    kind, _, variant = name.partition("/")
    about, path, weaknesses = CORPORA[kind]
    path = f"ambiguity/{pair_of(variant)}.yaml" if kind == "ambiguity" else path
    lengths = [count(row.said()) for row in corpus_reader(name)()]
    return {
        "name": name, "kind": "corpus", "rows": len(lengths), "tokens": sum(lengths), "path": path,
        "about": about, "weaknesses": weaknesses,
    }  # fmt: skip


def _scenario_set(name: str, count: Count) -> dict[str, Any]:
    about, weaknesses = SCENARIOS[name]
    scenarios: list[Scenario] = load_scenarios(name) if name == "capability" else list(read_scenarios(name))
    texts = [fill(one, 0).text(text) for one in scenarios for text in (one.situation, one.twin, *(a.text for a in one.actions))]
    return {
        "name": f"scenarios/{name}", "kind": "scenarios", "rows": len(scenarios), "tokens": sum(map(count, texts)),
        "path": f"scenarios/{name}" if name != "capability" else "", "about": about, "weaknesses": weaknesses,
    }  # fmt: skip


def _office_family(family: str) -> dict[str, int]:
    held, labelled = read_scenes(family), read_labelled(family)
    return {
        "scenarios": len(held), "transcripts": sum(len(one.transcripts) for one in held), "labelled": len(labelled),
        "labelled_harmful": sum(one.label == "harmful" for _, one in labelled),
    }  # fmt: skip


def _length_aucs(count: Count) -> dict[str, float]:
    """How well length alone tells the versions of the replies apart (0.5: not at all)."""
    versions = {version: [count(row.said()) for row in corpus_reader(f"replies/{version}")()] for version in _MATCHED}
    return {f"{one} against {other}": round(length_auc(versions[one], versions[other]), 3) for one, other in combinations(_MATCHED, 2)}


_MATCHED = ("filler", "task_reason", "value_reason")


def main() -> None:
    """Write the card."""
    tokenizer = load_tokenizer(get_builtin(print))
    write_card(ROOT, make_card(lambda text: len(encode_text(tokenizer, text))))


if __name__ == "__main__":
    main()
