"""Arms that were trained or run elsewhere: what a plan needs to know of them before anything is spent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from teachwhy.errors import UserError
from teachwhy.files import hash_folder, hash_text
from teachwhy.models.roles import check_subject
from teachwhy.outcomes import FIXED_SEED
from teachwhy.study.schema import Outside

Source = Literal["local", "api", "logs"]


class Reading(NamedTuple):
    """What is read for one seed of an outside arm, or for all of them (`seed` FIXED_SEED)."""

    seed: int
    source: Source
    model: str
    """A folder with weights or an id of Inspect's; empty: the study's start."""
    adapter: str
    """A PEFT folder, or empty."""
    logs: str
    sha256: str
    """Of the weights, the adapter or the logs; of an id behind an API its name, since nothing else is known."""


def outside_readings(arm: str, outside: Outside, *, beside: Path) -> Iterator[Reading]:
    """Everything that an arm's cells read, found and hashed. Raises UserError for what is not there. A command has none yet."""
    try:
        found = list(_find(outside, beside))
        if len(found) > 1:  # one a seed: weights
            _refuse_twice(found)
        yield from found
    except UserError as error:
        raise UserError(f"arm {arm!r}: {error.what}", where=error.where, hint=error.hint) from error.__cause__


def _refuse_twice(found: Sequence[Reading]) -> None:
    """Raise UserError where two seeds are the same weights."""
    from teachwhy.models.checkpoints import hash_weights

    seeds: dict[str, int] = {}
    for one in found:
        if (seed := seeds.setdefault(hash_weights(Path(one.adapter or one.model)), one.seed)) != one.seed:
            raise UserError(
                f"seeds {seed} and {one.seed} are the same weights, letter by letter",
                hint="One model is no two trainings: give each seed its own, or name it once, without seeds, for all of them.",
            )


def _find(outside: Outside, beside: Path) -> Iterator[Reading]:
    if outside.model:
        check_subject(outside.model)
        yield Reading(FIXED_SEED, "api", outside.model, "", "", hash_text(outside.model))
    if outside.logs:
        folder = _beside(outside.logs, beside)
        if not any(folder.glob("*.eval")) and not any(folder.glob("*.json")):
            raise UserError(
                "the folder holds no logs of Inspect", where=str(folder), hint="Give the folder that inspect eval --log-dir named."
            )
        yield Reading(FIXED_SEED, "logs", "", "", str(folder.resolve()), hash_folder(folder))
    for seed, name in _seeds(outside.checkpoint):
        from teachwhy.models.checkpoints import hash_model, resolve_model

        folder = resolve_model(name if _is_id(name, beside) else str(_beside(name, beside)))
        yield Reading(seed, "local", str(folder), "", "", hash_model(folder))
    for seed, name in _seeds(outside.adapter):
        from teachwhy.models.checkpoints import check_adapter

        folder = _beside(name, beside)
        check_adapter(folder)
        yield Reading(seed, "local", "", str(folder.resolve()), "", hash_folder(folder))


def _seeds(held: str | dict[int, str]) -> list[tuple[int, str]]:
    if isinstance(held, dict):
        return sorted(held.items())
    return [(FIXED_SEED, held)] if held else []


def _is_id(name: str, beside: Path) -> bool:
    """Whether a checkpoint is not a folder here: `builtin`, or owner/name of a hub."""
    return not (beside / Path(name).expanduser()).is_dir()


def _beside(name: str, beside: Path) -> Path:
    """A folder, relative to the study's file. Raises UserError where there is none."""
    folder = beside / Path(name).expanduser()
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {name!r}", where=str(folder.absolute()), hint="Paths are taken from the folder of the study's file."
        )
    return folder
