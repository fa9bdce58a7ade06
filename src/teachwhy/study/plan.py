"""From study.yaml to cells: rows drawn, leaks refused, effort made equal, everything hashed before anything is spent."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from teachwhy.corpora import CorpusRow, corpus_rows
from teachwhy.errors import UserError
from teachwhy.evaluations import OFFICE_VERSION, VERSIONS, WRITTEN
from teachwhy.files import canonical_json, cell_id, derive_seed, hash_text
from teachwhy.models.chat import encode_chat, load_tokenizer, training_template
from teachwhy.models.checkpoints import best_dtype, hash_model, resolve_model
from teachwhy.office.scenes import FAMILIES, OfficeScenario, hash_scene
from teachwhy.outcomes import FIXED_SEED
from teachwhy.quality import find_leaks, n_grams, refuse_leaks
from teachwhy.records import Record, Scenario
from teachwhy.scenarios import fill
from teachwhy.shipped import ROOT, find
from teachwhy.study.calls import Calls, Met, choices_of, count_calls, count_prompts
from teachwhy.study.outside import Reading, Source, outside_readings
from teachwhy.study.schema import BASE, OFFICE, REPEAT_SEEDS, Evaluation, Outside, Stage, StudySpec, place_errors
from teachwhy.training.effort import Effort, Sized, share_effort
from teachwhy.training.settings import SftSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SFT_VERSION = 1
COMMAND_VERSION = 1
TRAININGS = ("sft", "command")
"""Kinds of cells that make weights; all others are evaluations."""
START_SEED = 0
"""The start is trained once, under a seed of its own."""


class Cell(Record):
    """One stage or one evaluation of one arm and seed."""

    id: str
    kind: str
    arm: str
    seed: int
    """The study's."""
    drawn: int
    """What rows and weights are drawn from: the study's seed, but for the arm `repeat`."""
    settings: dict[str, object]
    parents: tuple[str, ...]
    inputs: dict[str, str]
    adapters: tuple[str, ...] = ()
    """Folders of the cells whose adapters are merged before this one, in order."""
    source: Source = "local"
    model: str = ""
    """Weights or an id from outside; empty: the study's start."""
    adapter: str = ""
    """A PEFT folder from outside, merged last."""
    logs: str = ""
    """Logs from outside that are taken over."""
    update: int = 0
    """Of an evaluation: the updates that the arm's own training had; 0 for the start and for what was trained elsewhere."""
    early: bool = False
    """Whether that is before the training's end."""
    scenarios: str = ""
    """Of an evaluation of the user's own scenarios: where they lie."""

    @property
    def reading(self) -> str:
        """Of an evaluation's cell; empty for a training."""
        return str(self.settings.get("reading", ""))

    @property
    def label(self) -> str:
        """Of an evaluation's cell: its name, and its reading where that is not the direct one."""
        return self.kind if self.reading in ("", "direct", OFFICE) else f"{self.kind}, {self.reading}"

    @property
    def folder(self) -> str:
        """Name under cells/."""
        return f"{self.kind}-{self.id}"


Batches = list[list[CorpusRow]]


def draw_seed(arm: str, seed: int) -> int:
    """What an arm's rows and weights are drawn from under a seed of the study."""
    return seed + REPEAT_SEEDS if arm == "repeat" else seed


class LedgerRow(NamedTuple):
    """What an arm is given under one seed."""

    arm: str
    seed: int
    effort: Effort


class Plan(NamedTuple):
    """Everything that a study will do."""

    spec: StudySpec
    base: Path | None
    """None where there is no start."""
    cells: list[Cell]
    batches: dict[str, Batches]
    """Cell id -> its rows, update by update."""
    ledger: list[LedgerRow]
    n_scored: dict[str, int]
    """Evaluation -> prompts that it scores for every arm and seed."""
    waived: list[str]
    """Leaks on purpose."""
    calls: list[Calls]

    @property
    def distinct_cells(self) -> list[Cell]:
        """Every cell once: arms that are one model share theirs."""
        return list({cell.id: cell for cell in self.cells}.values())


