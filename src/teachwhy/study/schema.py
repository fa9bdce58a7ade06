"""study.yaml: what a study is asked to do, with every default filled in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from teachwhy.corpora import NAMES
from teachwhy.errors import UserError
from teachwhy.evaluations import KINDS, WRITTEN
from teachwhy.files import parse_record, read_yaml
from teachwhy.office.scenes import FAMILIES
from teachwhy.records import Order, Part, Record, StudyReading, Version
from teachwhy.shipped import ROOT, find
from teachwhy.training.settings import SftSettings

REPEAT_SEEDS = 100_000
"""Added to the seeds of the arm `repeat`."""
AUTOMATIC = ("neutral", "filler", "shuffled", "oracle", "repeat")
"""Arms that a study adds by itself (automatic.py) unless `without` names them."""


OFFICE = "office"
"""The evaluation with tools, and its reading."""
BASE = "base"
"""Where the start is an organism: its model before that training."""
ARM = r"^[A-Za-z0-9][A-Za-z0-9_.+ -]{0,39}$"
"""Names of arms stand on terminals, in figures and in files."""


class Stage(Record):
    """One training run. `{sft: NAME}` is short for `{kind: sft, corpora: {NAME: 1}}`."""

    kind: Literal["sft"] = "sft"
    corpora: dict[str, float]
    """Corpus -> its share of the supervised tokens."""
    settings: dict[str, Any] = {}
    """Over the study's settings."""
    order: Order = "after"
    """Where a reply's reason stands: after or before the deed."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, dict) and "sft" in value:
            if not isinstance(value["sft"], str) or "corpora" in value:
                raise ValueError("`sft:` takes the name of one corpus; several are written as {corpora: {NAME: SHARE, NAME: SHARE}}")
            rest = {key: part for key, part in value.items() if key != "sft"}
            return {"kind": "sft", "corpora": {value["sft"]: 1.0}, **rest}
        return value

    @model_validator(mode="after")
    def _shares(self) -> Stage:
        if not (abs(sum(self.corpora.values()) - 1) <= 1e-6 and all(share > 0 for share in self.corpora.values())):
            raise ValueError(f"shares of corpora must be positive and add up to 1, not {self.corpora}")
        return self


class Outside(Record):
    """An arm that was trained or run elsewhere: exactly one of these. A mapping has one entry for every seed of the study; what has none
    stands for all seeds, as the start does."""

    checkpoint: str | dict[int, str] = ""
    """A folder with safetensors, or a Hugging Face id."""
    adapter: str | dict[int, str] = ""
    """A PEFT folder, on the study's start."""
    model: str = ""
    """Any model of Inspect (openai/..., anthropic/..., openai-api/...): read as text."""
    logs: str = ""
    """A folder of Inspect logs of the study's evaluations."""
    command: str = ""
    """The user's own trainer, run once a seed: {corpus} (JSONL), {seed}, {start} and {output} are filled in. What it leaves in {output}, an
    adapter or a whole model, is adopted by hash."""
    corpus: str = ""
    """What the command is given."""

    @model_validator(mode="after")
    def _one(self) -> Outside:
        kinds = [name for name in ("checkpoint", "adapter", "model", "logs", "command") if getattr(self, name)]
        if len(kinds) != 1:
            raise ValueError(f"an arm from outside is one of checkpoint, adapter, model, logs, command; here: {', '.join(kinds) or 'none'}")
        if bool(self.command) != bool(self.corpus):
            raise ValueError("a command needs a corpus, and only a command has one")
        if odd := set(re.findall(r"\{(\w+)\}", self.command)) - {"corpus", "seed", "start", "output"}:
            raise ValueError(f"nothing is filled in for {{{min(odd)}}} in a command; there are {{corpus}}, {{seed}}, {{start}}, {{output}}")
        if self.command and "{output}" not in self.command:
            raise ValueError("the command must say where it writes: {output}")
        return self


