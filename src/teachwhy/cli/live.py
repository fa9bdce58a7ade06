"""A study's progress on the terminal: a live table, or one line a cell where nobody watches."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from teachwhy.cli.app import strip_controls

if TYPE_CHECKING:
    from teachwhy.study.plan import Cell
    from teachwhy.study.run import Event, Listener
    from teachwhy.study.session import Session


@contextmanager
def show_cells(session: Session) -> Iterator[Listener]:
    """Give the listener that shows a session's events."""
    console = Console(stderr=True, highlight=False)
    board = _Board(session)
    if not console.is_terminal:

        def print_line(event: Event) -> None:
            board.note(event)
            if event.kind in ("done", "failed"):
                console.print(
                    f"{board.n_done}/{board.n_cells} {board.words(event)}, {format_left(board.left())} left", markup=False, soft_wrap=True
                )

        yield print_line
        return
    with Live(board, console=console, refresh_per_second=4, transient=True):

        def update(event: Event) -> None:
            board.note(event)
            if event.kind == "failed":
                console.print(board.words(event), style="red", markup=False)

        yield update


def say_seed(cell: Cell) -> str:
    """`, seed 3`; nothing of what stands for all seeds. An early score says after how many updates."""
    early = f" after {cell.update} updates" if cell.early else ""
    return (f", seed {cell.seed}" if cell.seed >= 0 else "") + early


class _Board:
    """What is running, drawn anew several times a second."""

    def __init__(self, session: Session) -> None:
        self.clock = session.clock
        self.n_cells = session.n_cells
        self.n_done = session.n_cells - len(session.clock.costs)
        self.running: dict[str, Event] = {}
        self.started = time.monotonic()

    def left(self) -> float:
        return self.clock.left()

    def note(self, event: Event) -> None:
        if event.kind in ("done", "failed"):
            self.clock.note(event.cell, 1.0)
            self.running.pop(event.cell.id, None)
            self.n_done += 1
        else:
            self.running[event.cell.id] = event
            if event.step:
                self.clock.note(event.cell, event.step.done / max(1, event.step.total))

    def words(self, event: Event) -> str:
        name = f"{event.cell.kind} of {event.cell.arm}{say_seed(event.cell)}"
        return f"{name}: {event.seconds:.0f} s" if event.kind == "done" else strip_controls(f"{name} failed: {event.reason}")

    def __rich__(self) -> RenderableType:
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(width=20)
        table.add_column(no_wrap=True)
        for event in list(self.running.values()):
            step = event.step
            bar = ProgressBar(total=step.total if step else 1, completed=step.done if step else 0, width=20)
            count = f"{step.done}/{step.total} {step.rate}" if step else "starting"
            table.add_row(Text(f"{event.cell.kind} {event.cell.arm}{say_seed(event.cell)}"), bar, Text(count))
        elapsed = time.monotonic() - self.started
        table.add_row(
            Text(f"{self.n_done}/{self.n_cells} cells", style="bold"),
            ProgressBar(total=self.n_cells, completed=self.n_done, width=20),
            f"{format_left(elapsed)} gone, {format_left(self.left())} left",
        )
        return table


def format_left(seconds: float) -> str:
    """Minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
