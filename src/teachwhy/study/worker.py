"""What a worker process does: one cell after another, each published by rename."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from teachwhy.budget import SPENT, UNLIMITED, Budget, Cap, first_error, kept_cap
from teachwhy.errors import CAP_WORDS, CapReached, CellFailed
from teachwhy.files import code_commit, hash_file, library_versions, now, publish, read_jsonl, write_card, write_jsonl, write_text
from teachwhy.models.roles import open_subject
from teachwhy.office.scenes import name_cell
from teachwhy.outcomes import JUDGES, OPTIONAL
from teachwhy.records import Card, ChoiceReading, Counts, Outcome
from teachwhy.study.calls import choices_of, offices_of
from teachwhy.study.plan import Batches, Cell
from teachwhy.study.schema import OFFICE, Evaluation

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog

INPUTS = "inputs.json"
ROWS = "rows.jsonl"
OUTCOMES = "outcomes.csv"
ANEW = "Then name another folder with --output."
CALLS = "calls"
"""Answers of an API to a cell that is not done yet."""


class Step(NamedTuple):
    """Progress of a cell."""

    cell: str
    done: int
    total: int
    rate: str


_children: list[int] = []
"""Process groups of users' trainers: they end with the worker."""
_send: Callable[[Step], None] = lambda step: None  # noqa: E731
_threads = 1


def start_worker(queue: Any, threads: int, environment: Mapping[str, str]) -> None:
    """Set a worker process up: its threads, its messages, the parent's environment (which may have changed since the process that it is
    a fork of began), and its end when the parent ends in whatever way."""
    import multiprocessing
    from multiprocessing.connection import wait

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C is for the parent, which then ends its workers
    os.environ.update({**environment, "TOKENIZERS_PARALLELISM": "false"})
    take_messages(queue.put, threads)

    def end(number: int, frame: Any) -> None:  # noqa: ARG001
        end_children()
        os._exit(1)

    signal.signal(signal.SIGTERM, end)
    parent = multiprocessing.parent_process()
    if parent is not None:
        sentinel = parent.sentinel

        def watch() -> None:
            wait([sentinel])
            end_children()
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


def take_messages(send: Callable[[Step], None], threads: int) -> None:
    """Where the messages of this process's cells go, and how many threads they may use."""
    global _send, _threads
    _send, _threads = send, threads


def end_children() -> None:
    """End users' trainers that run for this process."""
    for group in _children:
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def prepare_cell(cells_dir: Path, cell: Cell, batches: Batches | None) -> None:
    """Write a cell's inputs into its .part folder before it is given to a worker."""
    part = cells_dir / f"{cell.folder}.part"
    part.mkdir(parents=True, exist_ok=True)
    if batches is not None:
        write_jsonl(part / ROWS, ({"update": number, **row.line()} for number, batch in enumerate(batches) for row in batch))
    write_text(part / INPUTS, cell.model_dump_json(indent=2))


def run_cell(cells_dir: Path, cell: Cell, base: Path | None, budget: Budget = UNLIMITED) -> float:
    """Do one cell and publish it. Returns its seconds. Raises CellFailed or UserError.

    base: of the study's start, where there is one. budget: what the calls of a cell behind an API may still take.
    """
    device = _prepare_torch() if cell.source == "local" else cell.source
    started = time.monotonic()
    with publish(cells_dir / cell.folder) as part, _capped(cell, part / SPENT, budget) as cap:
        weights = find_weights(cells_dir, cell, base)
        do = {"sft": _train, "command": _command}.get(cell.kind, _adopt if cell.source == "logs" else _score)
        counts, details, dtype = do(part, cell, weights)
        card = Card(
            kind=cell.kind,
            name=f"{cell.arm}, seed {cell.seed}",
            created=now(),
            inputs={
                **cell.inputs,
                **{f"parent {number}": parent for number, parent in enumerate(cell.parents)},
                **({OUTCOMES: hash_file(part / OUTCOMES)} if (part / OUTCOMES).is_file() else {}),
            },
            settings=cell.settings,
            seed=cell.drawn,
            versions=library_versions(),
            commit=code_commit(),
            counts=counts,
            spend=cap.used._asdict() if cell.source == "api" else {},
            seconds=round(time.monotonic() - started, 2),
            machine={"device": device, "dtype": dtype, "threads": str(_threads)},
            details={**details, **({"plan": held} if (held := _plan_of(cells_dir)) else {})},
        )
        write_card(part, card)
    return time.monotonic() - started