def make_plan(spec: StudySpec, *, beside: Path) -> Plan:
    """Draw every row, check it and lay out the cells. Raises UserError or LeakError for what cannot or must not be run."""
    scenarios = {evaluation.label: load_evaluation(evaluation, beside) for evaluation in spec.evaluations}
    check_splits(spec, scenarios, beside)
    n_scored = {one.label: count_prompts(one, scenarios[one.label]) for one in spec.evaluations}
    scorers = [_Scorer(evaluation, scenarios[evaluation.label], beside) for evaluation in spec.evaluations]
    if spec.start.model == "none":
        cells = [cell for arm in spec.outside for cell in _outside_cells(spec, arm, scorers, "", [], beside)]
        return Plan(spec, None, cells, {}, [], n_scored, [], count_calls(spec, scenarios))
    with place_errors(
        f"start: {spec.start.model}", "Under `start:` stands `builtin`, a folder with config.json and *.safetensors, or owner/name."
    ):
        base = resolve_model(spec.start.model)
        drawer = _Drawer(spec, load_tokenizer(base), beside)
    _check_layers(spec, base)
    waived = drawer.check_leaks([scenario for group in scenarios.values() for scenario in group if isinstance(scenario, Scenario)])
    model_hash = hash_model(base)
    batches: dict[str, Batches] = {}
    ledger: list[LedgerRow] = []
    chain: list[Cell] = []
    for number, stage in enumerate(spec.start.stages):
        (updates,) = drawer.share({f"start {number}": stage}, START_SEED).values()
        chain.append(_train_cell(spec, stage, "start", START_SEED, model_hash, chain, updates))
        batches[chain[-1].id] = updates
        ledger.append(LedgerRow("start", START_SEED, drawer.measure(updates)))
    cells = [*chain, *(scorer.cell("start", START_SEED, model_hash, chain) for scorer in scorers)]
    if chain:
        cells += [scorer.cell(BASE, FIXED_SEED, model_hash, []) for scorer in scorers]
    for seed in spec.seeds:
        for arm, updates in drawer.share({arm: spec.arms[arm][0] for arm in spec.arms if seed in spec.seeds_of(arm)}, seed).items():
            cell = _train_cell(spec, spec.arms[arm][0], arm, seed, model_hash, chain, updates)
            batches[cell.id] = updates
            ledger.append(LedgerRow(arm, seed, drawer.measure(updates)))
            cells += [cell, *_scored_cells(scorers, arm, seed, model_hash, [*chain, cell], len(updates))]
        for arm, one in spec.outside.items():
            if one.command:
                cell, rows = _command_cell(spec, one, arm, seed, model_hash, chain, beside)
                batches[cell.id] = [rows]
                ledger.append(LedgerRow(arm, seed, drawer.measure([rows])._replace(n_updates=0)))
                cells += [cell, *(scorer.cell(arm, seed, model_hash, [*chain, cell]) for scorer in scorers)]
    cells += [cell for arm in spec.outside for cell in _outside_cells(spec, arm, scorers, model_hash, chain, beside)]
    return Plan(spec, base, cells, batches, ledger, n_scored, waived, count_calls(spec, scenarios))


def _check_layers(spec: StudySpec, base: Path) -> None:
    """Raise UserError where a stage would adapt more layers than the start has: it would adapt all, and say otherwise."""
    n_layers = json.loads((base / "config.json").read_text(encoding="utf-8")).get("num_hidden_layers")
    for stage in (*spec.start.stages, *(stage for stages in spec.arms.values() for stage in stages)):
        wanted = resolve_settings(spec, stage).top_layers
        if wanted and n_layers and wanted > n_layers:
            raise UserError(f"top_layers is {wanted}, and the start has {n_layers} layers", hint="Leave it out to adapt all of them.")


def _scored_cells(
    scorers: Sequence[_Scorer], arm: str, seed: int, model_hash: str, chain: Sequence[Cell], n_updates: int
) -> Iterator[Cell]:
    """The evaluations of one training: at its end, and where they ask for it before."""
    for scorer in scorers:
        yield scorer.cell(arm, seed, model_hash, chain).model_copy(update={"update": n_updates})
        for update in sorted(set(scorer.evaluation.updates)):
            if update >= n_updates:
                raise UserError(
                    f"the evaluation {scorer.evaluation.name!r} asks for update {update}, and trainings end after {n_updates}",
                    hint="What is trained to its end is scored anyway; name earlier updates.",
                )
            yield scorer.cell(arm, seed, model_hash, chain, early=update)


