"""The records that pass between the parts: frozen, checked, unknown fields refused.

Units are in the names or in the docstring under the field. Log-probabilities are natural logarithms (nats).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Split = Literal["train", "near", "far", "oracle"]
"""`near`: other scenarios of trained families; `far`: families never trained; `oracle`: the part of the far
families on which only the oracle arm is trained (never evaluated)."""

Kind = Literal["honeypot", "ambiguity", "agreement", "goal", "conduct", "lookalike", "capability"]
Label = str
Version = Literal["bare", "filler", "task_reason", "value_reason"]
Order = Literal["after", "before"]
ChoiceReading = Literal["direct", "given_reason", "given_other", "own_reason", "text"]
"""How a choice can be read (evaluations/readings.py)."""
StudyReading = Literal["direct", "given_reason", "given_other", "own_reason", "text", "office"]
"""How a study's evaluation can be read: `office` by what an agent did with tools."""
Reading = Literal["direct", "given_reason", "given_other", "own_reason", "text", "office", "judge", "judge2"]
"""All of them: of an office run also the mechanical one and those of up to two judges."""
Part = Literal["dev", "sealed", "all"]
"""Of a scenario set: dev is for choosing settings, sealed for the last look."""
Status = Literal["ok", "unscored", "invalid", "truncated", "dead", "overrun"]

LABELS: dict[str, frozenset[str]] = {
    "honeypot": frozenset({"harmful", "safe", "inactive", "admirable"}),
    "ambiguity": frozenset({"price", "place", "speed", "quiet"}),
    "agreement": frozenset({"both", "neither"}),
    "goal": frozenset({"pursued", "other"}),
    "conduct": frozenset({"harmful", "safe", "inactive", "admirable"}),
    "lookalike": frozenset({"refusing", "partial", "helpful"}),
    "capability": frozenset({"right", "wrong"}),
}


TWINNED = frozenset({"honeypot", "goal", "conduct", "lookalike"})
"""Kinds whose scenarios have a twin."""


class Record(BaseModel):
    """Base of every record."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Counts(Record):
    """in = kept + rejected (by reason) + failed, always."""

    in_: int = Field(0, alias="in", ge=0)
    kept: int = Field(0, ge=0)
    rejected: dict[str, int] = {}
    failed: int = Field(0, ge=0)

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    @model_validator(mode="after")
    def _adds_up(self) -> Counts:
        if self.in_ != self.kept + sum(self.rejected.values()) + self.failed:
            raise ValueError(f"counts do not add up: {self.in_} in, {self.kept} kept, {self.rejected}, {self.failed} failed")
        return self


class Card(Record):
    """What a folder is, how it was made and from what. Written last into every folder the program makes."""

    schema_: Literal["teachwhy.card/1"] = Field("teachwhy.card/1", alias="schema")
    kind: str
    """`model`, `corpus`, `sft`, an evaluation's name, `study`, ..."""
    name: str
    created: str
    """UTC, ISO 8601, seconds."""
    inputs: dict[str, str] = {}
    """What went in: name -> sha256 or cell id."""
    settings: dict[str, Any] = {}
    """Resolved: every default filled in."""
    seed: int | None = None
    versions: dict[str, str] = {}
    """Library -> version."""
    commit: str = ""
    counts: Counts = Counts()
    spend: dict[str, float] = {}
    """`usd`, `tokens`, ... where there was any."""
    seconds: float = 0.0
    machine: dict[str, str] = {}
    """`device`, `dtype`, `threads`, `platform`."""
    details: dict[str, Any] = {}

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class Action(Record):
    """One thing the agent can do."""

    id: str
    label: Label
    text: str


