"""Preference: how much likelier local weights find a step that keeps a rule than one that breaks it, under each condition.

The log-odds of a pair of next steps after a frozen history is log p(kept step) - log p(broken step), nats, float32 weights. The two
texts differ in length and in how common they are, so a log-odds alone says nothing; the same two texts stand under every condition, so
that a difference of conditions does. It is no rate of breaking, and no ruling comes of it: a model may prefer a step that it would
never take. A model that copies strings prefers what its rule names, whatever the rule says of it, and cannot tell a rule from its
negation: bare - negated is what is beyond copying, as far as the two name the same things in the same places.

Models with local weights take no tools here. The messages of `build_request` become plain ones: a tool call is a line of the
assistant's text, "[read_file PATH]", with its other arguments below; what came of it is the user's next message, "[result]" and the
text; messages of one role in a row are joined. A step is the assistant's reply: its message, and each command in a fence ("```bash").
"""

from __future__ import annotations

import csv
import io
import json
import os
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from inspect_ai.model import ChatMessage

from teachwhy.errors import UserError
from teachwhy.files import canonical_json, derive_seed, hash_text, parse_record, write_text
from teachwhy.models.chat import Message, encode_prompt, encode_text, load_tokenizer
from teachwhy.models.checkpoints import hash_model, load_model, resolve_model
from teachwhy.models.scoring import score_ids
from teachwhy.records import Record
from teachwhy.rules.bind import read_built_in
from teachwhy.rules.checks import Step
from teachwhy.rules.conditions import CONDITIONS, PREFERRED, Condition
from teachwhy.rules.histories import History, fill_slots
from teachwhy.rules.plan import RulesPlan, Tested
from teachwhy.rules.replay import Probe, build_request
from teachwhy.statistics import Floats, crossed_interval

ROWS, ABOUT = "preference.csv", "preference.json"
SCHEMA = "teachwhy.rules.preference/1"
PAIRS = 8
"""Pairs of next steps a history."""
CONTRASTS: tuple[tuple[Condition, Condition], ...] = (
    *((name, "none") for name in CONDITIONS if name != "none"),
    ("reason", "bare"), ("reason", "filler"), ("always", "bare"), ("negated", "bare"), ("bare", "negated"),
)  # fmt: skip
"""First less second. Those against `none` are the changes that a text makes; the last is what is beyond copying."""
HEADINGS = ("line", "check", "histories", *(f"{first} - {second}" for first, second in PREFERRED))
"""Of `preference_rows`."""


class PreferenceRow(Record):
    """One pair under one condition: a row of preference.csv."""

    model: str
    rule: str
    condition: Condition
    wording: int
    history: str
    stratum: str
    pair: int
    logodds: float | None
    """Nats; None where the history did not fit."""
    status: Literal["ok", "overrun"]


class Pair(NamedTuple):
    """Two replies after one history."""

    number: int
    """Among all pairs of the rule."""
    kept: str
    broken: str


class Unit(NamedTuple):
    """One history of one rule: what is measured as a whole."""

    tested: Tested
    history: History
    n_wordings: int
    conditions: tuple[Condition, ...]
    pairs: tuple[Pair, ...]

    @property
    def keys(self) -> list[Key]:
        """Its rows, each once."""
        numbers = range(self.n_wordings)
        return [
            (self.tested.id, name, wording, self.history.id, pair.number)
            for name in self.conditions
            for wording in numbers
            for pair in self.pairs
        ]


Key = tuple[str, Condition, int, str, int]
"""Rule, condition, wording, history, pair."""


class Progress(NamedTuple):
    """Histories of rules that are there, of all that were asked for."""

    model: str
    done: int
    total: int


class Contrast(NamedTuple):
    """Mean log-odds under one condition less that under another, nats."""

    first: Condition
    second: Condition
    estimate: float
    low: float | None
    """None with one history."""
    high: float | None
    p: float | None
    """None under five wordings."""
    by_wording: tuple[float, ...]
    """Means over histories: their range is what wordings do."""
    method: str