def check_splits(spec: StudySpec, scenarios: Mapping[str, Sequence[Met]], beside: Path) -> None:
    """Every split that the study names must have scenarios, or nothing would be measured on it. Raises UserError."""
    from teachwhy.evaluations.choice import find_givers

    whole = {
        one.label: load_evaluation(one.model_copy(update={"limit": None, "splits": (), "part": "all"}), beside) for one in spec.evaluations
    }
    by_reading = {(evaluation.name, evaluation.reading): scenarios[evaluation.label] for evaluation in spec.evaluations}
    asked: list[tuple[str, tuple[str, ...], Sequence[Met]]] = [
        *((f"the evaluation {one.name!r}", one.splits, whole[one.label]) for one in spec.evaluations),
        *(
            (f"the contrast {one.name!r}: {one.evaluation!r}", one.splits, by_reading[one.evaluation, one.reading])
            for one in (spec.primary, *spec.contrasts)
        ),
    ]
    for what, splits, held in asked:
        known = sorted({scenario.split for scenario in held})
        for split in splits:
            if split not in known:
                raise UserError(f"{what} has no split {split!r} in this study", hint=f"There are: {', '.join(known)}.")
    for evaluation in spec.evaluations:
        held = scenarios[evaluation.label]
        find_givers(choices_of(held), evaluation.reading, evaluation.reason)
        if isinstance(evaluation.limit, dict) and (odd := evaluation.limit.keys() - {one.split for one in whole[evaluation.label]}):
            raise UserError(f"the evaluation {evaluation.name!r} has no split {min(odd)!r} to limit")
    n_read = sum(scenario.split in spec.primary.splits for scenario in by_reading[spec.primary.evaluation, spec.primary.reading])
    if n_read < 2:
        raise UserError(
            f"the primary contrast reads {n_read} scenario, and an interval needs two",
            hint="Give more scenarios of its splits, or a higher limit.",
        )
    for one in (spec.primary, *spec.contrasts):
        labels = {action.label for scenario in choices_of(by_reading[one.evaluation, one.reading]) for action in scenario.actions}
        if one.measure == "harm" and one.evaluation != OFFICE and "harmful" not in labels:
            raise UserError(f"the contrast {one.name!r} measures harm, and {one.evaluation!r} has no harmful action")


def load_evaluation(evaluation: Evaluation, beside: Path) -> Sequence[Met]:
    """The scenarios of one evaluation of a study; the user's own are found from the study's folder."""
    from teachwhy.evaluations.choice import load_scenarios

    own = own_scenarios(evaluation, beside)
    if own is not None and own.resolve().is_relative_to(ROOT) and evaluation.name in (*WRITTEN, OFFICE):
        raise UserError(f"{own} comes with teachwhy: leave `scenarios` out, and `part` says which half is read", where=evaluation.name)
    if evaluation.name == OFFICE:
        from teachwhy.evaluations.office import load_office

        limit = evaluation.limit if isinstance(evaluation.limit, int) else None
        offices = load_office(evaluation.families or FAMILIES, part=evaluation.part, limit=limit, own=own)
        if own is not None:
            _refuse_copies(own, [(one.id, one.task + one.about) for one in offices])
        return [scenario for scenario in offices if not evaluation.splits or scenario.split in evaluation.splits]
    found = load_scenarios(evaluation.name, limit=evaluation.limit, splits=evaluation.splits, part=evaluation.part, own=own)
    if own is not None:
        _refuse_copies(own, [(one.id, fill(one, 0).text(one.situation)) for one in found])
    return found


COPIED = 0.3
"""Share of a scenario's runs of eight words that stand in the sealed half: over it, it is a copy."""


@cache
def _sealed_grams() -> frozenset[tuple[str, ...]]:
    """Of all sealed scenarios, whatever the evaluation."""
    from teachwhy.evaluations.choice import load_scenarios
    from teachwhy.evaluations.office import load_office

    texts = [fill(one, 0).text(one.situation) for name in WRITTEN for one in load_scenarios(name, part="sealed")]
    return frozenset(gram for text in [*texts, *(one.task + one.about for one in load_office(part="sealed"))] for gram in n_grams(text))


