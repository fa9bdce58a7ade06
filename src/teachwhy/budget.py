"""Caps on what calls to somebody else's machine may cost: estimated before, reserved while they run, counted after.

Two units, tokens and US dollars; dollars where the user says what a model costs: a file of prices in the form of Inspect's
`--model-cost-config`. No prices come with teachwhy: they change, and a cap on stale ones is none.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import anyio
from pydantic import Field

from teachwhy.errors import CAP_WORDS, CapReached, CellFailed, UserError
from teachwhy.files import CARD, parse_record, read_card, read_yaml, write_text
from teachwhy.records import Record

if TYPE_CHECKING:
    from inspect_ai.model import ModelUsage

CHARACTERS_A_TOKEN = 4.0
"""Of English text, on average; for estimates."""
FREE = ("teachwhy", "scripted", "actor", "mockllm")
"""Providers whose models run here."""


class Spend(NamedTuple):
    """What calls took, or may take."""

    tokens: int = 0
    usd: float = 0.0

    @property
    def at_most(self) -> bool:
        """Whether some of it is what a call might have taken: it failed, or nobody heard its end."""
        return isinstance(self, MostSpend)

    def plus(self, other: Spend) -> Spend:
        """Both together."""
        return spend_of(self.tokens + other.tokens, self.usd + other.usd, at_most=self.at_most or other.at_most)

    def less(self, other: Spend) -> Spend:
        """Without the other."""
        return spend_of(self.tokens - other.tokens, self.usd - other.usd, at_most=self.at_most)

    def to_json(self) -> dict[str, float]:
        """For a card, and for the file of a cell that is not done."""
        return {**self._asdict(), **({"at_most": 1.0} if self.at_most else {})}


class MostSpend(Spend):
    """What calls took at most."""

    __slots__ = ()


def spend_of(tokens: int, usd: float, *, at_most: bool) -> Spend:
    """The one or the other."""
    return (MostSpend if at_most else Spend)(tokens, usd)


class Price(Record):
    """US dollars a million tokens."""

    input: float = Field(ge=0, allow_inf_nan=False)
    output: float = Field(ge=0, allow_inf_nan=False)
    input_cache_write: float | None = Field(None, ge=0, allow_inf_nan=False)
    """None: as `input`."""
    input_cache_read: float | None = Field(None, ge=0, allow_inf_nan=False)

    def of(self, n_input: int, n_output: int, n_written: int = 0, n_read: int = 0) -> float:
        """US dollars; n_written and n_read: tokens written to and read from the provider's cache, beside `n_input`."""
        write, read = (self.input if price is None else price for price in (self.input_cache_write, self.input_cache_read))
        return (n_input * self.input + n_output * self.output + n_written * write + n_read * read) / 1e6


class Limits(NamedTuple):
    """What calls may take together; None: no limit."""

    tokens: int | None = None
    usd: float | None = None

    def less(self, spent: Spend) -> Limits:
        """What is left of them."""
        tokens = None if self.tokens is None else max(0, self.tokens - spent.tokens)
        return Limits(tokens, None if self.usd is None else max(0.0, self.usd - spent.usd))

    @property
    def any(self) -> bool:
        """Whether there is a limit."""
        return self.tokens is not None or self.usd is not None

    def hold(self, spend: Spend) -> bool:
        """Whether this much is within them."""
        within = self.tokens is None or spend.tokens <= self.tokens
        return within and (self.usd is None or spend.usd <= self.usd + 1e-9)  # rounding of sums


class Budget(NamedTuple):
    """Limits, and what each model costs."""

    limits: Limits = Limits()
    prices: Mapping[str, Price] = {}

    def price(self, model: str) -> Price | None:
        """Of a model by Inspect's name; nothing for one that runs here, None where it is not known."""
        return Price(input=0, output=0) if model.partition("/")[0] in FREE else self.prices.get(model)

    def estimate(self, model: str, n_tokens: float, n_new: float) -> float | None:
        """US dollars of so many tokens, `n_new` of them written; None where no price is known."""
        price = self.price(model)
        return price.of(round(n_tokens - n_new), round(n_new)) if price else None


