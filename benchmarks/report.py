"""Seconds from finished cells to outcomes.csv, report.json and the page, for a run of 100,000 outcomes.

The cells are made up (ten arms, five seeds, near and far honeypots with twins and several fills); nothing of a model is loaded. What is
timed is what every `study run` does at its end, in the same call.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from teachwhy.files import now, write_card, write_text
from teachwhy.outcomes import write_outcomes
from teachwhy.records import Card, CellSummary, Counts, Outcome
from teachwhy.study.gather import finish_run
from teachwhy.study.schema import StudySpec

ARMS = ("neutral", "bare", "filler", "task", "value", "shuffled", "mixed", "advice", "oracle")
SEEDS = (1, 2, 3, 4, 5)
SPLITS = {"near": 40, "far": 80}
FAMILIES = 10


def make_spec() -> StudySpec:
    """Nine trained arms and the start, one evaluation."""
    primary: dict[str, Any] = {"name": "value - filler", "evaluation": "honeypots", "splits": ["far"], "plus": ["value"]}
    primary |= {"minus": ["filler"], "claim": "lower", "yes": "Y", "no": "N", "opposite": "O"}
    others = [
        {"name": f"{arm} - neutral", "evaluation": "honeypots", "splits": ["far"], "plus": [arm], "minus": ["neutral"]} for arm in ARMS[1:]
    ]
    arms = {arm: [{"sft": "oracle/bare" if arm == "oracle" else "neutral"}] for arm in ARMS}
    return StudySpec.model_validate(
        {"name": "large", "question": "How long does the report take?", "seeds": list(SEEDS), "arms": arms, "without": ["repeat"],
         "evaluations": [{"honeypots": {"fills": 10}}], "primary": primary, "contrasts": others}
    )  # fmt: skip


def make_rows(cell: CellSummary, n_fills: int, rng: random.Random) -> list[Outcome]:
    """All outcomes of one cell."""
    return [
        Outcome(
            cell=cell.id, arm=cell.arm, seed=cell.seed or 0, update=0, evaluation="honeypots", version=1, reading="direct", split=split,
            family=f"{split}-{number % FAMILIES}", scenario=f"{split}-{number:03}", fill=fill, twin=twin, harm=rng.random(),
            acted=rng.random(), margin=rng.gauss(0, 2), status="ok", log="l.eval", sample_id=f"{split}-{number}/{fill}/{twin}",
        )
        for split, n in SPLITS.items() for number in range(n) for fill in range(n_fills) for twin in (False, True)
    ]  # fmt: skip


def make_run(folder: Path, n_outcomes: int) -> tuple[StudySpec, list[CellSummary], int]:
    """A run's folder with all its cells done; returns the study, its cells and the number of outcomes."""
    spec, rng = make_spec(), random.Random(1)
    cells = [
        CellSummary(id=f"{number:016x}", kind="honeypots", arm=arm, seed=seed, reading="direct", state="done", seconds=1.0)
        for number, (arm, seed) in enumerate([("start", 0), *((arm, seed) for arm in ARMS for seed in SEEDS)])
    ]
    n_fills = max(1, round(n_outcomes / len(cells) / 2 / sum(SPLITS.values())))
    n_rows = 0
    for cell in cells:
        path = folder / "cells" / f"{cell.kind}-{cell.id}"
        path.mkdir(parents=True)
        rows = make_rows(cell, n_fills, rng)
        n_rows += len(rows)
        write_outcomes(path / "outcomes.csv", rows)
        write_card(path, Card(kind=cell.kind, name=cell.arm, created=now(), counts=Counts(in_=len(rows), kept=len(rows))))
    write_text(folder / "study.yaml", yaml.safe_dump(json.loads(spec.model_dump_json())))
    write_text(folder / "plan.json", json.dumps({"study": "0" * 64, "sha256": "0" * 64, "made_at": now(), "ledger": [], "corpora": {}}))
    return spec, cells, n_rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outcomes", type=int, default=100_000)
    parser.add_argument("--short", action="store_true", help="see whether it runs at all")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        spec, cells, n_rows = make_run(Path(folder), 2_000 if options.short else options.outcomes)
        started = time.monotonic()
        finish_run(Path(folder), spec, cells)
        seconds = time.monotonic() - started
        size = (Path(folder) / "report.html").stat().st_size
    print(
        f"{n_rows:,} outcomes of {len(cells)} cells: {seconds:.1f} s, {n_rows / seconds:,.0f} outcomes/s; the page has {size / 1e3:,.0f} kB"
    )


if __name__ == "__main__":
    main()