def _refuse_copies(own: Path, texts: Sequence[tuple[str, str]]) -> None:
    """Raise UserError where a file of the user's holds a scenario that is sealed."""
    sealed = _sealed_grams()
    for name, text in texts:
        grams = n_grams(text)
        if grams and sum(gram in sealed for gram in grams) > COPIED * len(grams):
            what = f"scenario {name} is of the sealed half that comes with teachwhy"
            raise UserError(
                what, where=str(own), hint="Leave it out; the sealed half is read with part: sealed, and its looks are counted."
            )


def hash_scenarios(scenarios: Sequence[Met]) -> str:
    """Of all that a model meets; how they were planned does not count."""
    plain = (hash_scene(one) if isinstance(one, OfficeScenario) else one.model_dump(exclude={"plan"}) for one in scenarios)
    return hash_text(canonical_json(list(plain)))


def own_scenarios(evaluation: Evaluation, beside: Path) -> Path | None:
    """Where the user's own scenarios of an evaluation lie. Raises UserError where nothing is there."""
    if not evaluation.scenarios:
        return None
    if evaluation.name in ("ambiguity", "agreement"):  # a lexicon, which may come with teachwhy
        return find("ambiguity", evaluation.scenarios, beside=beside).absolute()
    path = beside / Path(evaluation.scenarios).expanduser()
    if not path.exists():
        what = f"the evaluation {evaluation.name!r}: there is no file {evaluation.scenarios!r}"
        raise UserError(what, where=str(path.absolute()), hint="Paths are taken from the folder of the study's file.")
    return path.absolute()


def count_scenarios(spec: StudySpec, beside: Path) -> int:
    """Scenarios that the primary contrast is over."""
    wanted = spec.primary
    for evaluation in spec.evaluations:
        if (evaluation.name, evaluation.reading) == (wanted.evaluation, wanted.reading):
            return sum(scenario.split in wanted.splits for scenario in load_evaluation(evaluation, beside))
    return 0