UNLIMITED = Budget()
NOTHING = Spend()


def read_budget(models: list[str], *, max_tokens: int | None, max_usd: float | None, prices: Path | None) -> Budget:
    """From the command's options. Raises UserError for a cap in dollars on a model without a price."""
    hint = PRICES_HINT.format(model=models[0] if models else "openai/NAME")
    try:
        held = read_yaml(prices) if prices else {}
        if not isinstance(held, dict):
            raise UserError("the file of prices holds no models", where=str(prices))
        known = {str(model): parse_record(Price, row, where=f"{prices}, {model}") for model, row in held.items()}
    except UserError as error:
        raise UserError(error.what, where=error.where, hint=hint) from error
    budget = Budget(Limits(max_tokens, max_usd), known)
    unknown = [model for model in models if budget.price(model) is None]
    if max_usd is not None and unknown:
        raise UserError(f"--max-usd needs the price of {unknown[0]}", where=str(prices or ""), hint=PRICES_HINT.format(model=unknown[0]))
    return budget


PRICES_HINT = "Put `{model}: {{input: ..., output: ...}}`, US dollars a million tokens, into prices.yaml; add --prices prices.yaml."


def estimate_tokens(text: str, max_new: int) -> int:
    """Tokens that a call will take, most likely: those of its prompt and all that it may write."""
    return round(len(text) / CHARACTERS_A_TOKEN) + max_new


def most_tokens(text: str) -> int:
    """Tokens that a prompt can have at most: no tokenizer makes more tokens of a text than it has bytes; a template adds some."""
    return len(text.encode()) + 64


FIRST = 10
"""Calls that are made before one is answered."""
NONE_ANSWERED = f"the first {FIRST} calls failed, and none was answered"


class Call:
    """One call in flight; whoever makes it says what it took. Until then, and if it fails, the worst is assumed."""

    def __init__(self, worst: Spend, price: Price | None) -> None:
        self.spend, self._price = worst, price

    def took(self, usage: ModelUsage | None, *, kept: bool = False) -> None:
        """What the model's side says; without it the worst stands. kept: it came from answers that were kept, and so took nothing anew."""
        if kept:
            self.spend = NOTHING
        if kept or usage is None:
            return
        cached = usage.input_tokens_cache_write or 0, usage.input_tokens_cache_read or 0
        usd = self._price.of(usage.input_tokens, usage.output_tokens, *cached) if self._price else 0.0
        self.spend = Spend(usage.total_tokens, usd)


class Cap:
    """What calls to one model may take together. One event loop; calls in flight count with the most that they can take.

    used: what earlier calls took. note: told what is used and held before and after every call, so that it can be kept: whatever ends the
    process, no call is forgotten.
    """

    def __init__(
        self,
        limits: Limits = UNLIMITED.limits,
        used: Spend = NOTHING,
        note: Callable[[Spend], None] = lambda spend: None,
        price: Price | None = None,
    ) -> None:
        self.limits, self.used, self.held, self.price = limits, used, Spend(), price
        self.reached = False
        self._n_held = self._n_failed = 0
        self._answered = False
        self._note = note
        self._freed = anyio.Event()

    @asynccontextmanager
    async def call(self, most_in: int, most_out: int, price: Price | None = None) -> AsyncIterator[Call]:
        """Make one call inside: at most so many tokens read and written. Waits for calls in flight where its worst case would not fit
        beside theirs. Raises CapReached where it would not fit after them either, and CellFailed where the first calls failed and none
        was answered: until one is, no more than those are made, so that a dead endpoint is told soon. price: of another model than the
        cap's.
        """
        price = price or self.price
        worst = MostSpend(most_in + most_out, price.of(most_in, most_out) if price else 0.0)
        while True:
            early = not self._answered and self._n_held + self._n_failed >= FIRST
            if early and not self._n_held:
                raise CellFailed(NONE_ANSWERED)
            if not early and self.limits.hold(self.used.plus(self.held).plus(worst)):
                break
            if not early and not self._n_held:
                self.reached = True
                raise CapReached(f"{CAP_WORDS}: {self._words(self.used)} used, the next call may take {self._words(worst)}")
            await self._freed.wait()
        made = Call(worst, price)
        self._n_held += 1
        self.held = self.held.plus(worst)
        self._note(self.used.plus(self.held))
        try:
            yield made
            self._answered = True
        except BaseException:
            self._n_failed += 1
            raise
        finally:
            self._n_held -= 1
            self.held = self.held.less(worst) if self._n_held else Spend()  # no dust of subtracted dollars
            self.used = self.used.plus(made.spend)
            self._note(self.used.plus(self.held))
            self._freed.set()
            self._freed = anyio.Event()

    def _words(self, spend: Spend) -> str:
        return f"{spend.tokens:,} tokens" if self.limits.usd is None else f"{spend.tokens:,} tokens, {spend.usd:.4f} USD"