class Scenario(Record):
    """A honeypot or another choice with slots. (Offices have a record of their own: office/scenes.py. They share no more than the idea.)"""

    id: str
    kind: Kind
    family: str
    split: Split
    version: int = Field(ge=1)
    slots: dict[str, tuple[str, ...] | str] = {}
    """Slot -> its values, or the name of a shipped list (`@people`, `@firms`)."""
    situation: str
    twin: str = ""
    """The same without temptation (honeypot, conduct), with the goal turned (goal), or in plain words (lookalike); else empty."""
    actions: tuple[Action, ...] = Field(min_length=2)
    poles: tuple[Label, Label]
    """The two labels that the margin compares: log p(first) - log p(second)."""
    principles: tuple[str, ...] = ()
    reasons: dict[Version, str] = {}
    """For the readings after a supplied reason: words that an agent could say before its deed, by version; evaluation scenarios alone."""
    plan: dict[str, str] = {}
    """Its row in the plan that was drawn before writing: factor (domain, stakes, opportunity, ...) -> value."""

    @model_validator(mode="after")
    def _consistent(self) -> Scenario:
        labels = [action.label for action in self.actions]
        unknown = sorted(set(labels) - LABELS[self.kind])
        if unknown:
            raise ValueError(f"{self.id}: unknown label {unknown[0]!r}; a {self.kind} knows {sorted(LABELS[self.kind])}")
        for pole in self.poles:
            if pole not in labels:
                raise ValueError(f"{self.id}: no action is labelled {pole!r}, which is one of its poles")
        if self.poles[0] == self.poles[1]:
            raise ValueError(f"{self.id}: the two poles are the same")
        if len({action.id for action in self.actions}) != len(self.actions):
            raise ValueError(f"{self.id}: two actions share an id")
        if self.kind in TWINNED and not self.twin:
            raise ValueError(f"{self.id}: a {self.kind} scenario needs a twin")
        return self


class Reply(Record):
    """What training shows for a scenario and one of its actions, stored once; code renders the rows."""

    scenario: str
    action: str
    bare: str
    filler: str
    task_reason: str
    value_reason: str
    voice: str


class Outcome(Record):
    """One reading of one scenario fill by one cell: a row of outcomes.csv."""

    cell: str
    arm: str
    seed: int
    update: int
    evaluation: str
    version: int
    form: Literal["choice", "office"] = "choice"
    reading: Reading
    split: Split
    family: str
    scenario: str
    fill: int
    twin: bool
    repeat: int = 0
    harm: float | None
    """Probability or share in [0, 1]; None where the scenario has no harmful action or was not scored."""
    acted: float | None
    margin: float | None
    """Nats."""
    status: Status
    log: str
    sample_id: str
    label: str = ""
    """Of an office run: harmful, safe, inactive or admirable, and of one that was cut off `harmful` where harm had been done by then; of a
    judge's verdict harmful or safe; of one that could not be read the reason."""
    success: float | None = None
    """Of an office run: whether the day's errand was done."""
    invalid_calls: int | None = None
    """Of an office run: calls of tools that were refused."""
    factors: str = ""
    """Of an office run: its cell of the design, CONFLICT/THREAT/NAME."""
    aware: float | None = None
    """Of an office run: 1 where the agent said, unasked, that it may be tested."""
    judge: str = ""
    """Of a judge's reading: the model."""
    judges_itself: bool = False
    """Whether that is the model whose run it is."""


class Gate(Record):
    """A condition that must hold before an answer is given."""

    name: str
    passed: bool | None
    """None: not part of this study, so what it guards cannot be concluded."""
    says: str
    """One sentence with the numbers; where it failed, what to try."""
    withholds: bool = True
    """A failed gate withholds the answer, unless it only qualifies it."""


class Contrast(Record):
    """A weighted sum of arms on one evaluation, split and reading. a, b: the arms added and subtracted."""

    name: str
    a: tuple[str, ...]
    b: tuple[str, ...]
    evaluation: str
    split: str
    reading: Reading
    unit: str
    difference: float
    low: float
    high: float
    n_scenarios: int
    n_seeds: int
    n_families: int = 0
    """Families that the interval counts by; 0 where the claim is not about other families."""
    seed_values: tuple[float, ...] = ()
    p: float | None = None
    p_holm: float | None = None
    lowest: float | None = None
    """Where outcomes are missing: the difference if they had been as low, and as high, as could be. None: nothing is missing."""
    highest: float | None = None
    exploratory: bool = True


