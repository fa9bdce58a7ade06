"""Rules: steps that looks save at equal power, and replayed steps a second against bare Inspect on the same messages.

.venv/bin/python benchmarks/rules.py            # 3 minutes
.venv/bin/python benchmarks/rules.py --short    # half a minute
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import inspect_ai
from inspect_ai import Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import get_model
from inspect_ai.scorer import includes
from inspect_ai.solver import generate

from teachwhy.rules.plan import Settings, plan_rules
from teachwhy.rules.replay import replay_task
from teachwhy.rules.simulate import simulate
from teachwhy.sequential import plan_looks

RATES = ((0.04, 0.015), (0.01, 0.003), (0.15, 0.08), (0.04, 0.04))
MODEL = "scripted/none=0.5,bare=0.2,filler=0.2,reason=0.05"


def show_savings(repeats: int) -> None:
    """A line for each pair of rates, with as many steps at most as the plan asks for."""
    for bare, reason in RATES:
        gap = bare - reason or 0.6 * bare
        other = bare - gap
        sessions = round((plan_looks().drift / gap) ** 2 * (bare * (1 - bare) + other * (1 - other)))
        found = simulate(bare, reason, sessions, repeats, 1)
        print(
            f"{bare:.1%} and {reason:.1%}, {sessions:,} steps at most: found {found.power:.1%}, interval holds {found.coverage:.1%}, "
            f"{found.mean_sessions_per_arm:,.0f} steps on average, {found.saved:.1%} saved"
        )


def time_eval(task: Task) -> float:
    """Seconds of one evaluation by a subject that answers at once."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        inspect_ai.eval(
            task, model=get_model(MODEL, memoize=False), log_dir=folder, display="none", max_samples=100, log_level="error",
            score_display=False, log_realtime=False,
        )  # fmt: skip
        return time.perf_counter() - started


def show_speed(rounds: int, rules: int) -> None:
    """Replay against the same messages through Inspect's own solver and scorer, by turns."""
    plan = plan_rules(Path("builtin"), [MODEL], Settings())
    probes = plan.probes("screen", 0, [one.id for one in plan.rules[:rules]])
    bare = Task(
        dataset=MemoryDataset(
            [Sample(id=one.id, input=one.input, target="x") for one in replay_task(probes, plan.text, plan.name).dataset]
        ),
        solver=generate(),
        scorer=includes(),
    )
    ratios = []
    for number in range(rounds + 1):
        ours = time_eval(replay_task(probes, plan.text, plan.name))
        theirs = time_eval(bare)
        if number:  # the first one warms up
            ratios.append(theirs / ours)
            print(f"{len(probes) / ours:.0f} steps/s replayed, {len(probes) / theirs:.0f} by Inspect alone: {theirs / ours:.2f}")
    print(f"replay is {statistics.median(ratios):.2f} times as fast as bare Inspect ({min(ratios):.2f} to {max(ratios):.2f})")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--short", action="store_true")
    short = parser.parse_args().short
    show_savings(500 if short else 10_000)
    show_speed(1 if short else 5, 1 if short else 3)


if __name__ == "__main__":
    main()
