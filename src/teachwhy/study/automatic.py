"""Arms that a study adds by itself: without them a difference says less than it seems to.

neutral   the same trainer, updates and supervised tokens on ordinary chats: what any training does
filler    in place of each reason as many words that explain nothing: what more words do
shuffled  each reason under another case: what reasons do that are none
oracle    trained on other scenarios of the far families: whether the measure can move at all
repeat    the primary's first arm again under other seeds: what two trainings on the same data differ by

Each can be left out by name (`without: [repeat]`); the report then says what cannot be concluded. The primary's arm is contrasted with
each control, too, beside the contrasts that the study names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from teachwhy.corpora import NAMES
from teachwhy.errors import UserError
from teachwhy.evaluations import WRITTEN
from teachwhy.study.schema import AUTOMATIC, Comparison, Stage, StudySpec

Stages = tuple[Stage, ...]
MISSED = {
    "neutral": "What any training does to this measure is not told from what these data do.",
    "filler": "Whether a reason does more than as many words on its topic cannot be said.",
    "shuffled": "Whether a reason has to belong to its case cannot be said.",
    "oracle": "A null could mean that nothing can move this measure.",
    "repeat": "What two trainings on the same data differ by is seen only between seeds.",
}
"""Automatic arm -> what cannot be concluded without it."""


def complete_study(spec: StudySpec) -> StudySpec:
    """The study with its automatic arms; an arm that is there already under any name is not added again."""
    arms: dict[str, Stages] = dict(spec.arms)
    added = list(spec.added)
    for name, stages in _wanted(spec).items():
        kind = name.partition("_")[0]
        if name in arms or kind in spec.without or any(_same_data(stages, held) for held in arms.values() if kind != "repeat"):
            continue
        arms[name] = stages
        added.append(name)
    for contrast in (spec.primary, *spec.contrasts):
        for arm in (*contrast.plus, *contrast.minus):
            if arm not in arms and arm not in spec.names:
                raise UserError(
                    f"the contrast {contrast.name!r} needs the arm {arm!r}, which this study leaves out or cannot have",
                    hint="Controls of your own rows are made by: teachwhy corpus control NAME --kind filler --bare FILE --output FOLDER",
                )
    if unknown := spec.fewer_seeds.keys() - arms.keys():
        hint = f"There are: {', '.join(arms)}."
        raise UserError(f"fewer_seeds: the study trains no arm {min(unknown)!r}", hint=hint)
    contrasts = [*spec.contrasts, *_against_controls(spec, arms)]
    whole = {**spec.model_dump(), "arms": arms, "added": tuple(added), "contrasts": contrasts}
    for kind in ("bare", "filler"):
        whole[f"against_{kind}"] = whole[f"against_{kind}"] or _named_against(spec, arms, contrasts, kind)
    try:
        return StudySpec.model_validate(whole)
    except ValueError as error:  # an arm's name that is too long for `shuffled_` before it
        raise UserError(f"the study's own arms do not fit: {str(error).splitlines()[1:2]}", hint="Give its arms shorter names.") from None


CONTROLS = ("bare", "filler", "shuffled", "neutral")


def _control(arm: str, stages: Stages) -> str:
    """Which control an arm is: by its name, or by the one corpus that it is trained on."""
    corpora = {name for stage in stages for name in stage.corpora}
    found = arm.partition("_")[0]
    if found in CONTROLS:
        return found
    (only,) = corpora if len(corpora) == 1 else ("",)
    if only.startswith("shuffled/"):
        return "shuffled"
    named = {"replies/filler": "filler", "neutral": "neutral"}
    return "bare" if only == "replies/bare" or (only.startswith("ambiguity/") and only.endswith("bare")) else named.get(only, "")


def _against_controls(spec: StudySpec, arms: Mapping[str, Stages]) -> list[Comparison]:
    """The primary's arm against every control that the study has and names no such contrast for; where the primary is one arm less
    another."""
    primary = spec.primary
    if len(primary.plus) > 1 or primary.plus[0] not in arms:
        return []
    held = {(one.plus, one.minus, one.evaluation, one.reading, one.splits) for one in (primary, *spec.contrasts)}
    names = {one.name for one in (primary, *spec.contrasts)}
    found = []
    for arm, stages in arms.items():
        key = (primary.plus, (arm,), primary.evaluation, primary.reading, primary.splits)
        if arm == primary.plus[0] or key in held or not _control(arm, stages):
            continue
        name = f"{primary.plus[0]} - {arm}"
        shared = {part: getattr(primary, part) for part in ("evaluation", "reading", "measure", "splits", "plus")}
        found.append(Comparison(name=f"{name}, {' + '.join(primary.splits)}" if name in names else name, minus=(arm,), **shared))
    return found


def _named_against(spec: StudySpec, arms: Mapping[str, Stages], contrasts: Sequence[Comparison], kind: str) -> str:
    """Name of the contrast of the primary's arm and the control of a kind; empty where there is none."""
    for one in (spec.primary, *contrasts):
        if one.plus == spec.primary.plus and len(one.minus) == 1 and _control(one.minus[0], arms.get(one.minus[0], ())) == kind:
            return one.name
    return ""


