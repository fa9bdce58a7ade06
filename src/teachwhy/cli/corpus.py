"""`teachwhy corpus`: list, show, check, compare, control."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from teachwhy.errors import EXIT_FINDINGS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from teachwhy.corpora import CorpusRow
    from teachwhy.quality import Sheet

ABOUT = "What there is to train on and to measure with: list, read, check, compare, make controls."
app = typer.Typer(no_args_is_help=True, help=ABOUT)
NAME = typer.Argument(help="A shipped corpus (replies/bare, neutral, ...), or a JSONL file with `messages` or `text`.", metavar="NAME")


@app.command("list")
def list_corpora(
    format: Annotated[Literal["table", "json"], typer.Option(help="How to print it.")] = "table",  # noqa: A002
) -> None:
    """List what comes with teachwhy: name, kind, rows, tokens, licence, path."""
    from teachwhy.files import read_card
    from teachwhy.shipped import ROOT

    card = read_card(ROOT)
    rows = [
        {**row, "licence": card.details["licence"], "path": str(ROOT / str(row["path"]))}
        for row in card.details["sets"]
    ]  # fmt: skip
    if format == "json":
        typer.echo(json.dumps(rows, indent=2))
        return
    console, table = _console(), _table("name", "kind", "rows", "tokens", "path", right=("rows", "tokens"))
    for row in rows:
        table.add_row(
            row["name"],
            row["kind"],
            *(f"{row[key]:,}" for key in ("rows", "tokens")),
            str(Path(row["path"]).relative_to(ROOT)) if row["path"] != str(ROOT) else "made by code",
        )
    console.print(table)
    console.print()
    console.print(f"Licence {card.details['licence']}. Tokens are the built-in model's; of corpora those")
    console.print("that carry loss, of scenarios those of situation, twin and actions. Paths are in:")
    console.print(str(ROOT), markup=False, soft_wrap=True)


@app.command("show")
def show_corpus(
    name: Annotated[str, NAME],
    n: Annotated[int, typer.Option("--rows", "-n", min=1, help="How many rows.")] = 3,
    skip: Annotated[int, typer.Option(min=0, help="Rows to pass over.")] = 0,
    family: Annotated[str, typer.Option(help="Only rows of this family.")] = "",
    principle: Annotated[str, typer.Option(help="Only rows of this principle.")] = "",
    tag: Annotated[str, typer.Option(help="Only rows with this tag.")] = "",
) -> None:
    """Read rows as training sees them; what carries loss is marked (underlined; without colours, between ⟦ and ⟧).

    Of scenarios (scenarios/honeypots, or a YAML file): situation, twin and actions; of those kept for evaluation the dev half.
    """
    from itertools import islice

    from teachwhy.cli.app import strip_controls
    from teachwhy.corpora import NAMES, corpus_reader

    if name not in NAMES and (held := _scenario_set(name)) is not None:
        _show_scenarios(name, held, n, skip, family)
        return

    wanted = {tag, family and f"family:{family}", principle and f"principle:{principle}"} - {""}
    tags: set[str] = set()

    def rows() -> Iterator[CorpusRow]:
        for row in corpus_reader(name)():
            tags.update(row.tags)
            if wanted <= set(row.tags):
                yield row

    tokenizer, console = _tokenizer(), _console()
    shown = list(islice(rows(), skip, skip + n))
    if not shown:
        _refuse_tags(name, wanted, tags, skip)
    for row in shown:
        console.print(strip_controls(f"{row.id}  {'  '.join(row.tags)}"), style="bold", markup=False, soft_wrap=True)
        for text, supervised in _training_text(row, tokenizer):
            plain = strip_controls(text)
            if console.is_terminal:
                console.print(plain, style="underline" if supervised else "dim", end="", markup=False, soft_wrap=True)
            else:
                typer.echo(f"⟦{plain}⟧" if supervised else plain, nl=False)
        console.print("\n")
    if tokenizer is None:
        typer.echo("Shown without the chat template: for it, type teachwhy models get builtin", err=True)


def _show_scenarios(name: str, held: list[Any], n: int, skip: int, family: str) -> None:
    from teachwhy.cli.app import strip_controls
    from teachwhy.errors import UserError
    from teachwhy.evaluations import WRITTEN
    from teachwhy.evaluations.choice import load_scenarios
    from teachwhy.scenarios import fill

    evaluation = name.removeprefix("scenarios/")
    if evaluation in WRITTEN:  # the sealed half is not for looking at
        dev = {scenario.id for scenario in load_scenarios(evaluation, part="dev")}
        held = [scenario for scenario in held if scenario.id in dev or scenario.split not in ("near", "far")]
    if family and family not in (families := sorted({scenario.family for scenario in held})):
        raise UserError(f"no scenario there is of the family {family!r}", hint=f"There are: {', '.join(families)}.")
    for scenario in [one for one in held if not family or one.family == family][skip : skip + n]:
        filled = fill(scenario, 0)
        typer.echo(f"{scenario.id}  {scenario.family}, {scenario.split}")
        actions = [(action.label, action.text) for action in scenario.actions]
        for title, text in [("situation", scenario.situation), ("twin", scenario.twin), *actions]:
            if text:
                typer.echo(f"  {title}: {strip_controls(filled.text(text))}")
        typer.echo()


@app.command("check")
def check_corpora(
    names: Annotated[list[str], typer.Argument(help="Corpora, JSONL files, or scenario files.", metavar="NAME...")],
    against: Annotated[str, typer.Option(help="Scenarios that a corpus must not leak into; none: leave leaks out.")] = "all",
    constitution: Annotated[Path | None, typer.Option(help="Principles that scenarios may name; else the shipped ones.")] = None,
    without: Annotated[list[str] | None, typer.Option(help="A check to leave out; may be given again.", metavar="CHECK")] = None,
    format: Annotated[Literal["table", "json"], typer.Option(help="How to print it.")] = "table",  # noqa: A002
) -> None:
    """Print a quality sheet each; exit 1 where something is to be mended."""
    from teachwhy.corpora import corpus_reader
    from teachwhy.errors import UserError
    from teachwhy.quality import HeldOut, check_corpus, check_scenarios
    from teachwhy.scenarios import read_principles

    leave_out = _known_checks(without or [])
    held_out: HeldOut | None = None
    sheets = []
    for name in names:
        if (scenarios := _scenario_set(name)) is not None:
            sheets.append(check_scenarios(name, scenarios, read_principles(constitution), leave_out=leave_out))
            continue
        if held_out is None and against != "none":
            held_out = HeldOut(_evaluated(against))
        by_design = {"near_duplicate", "opening"} if name.startswith("ambiguity/") else set()
        by_design |= {"leak"} if name.startswith("oracle/") else set()
        sheets.append(check_corpus(name, corpus_reader(name), held_out, leave_out={*leave_out, *by_design}))
        if not sheets[-1].n_rows:
            raise UserError("the corpus has no rows", where=name)
        if by_design and format == "table":
            typer.echo(f"{name}: left out by design: {', '.join(sorted(by_design))}", err=True)
    if format == "json":
        typer.echo(json.dumps([_sheet_json(sheet) for sheet in sheets], indent=2, ensure_ascii=False))
    else:
        for sheet in sheets:
            _print_sheet(sheet)
    if not all(sheet.passed for sheet in sheets):
        raise typer.Exit(EXIT_FINDINGS)


@app.command("compare")
def compare_corpora(
    one: Annotated[str, typer.Argument(help="A corpus.", metavar="A")],
    other: Annotated[str, typer.Argument(help="Another.", metavar="B")],
    format: Annotated[Literal["table", "json"], typer.Option(help="How to print it.")] = "table",  # noqa: A002
) -> None:
    """Say what differs between two corpora and what does not, and how well length alone tells them apart."""
    from teachwhy.corpora import corpus_reader
    from teachwhy.errors import UserError
    from teachwhy.surface import compare

    rows = [list(corpus_reader(name)()) for name in (one, other)]
    for name, held in zip((one, other), rows, strict=True):
        if not held:
            raise UserError("the corpus has no rows", where=name)
    count, unit = _counter()
    found = compare(rows[0], rows[1], count)
    if format == "json":
        typer.echo(json.dumps({"a": one, "b": other, "unit": unit, **found._asdict()}, indent=2, ensure_ascii=False))
        return
    console, table = _console(), _table("", "A", "B", right=("A", "B"))
    table.add_row("corpus", _plain(one), _plain(other))
    table.add_row("rows", *(f"{n:,}" for n in found.n_rows))
    table.add_row(f"{unit} that carry loss, a row", *(f"{mean:.1f}" for mean in found.mean_length))
    console.print(table)
    console.print(f"prompts that both have: {found.n_same_prompts:,}; rows that are the same: {found.n_same_rows:,}")
    console.print(f"told apart by length alone (AUC; 0.5 is chance): {found.auc:.2f}")
    words = ", ".join(f"{word} ({a}:{b})" for word, a, b in found.words[:12]) or "none"
    console.print(f"words that tell them apart (rows of A:B): {words}", markup=False)


@app.command("control")
def make_control(
    name: Annotated[str, NAME],
    kind: Annotated[Literal["neutral", "filler", "shuffled"], typer.Option(help="What to make of it.")],
    output: Annotated[Path, typer.Option(help="The folder to write; must not be there.")],
    bare: Annotated[str, typer.Option(help="The same rows without reasons: needed for filler and shuffled of your own corpus.")] = "",
    seed: Annotated[int, typer.Option(help="Decides what is drawn.")] = 0,
) -> None:
    """Make a corpus to compare with, and print its folder: another thing to train on that differs in one respect only."""
    from teachwhy.controls import write_control

    count, unit = _counter()
    typer.echo(write_control(name, kind, output, bare=bare, seed=seed, count=count, unit=unit))


def _known_checks(names: list[str]) -> list[str]:
    from difflib import get_close_matches

    from teachwhy.errors import UserError
    from teachwhy.wording import CHECKS

    known = [*CHECKS, "leak", "near_duplicate", "opening", "nothing_said", "plan", "twin", "principle", "cue"]
    for name in names:
        if name not in known:
            near = get_close_matches(name, known, 1, 0.5)
            raise UserError(f"there is no check {name!r}", hint=f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(known)}.")
    return names


def _scenario_set(name: str) -> list[Any] | None:
    """Scenarios, where the name is that of a shipped set or of a YAML file."""
    from teachwhy.corpora import NAMES
    from teachwhy.evaluations.choice import load_scenarios
    from teachwhy.scenarios import read_scenarios
    from teachwhy.shipped import ROOT

    if name == "capability":
        return load_scenarios(name)
    if name.startswith("scenarios/"):  # goals is a corpus, too
        return list(read_scenarios(name.removeprefix("scenarios/")))
    path = Path(name)
    own = path.suffix in (".yaml", ".yml") or (path.is_dir() and any(path.glob("*.yaml")))
    shipped = name in {held.name for held in (ROOT / "scenarios").iterdir()} or (ROOT / "scenarios" / f"{name}.yaml").is_file()
    if own or (shipped and name not in NAMES):
        return list(read_scenarios(name))
    return None


def _evaluated(against: str) -> list[Any]:
    from teachwhy.evaluations import KINDS
    from teachwhy.evaluations.choice import load_scenarios
    from teachwhy.scenarios import read_scenarios
    from teachwhy.shipped import ROOT

    if against != "all":
        return list(read_scenarios(against))
    pairs = [load_scenarios("ambiguity", own=path) for path in sorted((ROOT / "ambiguity").glob("*.yaml"))]
    return [scenario for group in (*pairs, *map(load_scenarios, KINDS)) for scenario in group]


def _training_text(row: CorpusRow, tokenizer: PreTrainedTokenizerBase | None) -> Iterator[tuple[str, bool]]:
    """Pieces of the training text, and whether they carry loss."""
    if row.text:
        yield row.text, True
        return
    if tokenizer is None:
        for message in row.messages:
            yield f"\n{message['role']}: ", False
            yield message["content"], message["role"] == "assistant"
        return
    from itertools import groupby

    from teachwhy.models.chat import encode_chat

    encoded = encode_chat(tokenizer, [dict(message) for message in row.messages])
    for supervised, group in groupby(zip(encoded.ids, encoded.supervised, strict=True), key=lambda one: one[1]):
        yield str(tokenizer.decode([token for token, _ in group])), supervised


def _refuse_tags(name: str, wanted: set[str], tags: set[str], skip: int) -> None:
    from difflib import get_close_matches

    from teachwhy.errors import UserError

    for tag in sorted(wanted - tags):
        near = get_close_matches(tag, tags, 1, 0.5)
        hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(sorted(tags)) or 'none'}."
        raise UserError(f"no row has the tag {tag!r}", where=name, hint=hint)
    raise UserError(f"no rows are left after the first {skip}" if skip else "no row is like that", where=name)


def _tokenizer() -> PreTrainedTokenizerBase | None:
    """The built-in model's, if that has been fetched."""
    from teachwhy.models.builtin import find_builtin
    from teachwhy.models.chat import load_tokenizer

    folder = find_builtin()
    return load_tokenizer(folder) if folder else None


