"""What a study's part of the page shows, gathered by the run and drawn by `page`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from teachwhy.judges.labels import Rate
from teachwhy.records import Outcome, StudyReport


class FigureRow(TypedDict):
    """One arm on one split: change of margin from the start, nats."""

    arm: str
    split: str
    change: float
    low: float
    high: float
    seed_values: Sequence[float]


@dataclass(frozen=True)
class OptionView:
    """One action of a shown scenario. shares: arm -> probability in [0, 1]. log_probs: arm -> summed log-probability, nats."""

    label: str
    text: str
    shares: Mapping[str, float]
    log_probs: Mapping[str, float]


@dataclass(frozen=True)
class TranscriptView:
    """One evaluation item and what each arm makes of it. n: what the numbers are over."""

    title: str
    scenario: str
    options: Sequence[OptionView]
    n: str = "one scenario"
    said: Mapping[str, str] = field(default_factory=dict)
    """Arm -> what it wrote, where the reading is a text."""


@dataclass(frozen=True)
class LedgerRow:
    """What one arm and seed was trained on."""

    arm: str
    seed: int
    updates: int
    rows: int
    prompt_tokens: int
    supervised_tokens: int


@dataclass(frozen=True)
class DataCard:
    """A corpus, in one line."""

    name: str
    rows: int
    tokens: int
    sha256: str
    licence: str
    about: str


@dataclass(frozen=True)
class MissingRow:
    """Outcomes that were not scored: n of total, with their status."""

    arm: str
    seed: int
    evaluation: str
    split: str
    status: str
    n: int
    total: int
    update: int = 0
    """Of the arm's own training."""


@dataclass(frozen=True)
class BagRow:
    """What a bag of words, fitted to an arm's rows, makes of the scenarios of a split: share of them in which the first pole's action is
    the likelier one, the mean difference (nats a word), and their number."""

    arm: str
    split: str
    share: float
    nats: float
    n: int


@dataclass(frozen=True)
class DisputeView:
    """A run that the mechanical reading and a judge read differently. reads: who -> what it read, and its evidence."""

    title: str
    reads: Mapping[str, str]
    deeds: str


@dataclass(frozen=True)
class OfficeView:
    """Office runs, with their judges' readings."""

    rows: Sequence[Outcome]
    own_judges: Sequence[str] = ()
    """Judges that read runs of their own."""
    rates: Sequence[Rate] = ()
    """Corrected by a person's labels, where there are some."""
    disputes: Sequence[DisputeView] = ()


@dataclass(frozen=True)
class StudyView:
    """All that a study's part of the page shows."""

    report: StudyReport
    poles: tuple[str, str]
    """The two labels of the margin: positive is towards the first."""
    figure_rows: Sequence[FigureRow]
    """In the study's order of arms."""
    split_labels: Mapping[str, str]
    """Split -> its words, in order: the figure's panels."""
    against_bare: str
    """Name of the contrast of reason and bare; empty: not in this study."""
    against_filler: str
    """Name of the contrast of reason and filler; empty: not in this study."""
    transcripts: Sequence[TranscriptView]
    ledger: Sequence[LedgerRow]
    data_cards: Sequence[DataCard]
    missing_rows: Sequence[MissingRow]
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    hashes: Mapping[str, str]
    minutes: float
    model_about: str
    plan: Mapping[str, str]
    """primary: the contrast planned; sha256: the plan's hash; made_at: UTC."""
    commands: str
    """What to type to run it again."""
    done: Sequence[tuple[str, str, str]] = ()
    """(what, planned, done)."""
    machine: Mapping[str, str] = field(default_factory=dict)
    halves: Mapping[str, str] = field(default_factory=dict)
    """Evaluation -> which half of its scenarios it is over, where it has two."""
    measure: str = "margin"
    """Of the primary contrast: margin or harm."""
    bag_rows: Sequence[BagRow] = ()
    arm_settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Arm -> settings of its own, over the study's."""
    office: OfficeView | None = None
    """Where the study has office runs."""