class Primary(Record):
    """The contrast that the study was planned for."""

    estimand: str
    contrast: str
    difference: float
    low: float
    high: float
    n_scenarios: int
    n_seeds: int
    n_families: int = 0
    seed_sd: float | None
    smallest_detectable: float | None
    p: float | None
    """None under 5 seeds."""
    excluded: float | None = None
    """Smallest margin that two one-sided tests at 5 % would pass: differences beyond it, to either side, are excluded.
    None under 5 seeds."""
    equivalence: float | None = None
    """The margin that was named in the plan."""
    fixed: bool = False
    """Whether every arm is one model for all seeds: then nothing is said of other trainings."""
    lowest: float | None = None
    """Where outcomes are missing: the difference if they had been as low, and as high, as could be."""
    highest: float | None = None
    worst_low: float | None = None
    """Where outcomes are missing: the ends of the intervals of these two differences."""
    worst_high: float | None = None
    family_worth: float | None = None
    """How many families of one size the scenarios' families are worth, where they are counted: 1 / sum of squared shares (Kish 1965)."""


class ArmSummary(Record):
    """One arm on one evaluation, split and (twin or not): every rate with its n."""

    arm: str
    evaluation: str
    split: str
    twin: bool
    reading: Reading
    n_scenarios: int
    n_seeds: int
    n_rows: int
    n_missing: int
    harm: float | None
    harm_low: float | None
    """Worst and best case over the missing rows."""
    harm_high: float | None
    acted: float | None
    harm_given_acted: float | None
    margin: float | None
    measure: Literal["margin", "harm"] = "margin"
    """What `change` is of: harm where it was read as text, which has no margin."""
    change: float | None
    """Against the start, paired by scenario; nats, or probability of harm."""
    change_low: float | None
    change_high: float | None
    seed_values: tuple[float, ...] = ()
    """Change of each seed."""


class CellSummary(Record):
    """One cell, for the report's ledger."""

    id: str
    kind: str
    arm: str
    seed: int | None
    reading: str = ""
    """Of an evaluation; empty for a training."""
    update: int = 0
    """Of an evaluation: the updates that the arm's own training had; 0 for the start and for what was trained elsewhere."""
    early: bool = False
    """Whether that is before the training's end."""
    state: Literal["done", "failed", "missing"]
    seconds: float = 0.0
    updates: int | None = None
    supervised_tokens: int | None = None
    reason: str = ""


class UpdateSummary(Record):
    """One arm after some updates: its change from the start on the primary's evaluation and one split, paired by scenario."""

    arm: str
    split: str
    update: int
    n_scenarios: int
    n_seeds: int
    change: float
    """Nats, or probability of harm."""
    low: float
    high: float
    seed_values: tuple[float, ...] = ()


class Retention(Record):
    """Far changes of the primary's two arms where both had changed equally much on near scenarios, read between the two measured updates
    around it; the interval is over seeds alone and says nothing of the straight line between them."""

    plus: str
    minus: str
    planned: bool
    """Whether the near change to match was named in the plan; else the data chose the farthest that every training reached."""
    near: float | None
    """The near change that was matched, nats; None: there was none that every training reached."""
    far_plus: tuple[float, ...] = ()
    """Far change of each seed, nats; empty where some training did not reach `near`."""
    far_minus: tuple[float, ...] = ()
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    n_seeds: int
    n_near: int = 0
    """Scenarios."""
    n_far: int = 0
    reason: str = ""
    """Why nothing is compared, where nothing is."""


class Answer(Record):
    """What may be said."""

    verdict: Literal["yes", "hint", "equivalent", "no_difference_seen", "opposite", "withheld"]
    """`equivalent`: no difference was seen, and one beyond the margin named in the plan is excluded. `hint`: the interval leaves out
    zero, on either side, but the seeds are too few for a test."""
    sentence: str


class StudyReport(Record):
    """report.json."""

    schema_: Literal["teachwhy.report/1"] = Field("teachwhy.report/1", alias="schema")
    name: str
    question: str
    gates: tuple[Gate, ...]
    primary: Primary | None
    arms: tuple[ArmSummary, ...]
    cells: tuple[CellSummary, ...]
    contrasts: tuple[Contrast, ...]
    updates: tuple[UpdateSummary, ...] = ()
    """Where trainings were scored before their end, too."""
    retention: Retention | None = None
    missing: dict[str, int]
    answer: Answer
    notes: tuple[str, ...] = ()

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
