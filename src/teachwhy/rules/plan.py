"""What a run of rules asks: which rules, of which file, under which conditions, in which histories; and what that takes."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from teachwhy.budget import estimate_tokens
from teachwhy.errors import UserError
from teachwhy.files import canonical_json, derive_seed, hash_text
from teachwhy.models.builtin import ALIASES
from teachwhy.models.roles import check_subject
from teachwhy.records import Record
from teachwhy.rules.bind import Bound, BuiltIn, Kept, KeptRule, Wording, bind_rules, fold, read_built_in, read_kept
from teachwhy.rules.conditions import ALLOWED, Condition, count_lengths, find_span, wordings_of
from teachwhy.rules.histories import DROPPED, PLACE, History, make_histories
from teachwhy.rules.listing import HOST, collect_rules, read_files
from teachwhy.rules.read import project_of
from teachwhy.rules.replay import MAX_NEW, Probe, build_request

SCREEN: tuple[Condition, ...] = ("none", "bare")
CONFIRM: tuple[Condition, ...] = ("bare", "filler", "reason")
SCREENED = 40
"""Steps a rule and condition in the screen, at least."""
ROUNDS = 10
SESSIONS = 400
"""Steps a rule and condition in the confirm stage, at most."""
DROPPED_STEPS = 20
"""Steps of a rule that broke, after a compaction that dropped its text."""
Stage = Literal["screen", "confirm", "dropped"]


class Settings(Record):
    """What decides which steps are asked for."""

    screen: int = SCREENED
    sessions: int = SESSIONS
    seed: int = 0
    tolerance: float = 0.02
    also: tuple[Condition, ...] = ()
    """Conditions of the confirm stage beside bare, filler and reason."""
    recall: int = 10
    """Broken steps of a rule and condition, and as many kept ones, at which the model is asked which rules bear on them."""
    stop: Literal["looks", "any"] = "looks"
    """Planned looks, or intervals by betting that hold at any moment."""


class Tested(NamedTuple):
    """A rule with all that a run needs of it."""

    bound: Bound
    wordings: tuple[Wording, ...]
    screen: tuple[History, ...]
    confirm: tuple[History, ...]
    destructive: bool
    dropped: tuple[History, ...] = ()
    drafted: bool = False
    """Its reasons are a model's drafts."""

    @property
    def id(self) -> str:
        """The rule's."""
        return self.bound.rule.id


