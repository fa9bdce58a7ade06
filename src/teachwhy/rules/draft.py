"""Reasons drafted by a model, for rules that have none. They are drafts: used in runs that say so, and never applied."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import anyio

from teachwhy.budget import first_error
from teachwhy.errors import UserError
from teachwhy.files import derive_seed, write_text
from teachwhy.models.roles import ask_model, check_subject, open_subject
from teachwhy.rules.bind import KEPT, Bound, Kept, KeptRule, bind_rules, draft_kept, fold, read_built_in, read_kept
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
    failed: str = ""
    """Why the model could not be asked any further."""


def find_unreasoned(file: Path | None) -> tuple[Path, list[Bound]]:
    """The rule file, and its rules that have a check and no reason anywhere."""
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
    return path, open_rules


_NOTHING = KeptRule(id="", text="")


def draft_reasons(path: Path, rules: Sequence[Bound], model: str) -> list[Drafted]:
    """Up to three different drafts a rule, sampled at temperature 1; what was answered before a call failed is kept.

    Raises UserError where nothing was answered.
    """
    check_subject(model)
    text = path.read_text(encoding="utf-8-sig")
    asks = [ASK.format(name=path.name, text=text, rule=one.rule.bare) for one in rules]

    found: list[list[str]] = [[] for _ in asks]
    failed = [""] * len(asks)

    async def ask_all() -> None:
        subject = open_subject(model)

        async def ask_one(place: int) -> None:
            for number in range(TRIES):
                if len(found[place]) < N_DRAFTS:
                    try:
                        draft = await _draft(subject, asks[place], number)
                    except Exception as error:  # noqa: BLE001  # whatever a provider raises: the other rules' drafts are paid for
                        failed[place] = first_error([str(error) or type(error).__name__])
                        return
                    found[place] += [draft] if draft and draft not in found[place] else []

        async with anyio.create_task_group() as group:
            for place in range(len(asks)):
                group.start_soon(ask_one, place)

    anyio.run(ask_all)
    if any(failed) and not any(found):
        raise UserError(f"{model} could not be asked: {next(filter(None, failed))}", where="--model")
    return [Drafted(one, tuple(held), why) for one, held, why in zip(rules, found, failed, strict=True)]


async def _draft(subject: Any, ask: str, number: int) -> str:
    from inspect_ai.model import ChatMessageUser, GenerateConfig

    config = GenerateConfig(max_tokens=MAX_NEW, temperature=1.0, seed=derive_seed(number, "draft", ask) % 2**31)
    return clean_draft((await ask_model(subject, [ChatMessageUser(content=ask)], config)).completion)


def clean_draft(text: str) -> str:
    """One clause without what stands around it; empty where it is none of 3 to 25 words."""
    line = next((line for line in text.splitlines() if line.strip()), "")
    line = fold(re.sub(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", "", line)).strip(" \t\"'“”‘’`*-–—")
    line = re.sub(r"^(?:\.{3}|…)?\s*(?:because[\s,:]+)?", "", line, flags=re.IGNORECASE).rstrip(" .!\"'“”’`*")
    return line if len(line.split()) in WORDS else ""


def keep_drafts(path: Path, found: Sequence[Drafted], model: str) -> Path:
    """Write the drafts into the project's rules.yaml, beside all that stands there by now; comments are lost, as by `rules init`."""
    kept = read_kept(project_of(path))
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