class RulePreference(NamedTuple):
    """One rule under one model."""

    tested: Tested
    n_histories: int
    """That all contrasts stand on: measured in every condition and wording."""
    n_asked: int
    overrun: int
    """Histories that did not fit the model's context somewhere; in no contrast."""
    n_wordings: int
    contrasts: tuple[Contrast, ...]
    """Empty where no history was measured."""

    def find(self, first: Condition, second: Condition) -> Contrast | None:
        """The contrast of two conditions, if it was measured."""
        return next((one for one in self.contrasts if (one.first, one.second) == (first, second)), None)


class PreferenceResult(NamedTuple):
    """All rules under one model."""

    model: str
    rules: tuple[RulePreference, ...]
    left_out: tuple[str, ...]
    """Rules without enough pairs of steps."""
    n_pairs: int
    stopped: bool
    """Whether the time was up before all histories were measured."""
    seconds: float
    """Of this call."""

    @property
    def says(self) -> str:
        """How much was measured."""
        got = sorted({one.n_histories for one in self.rules})
        span = f"{got[0]}" if len(got) == 1 else f"{got[0]} to {got[-1]}"
        asked = max(one.n_asked for one in self.rules)
        why = f", then the time was up ({self.seconds:.0f} s)" if self.stopped else ""
        lost = sum(one.overrun for one in self.rules)
        over = f"; {lost} histories did not fit the model's context" if lost else ""
        return f"preference of {self.model}: {span} of {asked} histories a rule, {self.n_pairs} pairs of steps each{why}{over}"


def measure_preference(
    plan: RulesPlan,
    model: str,
    folder: Path,
    *,
    histories: int,
    wordings: int,
    conditions: Sequence[Condition] = CONDITIONS,
    pairs: int = PAIRS,
    seconds: float | None = None,
    listen: Callable[[Progress], None] = lambda progress: None,
) -> PreferenceResult:
    """Measure what is not in folder/preference.csv yet, and sum up what is.

    model: `builtin`, a folder or an id of Hugging Face. histories: the first so many of each rule's confirm stage, which holds its
    strata in turn. wordings: the first so many, or as many as the rule has. seconds: no history is begun after that. The first history
    of every rule comes before the second of any, so that a short time measures all rules.
    Raises UserError for a folder with rows of other rules, texts or weights, and for what cannot be measured; MissingExtra without torch.
    """
    started = time.monotonic()
    if min(histories, wordings, pairs) < 1 or len(set(conditions)) < 2:
        raise UserError("a preference needs a history, a wording, a pair and two conditions at least")
    tested, left_out = _choose_rules(plan, pairs)
    names = tuple(dict.fromkeys(conditions))
    units = [
        Unit(one, one.confirm[place], min(wordings, len(one.wordings)), names, pick_pairs(one, one.confirm[place], pairs))
        for place in range(histories)
        for one in tested
        if place < len(one.confirm)
    ]
    weights = resolve_model(model)
    _keep_about(plan, model, weights, folder)
    held = read_preference(folder / ROWS, model)
    loaded, stopped = None, False
    for done, unit in enumerate(units):
        missing = [key for key in unit.keys if key not in held]
        if missing:
            if stopped := seconds is not None and time.monotonic() - started >= seconds:
                break
            loaded = loaded or _load(weights)
            rows = _measure(plan, model, loaded, unit, missing)
            _append(folder / ROWS, rows)
            held.update((_key_of(row), row) for row in rows)
        listen(Progress(model, done + 1, len(units)))
    rules = tuple(_sum_up(one, [unit for unit in units if unit.tested is one], held) for one in tested)
    return PreferenceResult(model, rules, left_out, pairs, stopped, time.monotonic() - started)