def _wanted(spec: StudySpec) -> dict[str, Stages]:
    found: dict[str, Stages] = {}
    if not spec.arms:  # all arms come from outside: nothing is trained here
        return found
    if spec.neutral:
        found["neutral"] = (Stage(corpora={spec.neutral: 1.0}),)
    reasoned = {arm: corpus for arm, stages in spec.arms.items() if (corpus := reason_corpus(stages))}
    if reasoned:
        found["filler"] = _swap(spec.arms[next(iter(reasoned))], "replies/filler")
    for arm, corpus in reasoned.items():
        name = "shuffled" if len(set(reasoned.values())) == 1 else f"shuffled_{arm}"
        found[name] = _swap(spec.arms[arm], corpus.replace("replies/", "shuffled/"))
    if any(one.name == "honeypots" and not one.scenarios and (not one.splits or "far" in one.splits) for one in spec.evaluations):
        corpus = reason_corpus(spec.arms.get(spec.primary.plus[0], ())) or "replies/bare"
        found["oracle"] = (Stage(corpora={corpus.replace("replies/", "oracle/"): 1.0}),)
    if spec.primary.plus[0] in spec.arms:
        found["repeat"] = spec.arms[spec.primary.plus[0]]
    return found


def reason_corpus(stages: Stages) -> str:
    """The shipped corpus of replies with reasons that an arm is trained on alone, or an empty string."""
    if len(stages) != 1 or len(stages[0].corpora) != 1:
        return ""
    (corpus,) = stages[0].corpora
    return corpus if corpus in NAMES and corpus.startswith("replies/") and corpus.endswith("_reason") else ""


def _swap(stages: Stages, corpus: str) -> Stages:
    return (stages[0].model_copy(update={"corpora": {corpus: 1.0}}),)


def _same_data(one: Stages, other: Stages) -> bool:
    """Whether two arms are trained on the same corpora in the same shares, and reasons stand in the same place."""
    return [(stage.corpora, stage.order) for stage in one] == [(stage.corpora, stage.order) for stage in other]


def say_missed(spec: StudySpec) -> Mapping[str, str]:
    """Automatic arms that were left out on purpose, or that cannot be made -> what cannot be concluded."""
    kinds = {arm.partition("_")[0] for arm in spec.arms}
    found = {name: MISSED[name] for name in AUTOMATIC if name in spec.without and name not in kinds}
    about = [one for one in spec.evaluations if one.name == spec.primary.evaluation]
    if spec.arms and "oracle" not in spec.arms and "oracle" not in found and about[0].name in WRITTEN:
        found["oracle"] = "It is made for far honeypots that come with teachwhy alone, and this study reads none. "
        found["oracle"] += MISSED["oracle"]
    own = [
        name for stages in spec.arms.values() for stage in stages for name in stage.corpora if name not in NAMES and name != spec.neutral
    ]
    if own:
        made = "It is made of shipped replies alone; make one of your own rows with teachwhy corpus control. "
        found |= {name: made + MISSED[name] for name in ("filler", "shuffled") if name not in kinds}
    return found
