"""Run a study: its cells in worker processes, resumed by presence, then outcomes, report and page."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, NamedTuple

from teachwhy.budget import UNLIMITED, Budget, spent_in
from teachwhy.errors import UserError
from teachwhy.files import CARD, read_card
from teachwhy.records import CellSummary
from teachwhy.study.plan import TRAININGS, Cell, Plan
from teachwhy.study.planned import CELLS
from teachwhy.study.worker import Step, end_children, prepare_cell, run_cell, start_worker, take_messages

WORKER_BYTES = 2.5 * 2**30
"""Memory kept for a worker: the built-in model takes about 2 GB while training."""


class Event(NamedTuple):
    """Something to show: a cell `started`, `moved`, is `done` or `failed`."""

    kind: str
    cell: Cell
    step: Step | None = None
    seconds: float = 0.0
    reason: str = ""


Listener = Callable[[Event], None]


def count_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_workers(n_cells: int, *, local: bool = True) -> int:
    """As many workers as there are cores and memory for, at least one; one where a GPU or somebody else's machine does the work."""
    if not local:
        return 1
    import psutil

    from teachwhy.models.checkpoints import pick_device

    if pick_device() != "cpu":
        return 1
    memory = psutil.virtual_memory().available
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (text := limit.read_text().strip()).isdigit():
        memory = min(memory, int(text))
    return max(1, min(count_cores(), int(memory // WORKER_BYTES), n_cells))


def is_done(cells_dir: Path, cell: Cell) -> bool:
    """Presence means done."""
    return (cells_dir / cell.folder / CARD).is_file()


def check_disk(run_dir: Path, plan: Plan) -> None:
    """Fail before spending: 25 MB an adapter and 2 MB an evaluation are needed."""
    import shutil

    saved = 25 * (1 + len(plan.spec.saved_updates))
    needed = sum(saved if cell.kind in TRAININGS else 2 for cell in plan.cells if not is_done(run_dir / CELLS, cell)) * 2**20
    held = next(folder for folder in (run_dir, *run_dir.absolute().parents) if folder.is_dir())
    free = shutil.disk_usage(held).free
    if free < needed:
        raise UserError(
            f"the study needs {needed >> 20} MB of disk, {free >> 20} MB are free",
            where=str(run_dir),
            hint="Free some space, or name another folder with --output.",
        )


def run_cells(run_dir: Path, plan: Plan, *, workers: int, listen: Listener, budget: Budget = UNLIMITED) -> dict[str, str]:
    """Do all cells that are not there yet; returns the reasons of those that failed, by cell id.

    A cell starts when its parents are there. One failing cell fails those that build on it; the others go on. budget: of all calls
    to APIs in this folder, earlier ones too; under a cap such cells run one at a time, each with what is left. workers: 0 does them here,
    one after another, where a debugger reaches them.
    """
    cells_dir = run_dir / CELLS
    unique = {cell.id: cell for cell in plan.cells}
    waiting = [cell for cell in unique.values() if not is_done(cells_dir, cell)]
    if not waiting:
        return {}
    failed: dict[str, str] = {}
    suspects: list[Cell] = []  # at work when a worker was ended from outside: each is tried once more, alone
    context = _worker_context(any(cell.source == "local" for cell in waiting))
    queue = context.Queue()
    stop = _forward(queue, unique, listen)
    pool = _Pool(context, queue, workers) if workers else _Here(queue)
    running: dict[Future[float], Cell] = {}
    try:
        while waiting or running or suspects:
            if suspects and not running:
                ready = [suspects.pop()]
            elif suspects:
                ready = []
            else:
                ready = _ready(waiting, cells_dir, failed, {cell.id for cell in running.values()})[: max(1, workers) - len(running)]
            for cell in ready:
                if budget.limits.any and cell.source == "api" and any(one.source == "api" for one in running.values()):
                    continue
                left = budget
                if budget.limits.any:
                    left = Budget(budget.limits.less(spent_in(cells_dir, but=cells_dir / f"{cell.folder}.part")), budget.prices)
                if cell in waiting:
                    waiting.remove(cell)
                prepare_cell(cells_dir, cell, plan.batches.get(cell.id))
                listen(Event("started", cell))
                running[pool.submit(run_cell, cells_dir, cell, plan.base, left)] = cell
            if not running:
                break
            finished, _ = wait(running, return_when=FIRST_COMPLETED)
            ended = [cell for future in finished if not _settle(cell := running.pop(future), future, failed, listen)]
            if ended:
                ended += running.values()
                running.clear()
                pool.renew()
                if len(ended) == 1:
                    failed[ended[0].id] = ENDED
                    listen(Event("failed", ended[0], reason=ENDED))
                else:
                    suspects += ended
    finally:
        pool.end()
        stop()
    for cell in waiting:
        failed.setdefault(cell.id, "a cell that it builds on failed")
    return failed


ENDED = "its worker process was ended from outside, most likely for want of memory: try --workers 1, or fewer rows an update"


LIBRARIES = ("torch", "transformers.modeling_utils", "peft", "inspect_ai", "teachwhy.study.worker")
"""What workers with local weights import, six seconds of it."""


def _worker_context(local: bool) -> BaseContext:
    """How worker processes begin: on Linux as forks of a process that has imported what they need and done nothing else, so that it is
    imported once for all of them and for those that take the place of a killed one. Elsewhere anew: there a fork is not safe."""
    if not local or sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(LIBRARIES))
    return context


class _Here:
    """No worker: a cell is done before `submit` returns."""

    def __init__(self, queue: Any) -> None:
        take_messages(queue.put, count_cores())

    def submit(self, work: Callable[..., float], *words: Any) -> Future[float]:
        done: Future[float] = Future()
        try:
            done.set_result(work(*words))
        except Exception as error:  # noqa: BLE001  # as a pool does
            done.set_exception(error)
        return done

    def renew(self) -> None:
        """Nothing to renew: what ends it from outside ends the command."""

    def end(self) -> None:
        end_children()


class _Pool:
    """Worker processes. One that is killed breaks the whole pool of the library, so a new one takes its place."""

    def __init__(self, context: BaseContext, queue: Any, workers: int) -> None:
        self._make = partial(
            ProcessPoolExecutor,
            workers,
            mp_context=context,
            initializer=start_worker,
            initargs=(queue, max(1, count_cores() // workers), dict(os.environ)),
        )
        self._pool = self._make()

    def submit(self, work: Callable[..., float], *words: Any) -> Future[float]:
        with _ctrl_c_held():
            return self._pool.submit(work, *words)

    def renew(self) -> None:
        self.end()
        self._pool = self._make()

    def end(self) -> None:
        """End the workers at once: what they had begun lies in .part folders and is gone on with."""
        processes = list((getattr(self._pool, "_processes", None) or {}).values())
        idle = not getattr(self._pool, "_pending_work_items", None)
        self._pool.shutdown(wait=idle, cancel_futures=True)
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(timeout=5)


@contextmanager
def _ctrl_c_held() -> Iterator[None]:
    """Ctrl-C comes after this: a worker that loses its parent while it starts answers with a traceback.

    The handler holds the signal back here, whichever thread gets it; the mask is for the process begun inside, which inherits it.
    """
    if not hasattr(signal, "pthread_sigmask") or threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, frame: came.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
    if came:
        raise KeyboardInterrupt


def _ready(waiting: Sequence[Cell], cells_dir: Path, failed: dict[str, str], running: set[str]) -> list[Cell]:
    """Cells whose parents are there, in the plan's order, trainings first: long ones at the end would leave a core idle."""
    folders = {path.name for path in cells_dir.iterdir()} if cells_dir.is_dir() else set()
    ready = [
        cell for cell in waiting if all(folder in folders for folder in cell.adapters) and cell.id not in failed and cell.id not in running
    ]
    return sorted(ready, key=lambda cell: cell.kind not in TRAININGS)


def _settle(cell: Cell, future: Future[float], failed: dict[str, str], listen: Listener) -> bool:
    """Note how a cell ended; False where its worker was ended from outside, or that of a cell beside it."""
    try:
        listen(Event("done", cell, seconds=future.result()))
    except BrokenProcessPool:
        return False
    except Exception as error:  # noqa: BLE001  # whatever a worker died of: its cell fails, the others go on
        failed[cell.id] = str(error).splitlines()[0] if str(error) else type(error).__name__
        listen(Event("failed", cell, reason=failed[cell.id]))
    return True


def _forward(queue: Any, cells: dict[str, Cell], listen: Listener) -> Callable[[], None]:
    """Pass the workers' messages on from a thread of its own; returns what ends it."""

    def pass_on() -> None:
        while (step := queue.get()) is not None:
            listen(Event("moved", cells[step.cell], step))

    thread = threading.Thread(target=pass_on, daemon=True)
    thread.start()

    def stop() -> None:
        queue.put(None)
        thread.join(timeout=2)
        queue.close()

    return stop


def summarise_cells(run_dir: Path, cells: Sequence[Cell], failed: dict[str, str]) -> list[CellSummary]:
    """Every cell with its state, for the report. A command that left the same weights under two seeds has failed, and so has what was read
    of them."""
    adopted: dict[tuple[str, str], int] = {}
    doubted: dict[tuple[str, int], str] = {}
    found = []
    for cell in cells:
        folder = run_dir / CELLS / cell.folder
        about = {name: getattr(cell, name) for name in ("id", "kind", "arm", "seed", "reading", "update", "early")}
        if (folder / CARD).is_file():
            card = read_card(folder)
            weights = str(card.details.get("weights", ""))
            if weights and (first := adopted.setdefault((cell.arm, weights), cell.seed)) != cell.seed:
                doubted[cell.arm, cell.seed] = (
                    f"the command left the same weights as under seed {first}: it does not heed {{seed}}, and one training is no two. "
                    "Mend it, and name another folder with --output"
                )
            if reason := doubted.get((cell.arm, cell.seed)):
                found.append(CellSummary.model_validate({**about, "state": "failed", "reason": reason}))
                continue
            sizes = {name: card.details.get(name) for name in ("updates", "supervised_tokens")}
            found.append(CellSummary.model_validate({**about, **sizes, "state": "done", "seconds": card.seconds}))
        else:
            reason = failed.get(cell.id, "")
            found.append(CellSummary.model_validate({**about, "state": "failed" if reason else "missing", "reason": reason}))
    return found


def measure_pace(run_dir: Path, plan: Plan) -> float:
    """What the cells that are done took, over what was estimated for them: this machine against the benchmarks'. 1 where that is under half
    a minute."""
    done = [cell for cell in plan.distinct_cells if is_done(run_dir / CELLS, cell)]
    estimated = sum(cell_seconds(plan, cell) for cell in done)
    return sum(read_card(run_dir / CELLS / cell.folder).seconds for cell in done) / estimated if estimated > 30 else 1.0


def estimate_seconds(plan: Plan, todo: Sequence[Cell], workers: int, pace: float) -> float:
    """From measured speeds (benchmarks/): tokens of training and scored prompts still to do, over the workers."""
    seconds = [pace * cell_seconds(plan, cell) for cell in todo]
    return max(sum(seconds) / max(1, workers), max(seconds, default=0.0))


TRAINED_PER_SECOND = 200.0
"""Tokens, built-in model, one core that computes in bfloat16."""
SCORED_PER_SECOND = 2.8
"""Prompts with their actions, built-in model, one core, fp32."""
CELL_SECONDS = 3.0
"""Loading and writing, a cell."""


def cell_seconds(plan: Plan, cell: Cell) -> float:
    """Estimate for one cell on one core."""
    if cell.source == "logs":
        return CELL_SECONDS
    if cell.kind in TRAININGS:
        effort = next(row.effort for row in plan.ledger if (row.arm, row.seed) == (cell.arm, cell.seed))
        return CELL_SECONDS + effort.n_tokens / TRAINED_PER_SECOND
    return CELL_SECONDS + plan.n_scored[cell.label] / SCORED_PER_SECOND


class Clock:
    """Time left, from what was estimated for the cells that are done and what they took."""

    def __init__(self, plan: Plan, todo: Sequence[Cell], workers: int, pace: float) -> None:
        self.costs = {cell.id: pace * cell_seconds(plan, cell) for cell in todo}
        self.shares: dict[str, float] = {}
        self.workers = max(1, workers)
        self.started = time.monotonic()

    def note(self, cell: Cell, share: float) -> None:
        """A cell is done to this share, in [0, 1]."""
        self.shares[cell.id] = share

    def left(self) -> float:
        """Seconds."""
        done = sum(self.costs.get(cell, 0.0) * share for cell, share in self.shares.items())
        rest = sum(self.costs.values()) - done
        elapsed = time.monotonic() - self.started
        rate = elapsed / done if done > 20 else 1 / self.workers
        return rest * rate