def _choose_rules(plan: RulesPlan, pairs: int) -> tuple[tuple[Tested, ...], tuple[str, ...]]:
    """Rules with enough pairs, and what is said of the others."""
    tested = tuple(one for one in plan.rules if len(pairs_of(one)) >= pairs)
    left_out = tuple(
        f"line {one.bound.rule.line}: {len(pairs_of(one))} pairs of steps, {pairs} are needed" for one in plan.rules if one not in tested
    )
    if not tested:
        hint = "Pairs of a check of your own are its examples, the first under kept: with the first under broken:, and so on."
        raise UserError(f"no rule has {pairs} pairs of steps: " + "; ".join(left_out[:3]), where=str(plan.file), hint=hint)
    return tested, left_out


def pairs_of(tested: Tested) -> list[tuple[Step, Step]]:
    """Steps that keep and that break a rule, slots open: those of a built-in check, else the examples of the user's own."""
    check = tested.bound.check
    assert check is not None, "a tested rule has a check"  # noqa: S101
    known = read_built_in().get(tested.bound.check_name)
    if known:
        return [(Step(pair.kept) if check.approval else Step("", (pair.kept,)), Step("", (pair.broken,))) for pair in known.pairs]
    # no user of a frozen history has agreed to anything
    sides = [[example for example in side if not example.approved] for side in (check.kept, check.broken)]
    steps = [[Step(example.message, (example.bash,) if example.bash else ()) for example in side] for side in sides]
    return list(zip(*steps, strict=False))


def pick_pairs(tested: Tested, history: History, n: int) -> tuple[Pair, ...]:
    """n pairs as replies after a history, the same under every condition and wording; more of them hold fewer.

    Which ones is drawn for each history, so that the spread over histories holds that over pairs, too. Slots take the value that the
    user's last message names, else one that is drawn.
    """
    known = read_built_in().get(tested.bound.check_name)
    rng = random.Random(derive_seed(0, "pairs", history.id))
    values = {name: _named(options, history.ask) or rng.choice(options) for name, options in sorted((known.slots if known else {}).items())}
    steps = pairs_of(tested)
    order = rng.sample(range(len(steps)), len(steps))[:n]
    return tuple(Pair(number, *(fill_slots(say_step(step), values) for step in steps[number])) for number in sorted(order))


def _named(options: Sequence[str], text: str) -> str:
    return next((option for option in options if re.search(rf"(?<!\w){re.escape(option)}(?!\w)", text)), "")


def say_step(step: Step) -> str:
    """A step as an assistant's reply: its message, then each command in a fence."""
    return "\n\n".join([*([step.message] if step.message else []), *(f"```bash\n{command}\n```" for command in step.bash)])


def plain_chat(messages: Iterable[ChatMessage]) -> list[Message]:
    """Messages with tools as plain ones, as the head of this module says; roles alternate after the system's."""
    found: list[Message] = []
    for message in messages:
        if message.role == "tool":
            role, text = "user", f"[result]\n{message.text}"
        else:
            calls = [_say_call(call) for call in getattr(message, "tool_calls", None) or ()]
            role, text = message.role, "\n".join([*([message.text] if message.text else []), *calls])
        if found and found[-1]["role"] == role:
            found[-1]["content"] += f"\n\n{text}"
        else:
            found.append({"role": role, "content": text})
    return found


def _say_call(call: Any) -> str:
    rest = [f"{name}:\n{value}" for name, value in call.arguments.items() if name != "path"]
    return "\n".join([f"[{call.function} {call.arguments.get('path', '')}".rstrip() + "]", *rest])


class _Loaded(NamedTuple):
    """Weights at work."""

    model: Any
    tokenizer: Any
    context: int
    """Tokens that fit."""


def _load(weights: Path) -> _Loaded:
    tokenizer = load_tokenizer(weights)
    model = load_model(weights, dtype="float32")
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**20
    return _Loaded(model, tokenizer, int(context))


