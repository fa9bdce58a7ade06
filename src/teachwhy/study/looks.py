"""Looks at sealed scenarios: a set that was looked at often is no longer sealed, so each run that does is counted."""

from __future__ import annotations

import json
from collections.abc import Sequence

from filelock import FileLock

from teachwhy.errors import UserError
from teachwhy.files import cache_dir, write_text
from teachwhy.study.schema import StudySpec


def sealed_sets(spec: StudySpec) -> list[str]:
    """Evaluations of a study that look at sealed scenarios."""
    return sorted({evaluation.name for evaluation in spec.evaluations if evaluation.sealed})


def refuse_sealed(spec: StudySpec, *, unseal: bool) -> None:
    """Raise UserError where a study looks at sealed scenarios and nobody said so."""
    if (names := sealed_sets(spec)) and not unseal:
        raise UserError(
            f"the study looks at the sealed half of {', '.join(names)}",
            hint="When all settings are chosen, type the same command with --unseal: looks are counted. Until then write part: dev.",
        )


def count_looks(names: Sequence[str]) -> dict[str, int]:
    """Count one more look at each set; returns how many there were on this machine, this one included."""
    if not names:
        return {}
    path = cache_dir() / "looks.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        try:
            held = {str(name): int(n) for name, n in json.loads(path.read_text(encoding="utf-8")).items()}
        except (OSError, ValueError, AttributeError):
            held = {}
        held |= {name: held.get(name, 0) + 1 for name in names}
        write_text(path, json.dumps(held, indent=2) + "\n")
    return {name: held[name] for name in names}