SPENT = "spent.json"
"""File of a cell that is not done: what its calls took."""


def read_spent(path: Path) -> Spend:
    """From such a file; nothing where there is none. Raises UserError where it cannot be read."""
    if not path.is_file():
        return Spend()
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        tokens, usd = held["tokens"], held["usd"]
        if type(tokens) is int and isinstance(usd, int | float) and tokens >= 0 and 0 <= usd < math.inf:
            return spend_of(tokens, usd, at_most=bool(held.get("at_most")))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        pass
    hint = "It holds what calls have taken, for caps. Remove it to go on: those calls are then counted as nothing."
    raise UserError("the file cannot be read", where=str(path), hint=hint)


def kept_cap(path: Path, limits: Limits, price: Price | None) -> Cap:
    """A cap that goes on from such a file, and keeps it before and after every call."""
    return Cap(limits, read_spent(path), lambda spend: write_text(path, json.dumps(spend.to_json())), price)


def first_error(errors: Sequence[str]) -> str:
    """What went wrong, in one line: of a call that was made, where there is one."""
    found = next((error for error in errors if NONE_ANSWERED not in error), errors[0] if errors else "?")
    if re.search(r"(?:\n|\\n)Request:", found):  # of a refused call: the request, all of it, and behind it what was said
        said = re.split(r"\n\n|(?<!\\)\\n\\n", found.strip())[-1]
        found = said.removesuffix("')").replace("\\'", "'") if re.match(r"\w+\(['\"]", found) else said
    if retried := re.search(r"RetryError\(<Future .* raised (\w+)>", found):
        return f"no answer after all retries ({retried[1]})"
    return (found.splitlines() or ["?"])[0][:200]


def spent_in(cells_dir: Path, but: Path | None = None) -> Spend:
    """What calls to APIs took in this folder, in cells that are done and in those that are not. but: the .part folder of a cell that
    counts its own."""
    spent = Spend()
    for name in {folder.name.removesuffix(".part") for folder in cells_dir.iterdir()} if cells_dir.is_dir() else ():
        whole, part = cells_dir / name, cells_dir / f"{name}.part"
        for folder in (whole, part, whole):  # another process may be publishing it
            if (folder / CARD).is_file() and (card := _card_spend(folder)) is not None:
                spent = spent.plus(card)
                break
        else:
            spent = spent.plus(read_spent(part / SPENT)) if part != but else spent
    return spent


def _card_spend(folder: Path) -> Spend | None:
    """None where the folder has got another name meanwhile."""
    try:
        held = read_card(folder).spend
    except UserError:
        if (folder / CARD).is_file():
            raise
        return None
    return spend_of(int(held.get("tokens", 0)), held.get("usd", 0.0), at_most=bool(held.get("at_most")))