def _plan_of(cells_dir: Path) -> str:
    """Hash of the plan that a cell is made for."""
    path = cells_dir.parent / "plan.json"
    return str(json.loads(path.read_text(encoding="utf-8")).get("sha256", "")) if path.is_file() else ""


@contextmanager
def _capped(cell: Cell, path: Path, budget: Budget) -> Iterator[Cap]:
    """The cap of the cell's calls: goes on from what earlier tries of the cell took, and keeps it before and after every call."""
    from teachwhy.evaluations import readings
    from teachwhy.judges import verdict

    if cell.source != "api":
        yield readings.cap
        return
    verdict.cap = readings.cap = kept_cap(path, budget.limits, budget.price(cell.model))
    verdict.price_of = budget.price
    try:
        yield readings.cap
    finally:
        verdict.cap, readings.cap = Cap(), Cap()


def _prepare_torch() -> str:
    import torch

    from teachwhy.models.checkpoints import pick_device

    torch.set_num_threads(_threads)
    return pick_device()


class Weights(NamedTuple):
    """What a cell reads or trains: a model's folder (None behind an API), and adapters merged onto it in order."""

    base: Path | None
    adapters: list[Path]


def adapter_name(update: int = 0) -> str:
    """Folder of a training's adapter: after an update, or (0) at its end."""
    return f"adapter-{update}" if update else "adapter"


def find_weights(cells_dir: Path, cell: Cell, base: Path | None) -> Weights:
    """A whole model that a command left stands in the place of the start and of what came before it."""
    if cell.model and cell.source == "local":
        base = Path(cell.model)
    adapters: list[Path] = []
    for folder in cell.adapters:
        whole = cells_dir / folder / "model"
        base, adapters = (whole, []) if whole.is_dir() else (base, [*adapters, cells_dir / folder / adapter_name()])
    if cell.early:
        adapters[-1] = adapters[-1].with_name(adapter_name(cell.update))
    return Weights(base, [*adapters, *([Path(cell.adapter)] if cell.adapter else [])])


Done = tuple[Counts, dict[str, Any], str]


def _command(part: Path, cell: Cell, weights: Weights) -> Done:
    """The user's own trainer: its words are a list, never shell text; what it leaves is adopted by hash."""
    from teachwhy.files import hash_folder
    from teachwhy.models.checkpoints import check_adapter, check_weights, hash_weights

    begun = _stamps(weights.base)
    output, corpus = part / "output", part / "corpus.jsonl"
    shutil.rmtree(output, ignore_errors=True)
    rows = [{key: value for key, value in row.items() if key != "update"} for row in read_jsonl(part / ROWS)]
    write_jsonl(corpus, rows)
    filled = {"corpus": str(corpus), "output": str(output), "seed": str(cell.drawn), "start": str(weights.base)}
    words = [_fill(word, filled) for word in shlex.split(str(cell.settings["command"]))]
    try:
        trainer = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    except OSError as error:
        raise CellFailed(f"the command cannot be run: {error}") from None
    _children.append(trainer.pid)
    stdout, stderr = trainer.communicate()
    _children.remove(trainer.pid)
    if trainer.returncode:
        last = (stderr.strip().splitlines() or stdout.strip().splitlines() or ["it said nothing"])[-1]
        raise CellFailed(f"the command ended with exit code {trainer.returncode}: {last[:300]}")
    if not output.is_dir():
        raise CellFailed("the command left no folder at {output}")
    if _stamps(weights.base) != begun:
        says = f"the command changed the study's start, {weights.base}, from which other arms are measured"
        raise CellFailed(f"{says}. Restore it, write to {{output}} alone, and name another folder with --output")
    adapter = (output / "adapter_config.json").is_file()
    (check_adapter if adapter else check_weights)(output)
    details = {"command": words, "adopted": hash_folder(output), "weights": hash_weights(output), "supervised_tokens": None}
    output.rename(part / (adapter_name() if adapter else "model"))
    return Counts(in_=len(rows), kept=len(rows)), details, ""


def _stamps(folder: Path | None) -> list[tuple[str, int, int]]:
    """Sizes and times of a model's files: whether somebody wrote there."""
    files = sorted(path for path in folder.iterdir() if path.is_file()) if folder else []
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]


