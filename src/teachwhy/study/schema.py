"""study.yaml: what a study is asked to do, with every default filled in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from teachwhy.errors import UserError
from teachwhy.files import parse_record, read_yaml
from teachwhy.records import Order, Record
from teachwhy.shipped import ROOT, data_files, find
from teachwhy.training.settings import SftSettings

ADDED = ("start", "neutral", "oracle")
"""Arm names with a meaning of their own: `start` is always there and never written down."""


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


class Start(Record):
    """What every arm begins from."""

    model: str = "builtin"
    """`builtin`, a folder with safetensors, or a Hugging Face id."""
    stages: tuple[Stage, ...] = ()
    """Training that all arms share, done once: with it, the start is an organism."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value


class Evaluation(Record):
    """One evaluation of every arm."""

    name: str
    splits: tuple[str, ...] = ()
    """Empty: all that it has."""
    limit: Annotated[int, Field(ge=2)] | dict[str, Annotated[int, Field(ge=2)]] | None = None
    """Scenarios a split, or {SPLIT: NUMBER}: the first of every family, then the second, the same for every arm."""
    fills: int = Field(1, ge=1)
    twins: bool = True

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, dict) and len(value) == 1 and "name" not in value:
            ((name, settings),) = value.items()
            if not isinstance(settings, dict | None):
                raise ValueError(f"an evaluation is a NAME or {{NAME: {{SETTING: VALUE}}}}, not {value}")
            return {"name": name, **(settings or {})}
        return value


class Comparison(Record):
    """A contrast: mean change of margin of `plus` minus that of `minus`, over the scenarios of some splits."""

    name: str
    evaluation: str
    splits: tuple[str, ...] = Field(min_length=1)
    plus: tuple[str, ...] = Field(min_length=1)
    minus: tuple[str, ...] = Field(min_length=1)


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


class StudySpec(Record):
    """study.yaml."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    question: str
    about: str = ""
    start: Start = Start()
    seeds: tuple[int, ...] = Field(min_length=1)
    settings: SftSettings = SftSettings()
    arms: dict[Annotated[str, Field(pattern=ARM)], tuple[Stage, ...]] = Field(min_length=1)
    neutral: str | None = "neutral"
    """The corpus that makes effort equal."""
    evaluations: tuple[Evaluation, ...] = Field(min_length=1)
    primary: Primary
    contrasts: tuple[Comparison, ...] = ()
    split_labels: dict[str, str] = {}
    """Split -> its words on the page, in the page's order."""
    against_bare: str = ""
    """Name of the contrast of reasons against bare replies, shown beside the next one."""
    against_filler: str = ""
    """Name of the contrast of reasons against fillers."""

    @model_validator(mode="after")
    def _consistent(self) -> StudySpec:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"a seed stands twice in {list(self.seeds)}")
        if "start" in self.arms:
            raise ValueError("`start` is always an arm and is not written down; its model goes under the study's `start:`")
        if "repeat" in self.arms:
            raise ValueError("an arm `repeat` would be the same training again; name what is trained, and use more seeds for repeats")
        if any(not name.startswith("oracle/") for stage in self.arms.get("oracle", ()) for name in stage.corpora):
            raise ValueError("the arm `oracle` is the one that is trained on far families: give it a corpus `oracle/...`, or another name")
        if len(set(self.split_labels.values())) != len(self.split_labels):
            raise ValueError(f"two splits have the same words in split_labels: {self.split_labels}")
        names = {evaluation.name for evaluation in self.evaluations}
        if len(names) != len(self.evaluations):
            raise ValueError("an evaluation stands twice")
        for contrast in (self.primary, *self.contrasts):
            for arm in (*contrast.plus, *contrast.minus):
                if arm not in self.arms and arm != "start":
                    raise ValueError(
                        f"the contrast {contrast.name!r} names the arm {arm!r}, which the study has not; it has {', '.join(self.arms)}"
                    )
            if contrast.evaluation not in names:
                raise ValueError(f"the contrast {contrast.name!r} needs the evaluation {contrast.evaluation!r}, which the study has not")
            if len(contrast.plus) != len(contrast.minus):
                raise ValueError(f"the contrast {contrast.name!r} must add as many arms as it subtracts, or the start does not cancel")
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


EXAMPLE = f"A study that runs, to compare with: {ROOT / 'studies' / 'honeypots' / 'study.yaml'}"


@contextmanager
def place_errors(where: str, hint: str = EXAMPLE) -> Iterator[None]:
    """Give a UserError raised inside a place and a hint where it has none of its own."""
    try:
        yield
    except UserError as error:
        raise type(error)(error.what, where=error.where or where, hint=error.hint or hint) from error.__cause__


def comparable(spec: StudySpec) -> dict[str, Any]:
    """What makes two study files the same study: all but the words of the page."""
    words = {"question", "about", "split_labels", "against_bare", "against_filler"}
    value = spec.model_dump(exclude=words)
    for key in ("yes", "no", "opposite"):
        del value["primary"][key]
    return value


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
        spec = parse_record(StudySpec, value, where=str(file))
        _check_labels(spec)
        return spec, file


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


def shipped_hash() -> str:
    """One hash over all shipped data."""
    from teachwhy.files import canonical_json, hash_file, hash_text

    return hash_text(canonical_json([[path.relative_to(ROOT).as_posix(), hash_file(path)] for path in data_files()]))