class Start(Record):
    """What every arm begins from."""

    model: str = "builtin"
    """`builtin`, a folder with safetensors, or a Hugging Face id; `none` where every arm comes from outside and nothing is trained."""
    stages: tuple[Stage, ...] = ()
    """Training that all arms share, done once: with it, the start is an organism."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value


class Evaluation(Record):
    """One evaluation of every arm."""

    name: str
    scenarios: str = ""
    """A file or folder of the user's own, relative to the study's file; empty: those that come with teachwhy. Of ambiguity and agreement a
    lexicon, a file or `speed_quiet`."""
    splits: tuple[str, ...] = ()
    """Empty: all that it has."""
    limit: Annotated[int, Field(ge=2)] | dict[str, Annotated[int, Field(ge=2)]] | None = None
    """Scenarios a split, or {SPLIT: NUMBER}: the first of every family, then the second, the same for every arm."""
    part: Part = "dev"
    """Of sets that somebody wrote: the dev half, the sealed half (asks for --unseal, and each look is counted), or both."""
    fills: int = Field(1, ge=1)
    twins: bool = True
    reading: StudyReading = "direct"
    """How each choice is read. One evaluation may stand several times, under other readings. Of `office`: office."""
    reason: Version = "value_reason"
    """given_reason and given_other: which of a scenario's reasons."""
    samples: int = Field(4, ge=1)
    """own_reason: sampled reasons a fill."""
    updates: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """After how many updates every training is scored, beside its end."""
    families: tuple[str, ...] = ()  # of office; empty: all four
    judges: tuple[str, ...] = Field((), max_length=2)
    """office: models that read every run beside the mechanical reading, which stays the one that is reported."""

    @model_validator(mode="after")
    def _office(self) -> Evaluation:
        if (self.name == OFFICE) != (self.reading == OFFICE):
            raise ValueError(f"{self.name}: the reading `office` is that of the evaluation `office`, which has no other")
        if self.name != OFFICE and (self.families or self.judges):
            raise ValueError(f"{self.name}: families and judges are of the evaluation `office`")
        if odd := set(self.families) - set(FAMILIES):
            raise ValueError(f"office: there is no family {min(odd)!r}; there are {', '.join(FAMILIES)}")
        if self.name == OFFICE and isinstance(self.limit, dict):
            raise ValueError("office: limit is a number of scenarios of each family")
        return self

    @model_validator(mode="after")
    def _halves(self) -> Evaluation:
        if self.scenarios and self.part != "dev":
            raise ValueError(f"{self.name}: `part` is of the sets that come with teachwhy, and these scenarios are your own")
        if len(set(self.splits)) != len(self.splits):
            raise ValueError(f"{self.name}: a split stands twice in {list(self.splits)}")
        return self

    @property
    def sealed(self) -> bool:
        """Whether it looks at a sealed part."""
        return self.part != "dev" and self.name in (*WRITTEN, OFFICE) and not self.scenarios

    @property
    def label(self) -> str:
        """What it is called where readings are told apart."""
        return self.name if self.reading in ("direct", OFFICE) else f"{self.name}, {self.reading}"

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {value: None}
        if isinstance(value, dict) and len(value) == 1 and "name" not in value:
            ((name, settings),) = value.items()
            if not isinstance(settings, dict | None):
                raise ValueError(f"an evaluation is a NAME or {{NAME: {{SETTING: VALUE}}}}, not {value}")
            value = {"name": name, **(settings or {})}
        return {"reading": OFFICE, **value} if isinstance(value, dict) and value.get("name") == OFFICE else value


class Comparison(Record):
    """A contrast: mean change of the measure of `plus` minus that of `minus`, over the scenarios of some splits."""

    name: str
    evaluation: str
    reading: StudyReading = "direct"
    measure: Literal["margin", "harm"] = "margin"
    """Of a text there is no margin: its measure is harm."""
    splits: tuple[str, ...] = Field(min_length=1)
    plus: tuple[str, ...] = Field(min_length=1)
    minus: tuple[str, ...] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _office(cls, value: Any) -> Any:
        """An office has one reading and no margin."""
        office = isinstance(value, dict) and value.get("evaluation") == OFFICE
        return {"reading": OFFICE, "measure": "harm", **value} if office else value