def _fill(word: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        word = word.replace(f"{{{name}}}", value)
    return word


def _train(part: Path, cell: Cell, weights: Weights) -> Done:
    from teachwhy.models.chat import encode_chat, load_tokenizer, training_template
    from teachwhy.models.checkpoints import load_model
    from teachwhy.training.settings import SftSettings
    from teachwhy.training.sft import Progress, train_adapter

    settings = SftSettings.model_validate({key: value for key, value in cell.settings.items() if key in SftSettings.model_fields})
    assert weights.base is not None, "a training has a start"  # noqa: S101
    tokenizer = load_tokenizer(weights.base)
    template = training_template(tokenizer)
    batches: list[list[Any]] = [[] for _ in range(settings.updates)]
    corpora: dict[str, dict[str, int]] = {}
    for row in read_jsonl(part / ROWS):
        encoded = encode_chat(tokenizer, row["messages"], template)
        batches[row["update"]].append(encoded)
        size = corpora.setdefault(row["source"], {"rows": 0, "supervised_tokens": 0})
        size["rows"] += 1
        size["supervised_tokens"] += sum(encoded.supervised)
    n_rows = sum(size["rows"] for size in corpora.values())
    model = load_model(weights.base, adapters=weights.adapters, dtype=settings.dtype, train=True)

    def tell(progress: Progress) -> None:
        _send(Step(cell.id, progress.update, progress.n_updates, f"{progress.tokens_per_second:.0f} tokens/s, loss {progress.loss:.2f}"))

    saved = {int(update): adapter_name(int(update)) for update in cast("list[int]", cell.settings.get("saved", []))}
    trained = train_adapter(model, batches, settings, seed=cell.drawn, folder=part, keep=saved, report=tell)
    details = {
        "updates": len(batches),
        "corpora": corpora,
        "tokens": trained.n_tokens,
        "supervised_tokens": trained.n_supervised,
        "tokens_per_second": round(trained.n_tokens / max(trained.seconds, 1e-9), 1),
        "loss_first": round(trained.losses[0], 4),
        "loss_last": round(sum(trained.losses[-10:]) / len(trained.losses[-10:]), 4),
    }
    return Counts(in_=n_rows, kept=n_rows), details, settings.dtype


def _drop_damaged(logs: Path) -> None:
    """Remove the log of an evaluation that cannot be read, so that it begins anew: each later run would meet it again."""
    from inspect_ai.log import list_eval_logs, read_eval_log

    try:
        for log in list_eval_logs(str(logs)) if logs.is_dir() else []:
            read_eval_log(log)
    except Exception:  # noqa: BLE001  # a zip archive and JSON inside can be damaged in many ways
        shutil.rmtree(logs)


def _model(cell: Cell, weights: Weights) -> Any:
    from inspect_ai.model import get_model

    if cell.source == "api":
        return open_subject(cell.model)
    adapters = [str(path) for path in weights.adapters]
    return get_model(f"teachwhy/{weights.base}", memoize=False, adapters=adapters, dtype="float32", threads=_threads)


def _task(cell: Cell) -> Any:
    """The evaluation that a cell is."""
    from teachwhy.evaluations import choice
    from teachwhy.study.plan import hash_scenarios, load_evaluation

    evaluation = Evaluation.model_validate(
        {
            "name": cell.kind,
            "scenarios": cell.scenarios,
            **{key: value for key, value in cell.settings.items() if key in Evaluation.model_fields},
        }
    )
    scenarios = load_evaluation(evaluation, Path())
    if hash_scenarios(scenarios) != cell.inputs["scenarios"]:
        raise CellFailed("the scenarios have changed since the plan was made: run the study in another folder")
    if cell.kind == OFFICE:
        from teachwhy.evaluations.office import office_task

        return office_task(offices_of(scenarios), source=cell.scenarios, fills=evaluation.fills, twins=evaluation.twins)
    return choice.choice_task(
        cell.kind, choices_of(scenarios), fills=evaluation.fills, twins=evaluation.twins,
        reading=cast("ChoiceReading", evaluation.reading), reason=evaluation.reason, samples=evaluation.samples,
    )  # fmt: skip


MAX_DEAD = 0.1
"""Share of an API's samples that may have died; with more the cell fails, and the next run asks for those that died."""


def _score(part: Path, cell: Cell, weights: Weights) -> Done:
    import inspect_ai

    from teachwhy.evaluations import choice, office, readings
    from teachwhy.outcomes import read_log

    task = _task(cell)
    n_samples = len(task.dataset)
    n_read = 0

    def tell() -> None:
        nonlocal n_read
        n_read += 1
        if n_read % 8 == 0 or n_read == n_samples:
            _send(Step(cell.id, n_read, n_samples, "scored"))

    model = _model(cell, weights)
    _drop_damaged(part / "logs")
    choice.listeners[:] = office.listeners[:] = [tell]
    judges = dict(zip(JUDGES, map(open_subject, cast("Sequence[str]", cell.settings.get("judges", ()))), strict=False))
    os.environ["INSPECT_CACHE_DIR"] = str(part / CALLS)
    try:
        done, logs = inspect_ai.eval_set(
            task, log_dir=str(part / "logs"), model=model, model_roles=judges or None, display="none", max_samples=n_samples,
            retry_attempts=0, retry_immediate=False,
            fail_on_error=False, log_format="eval", log_level="error", score_display=False,
        )  # fmt: skip
    finally:
        choice.listeners.clear()
        office.listeners.clear()
        del os.environ["INSPECT_CACHE_DIR"]
        if cell.source == "local":
            model.api.close()  # a client of an API belongs to Inspect's event loop, which is gone
    if not logs or logs[0].status != "success":
        reason = logs[0].error.message if logs and logs[0].error else "see logs/"
        raise CellFailed(f"the evaluation ended as {logs[0].status if logs else 'no log'}: {reason}")
    log = inspect_ai.log.read_eval_log(logs[0].location)
    outcomes = read_log(log, cell=cell.id, arm=cell.arm, seed=cell.seed, update=cell.update)
    n_held = sum(row.reading not in JUDGES for row in outcomes)
    if n_held != n_samples:
        raise CellFailed(f"the log holds {n_held} of {n_samples} samples")
    n_dead = sum(row.status == "dead" for row in outcomes)
    if n_dead and (readings.cap.reached or n_dead > (0 if cell.source == "local" else MAX_DEAD * n_samples)):
        errors = [sample.error.message for sample in log.samples or [] if sample.error]  # local: the machine's fault or ours
        shutil.rmtree(part / "logs")
        if readings.cap.reached:
            raise CapReached(f"{CAP_WORDS}; {n_samples - n_dead} of {n_samples} samples are done and kept")
        raise CellFailed(f"{n_dead} of {n_samples} samples could not be scored: {first_error(errors)}")
    shutil.rmtree(part / CALLS, ignore_errors=True)
    (part / SPENT).unlink(missing_ok=True)
    details = {"samples": n_samples, "complete": done, **({"tokens": readings.cap.used.tokens} if cell.source == "api" else {})}
    return _keep(part, outcomes), details, "float32" if cell.source == "local" else ""


def _adopt(part: Path, cell: Cell, weights: Weights) -> Done:  # noqa: ARG001  # called like the others
    """Logs from outside: those of this evaluation and reading, the last where there are several. What the plan asks for and the log lacks
    is unscored, never left out; what it does not ask for is counted and not taken."""
    from inspect_ai.log import list_eval_logs, read_eval_log

    from teachwhy.outcomes import read_log

    samples = {str(sample.id): sample for sample in _task(cell).dataset}
    wanted = {name: sample.metadata or {} for name, sample in samples.items()}
    held = []
    complete: dict[str, tuple[str, str | None]] = {}
    for info in list_eval_logs(cell.logs):
        try:
            log = read_eval_log(info)
        except Exception:  # noqa: BLE001, S112  # somebody else's folder: what cannot be read is no log of this evaluation
            continue
        ours = log.samples and all({"version", "scenario", "family"} <= sample.metadata.keys() for sample in log.samples)
        rows = read_log(log, cell=cell.id, arm=cell.arm, seed=cell.seed, update=cell.update) if ours else []
        if rows and _is_of(rows[0], cell):
            if cell.reading == "text" and (log.eval.config.epochs or 1) > 1:
                says = f"{Path(log.location).name} has several epochs, and a text is read once: evaluate without --epochs"
                raise CellFailed(f"{says}. {ANEW}")
            _check_texts(log, samples)
            _check_twice(log, complete)
            held.append((log.eval.created, rows, log.eval.model))
    if not held:
        raise CellFailed(f"the folder holds no log of the evaluation {cell.label!r}")
    ordered = sorted(held, key=lambda one: one[0])
    used = ordered if cell.kind == OFFICE else ordered[-1:]  # families of an office may have been run as tasks of their own
    if len(models := dict.fromkeys(model for _, _, model in used)) > 1:
        raise CellFailed(f"the folder holds logs of several models ({', '.join(models)}): one folder an arm")
    by_sample: dict[str, list[Outcome]] = {}
    for _, rows, _ in used:  # a sample's rows come from one log, the last one in which it was read
        for name in {row.sample_id for row in rows} & wanted.keys():
            group = [row for row in rows if row.sample_id == name]
            if name not in by_sample or any(row.status == "ok" for row in group) or by_sample[name][0].status != "ok":
                by_sample[name] = group
    taken = {(row.sample_id, row.reading, row.repeat): row for group in by_sample.values() for row in group}
    if not taken:
        raise CellFailed(f"the log of {cell.label!r} holds none of the scenarios that the study asks for")
    for row in taken.values():
        about = wanted[row.sample_id]
        if row.version != about["version"]:
            raise CellFailed(f"scenario {row.scenario} has version {row.version} in the log and another one here")
        if row.factors and row.factors != (planned := name_cell(about)):
            says = f"scenario {row.scenario} was run as {row.factors} (conflict, threat, name), and the study plans {planned}"
            raise CellFailed(f"{says}: evaluate without -T conflict, threat, name and seed")
    some = next(iter(taken.values()))
    found = [row.model_copy(update={"evaluation": cell.kind}) for row in taken.values()]
    held_ids = {row.sample_id for row in found}
    lacks = {"status": "unscored", "reading": cell.reading, "evaluation": cell.kind, "label": "", "log": "", **dict.fromkeys(OPTIONAL)}
    keys = ("split", "family", "scenario", "fill", "twin", "version")
    for name, about in wanted.items():
        if name not in held_ids:
            factors = name_cell(about) if cell.kind == OFFICE else ""
            own = {key: about[key] for key in keys} | {"sample_id": name, "factors": factors, "repeat": about.get("repeat", 0)}
            found.append(some.model_copy(update={**lacks, **own}))
    n_beyond = sum(row.sample_id not in wanted for _, rows, _ in used for row in rows)
    details = {"samples": len(found), "model": ", ".join(dict.fromkeys(model for _, _, model in used)), "not_asked_for": n_beyond}
    return _keep(part, found), details, ""


def _shown(sample: Any) -> list[object]:
    """What a model is asked in a sample, and between which actions."""
    asked = sample.input if isinstance(sample.input, str) else [(message.role, message.text) for message in sample.input]
    return [asked, [action["text"] for action in (sample.metadata or {}).get("actions", ())]]


def _check_texts(log: EvalLog, samples: Mapping[str, Any]) -> None:
    """Raise CellFailed where a scenario reads otherwise in a log than in the study."""
    for sample in log.samples or []:
        planned = samples.get(str(sample.id))
        if planned is not None and _shown(sample) != _shown(planned):
            raise CellFailed(f"scenario {sample.id} reads otherwise in {Path(log.location).name} than in this study's scenarios. {ANEW}")


def _check_twice(log: EvalLog, complete: dict[str, tuple[str, str | None]]) -> None:
    """Raise CellFailed where two evaluations that came to their end hold two runs of one sample: which one counts is not ours to choose.
    A retried evaluation takes over the runs that had ended well, as they are. complete: run -> log and id, so far."""
    if log.status != "success":
        return  # one that was ended, and done again
    name = Path(log.location).name
    for sample in log.samples or []:
        if sample.error is None:
            other, uuid = complete.setdefault(f"{log.eval.model} {sample.id} {sample.epoch}", (name, sample.uuid))
            if other != name and uuid != sample.uuid:
                raise CellFailed(f"{other} and {name} hold two runs of {sample.id}: leave one of them in the folder. {ANEW}")


def _is_of(row: Outcome, cell: Cell) -> bool:
    """Whether a log's row is of a cell's evaluation; of an office, whichever of its tasks was run."""
    return row.reading == cell.reading and (row.evaluation == cell.kind or cell.kind == OFFICE)


def _keep(part: Path, outcomes: Sequence[Outcome]) -> Counts:
    """outcomes.csv of a cell, and its counts."""
    from teachwhy.outcomes import write_outcomes

    write_outcomes(part / OUTCOMES, outcomes)
    lost: dict[str, int] = {}
    for row in outcomes:
        if row.status not in ("ok", "dead"):
            lost[row.status] = lost.get(row.status, 0) + 1
    n_ok = sum(row.status == "ok" for row in outcomes)
    return Counts(in_=len(outcomes), kept=n_ok, rejected=lost, failed=len(outcomes) - n_ok - sum(lost.values()))
