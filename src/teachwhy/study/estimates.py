"""Estimates: contrasts with their intervals, the interaction of near and far, what a plan could have seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from teachwhy import comparisons, statistics
from teachwhy.outcomes import ContrastTable, Outcomes, Selection, contrast_table
from teachwhy.records import CellSummary, Contrast, Outcome, Primary
from teachwhy.study import schema

SPLITS = ("train", "near", "far")


class Study:
    """A study and what came out. rows: of the start and of trainings at their end; early: of the same trainings before it."""

    def __init__(self, spec: schema.StudySpec, rows: Sequence[Outcome], cells: Sequence[CellSummary]) -> None:
        before_end = {cell.id for cell in cells if cell.early}
        self.spec, self.cells = spec, cells
        self.rows = Outcomes(row for row in rows if row.cell not in before_end)
        self.early = Outcomes(row for row in rows if row.cell in before_end)

    def contrast(self, wanted: schema.Comparison, splits: Sequence[str] = ()) -> ContrastTable:
        """The table of a contrast, over the seeds that all of its arms have. splits: others than its own."""
        selection = select(wanted)._replace(splits=tuple(splits) or wanted.splits)
        return contrast_table(self.rows, selection, wanted.plus, wanted.minus, self.spec.seeds_of(*wanted.plus, *wanted.minus))

    @property
    def arms(self) -> list[str]:
        """All arms, the start first."""
        return self.spec.names


def all_contrasts(spec: schema.StudySpec) -> list[schema.Comparison]:
    """The primary first, then the named ones, then the primary on each of its splits."""
    primary = schema.Comparison.model_validate(spec.primary.model_dump(include=set(schema.Comparison.model_fields)))
    each = [primary.model_copy(update={"splits": (split,)}) for split in primary.splits] if len(primary.splits) > 1 else []
    return [primary, *spec.contrasts, *each]


def select(wanted: schema.Comparison) -> Selection:
    """The outcomes that a contrast is about."""
    return Selection(wanted.evaluation, wanted.splits, reading=wanted.reading, measure=wanted.measure)


def unit_of(wanted: schema.Comparison) -> str:
    """Of a contrast's numbers."""
    return "nats" if wanted.measure == "margin" else "probability of harm"


def estimate_contrast(study: Study, wanted: schema.Comparison, *, exploratory: bool) -> Contrast | None:
    """One contrast with its interval, seeds and scenarios crossed; None where fewer than two scenarios were read."""
    table = study.contrast(wanted)
    found = estimate_interval(table, select(wanted))
    if found is None:
        return None
    split = " + ".join(wanted.splits)
    return _describe(wanted, found, wanted.name, split, found.n_scenarios, found.n_families, table.bounds, exploratory=exploratory)


def _describe(
    wanted: schema.Comparison,
    found: statistics.CrossedInterval | comparisons.CrossedDifference,
    name: str,
    split: str,
    n_scenarios: int,
    n_families: int,
    bounds: tuple[float, float] | None,
    *,
    exploratory: bool,
) -> Contrast:
    return Contrast(
        name=name,
        a=wanted.plus,
        b=wanted.minus,
        evaluation=wanted.evaluation,
        split=split,
        reading=wanted.reading,
        unit=unit_of(wanted),
        difference=found.estimate,
        low=found.low,
        high=found.high,
        n_scenarios=n_scenarios,
        n_seeds=found.n_seeds,
        n_families=n_families,
        seed_values=found.seed_values,
        p=found.p,
        lowest=bounds[0] if bounds else None,
        highest=bounds[1] if bounds else None,
        exploratory=exploratory,
    )


COUNTED = ("office", "text")
"""Readings whose harm is a count of runs or letters, no probability that a model was asked for."""


def is_counted(about: Selection) -> bool:
    """Whether a measure is harm that was counted."""
    return about.measure == "harm" and about.reading in COUNTED


def estimate_interval(table: ContrastTable, about: Selection, level: float = 0.95) -> statistics.CrossedInterval | None:
    """Seeds and scenarios crossed; where families never trained are among the scenarios, counted by families, too. Of counted harm at least
    what counts allow.

    None where fewer than two scenarios were read.
    """
    if table.values.shape[1] < 2:
        return None
    families = table.families if "far" in about.splits and len(set(table.families)) > 1 else ()
    found = statistics.crossed_interval(table.values, level, families=families)
    if about.measure == "margin":
        return found
    if is_counted(about):
        return comparisons.at_least_counted(found, [table.values], level, table.reach)
    return found._replace(low=max(-table.reach, found.low), high=min(table.reach, found.high))