class Primary(Comparison):
    """The contrast that the study is about, with what may be said of it."""

    claim: Literal["lower", "higher"]
    """What would be a yes: the contrast below zero (less harm) or above."""
    yes: str
    """The answer's sentence when the whole interval is on the claimed side of zero."""
    no: str
    """... when it holds zero."""
    opposite: str
    """... when it is on the other side."""
    equivalence: float | None = Field(None, gt=0, allow_inf_nan=False)
    """A difference, in the measure's unit, that would be as good as none: where larger ones are excluded, the answer says so."""


class Expect(Record):
    """A published rate that an arm from outside must show here, too, before much is made of it."""

    arm: str
    evaluation: str = "honeypots"
    reading: StudyReading = "text"
    splits: tuple[str, ...] = ("near", "far")
    rate: float = Field(ge=0, le=1)
    """Of harm."""
    within: float = Field(gt=0, le=1)
    """Allowed to either side."""


class StudySpec(Record):
    """study.yaml."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    question: str
    about: str = ""
    start: Start = Start()
    seeds: tuple[int, ...] = Field(min_length=1)
    settings: SftSettings = SftSettings()
    arms: dict[Annotated[str, Field(pattern=ARM)], tuple[Stage, ...]] = {}
    outside: dict[Annotated[str, Field(pattern=ARM)], Outside] = {}
    """Arms that come from outside; in a study's file they stand among the arms, as a mapping in the place of a list of stages."""
    without: tuple[str, ...] = ()
    """Automatic arms that are left out: neutral, filler, shuffled, oracle, repeat."""
    added: tuple[str, ...] = ()
    """Arms that the study added by itself; never written by hand."""
    fewer_seeds: dict[str, Annotated[int, Field(ge=1)]] = {}
    """Arm -> of how many of the seeds it is trained under, the first ones: for controls that need less precision than the answer."""
    neutral: str | None = "neutral"
    """The corpus that makes effort equal, and that the arm `neutral` is trained on."""
    evaluations: tuple[Evaluation, ...] = Field(min_length=1)
    primary: Primary
    matched_near: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """Where the primary's evaluation is scored at several updates: the change on near scenarios at which the arms' changes on far ones are
    compared. None: the farthest one that every training reached, which the data choose."""
    contrasts: tuple[Comparison, ...] = ()
    expect: tuple[Expect, ...] = ()
    split_labels: dict[str, str] = {}
    """Split -> its words on the page, in the page's order."""
    against_bare: str = ""
    """Name of the contrast of reasons against bare replies, shown beside the next one."""
    against_filler: str = ""
    """Name of the contrast of reasons against fillers."""

    @property
    def names(self) -> list[str]:
        """All arms, the start first where there is one; behind an organism its model before any training."""
        return [*([] if self.start.model == "none" else ["start"]), *([BASE] if self.start.stages else []), *self.arms, *self.outside]

    @property
    def saved_updates(self) -> tuple[int, ...]:
        """After how many updates trainings are kept, beside their end."""
        return tuple(sorted({update for evaluation in self.evaluations for update in evaluation.updates}))

    def seeds_of(self, *arms: str) -> tuple[int, ...]:
        """The seeds under which every one of these arms is trained."""
        kinds = [arm if arm in self.fewer_seeds else arm.partition("_")[0] for arm in arms]  # shuffled_value is one of shuffled
        return self.seeds[: min((self.fewer_seeds.get(kind, len(self.seeds)) for kind in kinds), default=len(self.seeds))]

    @model_validator(mode="before")
    @classmethod
    def _part_arms(cls, value: Any) -> Any:
        """Arms from outside are mappings."""
        if not isinstance(value, dict) or not isinstance(value.get("arms"), dict):
            return value
        outside = {arm: one for arm, one in value["arms"].items() if isinstance(one, dict | Outside)}
        arms = {arm: one for arm, one in value["arms"].items() if arm not in outside}
        for arm, one in outside.items():
            if isinstance(one, dict) and {"sft", "corpora"} & one.keys():
                raise ValueError(f"arm {arm!r} is trained here, so it is a list of stages: write {arm}: [{{sft: CORPUS}}]")
        for arm, one in arms.items():
            if not isinstance(one, list | tuple):
                raise ValueError(
                    f"arm {arm!r} is a list of stages, [{{sft: CORPUS}}], or what was made elsewhere, {{checkpoint: FOLDER}}; not {one!r}"
                )
        return {**value, "arms": arms, "outside": {**outside, **(value.get("outside") or {})}}

    @model_validator(mode="after")
    def _consistent(self) -> StudySpec:
        if not self.arms and not self.outside:
            raise ValueError("arms: a study needs one at least")
        if both := sorted(self.arms.keys() & self.outside.keys()):
            raise ValueError(f"two arms have the name {both[0]!r}")
        if not (min(self.seeds) >= 0 and max(self.seeds) < REPEAT_SEEDS):
            raise ValueError(f"seeds are 0 to {REPEAT_SEEDS - 1} (the arm `repeat` has those above), not {list(self.seeds)}")
        self._check_outside()
        if self.matched_near == 0:
            raise ValueError("matched_near is a change on near scenarios, and 0 is the start, where nothing has changed")
        for arm, n_seeds in self.fewer_seeds.items():
            if arm not in self.arms and arm.partition("_")[0] not in AUTOMATIC:
                raise ValueError(f"fewer_seeds: no arm {arm!r} is trained here; there are {', '.join(self.arms)}")
            if arm in (*self.primary.plus, *self.primary.minus):
                raise ValueError(f"fewer_seeds: the arm {arm!r} is part of the primary contrast, which needs every seed")
            if n_seeds > len(self.seeds):
                raise ValueError(f"fewer_seeds: {arm!r} asks for {n_seeds} of {len(self.seeds)} seeds")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"a seed stands twice in {list(self.seeds)}")
        if taken := {"start", BASE} & {*self.arms, *self.outside}:
            raise ValueError(
                f"`{min(taken)}` is an arm of the study's own and is not written down; its model goes under the study's `start:`"
            )
        if "repeat" in self.arms and "repeat" not in self.added:
            raise ValueError("the arm `repeat` is added by the study itself: the primary's first arm again, under other seeds")
        if unknown := set(self.without) - set(AUTOMATIC):
            raise ValueError(f"without: no automatic arm {min(unknown)!r}; there are {', '.join(AUTOMATIC)}")
        for arm, stages in self.arms.items():
            if arm != "oracle" and any(name.startswith("oracle/") for stage in stages for name in stage.corpora):
                raise ValueError(f"arm {arm!r} is trained on far families; only the arm `oracle` may be, which is no part of an answer")
        if "oracle" in (*self.primary.plus, *self.primary.minus):
            raise ValueError("the oracle is trained on what is measured: it shows that the measure can move and is no part of the primary")
        own = any(evaluation.name == "honeypots" and evaluation.scenarios for evaluation in self.evaluations)
        if own and any(name.startswith("oracle/") for stage in self.arms.get("oracle", ()) for name in stage.corpora):
            raise ValueError("the corpora `oracle/...` are of families that come with teachwhy, and this study has scenarios of its own")
        if any(not name.startswith("oracle/") and name in NAMES for stage in self.arms.get("oracle", ()) for name in stage.corpora):
            raise ValueError("the arm `oracle` is the one that is trained on far families: give it a corpus `oracle/...`, or another name")
        if len(set(self.split_labels.values())) != len(self.split_labels):
            raise ValueError(f"two splits have the same words in split_labels: {self.split_labels}")
        if unknown := {evaluation.name for evaluation in self.evaluations} - {*KINDS, OFFICE}:
            raise ValueError(f"there is no evaluation {min(unknown)!r}; there are {', '.join((*KINDS, OFFICE))}")
        held = {(evaluation.name, evaluation.reading) for evaluation in self.evaluations}
        if len(held) != len(self.evaluations):
            raise ValueError("an evaluation stands twice under one reading")
        names = {name for name, _ in held}
        every = (self.primary, *self.contrasts)
        if len({contrast.name for contrast in every}) != len(every):
            raise ValueError("two contrasts have one name")
        for contrast in every:
            if cancelled := set(contrast.plus) & set(contrast.minus):
                raise ValueError(f"the contrast {contrast.name!r} has the arm {min(cancelled)!r} on both sides, where it cancels")
            if len(set(contrast.splits)) != len(contrast.splits):
                raise ValueError(f"the contrast {contrast.name!r} has a split twice")
            for arm in (*contrast.plus, *contrast.minus):
                if arm not in self.names and arm.partition("_")[0] not in AUTOMATIC:
                    raise ValueError(
                        f"the contrast {contrast.name!r} names the arm {arm!r}, which the study has not; it has {', '.join(self.names)}"
                    )
            if contrast.evaluation not in names:
                raise ValueError(f"the contrast {contrast.name!r} needs the evaluation {contrast.evaluation!r}, which the study has not")
            if (contrast.evaluation, contrast.reading) not in held:
                raise ValueError(f"the contrast {contrast.name!r} needs {contrast.evaluation!r} under the reading {contrast.reading!r}")
            if contrast.reading in ("text", OFFICE) and contrast.measure == "margin":
                raise ValueError(f"the contrast {contrast.name!r}: what was written or done has no margin; write measure: harm")
            if len(contrast.plus) != len(contrast.minus):
                raise ValueError(f"the contrast {contrast.name!r} must add as many arms as it subtracts, or the start does not cancel")
        for wanted in self.expect:
            if wanted.arm not in self.names or (wanted.evaluation, wanted.reading) not in held:
                raise ValueError(f"expect: the study has no arm {wanted.arm!r} with {wanted.evaluation!r} read as {wanted.reading!r}")
        known = {contrast.name for contrast in (self.primary, *self.contrasts)}
        for name in (self.against_bare, self.against_filler):
            if name and name not in known:
                raise ValueError(f"no contrast has the name {name!r}; there are {', '.join(sorted(known))}")
        for arm, stages in self.arms.items():
            if not stages:
                raise ValueError(f"arm {arm!r} has no stage; what is not trained is the arm `start`, which is always there")
            if len(stages) > 1:
                raise ValueError(f"arm {arm!r}: one stage an arm for now; what all arms share goes under `start: {{stages: [...]}}`")
        return self

    def _check_outside(self) -> None:
        if any(evaluation.name == OFFICE for evaluation in self.evaluations):
            local = [*self.arms, *(arm for arm, one in self.outside.items() if not one.model and not one.logs)]
            if local or self.start.model != "none":
                which = f"the arm {local[0]!r} is" if local else "the start has"
                raise ValueError(
                    f"an office needs an agent that calls tools, and {which} local weights, which are read without any: write start: none "
                    "and arms {model: ...} or {logs: ...} (a server such as vLLM makes a model of weights), or the evaluation honeypots"
                )
        if self.start.model == "none" and (self.arms or self.start.stages):
            raise ValueError("without a start nothing can be trained: name a model under `start:`")
        for arm, one in self.outside.items():
            for held in (one.checkpoint, one.adapter):
                if isinstance(held, dict) and len(set(held.values())) < len(held):
                    raise ValueError(f"arm {arm!r} has one folder under several seeds; without seeds it stands for all of them")
                if isinstance(held, dict) and set(held) != set(self.seeds):
                    raise ValueError(f"arm {arm!r} has the seeds {sorted(held)}, the study {sorted(self.seeds)}")
            if (one.adapter or one.command) and self.start.model == "none":
                raise ValueError(f"arm {arm!r} needs a start to build on")
            if one.command and self.start.stages:
                raise ValueError(f"arm {arm!r}: a command begins from a model as it is, and this start is trained first")
            unread = [evaluation.label for evaluation in self.evaluations if evaluation.reading not in ("text", OFFICE)]
            if one.model and unread:
                raise ValueError(
                    f"arm {arm!r} is a model behind an API, of which only text can be read; the study reads {unread[0]!r} by likelihood. "
                    "Write reading: text under the evaluations"
                )


