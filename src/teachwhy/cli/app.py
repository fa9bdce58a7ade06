"""The nouns, loaded when they are typed; and the one place that turns an error into a message and an exit code."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group

from teachwhy import __version__
from teachwhy.errors import EXIT_INTERRUPTED, UserError

if TYPE_CHECKING:
    from teachwhy.budget import Budget


class Noun(NamedTuple):
    """A word after `teachwhy`: its help, and the module that has a typer app `app` or a function of the noun's name."""

    help: str
    module: str


NOUNS = {
    "study": Noun("Train and measure: does a reason change what a model learns?", "teachwhy.cli.study"),
    "rules": Noun("Rules for agents: read, measured on a model, advised on, counted in your own sessions.", "teachwhy.cli.rules"),
    "judges": Noun("Check judges against labels; label runs of your own; correct rates.", "teachwhy.cli.judges"),
    "corpus": Noun("What there is to train on and to measure with: list, read, check.", "teachwhy.cli.corpus"),
    "report": Noun("Make one HTML page from the folders of one or more studies.", "teachwhy.cli.report"),
    "models": Noun("Fetch the built-in model; list what is there.", "teachwhy.cli.models"),
    "doctor": Noun("Say what is installed, what is missing and what to type for it.", "teachwhy.cli.doctor"),
}


class Nouns(TyperGroup):
    """A group whose commands are stubs with a help text until one of them is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for name, noun in NOUNS.items():
            self.add_command(TyperCommand(name, help=noun.help), name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, command, rest = super().resolve_command(ctx, args)
        return name, load_noun(name) if name in NOUNS else command, rest

    def invoke(self, ctx: Any) -> Any:
        try:
            with _ended_politely():
                return super().invoke(ctx)
        except UserError as error:
            show_error(error)
            raise typer.Exit(error.exit_code) from None
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            where = " and ".join(str(name) for name in (error.filename, error.filename2) if name)
            show_error(UserError(error.strerror or str(error), where=where, hint="Name another file or folder, or mend this one."))
            raise typer.Exit(UserError.exit_code) from None
        except KeyboardInterrupt:
            say("Interrupted. What is done is kept: type the same command to go on.")
            raise typer.Exit(EXIT_INTERRUPTED) from None


@contextmanager
def _ended_politely() -> Iterator[None]:
    """Being asked to end (SIGTERM: a scheduler, a shutdown) is a ctrl-C: workers are ended, and what is kept is said."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: Any) -> None:  # noqa: ARG001  # as a handler is called
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def load_noun(name: str) -> Any:
    """The command behind a noun: a group from its module's `app`, or one command from the function of its name."""
    module = import_module(NOUNS[name].module)
    if hasattr(module, "app"):
        group = get_group(module.app)
        group.name = name
        return group
    single = typer.Typer(add_completion=False)
    single.command(name)(getattr(module, name))
    return get_command(single)


app = typer.Typer(cls=Nouns, no_args_is_help=True, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]})


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"teachwhy {__version__}")
        raise typer.Exit


@app.callback(epilog="Begin with: teachwhy doctor")
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.", callback=_print_version, is_eager=True)] = False,
) -> None:
    """Does telling a model why work better than telling it what? Measure it."""


_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?", re.DOTALL)
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def strip_controls(text: str) -> str:
    """`text` without terminal control codes and marks that turn the direction of writing; tabs and line ends stay."""
    return _CONTROLS.sub("", _ESCAPES.sub("", text))


def say_price(budget: Budget, model: str, *sizes: tuple[float, float]) -> str:
    """US dollars of calls, in words, at least and at most; sizes: tokens, and how many of them are written."""
    found = [budget.estimate(model, *size) for size in sizes]
    known = list(dict.fromkeys(f"{usd:,.2f}" for usd in found if usd is not None))
    if not known:
        return "no price is known (--prices FILE); --max-tokens caps it"
    return f"about {' to '.join(known)} USD; --max-usd and --max-tokens cap it" if any(found) else "for no money"


def ask(yes: bool, question: str) -> None:
    """Go on only where somebody says so. Raises UserError where nobody is there."""
    import sys

    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError("nobody is there to answer: " + question, where="the command", hint="Add --yes.")
    if not typer.confirm(question, default=True, err=True):
        raise typer.Exit(0)


def say(text: str) -> None:
    """A line of progress, on stderr."""
    typer.echo(strip_controls(text), err=True)


def show_error(error: UserError) -> None:
    """What is wrong, where, and what to type next, on stderr. Nothing in it is read as markup."""
    from rich.console import Console
    from rich.text import Text

    message = Text("Error: ", style="bold red")
    message.append(strip_controls(error.what), style="default not bold")
    for part in (error.where and f"in {error.where}", error.hint):
        if part:
            message.append("\n  " + strip_controls(part).replace("\n", "\n  "), style="default not bold")
    Console(stderr=True, highlight=False, soft_wrap=True).print(message)
