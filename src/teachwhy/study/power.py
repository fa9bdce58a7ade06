"""What a plan could see: the smallest detectable difference from a pilot's variances, and sizes for a wished difference."""

from __future__ import annotations

from bisect import bisect_left
from pathlib import Path
from typing import NamedTuple

from teachwhy import comparisons, statistics
from teachwhy.errors import UserError
from teachwhy.outcomes import read_outcomes
from teachwhy.study.estimates import Study, estimate_interval, select, unit_of
from teachwhy.study.gather import read_run
from teachwhy.study.schema import StudySpec


class Power(NamedTuple):
    """Of a planned primary contrast, in its unit; variances from a pilot."""

    unit: str
    n_seeds: int
    """0: the contrast is of models that nobody trains again, over scenarios alone."""
    n_scenarios: int
    smallest_detectable: float
    wished: float | None
    n_seeds_wished: int | None
    """Seeds for the wished difference with the plan's scenarios; None: over 40, or nothing was wished."""
    n_scenarios_wished: int | None
    """Scenarios for it with the plan's seeds; None: over 1,000, or under five seeds."""
    pairs: tuple[tuple[int, int], ...]
    pilot: str

    def lines(self) -> list[str]:
        """For people."""
        seeds = f"{self.n_seeds} seeds" if self.n_seeds else "these models"
        known = f"With {seeds} and {self.n_scenarios} scenarios the smallest difference that 80 % of such studies find is "
        found = [f"{known}{self.smallest_detectable:.2f} {self.unit} (variances of {self.pilot})."]
        if self.wished is not None and not self.n_seeds:
            scenarios = (
                f"{self.n_scenarios_wished} scenarios"
                if self.n_scenarios_wished
                else f"more than {comparisons.MAX_UNITS:,} scenarios, or more families"
            )
            found.append(f"For {self.wished:g} {self.unit}: {scenarios}.")
        elif self.wished is not None:
            seeds = f"{self.n_seeds_wished} seeds" if self.n_seeds_wished else "more than 40 seeds"
            scenarios = f"{self.n_scenarios_wished} scenarios" if self.n_scenarios_wished else "no number of scenarios"
            found.append(f"For {self.wished:g} {self.unit}: {seeds} with these scenarios, or {scenarios} with these seeds.")
            if self.pairs:
                found.append("Or (seeds x scenarios): " + ", ".join(f"{seeds} x {scenarios}" for seeds, scenarios in self.pairs) + ".")
        return found


def plan_power(spec: StudySpec, n_scenarios: int, pilot_dir: Path, wished: float | None) -> Power:
    """The power of a plan from a finished run that read the same contrast. Raises UserError for a run that cannot tell seeds apart."""
    pilot, report, _ = read_run(pilot_dir)
    same = (pilot.primary.evaluation, pilot.primary.reading, pilot.primary.measure)
    if same != (spec.primary.evaluation, spec.primary.reading, spec.primary.measure):
        raise UserError(f"the pilot's primary contrast reads {same[0]!r} as {same[1]}, this study's does not", where=str(pilot_dir))
    if set(pilot.primary.splits) != set(spec.primary.splits):
        there, here = (" + ".join(one.primary.splits) for one in (pilot, spec))
        raise UserError(f"the pilot's primary contrast is over {there}, this study's over {here}", where=str(pilot_dir))
    table = Study(pilot, read_outcomes(pilot_dir / "outcomes.csv"), report.cells).contrast(pilot.primary)
    found = estimate_interval(table, select(pilot.primary))
    if found is not None and not found.scenario_error and not found.seed_sd:
        says = "the pilot's outcomes do not differ at all, so they cannot tell what a study could see"
        raise UserError(says, where=str(pilot_dir), hint="Give a run with more scenarios, or leave --pilot out.")
    if found is not None and table.fixed and _is_fixed(spec):
        return _fixed_power(spec, found, n_scenarios, wished, pilot.name)
    if found is None or found.variances is None:
        says = "the pilot has one seed, and one cannot tell how far seeds differ"
        raise UserError(says, where=str(pilot_dir), hint="Give a run with two or more seeds of each arm of its primary contrast.")
    families, n_per_family = _family_sd(found)
    n_seeds = len(spec.seeds)
    sizes = comparisons.suggest_sizes(
        found.variances, wished or 1.0, n_seeds, max(n_scenarios, 2 * n_per_family), family_sd=families, n_per_family=n_per_family
    )
    return Power(
        unit=unit_of(spec.primary),
        n_seeds=n_seeds,
        n_scenarios=n_scenarios,
        smallest_detectable=sizes.detectable,
        wished=wished,
        n_seeds_wished=sizes.n_seeds if wished else None,
        n_scenarios_wished=sizes.n_scenarios if wished else None,
        pairs=sizes.pairs if wished else (),
        pilot=f"{pilot.name}, {len(pilot.seeds)} seeds",
    )


def _is_fixed(spec: StudySpec) -> bool:
    """Whether each arm of the primary contrast is one model for all seeds."""
    arms = [spec.outside.get(arm) for arm in (*spec.primary.plus, *spec.primary.minus) if arm != "start"]
    return all(
        one is not None and not one.command and not any(isinstance(held, dict) for held in (one.checkpoint, one.adapter)) for one in arms
    )


def _fixed_power(spec: StudySpec, found: statistics.CrossedInterval, n_scenarios: int, wished: float | None, pilot: str) -> Power:
    """Over scenarios, and over the pilot's families where it counted them: more scenarios of the same families help the first alone."""

    def smallest(n: int) -> float:
        units = [(n, found.n_scenarios, found.scenario_error), (found.n_families, found.n_families, found.family_error)]
        sizes = [(k, seen**0.5 * error) for k, seen, error in units if error is not None and k >= 2]
        return max(statistics.smallest_detectable(0.0, sd, 0.0, 1, k) for k, sd in sizes)

    most = comparisons.MAX_UNITS
    enough = None
    if wished and smallest(most) <= wished:
        enough = bisect_left(range(2, most), True, key=lambda n: smallest(n) <= wished) + 2
    return Power(
        unit_of(spec.primary), 0, n_scenarios, smallest(max(2, n_scenarios)), wished, None, enough, (), f"{pilot}, the same models"
    )


def _family_sd(found: statistics.CrossedInterval) -> tuple[float, int]:
    """Standard deviation between families and scenarios a family; (0, 1) where families were not counted."""
    if found.family_error is None or found.variances is None:
        return 0.0, 1
    n_per_family = max(1, round(found.n_scenarios / found.n_families))
    of_means = found.n_families * found.family_error**2
    within = found.variances.scenario / n_per_family + found.variances.residual / (n_per_family * found.n_seeds)
    return float(max(0.0, of_means - within) ** 0.5), n_per_family