def _measure(plan: RulesPlan, model: str, loaded: _Loaded, unit: Unit, missing: Sequence[Key]) -> list[PreferenceRow]:
    """The missing rows of one history. Equal prefixes, as of `none` in all wordings, are run once."""
    places = dict.fromkeys((name, wording) for _, name, wording, _, _ in missing)
    prefixes = {place: tuple(encode_prompt(loaded.tokenizer, _render(plan, unit, *place))) for place in places}
    texts = [encode_text(loaded.tokenizer, text) for pair in unit.pairs for text in (pair.kept, pair.broken)]
    longest = max(map(len, texts))
    fitting = list(dict.fromkeys(prefix for prefix in prefixes.values() if len(prefix) + longest <= loaded.context))
    scores = score_ids(loaded.model, fitting, [texts] * len(fitting)) if fitting else []
    logodds = {
        prefix: {pair.number: sum(found[2 * place]) - sum(found[2 * place + 1]) for place, pair in enumerate(unit.pairs)}
        for prefix, found in zip(fitting, scores, strict=True)
    }
    return [
        PreferenceRow(
            model=model, rule=rule, condition=name, wording=wording, history=history, stratum=unit.history.stratum, pair=pair,
            logodds=round(logodds[prefix][pair], 5) if prefix in logodds else None, status="ok" if prefix in logodds else "overrun",
        )
        for rule, name, wording, history, pair in missing
        for prefix in (prefixes[name, wording],)
    ]  # fmt: skip


def _render(plan: RulesPlan, unit: Unit, condition: Condition, wording: int) -> list[Message]:
    one = unit.tested
    assert one.bound.check is not None, "a tested rule has a check"  # noqa: S101
    probe = Probe(one.bound.rule, one.bound.check, condition, one.wordings[wording], wording, unit.history)
    return plain_chat(build_request(probe, plan.text, plan.name))


# Rows on the disk: whole lines alone count, and what is there is not measured again.

COLUMNS = tuple(PreferenceRow.model_fields)


def _keep_about(plan: RulesPlan, model: str, weights: Path, folder: Path) -> None:
    """preference.json: which rules, texts and weights the rows are of. Raises UserError where they are others."""
    path = folder / ABOUT
    texts = [[one.id, [word.model_dump() for word in one.wordings], repr(one.confirm), repr(pairs_of(one))] for one in plan.rules]
    key, weigh = hash_text(canonical_json([plan.sha256, texts])), hash_model(weights)
    held: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"schema": SCHEMA, "key": key, "models": {}}
    if other := next((name for name in ("plan.json", "study.yaml", "cells") if (folder / name).exists()), ""):
        says = "the folder holds a run of rules or of a study, whose report would be overwritten"
        raise UserError(says, where=str(folder / other), hint="Name another folder with --output.")
    strange = not path.is_file() and (folder / ROWS).is_file()
    if strange or held["key"] != key or held["models"].get(model, weigh) != weigh:
        hint = "Name another folder."
        raise UserError("the folder holds a preference of other rules, texts or weights", where=str(folder), hint=hint)
    if model not in held["models"]:
        held["models"][model] = weigh
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(held, indent=2) + "\n")


def read_preference(path: Path, model: str) -> dict[Key, PreferenceRow]:
    """A model's rows by key. A last line that was cut off is cut from the file."""
    if not path.is_file():
        return {}
    held = path.read_bytes()
    whole = held[: held.rfind(b"\n") + 1]
    if len(whole) < len(held):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    rows = csv.DictReader(io.StringIO(whole.decode("utf-8")))
    read = (parse_record(PreferenceRow, {**row, "logodds": row["logodds"] or None}, where=str(path)) for row in rows)
    return {_key_of(row): row for row in read if row.model == model}


def _key_of(row: PreferenceRow) -> Key:
    return row.rule, row.condition, row.wording, row.history, row.pair


