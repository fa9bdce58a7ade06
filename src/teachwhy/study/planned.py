"""plan.json: what a study will do, hashed and written before its first outcome; and whether what is there is of that plan."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from teachwhy.corpora import NAMES, hash_corpus
from teachwhy.errors import UserError
from teachwhy.files import CARD, canonical_json, changed_files, hash_file, hash_folder, hash_text, now, read_card, write_text
from teachwhy.shipped import shipped_hash
from teachwhy.study.outside import outside_readings
from teachwhy.study.plan import TRAININGS, Plan, own_scenarios
from teachwhy.study.schema import StudySpec, comparable

CELLS = "cells"
PLAN = "plan.json"


def corpus_names(spec: StudySpec) -> list[str]:
    """Every corpus that a study trains or pads with, sorted."""
    named = {name for stages in (spec.start.stages, *spec.arms.values()) for stage in stages for name in stage.corpora}
    named |= {one.corpus for one in spec.outside.values() if one.command}
    return sorted({*named, *([spec.neutral] if spec.neutral and spec.arms else [])})


def study_hash(spec: StudySpec, beside: Path) -> str:
    """What a study's plan depends on beside the machine: its file with every default, all shipped data, the user's rows and model.

    Raises UserError where a file of the user's is not there.
    """
    hashes = [hash_corpus(name, beside=beside) for name in corpus_names(spec) if name not in NAMES]
    folder = Path(spec.start.model).expanduser()
    if folder.is_dir():
        from teachwhy.models.checkpoints import hash_model

        hashes.append(hash_model(folder))
    for arm, outside in spec.outside.items():
        hashes += [f"{reading.seed}:{reading.sha256}" for reading in outside_readings(arm, outside, beside=beside)]
    for evaluation in spec.evaluations:
        if own := own_scenarios(evaluation, beside):
            hashes.append(hash_folder(own) if own.is_dir() else hash_file(own))
    return hash_text(canonical_json([comparable(spec), shipped_hash(), *([hashes] if hashes else [])]))


def plan_hash(body: Mapping[str, Any]) -> str:
    """Of what a plan names."""
    return hash_text(canonical_json(body))


def is_whole(plan: Mapping[str, Any]) -> bool:
    """Whether a plan.json is as it was written, with the times and words that its hash does not cover."""
    rest = {name: part for name, part in plan.items() if name != "whole"}
    return plan.get("whole", "") in ("", hash_text(canonical_json(rest)))


def check_cells(run_dir: Path, plan: Plan, sha256: str) -> None:
    """Raise UserError, before anything is spent, where an evaluation that is there was made for another plan, or its outcomes changed.
    sha256: of this plan."""
    for cell in plan.distinct_cells:
        folder = run_dir / CELLS / cell.folder
        if cell.kind in TRAININGS or not (folder / CARD).is_file():
            continue
        if read_card(folder).details.get("plan", sha256) != sha256:
            what = "the cell was made for another plan than this folder's: a plan is not changed after a look at its outcomes"
            raise UserError(what, where=str(folder), hint="Name another folder with --output.")
        if changed := changed_files(folder):
            what = f"{changed[0]} is not the one that the cell wrote"
            raise UserError(what, where=str(folder), hint="Delete the cell's folder: the same command makes it again.")


def check_plan(run_dir: Path, body: dict[str, Any]) -> dict[str, Any] | None:
    """The folder's plan.json where it holds this plan; None where it may be written.

    Raises UserError when the plan has changed: looking at outcomes and then changing the plan makes a new run.
    """
    path = run_dir / PLAN
    if not path.is_file():
        if any((run_dir / CELLS).glob("*/outcomes.csv")):
            raise UserError("the folder holds outcomes and no plan.json", where=str(run_dir), hint="Name another folder with --output.")
        return None
    try:
        held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError("plan.json cannot be read", where=str(path), hint="Name another folder with --output.") from None
    if held.get("sha256") == plan_hash(body):
        if any(held.get(name) != json.loads(canonical_json(part)) for name, part in body.items()) or not is_whole(held):
            raise UserError("plan.json is not the one that was written", where=str(path), hint="Name another folder with --output.")
        return held
    if any((run_dir / CELLS).glob("*/outcomes.csv")):
        raise UserError(
            "this folder holds outcomes of another plan: the study, the data or the machine's number format has changed since",
            where=str(run_dir),
            hint="Name another folder with --output: a plan is not changed after a look at its outcomes.",
        )
    return None


def describe_plan(plan: Plan, beside: Path) -> dict[str, Any]:
    """What of a plan is hashed into plan.json."""
    spec = plan.spec
    return {
        "schema": "teachwhy.plan/1",
        "study": study_hash(spec, beside),
        "primary": json.loads(canonical_json(comparable(spec)["primary"])),
        "arms": spec.names,
        "seeds": list(spec.seeds),
        "scored": plan.n_scored,
        "cells": [{"id": cell.id, "kind": cell.kind, "arm": cell.arm, "seed": cell.seed, "update": cell.update} for cell in plan.cells],
        "ledger": [{"arm": row.arm, "seed": row.seed, **row.effort._asdict()} for row in plan.ledger],
        "corpora": {name: hash_corpus(name, beside=beside) for name in corpus_names(spec)},
        "waived": plan.waived,
    }


def write_plan(
    run_dir: Path,
    body: dict[str, Any],
    estimate_seconds: float,
    command: str = "",
    looks: Mapping[str, int] | None = None,
    seen: Mapping[str, Any] | None = None,
    words: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """plan.json, hashed and written before the first outcome; one that is there must be the same plan. seen: what it could see. words: of
    the page, as they were then. Raises UserError as `check_plan`, and for what is to be seen once there are outcomes."""
    held = check_plan(run_dir, body)
    if seen and any((run_dir / CELLS).glob("*/outcomes.csv")):
        raise UserError(
            "this folder holds outcomes: what a study could see is said before",
            where=str(run_dir),
            hint="Name another folder with --output, and this one as --pilot.",
        )
    if held and not looks and not seen:
        return held
    whole = {
        **body,
        "sha256": plan_hash(body),
        "made_at": held["made_at"] if held else now(),
        "estimate_seconds": round(estimate_seconds),
        "command": command,
        "looks": dict(looks or (held or {}).get("looks", {})),
        "words": dict((held or {}).get("words") or words or {}),
        **({"power": held["power"]} if held and "power" in held else {}),
        **(seen or {}),
    }
    whole["whole"] = hash_text(canonical_json(whole))
    run_dir.mkdir(parents=True, exist_ok=True)
    write_text(run_dir / PLAN, json.dumps(whole, indent=2) + "\n")
    return whole