def _counter() -> tuple[Callable[[str], int], str]:
    """What counts a text, and its unit: tokens of the built-in model, or words where that is not here."""
    tokenizer = _tokenizer()
    if tokenizer is None:
        return lambda text: len(text.split()), "words"
    from teachwhy.models.chat import encode_text

    return lambda text: len(encode_text(tokenizer, text)), "tokens"


def _sheet_json(sheet: Sheet) -> dict[str, object]:
    return {**sheet._asdict(), "findings": [finding._asdict() for finding in sheet.findings], "passed": sheet.passed}


def _print_sheet(sheet: Sheet) -> None:
    console = _console()
    console.print(
        f"{_plain(sheet.name)}: {'nothing to mend' if sheet.passed else 'to be mended'}", style="bold", markup=False, soft_wrap=True
    )
    rejected = "".join(f", {n:,} {check}" for check, n in sheet.rejected.items())
    console.print(f"  {sheet.n_rows:,} rows = {sheet.kept:,} kept{rejected}", markup=False, soft_wrap=True)
    console.print("  words a row: {:.0f} (5 %), {:.0f} (50 %), {:.0f} (95 %)".format(*sheet.words))
    if sheet.opening[1] > 1:
        console.print(f"  commonest opening: {sheet.opening[1]} rows, {_plain(sheet.opening[0])!r}", markup=False, soft_wrap=True)
    kinds = dict.fromkeys(["split", "family", "principle", "action", *(tag.partition(":")[0] for tag in sheet.tags if ":" in tag)])
    for kind in kinds:
        held = {tag.removeprefix(f"{kind}:"): n for tag, n in sheet.tags.items() if tag.startswith(f"{kind}:")}
        if held:
            console.print(_plain(f"  {kind}: " + ", ".join(f"{tag} {n}" for tag, n in held.items())), markup=False, soft_wrap=True)
    for finding in sheet.findings:
        place = f" {finding.row}" if finding.row else ""
        console.print(f"  {finding.check}{_plain(place)}: {_plain(finding.says)}", style="yellow", markup=False, soft_wrap=True)
    for check, n in sheet.n_findings.items():
        n_shown = sum(finding.check == check for finding in sheet.findings)
        if n > n_shown:
            console.print(f"  {check}: and {n - n_shown:,} more", style="yellow", markup=False, soft_wrap=True)


def _plain(text: str) -> str:
    from teachwhy.cli.app import strip_controls

    return strip_controls(text)


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False)


def _table(*titles: str, right: tuple[str, ...] = ()) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in titles:
        table.add_column(title, justify="right" if title in right else "left", overflow="fold")
    return table