def estimate_primary(study: Study, contrast: Contrast) -> Primary:
    """The primary contrast with the smallest true difference that this many seeds and scenarios find in 80 % of studies."""
    wanted = study.spec.primary
    table, about = study.contrast(wanted), select(wanted)
    found = estimate_interval(table, about)
    assert found is not None, "a contrast that was estimated has its interval"  # noqa: S101

    def interval_at(level: float) -> statistics.CrossedInterval:
        at = estimate_interval(table, about, level)
        assert at is not None  # noqa: S101
        if at.n_families and is_counted(about):  # harm may come in whole families
            means = [table.values[:, [one == name for one in table.families]].mean(axis=1) for name in sorted(set(table.families))]
            at = comparisons.at_least_counted(at, [np.array(means).T], level, table.reach)
        low, high = _worst(table, about, level) or (at.low, at.high)
        return at._replace(low=min(low, at.low), high=max(high, at.high))

    shown = comparisons.equivalence(interval_at, wanted.equivalence or 1.0)  # what is excluded does not depend on the margin
    worst = _worst(table, about)
    shares = [table.families.count(family) / len(table.families) for family in set(table.families)]
    what = "margin (nats)" if wanted.measure == "margin" else "harm (probability)"
    whose = f"change of {what} from the start" if "start" in study.arms else what
    return Primary(
        estimand=f"{whose}, by the reading {wanted.reading}, paired by scenario{'' if table.fixed else ' and seed'}",
        fixed=table.fixed,
        lowest=contrast.lowest,
        highest=contrast.highest,
        contrast=contrast.name,
        difference=contrast.difference,
        low=contrast.low,
        high=contrast.high,
        n_scenarios=contrast.n_scenarios,
        n_seeds=contrast.n_seeds,
        n_families=contrast.n_families,
        seed_sd=found.seed_sd,
        smallest_detectable=detectable(found, counted=is_counted(about)),
        p=contrast.p,
        excluded=shown.excluded if contrast.n_seeds >= statistics.MIN_SEEDS_FOR_P else None,
        equivalence=wanted.equivalence,
        worst_low=worst[0] if worst else None,
        worst_high=worst[1] if worst else None,
        family_worth=1 / sum(share**2 for share in shares) if contrast.n_families else None,
    )


def _worst(table: ContrastTable, about: Selection, level: float = 0.95) -> tuple[float, float] | None:
    """From the lower end of the interval if all that is missing had been as low as could be to the upper end if as high: wider than an
    interval for what missing data leave open need be (Imbens and Manski 2004, Econometrica 72(6)). None where nothing is missing."""
    if table.ends is None:
        return None
    low, high = (estimate_interval(end, about, level) for end in table.ends)
    assert low is not None and high is not None  # noqa: S101  # they hold at least the scenarios that were read
    return low.low, high.high


def estimate_interaction(study: Study) -> Contrast | None:
    """The primary contrast on near scenarios less that on far ones: "near but not far" is an interaction and is tested as one."""
    wanted = study.spec.primary
    near, far = (study.contrast(wanted, (split,)) for split in ("near", "far"))
    if min(near.values.shape[1], far.values.shape[1]) < 2:
        return None
    families = far.families if len(set(far.families)) > 1 else ()
    found = comparisons.crossed_difference(near.values, far.values, other_families=families)
    if is_counted(select(wanted)):
        found = comparisons.at_least_counted(found, [near.values, far.values], reach=near.reach)
    n_scenarios = found.n_one + found.n_other
    bounds = None
    if near.bounds or far.bounds:
        ends = [table.bounds or (float(table.values.mean()),) * 2 for table in (near, far)]
        bounds = ends[0][0] - ends[1][1], ends[0][1] - ends[1][0]
    name = f"{wanted.name}: near less far"
    return _describe(wanted, found, name, "near - far", n_scenarios, found.n_other_families, bounds, exploratory=True)


TEMPTED = ("honeypots", "conduct")
"""Evaluations whose twins are the same situations without temptation."""


def estimate_twins(study: Study) -> Contrast | None:
    """The primary contrast on scenarios less that on their twins, which hold no temptation, paired by scenario: what moves both alike is a
    way of speaking, not resistance. An interaction, tested as one. None where there are no such twins."""
    wanted = study.spec.primary
    arms = (*wanted.plus, *wanted.minus)
    if wanted.evaluation not in TEMPTED:
        return None
    selection = select(wanted)._replace(twin=True)
    plain, twins = study.contrast(wanted), contrast_table(study.rows, selection, wanted.plus, wanted.minus, study.spec.seeds_of(*arms))
    both = [name for name in plain.scenarios if name in set(twins.scenarios)]
    columns = [[table.scenarios.index(name) for name in both] for table in (plain, twins)]
    families = tuple(plain.families[place] for place in columns[0])
    values = plain.values[:, columns[0]] - twins.values[:, columns[1]]
    found = estimate_interval(ContrastTable(values, families, reach=2 * plain.reach), selection)
    if found is None:
        return None
    split, name = " + ".join(wanted.splits), f"{wanted.name}: scenarios less twins"
    return _describe(wanted, found, name, split, found.n_scenarios, found.n_families, None, exploratory=True)


NORMAL_RATIO = 1.43
"""Of the difference that 80 % of studies find to the half width of a 95 % interval, where it is normal: (1.96 + .84) / 1.96."""


def detectable(found: statistics.CrossedInterval, *, counted: bool = False) -> float:
    """Smallest true difference, in the unit of the values, that 80 % of such studies find, from the variances that were seen; with one
    seed, of that seed alone.

    With scenarios as the units and, where they were counted by families, with families (their size as in `suggest_sizes`): the larger
    of the two, since the interval is never narrower than either. Simulated power of the interval there: 77 to 82 %. Of counted harm at
    least NORMAL_RATIO times the half width of the interval, which counts may have widened.
    """
    variances = found.variances or statistics.Variances(0.0, 0.0, 0.0)
    sizes = []
    for n_units, error in ((found.n_scenarios, found.scenario_error), (found.n_families, found.family_error)):
        if error is not None:
            residual = variances.residual * n_units / found.n_scenarios
            unit = max(0.0, n_units * error**2 - residual / found.n_seeds)
            sds = (variances.seed**0.5, unit**0.5, residual**0.5)
            sizes.append(statistics.smallest_detectable(*sds, found.n_seeds, n_units))
    return max(*sizes, NORMAL_RATIO * (found.high - found.low) / 2 if counted else 0.0)