class RulesPlan(NamedTuple):
    """A run before anything is asked."""

    file: Path
    name: str
    """The file's, as the agent sees it."""
    text: str
    sha256: str
    models: tuple[str, ...]
    settings: Settings
    rules: tuple[Tested, ...]
    left_out: tuple[str, ...]
    """Rules that are not tested, and why."""
    apart: tuple[str, ...]
    """What to know of a rule's texts: drafts, a tautology for a filler, a filler and a reason that differ by more tokens than allowed."""

    @property
    def key(self) -> str:
        """What a run's folder belongs to."""
        histories = [[one.screen, one.confirm, one.dropped, one.destructive] for one in self.rules]
        told = hash_text(repr(histories))
        return hash_text(canonical_json([self.checks_key, told]))

    @property
    def checks_key(self) -> str:
        """What a run's advice belongs to: rules, wordings and checks, without the histories."""
        rules = [(one.id, [word.model_dump() for word in one.wordings], one.bound.check) for one in self.rules]
        held = [(key, words, check.model_dump() if check else None) for key, words, check in rules]
        return hash_text(canonical_json([self.sha256, list(self.models), self.settings.model_dump(), held]))

    def probes(self, stage: Stage, number: int, rules: Sequence[str]) -> list[Probe]:
        """Steps of the screen, of a round of the confirm stage (from 0) for the rules that are still open, or after a compaction that
        dropped the rule, where all conditions ask the same."""
        tested = [one for one in self.rules if one.id in rules]
        if stage == "dropped":
            return [probe for one in tested for probe in _spread(one, one.dropped, ("bare",), range(DROPPED_STEPS))]
        if stage == "screen":
            return [probe for one in tested for probe in _spread(one, one.screen, SCREEN, range(self.settings.screen))]
        start, end = (round(self.settings.sessions * part / ROUNDS) for part in (number, number + 1))
        return [probe for one in tested for probe in _spread(one, one.confirm, self.confirmed, range(start, end))]

    @property
    def drafted(self) -> list[str]:
        """Rules whose reasons are drafts."""
        return [one.id for one in self.rules if one.drafted]

    @property
    def confirmed(self) -> tuple[Condition, ...]:
        """Conditions of the confirm stage."""
        return (*CONFIRM, *self.settings.also)

    def size(self) -> Size:
        """Calls and tokens, at least (the screen) and at most, for each model."""
        screen = self.probes("screen", 0, [one.id for one in self.rules])
        some = [probe for one in self.rules for probe in _spread(one, one.confirm, self.confirmed, range(8))]
        each = [sum(self._tokens(probe) for probe in group) / max(1, len(group)) for group in (screen, some)]
        n_after = len(self.rules) * (DROPPED_STEPS + 4 * self.settings.recall)  # recall: broken and kept, bare and with the reason
        n_confirm = len(self.rules) * len(self.confirmed) * self.settings.sessions + n_after
        return Size(len(screen), len(screen) + n_confirm, round(len(screen) * each[0]), round(len(screen) * each[0] + n_confirm * each[1]))

    def _tokens(self, probe: Probe) -> int:
        return estimate_tokens("\n".join(message.text for message in build_request(probe, self.text, self.name)), MAX_NEW // 2)


class Size(NamedTuple):
    """Of a run, for each model."""

    calls_least: int
    calls_most: int
    tokens_least: int
    tokens_most: int


def _spread(one: Tested, histories: Sequence[History], conditions: Sequence[Condition], numbers: range) -> list[Probe]:
    """Steps by number: histories in turn, then wordings in turn; every condition meets the same."""
    found = []
    for number in numbers:
        lap, place = divmod(number, len(histories))
        wording = (lap + place) % len(one.wordings)
        check = one.bound.check
        assert check is not None, "a tested rule has a check"  # noqa: S101
        found += [Probe(one.bound.rule, check, name, one.wordings[wording], wording, histories[place], number) for name in conditions]
    return found


def plan_rules(file: Path | None, models: Sequence[str], settings: Settings, *, asks: bool = True) -> RulesPlan:
    """Everything that can be refused is refused here. file: None: the nearest; `builtin`: the built-in rules in an invented project's file.

    asks: whether models will be asked by name. Raises UserError.
    """
    local = next((one for one in models if one in ALIASES or one.startswith("teachwhy/")), None)
    if local:
        hint = "What local weights prefer: teachwhy rules prefer. Or serve them: vLLM, and --model vllm/... or openai-api/..."
        raise UserError(f"{local} takes no tools here, and the built-in model is too small to judge a file", where="--model", hint=hint)
    if asks and not models:
        raise UserError("a run needs a model", where="--model", hint="For instance: --model openai/gpt-5-mini; any model of Inspect.")
    if twice := [model for model in dict.fromkeys(models) if list(models).count(model) > 1]:
        raise UserError(f"the model {twice[0]} is named twice", where="--model", hint="Name each once.")
    for model in models:
        check_subject(model)
    for name, steps in (("--screen", settings.screen), ("--sessions", settings.sessions)):
        if steps < SCREENED:
            raise UserError(f"at least {SCREENED} steps a condition are needed, not {steps}", where=name)
    if not 0 < settings.tolerance < 1:
        raise UserError("a tolerance lies between 0 and 1", where="--tolerate", hint="2 % is 0.02.")
    files = read_files(file)
    read = files[0]
    path = HOST if Path(read.path) == HOST else file or Path(read.path)
    kept = read_kept(project_of(path)) if path != HOST else Kept()
    own = {rule.id: rule for rule in kept.rules}
    built_in = read_built_in()
    text = path.read_text(encoding="utf-8-sig")
    rules, left_out, apart = [], [], []
    for bound in bind_rules(collect_rules(files, kept), kept):
        place = f"line {bound.rule.line}: {bound.rule.bare[:60]}"
        if bound.rule.file != read.path:
            left_out.append(f"{bound.rule.file}, {place}: {_say_elsewhere(bound)}")
            continue
        if bound.check is None or bound.rule.note:
            left_out.append(f"{place}: {bound.rule.note or 'no check'}")
            continue
        try:
            find_span(text, bound.rule)
            tested = _prepare(bound, own.get(bound.rule.id), built_in, settings.seed)
            _refuse_copies(tested, text, path.name, (*CONFIRM, "none", *settings.also))
            if any(model.startswith("scripted/") for model in models):
                _refuse_unscripted(tested, built_in)
        except UserError as error:
            left_out.append(f"{place}: {error.what}")
            continue
        rules.append(tested)
        if tested.drafted:
            apart.append(
                f"{place}: its reasons are drafts by {own[bound.rule.id].drafts_by or 'a model'}, and nobody said that they are true"
            )
        elif not bound.reason and path != HOST:
            apart.append(f"{place}: its reason is teachwhy's, true in an invented project; yours goes into .teachwhy/rules.yaml")
        if any(word.filler == word.tautology for word in tested.wordings):
            apart.append(f"{place}: it has no filler in .teachwhy/rules.yaml; a tautology stands in for it")
        for word in tested.wordings:
            if (lengths := count_lengths(word)).apart > ALLOWED:
                says = f"filler, reason and always differ by {lengths.apart} tokens ({lengths.tokenizer}), {ALLOWED} are allowed"
                apart.append(f"{place}: {says}")
    if not rules:
        hint = "Type: teachwhy rules read; or test the built-in rules: teachwhy rules run builtin --model MODEL"
        why = "; ".join(left_out[:3]) or "no line reads like a rule"
        raise UserError(f"no rule of this file can be tested: {why}", where=str(path), hint=hint)
    return RulesPlan(path, path.name, text, read.sha256, tuple(models), settings, tuple(rules), tuple(left_out), tuple(apart))


def _say_elsewhere(bound: Bound) -> str:
    """Why a rule of an import, or of another rule file, is not tested: one file is changed at a time."""
    if bound.check is None or bound.rule.note:
        return bound.rule.note or "no check"
    place = Path(bound.rule.file)
    near = place.relative_to(Path.cwd()) if place.is_relative_to(Path.cwd()) else place
    return f"stands in {near}: type teachwhy rules run {shlex.quote(str(near))}"


def _refuse_copies(tested: Tested, text: str, name: str, conditions: Sequence[Condition]) -> None:
    """Raise UserError where the file says the rule, or a rule that begins like it, a second time: taking one away leaves the other."""
    history = tested.screen[0]
    for condition in conditions:
        for wording in tested.wordings:
            try:
                build_request(Probe(tested.bound.rule, tested.bound.check, condition, wording, 0, history), text, name)  # type: ignore[arg-type]
            except UserError:
                says = "its words stand in the file a second time, so no condition can be made: leave one of the two"
                raise UserError(says, where=name) from None


def _refuse_unscripted(tested: Tested, built_in: dict[str, BuiltIn]) -> None:
    """Raise UserError for a rule whose words or jobs a scripted model does not know."""
    known = built_in.get(tested.bound.check_name)
    texts = {(word.bare, word.reason) for word in known.wordings} if known else set()
    jobs = {PLACE.split(job.ask)[0] for job in known.jobs} if known else set()
    asked = {history.ask for history in (*tested.screen, *tested.confirm)}
    if {(word.bare, word.reason) for word in tested.wordings} <= texts and all(any(ask.startswith(job) for job in jobs) for ask in asked):
        return
    hint = "Try it on: teachwhy rules run builtin"
    raise UserError("a scripted model knows the built-in rules in their own words alone", where="--model", hint=hint)


def _prepare(bound: Bound, own: KeptRule | None, built_in: dict[str, BuiltIn], seed: int) -> Tested:
    known = built_in.get(bound.check_name)
    jobs = own.jobs if own and own.jobs else tuple(job.ask for job in known.jobs) if known else ()
    slots = dict(known.slots) if known else {}
    destructive = bool((own and own.destructive) or (known and known.destructive))
    wordings = tuple(wordings_of(bound, built_in, filler=fold(own.filler) if own else "", drafts=own.drafts if own else ()))
    drafted = bool(own and own.drafts and not bound.reason and not known)
    screen, confirm = (tuple(make_histories(bound.rule.id, jobs, slots, seed=derive_seed(seed, stage))) for stage in ("screen", "confirm"))
    dropped = make_histories(bound.rule.id, jobs, slots, n=DROPPED_STEPS, seed=derive_seed(seed, "dropped"), strata=(DROPPED,))
    return Tested(bound, wordings, screen, confirm, destructive, tuple(dropped), drafted)