EXAMPLE = f"A study that runs, to compare with: {ROOT / 'studies' / 'honeypots' / 'study.yaml'}"


@contextmanager
def place_errors(where: str, hint: str = EXAMPLE) -> Iterator[None]:
    """Give a UserError raised inside a place and a hint where it has none of its own."""
    try:
        yield
    except UserError as error:
        raise type(error)(error.what, where=error.where or where, hint=error.hint or hint) from error.__cause__


def comparable(spec: StudySpec) -> dict[str, Any]:
    """What makes two study files the same study: all but words of the page. Sentences of the answer are none: they are named beforehand."""
    return spec.model_dump(exclude={"question", "about", "split_labels", "against_bare", "against_filler"})


def page_words(spec: StudySpec) -> dict[str, Any]:
    """Words around the numbers: they may be mended afterwards, and the page then says what they were."""
    return spec.model_dump(mode="json", include={"question", "split_labels"})


def read_study(name: str) -> tuple[StudySpec, Path]:
    """A study by shipped name or path, and the file. Raises UserError for anything that cannot be run."""
    with place_errors(f"the argument {name!r}"):
        path = find("studies", name)
    file = path / "study.yaml" if path.is_dir() else path
    with place_errors(str(file)):
        value = read_yaml(file)
        if not isinstance(value, dict):
            raise UserError("a study file is a YAML mapping with name, question, seeds, arms, evaluations and primary")
        _refuse_repeated_keys(file)
        _refuse_slips(value)
        spec = parse_record(StudySpec, value, where=str(file))
        _check_labels(spec)
        return spec, file