def _append(path: Path, rows: Sequence[PreferenceRow]) -> None:
    """One write for the rows of a history, on the disk before the next history begins."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if not path.is_file() or not path.stat().st_size:
        writer.writerow(COLUMNS)
    writer.writerows([getattr(row, name) for name in COLUMNS] for row in rows)
    with path.open("ab") as file:
        file.write(text.getvalue().encode())
        file.flush()
        os.fsync(file.fileno())


# What is said of the rows.


def _sum_up(tested: Tested, units: Sequence[Unit], held: Mapping[Key, PreferenceRow]) -> RulePreference:
    """A rule's contrasts, over histories that are there whole: every condition stands on the same histories, wordings and pairs."""
    measured = [unit for unit in units if all(key in held for key in unit.keys)]
    fitting = [unit for unit in measured if all(held[key].status == "ok" for key in unit.keys)]
    tables = {name: _table(name, fitting, held) for name in units[0].conditions} if fitting else {}
    contrasts = tuple(contrast(*pair, tables) for pair in CONTRASTS if set(pair) <= set(tables))
    return RulePreference(tested, len(fitting), len(units), len(measured) - len(fitting), units[0].n_wordings, contrasts)


def _table(condition: Condition, units: Sequence[Unit], held: Mapping[Key, PreferenceRow]) -> Floats:
    """n_wordings x n_histories: mean log-odds over pairs, nats."""
    found = np.empty((units[0].n_wordings, len(units)))
    for place, unit in enumerate(units):
        for wording in range(unit.n_wordings):
            values = [held[key].logodds for key in unit.keys if key[1] == condition and key[2] == wording]
            found[wording, place] = np.mean([value for value in values if value is not None])
    return found


def contrast(first: Condition, second: Condition, tables: Mapping[Condition, Floats]) -> Contrast:
    """First less second, paired by wording and history. tables: by condition, n_wordings x n_histories, nats.

    Wordings take the place of seeds and histories that of scenarios in `crossed_interval`: both are random, and the claim is about
    other wordings and other histories. One history gives no interval, one wording none that speaks of other wordings.
    """
    table = tables[first] - tables[second]
    by_wording = tuple(float(value) for value in table.mean(axis=1))
    if table.shape[1] < 2:
        return Contrast(first, second, float(table.mean()), None, None, None, by_wording, "one history: no interval")
    found = crossed_interval(table)
    method = found.method.replace("scenarios", "histories").replace("seed", "wording")
    return Contrast(first, second, found.estimate, found.low, found.high, found.p, by_wording, method)


def preference_json(result: PreferenceResult) -> dict[str, Any]:
    """The result as plain values; contrasts in nats, the last of each rule what is beyond copying."""
    return {
        "schema": SCHEMA,
        "model": result.model,
        "says": result.says,
        "n_pairs": result.n_pairs,
        "stopped": result.stopped,
        "seconds": round(result.seconds, 1),
        "left_out": list(result.left_out),
        "rules": [
            {
                "id": one.tested.id,
                "line": one.tested.bound.rule.line,
                "text": one.tested.bound.rule.bare,
                "check": one.tested.bound.check_name,
                "n_histories": one.n_histories,
                "n_asked": one.n_asked,
                "overrun": one.overrun,
                "n_wordings": one.n_wordings,
                "contrasts": [{**found._asdict(), "by_wording": list(found.by_wording)} for found in one.contrasts],
            }
            for one in result.rules
        ],
    }


def preference_rows(result: PreferenceResult) -> list[tuple[str, ...]]:
    """Rows under `HEADINGS`, one a rule; differences in nats with their 95 % intervals, empty where nothing was measured."""
    return [
        (
            str(one.tested.bound.rule.line),
            one.tested.bound.check_name,
            f"{one.n_histories}/{one.n_asked}",
            *(_say_contrast(one.find(first, second)) for first, second in PREFERRED),
        )
        for one in result.rules
    ]


def _say_contrast(found: Contrast | None) -> str:
    if found is None:
        return ""
    interval = "" if found.low is None or found.high is None else f" ({found.low:+.2f} to {found.high:+.2f})"
    return f"{found.estimate:+.2f}{interval}"
