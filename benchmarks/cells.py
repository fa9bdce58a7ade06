"""Seconds that the cells of a run took beyond their training or scoring: loading, logs, writing. Reads a run's folder; runs nothing.

Of a training, what its card has beyond the loop's own clock. Of an evaluation, what its card has beyond the time between its first and its
last sample, as Inspect's log has them.
"""

from __future__ import annotations

import argparse
import statistics
from datetime import datetime
from pathlib import Path

from inspect_ai.log import list_eval_logs, read_eval_log

from teachwhy.files import read_card


def measure_cell(folder: Path) -> tuple[str, float] | None:
    """(kind, seconds beyond its work); None for a cell that is neither."""
    card = read_card(folder)
    if rate := card.details.get("tokens_per_second"):
        return "training", card.seconds - card.details["tokens"] / rate
    logs = list_eval_logs(str(folder / "logs"))
    samples = read_eval_log(logs[0]).samples if logs else None
    if not samples:
        return None
    begun = min(datetime.fromisoformat(str(sample.started_at)) for sample in samples if sample.started_at)
    ended = max(datetime.fromisoformat(str(sample.completed_at)) for sample in samples if sample.completed_at)
    return "evaluation", card.seconds - (ended - begun).total_seconds()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a run")
    found: dict[str, list[float]] = {}
    for card in sorted((parser.parse_args().run / "cells").glob("*/card.json")):
        if measured := measure_cell(card.parent):
            found.setdefault(measured[0], []).append(measured[1])
    for kind, seconds in found.items():
        middle, most = statistics.median(seconds), max(seconds)
        print(f"{kind}: {len(seconds)} cells, {middle:.1f} s beyond their work in the middle, {most:.1f} s at most")


if __name__ == "__main__":
    main()