def _refuse_slips(value: dict[Any, Any]) -> None:
    """What YAML makes something else of than was meant."""
    seeds = value.get("seeds")
    if isinstance(seeds, int) and not isinstance(seeds, bool):
        count = ", ".join(map(str, range(1, min(max(seeds, 1), 9) + 1)))
        raise UserError(f"seeds is a list of numbers, not {seeds}", hint=f"Write seeds: [{count}]")
    primary = value.get("primary")
    if isinstance(primary, dict) and {True, False} & {key for key in primary if isinstance(key, bool)}:
        raise UserError("primary: YAML reads an unquoted yes or no as true or false", hint='Write "yes": and "no":, in quotes.')


def _check_labels(spec: StudySpec) -> None:
    """Words for a split that nothing has would be shown nowhere: most likely a slip."""
    from difflib import get_close_matches
    from typing import get_args

    from teachwhy.records import Split

    for split in spec.split_labels:
        if split not in get_args(Split):
            near = get_close_matches(split, get_args(Split), 1, 0.5)
            raise UserError(f"split_labels: no split {split!r}", hint=f"Did you mean {near[0]!r}?" if near else "Splits: train, near, far.")


def _refuse_repeated_keys(file: Path) -> None:
    """YAML keeps the last of two equal keys in silence: two arms of one name would become one."""
    import yaml

    visited: set[int] = set()

    def visit(node: yaml.Node) -> None:
        if id(node) in visited:  # an alias
            return
        visited.add(id(node))
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                if key.value in seen:
                    raise UserError(
                        f"{key.value!r} stands twice on one level (line {key.start_mark.line + 1})",
                        where=str(file),
                        hint="Give one of them another name.",
                    )
                seen.add(key.value)
                visit(value)
        elif isinstance(node, yaml.SequenceNode):
            for value in node.value:
                visit(value)

    try:
        tree = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        if tree is not None:
            visit(tree)
    except RecursionError:
        raise UserError("the file is nested too deeply", where=str(file)) from None