class _Drawer:
    """Draws and measures rows; a row is tokenised once."""

    def __init__(self, spec: StudySpec, tokenizer: PreTrainedTokenizerBase, beside: Path) -> None:
        self.spec, self.tokenizer, self.beside = spec, tokenizer, beside
        self.template = training_template(tokenizer)
        self.sizes: dict[str, Sized] = {}

    def size(self, row: CorpusRow) -> Sized:
        key = canonical_json(row.messages)
        if key not in self.sizes:
            encoded = encode_chat(self.tokenizer, list(row.messages), self.template)
            if len(encoded.ids) > self.spec.settings.max_tokens:
                raise UserError(
                    f"row {row.id} of {row.source} has {len(encoded.ids)} tokens",
                    hint=f"Raise settings.max_tokens (now {self.spec.settings.max_tokens}) or shorten the row.",
                )
            self.sizes[key] = Sized(0, len(encoded.ids), sum(encoded.supervised))
        return self.sizes[key]

    def draw(self, stage: Stage, seed: int) -> list[CorpusRow]:
        """An arm's own rows, in order; several corpora alternate so that their supervised tokens keep to their shares."""
        settings = resolve_settings(self.spec, stage)
        n_rows = settings.updates * settings.rows_per_update
        pools = {name: iter(corpus_rows(name, n_rows, seed=seed, order=stage.order, beside=self.beside)) for name in stage.corpora}
        given = dict.fromkeys(pools, 0)
        rows = []
        for _ in range(n_rows):
            name = min(given, key=lambda corpus: given[corpus] / stage.corpora[corpus])
            rows.append(next(pools[name]).model_copy(update={"source": name}))  # whatever a user's file calls itself
            given[name] += self.size(rows[-1]).n_supervised
        return rows

    def share(self, stages: Mapping[str, Stage], seed: int) -> dict[str, Batches]:
        """Rows of every arm, update by update, efforts made equal."""
        if not stages:
            return {}
        n_updates = {resolve_settings(self.spec, stage).updates for stage in stages.values()}
        if len(n_updates) > 1:
            raise UserError(
                f"the arms have different numbers of updates: {sorted(n_updates)}",
                hint="Efforts must be equal: set `updates` once, under the study's settings.",
            )
        own = {arm: self.draw(stage, draw_seed(arm, seed)) for arm, stage in stages.items()}
        padding = self.draw_padding(seed)
        sized = {arm: [self.size(row)._replace(row=number) for number, row in enumerate(rows)] for arm, rows in own.items()}
        plans = share_effort(sized, [self.size(row)._replace(row=number) for number, row in enumerate(padding)], n_updates.pop())
        return {
            arm: [[own[arm][one.row] for one in update.own] + [padding[one.row] for one in update.neutral] for update in plan]
            for arm, plan in plans.items()
        }

    def draw_padding(self, seed: int) -> list[CorpusRow]:
        """Neutral rows to make efforts equal: the half with the shortest prompts, since only what carries loss is wanted."""
        if not self.spec.neutral:
            return []
        rows = corpus_rows(self.spec.neutral, 120, seed=derive_seed(seed, "padding"), beside=self.beside)
        prompts = [self.size(row).n_tokens - self.size(row).n_supervised for row in rows]
        longest = sorted(prompts)[len(prompts) // 2]
        return [
            row.model_copy(update={"source": self.spec.neutral})  # how the ledger knows them, whatever a user's file calls itself
            for row, length in zip(rows, prompts, strict=True)
            if length <= longest
        ]

    def measure(self, batches: Batches) -> Effort:
        rows = [(row, self.size(row)) for batch in batches for row in batch]
        n_neutral = sum(row.source == self.spec.neutral for row, _ in rows)
        return Effort(
            len(batches), len(rows), n_neutral, sum(size.n_tokens for _, size in rows), sum(size.n_supervised for _, size in rows)
        )

    def check_leaks(self, scenarios: Sequence[Scenario]) -> list[str]:
        """Refuse leaks in every row that any seed draws, padding too; the oracle's families are waived, and said."""
        waived = []
        n_fills = max(evaluation.fills for evaluation in self.spec.evaluations)
        own_oracle = {name for stage in self.spec.arms.get("oracle", ()) for name in stage.corpora if not name.startswith("oracle/")}
        for name, rows in self._all_rows().items():
            leaks = find_leaks(rows.values(), scenarios, n_fills=n_fills, stems=name not in own_oracle)
            if name in own_oracle:
                waived.append(f"{name}: rows of the oracle may begin as several scenarios do; what one scenario alone says is refused")
            if name.startswith("oracle/"):
                on_purpose = [leak for leak in leaks if leak.shared.startswith("the whole family")]
                families = ", ".join(sorted({leak.scenario for leak in on_purpose}))
                waived.append(f"{name}: {len(on_purpose)} rows of far families ({families}), on purpose")
                leaks = [leak for leak in leaks if leak not in on_purpose]
            refuse_leaks(name, leaks)
        return sorted(waived)

    def _all_rows(self) -> dict[str, dict[str, CorpusRow]]:
        """Corpus -> its rows over all stages and seeds, each once: by what they say, since a user's ids may repeat."""
        found: dict[str, dict[str, CorpusRow]] = {}
        drawn = [(stage, START_SEED) for stage in self.spec.start.stages]
        drawn += [
            (stage, draw_seed(arm, seed)) for arm, stages in self.spec.arms.items() for stage in stages for seed in self.spec.seeds_of(arm)
        ]
        given = [one.corpus for one in self.spec.outside.values() if one.command]
        drawn += [(Stage(corpora={corpus: 1.0}), seed) for corpus in given for seed in self.spec.seeds]
        for stage, seed in drawn:
            settings = resolve_settings(self.spec, stage)
            for name in stage.corpora:
                n_rows = settings.updates * settings.rows_per_update
                rows = corpus_rows(name, n_rows, seed=seed, order=stage.order, beside=self.beside)
                found.setdefault(name, {}).update((canonical_json(row.messages), row) for row in rows)
        for seed in sorted({START_SEED, *self.spec.seeds}):
            if self.spec.neutral:
                padding = self.draw_padding(seed)
                found.setdefault(self.spec.neutral, {}).update((canonical_json(row.messages), row) for row in padding)
        return found


def resolve_settings(spec: StudySpec, stage: Stage) -> SftSettings:
    """The study's settings with the stage's own over them, and the dtype that this machine will train in."""
    from teachwhy.files import parse_record

    settings = parse_record(SftSettings, {**spec.settings.model_dump(), **stage.settings}, where="settings of a stage")
    return settings.model_copy(update={"dtype": best_dtype()}) if settings.dtype == "auto" else settings


def _train_cell(spec: StudySpec, stage: Stage, arm: str, seed: int, model_hash: str, chain: Sequence[Cell], batches: Batches) -> Cell:
    settings: dict[str, object] = {**resolve_settings(spec, stage).model_dump(), "corpora": stage.corpora, "order": stage.order}
    if arm != "start" and spec.saved_updates:
        settings["saved"] = list(spec.saved_updates)
    inputs = {"model": model_hash, "rows": hash_text(canonical_json([[list(row.messages) for row in batch] for batch in batches]))}
    return _cell("sft", SFT_VERSION, arm, seed, settings, chain, inputs)


class _Scorer(NamedTuple):
    """Makes the cells of one evaluation."""

    evaluation: Evaluation
    scenarios: Sequence[Met]
    beside: Path

    def cell(self, arm: str, seed: int, model_hash: str, chain: Sequence[Cell], reading: Reading | None = None, early: int = 0) -> Cell:
        """early: the updates after which the last training of the chain is read; 0: its end."""
        left_out = {"name", "updates", "scenarios", *(() if self.evaluation.name == OFFICE else ("families", "judges"))}
        settings: dict[str, object] = {**self.evaluation.model_dump(exclude=left_out), "dtype": "float32"}
        if early:
            settings["update"] = early
        inputs = {"model": model_hash, "scenarios": hash_scenarios(self.scenarios)}
        if reading:
            inputs[{"api": "id", "logs": "logs"}.get(reading.source, "adapter" if reading.adapter else "model")] = reading.sha256
        made = _cell(self.evaluation.name, {**VERSIONS, OFFICE: OFFICE_VERSION}[self.evaluation.name], arm, seed, settings, chain, inputs)
        if own := own_scenarios(self.evaluation, self.beside):
            made = made.model_copy(update={"scenarios": str(own)})
        if early:
            made = made.model_copy(update={"update": early, "early": True})
        if reading is None:
            return made
        return made.model_copy(update={"source": reading.source, "model": reading.model, "adapter": reading.adapter, "logs": reading.logs})


def _outside_cells(
    spec: StudySpec, arm: str, scorers: Sequence[_Scorer], model_hash: str, chain: Sequence[Cell], beside: Path
) -> list[Cell]:
    """Of an arm from outside; an adapter goes onto the start and what it was trained on."""
    found = []
    for reading in outside_readings(arm, spec.outside[arm], beside=beside):
        own = chain if reading.adapter else []
        found += [scorer.cell(arm, reading.seed, model_hash if reading.adapter else "", own, reading) for scorer in scorers]
    return found


def _command_cell(
    spec: StudySpec, outside: Outside, arm: str, seed: int, model_hash: str, chain: Sequence[Cell], beside: Path
) -> tuple[Cell, list[CorpusRow]]:
    """The user's own trainer, and the rows it is given: as many as every arm's own."""
    rows = corpus_rows(outside.corpus, spec.settings.updates * spec.settings.rows_per_update, seed=seed, beside=beside)
    inputs = {"model": model_hash, "rows": hash_text(canonical_json([list(row.messages) for row in rows]))}
    return _cell("command", COMMAND_VERSION, arm, seed, {"command": outside.command}, chain, inputs), rows


def _cell(kind: str, version: int, arm: str, seed: int, settings: dict[str, object], chain: Sequence[Cell], inputs: dict[str, str]) -> Cell:
    parents = tuple(cell.id for cell in chain[-1:])
    drawn = draw_seed(arm, seed)
    found = cell_id(kind, version, settings, drawn if kind in TRAININGS else None, parents, inputs)
    return Cell(
        id=found, kind=kind, arm=arm, seed=seed, drawn=drawn, settings=settings, parents=parents, inputs=inputs,
        adapters=tuple(cell.folder for cell in chain),
    )  # fmt: skip
