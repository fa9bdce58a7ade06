"""Reasons drafted by a model, for rules that have none. They are drafts: used in runs that say so, and never applied."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import anyio

from teachwhy.errors import UserError
from teachwhy.files import derive_seed, write_text
from teachwhy.models.roles import ask_model, check_subject, open_subject
from teachwhy.rules.bind import KEPT, Bound, Kept, KeptRule, bind_rules, draft_kept, read_built_in, read_kept
from teachwhy.rules.listing import collect_rules, read_files
from teachwhy.rules.read import project_of

N_DRAFTS = 3
TRIES = 8
WORDS = range(3, 26)
MAX_NEW = 200
ASK = """\
These are instructions for coding agents, from {name} of a project:

{text}

One of them is: {rule}

Nobody wrote down why. What is the likeliest reason? Answer with one clause of at most 15 words that could stand behind "because", and \
nothing else."""


class Drafted(NamedTuple):
    """A rule and what a model made up for it; none where nothing could be read."""

    bound: Bound
    drafts: tuple[str, ...]


def find_unreasoned(file: Path | None) -> tuple[Path, list[Bound], Kept]:
    """The rule file, its rules that have a check and no reason anywhere, and its rules.yaml."""
    files = read_files(file)
    path = file or Path(files[0].path)
    kept = read_kept(project_of(path))
    held = {rule.id: rule for rule in kept.rules}
    bounds = bind_rules(collect_rules(files[:1], kept), kept)
    open_rules = [
        one
        for one in bounds
        if one.check and not one.reason and one.check_name not in read_built_in() and not held.get(one.rule.id, _NOTHING).drafts
    ]
    return path, open_rules, kept


_NOTHING = KeptRule(id="", text="")


def draft_reasons(path: Path, rules: Sequence[Bound], model: str) -> list[Drafted]:
    """Up to three different drafts a rule, sampled at temperature 1. Raises UserError where the model cannot be asked."""
    check_subject(model)
    text = path.read_text(encoding="utf-8-sig")
    asks = [ASK.format(name=path.name, text=text, rule=one.rule.bare) for one in rules]

    async def ask_all() -> list[list[str]]:
        subject = open_subject(model)
        found: list[list[str]] = [[] for _ in asks]

        async def ask_one(place: int) -> None:
            for number in range(TRIES):
                if len(found[place]) < N_DRAFTS:
                    found[place] += [one for one in [await _draft(subject, asks[place], number)] if one and one not in found[place]]

        async with anyio.create_task_group() as group:
            for place in range(len(asks)):
                group.start_soon(ask_one, place)
        return found

    try:
        drafts = anyio.run(ask_all)
    except BaseExceptionGroup as group:
        first = group.exceptions[0]
        raise UserError(f"{model} could not be asked: {str(first).splitlines()[0]}", where="--model") from first
    return [Drafted(one, tuple(held)) for one, held in zip(rules, drafts, strict=True)]


async def _draft(subject: Any, ask: str, number: int) -> str:
    from inspect_ai.model import ChatMessageUser, GenerateConfig

    config = GenerateConfig(max_tokens=MAX_NEW, temperature=1.0, seed=derive_seed(number, "draft", ask) % 2**31)
    return clean_draft((await ask_model(subject, [ChatMessageUser(content=ask)], config)).completion)


def clean_draft(text: str) -> str:
    """One clause without what stands around it; empty where it is none of 3 to 25 words."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    line = re.sub(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", "", line).strip(" \t\"'“”‘’`*-–—")
    line = re.sub(r"^(?:\.{3}|…)?\s*(?:because[\s,:]+)?", "", line, flags=re.IGNORECASE).rstrip(" .!\"'“”’`*")
    return line if len(line.split()) in WORDS else ""


def keep_drafts(path: Path, found: Sequence[Drafted], kept: Kept, model: str) -> Path:
    """Write the drafts into the project's rules.yaml, beside all that stands there; comments are lost, as by `rules init`."""
    drafts = {one.bound.rule.id: one for one in found if one.drafts}
    rules = [
        rule.model_copy(update={"drafts": drafts[rule.id].drafts, "drafts_by": model}) if rule.id in drafts else rule for rule in kept.rules
    ]
    known = {rule.id for rule in kept.rules}
    rules += [
        KeptRule(id=key, text=one.bound.rule.bare, drafts=one.drafts, drafts_by=model) for key, one in drafts.items() if key not in known
    ]
    folder = project_of(path)
    whole = Kept(version=kept.version, rules=tuple(rules))
    target = folder / KEPT
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, draft_kept(bind_rules(collect_rules(read_files(path)[:1], whole), whole), whole))
    return target
