"""Labels by a person, blind to arms, of the user's own runs; and rates corrected by them.

Sensitivity and specificity on a constructed set do not carry over to other runs. So all runs that anything calls harmful and a random
part of the others are labelled by hand, and each arm's rate is corrected by what the labels differ from the reading: prediction-powered
inference (Angelopoulos et al. 2023, "Prediction-powered inference", Science 382), with the weights of Horvitz and Thompson (1952) since
positives are labelled more often.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, cast, get_args

from teachwhy.errors import UserError
from teachwhy.files import derive_seed, hash_text, now, read_jsonl
from teachwhy.judges.verdict import show_deeds
from teachwhy.office.scenes import NAMELESS, brief, scene_of
from teachwhy.statistics import Interval, corrected_rate

if TYPE_CHECKING:
    from inspect_ai.log import EvalSample

LABELS = "labels.jsonl"
Label = Literal["harmful", "safe", "unclear"]


class Item(NamedTuple):
    """One run that may be labelled."""

    id: str
    """16 hex digits that tell nothing of the arm."""
    arm: str
    twin: bool
    scenario: str
    about: str
    deeds: str
    predicted: bool
    """The mechanical reading."""
    flagged: bool
    """Whether that or any judge calls it harmful."""


class Rate(NamedTuple):
    """Of harm in one arm, scenarios or twins."""

    arm: str
    twin: bool
    n: int
    n_labelled: int
    raw: Interval
    corrected: Interval
    n_wrong: int
    """Labels that differ from the mechanical reading."""


def find_logs(run: Path) -> list[tuple[Path, str]]:
    """Logs of office runs with their arm: of a study's run, those of arms that were run elsewhere too; or of a folder that Inspect
    wrote, where the model is the arm (empty here). Raises UserError where there are none."""
    arms = _arms(run)
    found = []
    for folder in sorted(run.glob("cells/office-*")):
        if folder.suffix == ".part" or folder.name not in arms:
            continue
        held = json.loads((folder / "inputs.json").read_text(encoding="utf-8")) if (folder / "inputs.json").is_file() else {}
        logs = Path(held["logs"]) if held.get("logs") else folder / "logs"
        found += [(path, arms[folder.name]) for path in sorted(logs.glob("*.eval"))]
    found = found or [(path, "") for path in sorted([*run.glob("*.eval"), *run.glob("logs/*.eval")])]
    if not found:
        hint = "Give the folder of a study with the evaluation `office`, or the one that inspect eval --log-dir named."
        raise UserError("there are no logs of office runs here", where=str(run), hint=hint)
    return found


def read_items(run: Path) -> tuple[list[Item], int]:
    """Every run that was read; and how many did not come to their end, which are left out. A run that two logs hold counts once."""
    from inspect_ai.log import read_eval_log

    found: dict[str, Item] = {}
    unread = set[str]()
    for path, arm in find_logs(run):
        try:
            log = read_eval_log(str(path))
        except Exception:  # noqa: BLE001  # somebody else's file in the folder
            raise UserError("the log cannot be read", where=str(path)) from None
        for sample in log.samples or []:
            if sample.metadata.get("reading") != "office":
                continue
            key = hash_text(sample.uuid or f"{log.eval.task_id}/{sample.id}/{sample.epoch}")[:16]
            if item := _item(key, sample, arm or log.eval.model):
                found[key] = item
            else:
                unread.add(key)
    if not found:
        raise UserError("the logs hold no office run that was read", where=str(run))
    return list(found.values()), len(unread - found.keys())


def _arms(run: Path) -> dict[str, str]:
    """Folder of a cell -> its arm."""
    path = run / "plan.json"
    if not path.is_file():
        return {}
    return {f"{cell['kind']}-{cell['id']}": str(cell["arm"]) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]}


def _item(key: str, sample: EvalSample, arm: str) -> Item | None:
    scores = sample.scores or {}
    held = (scores["office_scorer"].metadata or {}) if "office_scorer" in scores else {}
    if held.get("status") != "ok":
        return None
    predicted = held.get("label") == "harmful"
    judged = any(score.answer == "harmful" for name, score in scores.items() if name.startswith("judge_scorer"))
    agent = str(held.get("agent") or "")
    scene = scene_of(sample.metadata, agent)
    own = agent if sample.metadata.get("name") == "own" else ""
    flagged = predicted or judged
    asked = f"The agent was asked: {brief(scene)[1]}\n\n{scene.text(scene.scenario.about)}"
    about, deeds = (_hide(text, own) for text in (asked, show_deeds(sample.messages)))
    twin, scenario = bool(sample.metadata["twin"]), str(sample.metadata["scenario"])
    return Item(key, arm, twin, scenario, about, deeds, predicted, flagged)


def _hide(text: str, name: str) -> str:
    """A model's own name would tell the arm."""
    return re.sub(rf"\b{re.escape(name)}\b", NAMELESS, text) if name and name != NAMELESS else text


def choose_queue(items: Sequence[Item], share: float, seed: int) -> list[Item]:
    """What is to be labelled, in an order that tells nothing: everything that is flagged, and of the rest this share, at least one. A
    larger share holds what a smaller one does."""
    ordered = sorted(items, key=lambda item: derive_seed(seed, "label", item.id))
    rest = [item.id for item in ordered if not item.flagged]
    chosen = set(rest[: max(1, round(share * len(rest)))])
    return [item for item in ordered if item.flagged or item.id in chosen]


def read_labels(run: Path) -> dict[str, Label]:
    """Item -> label, the last one where there are several. Raises UserError for a line that is none."""
    path = run / LABELS
    found: dict[str, Label] = {}
    for number, row in enumerate(read_jsonl(path) if path.is_file() else (), 1):
        if row.get("label") not in get_args(Label) or not isinstance(row.get("id"), str):
            raise UserError(f"line {number} is no label", where=str(path), hint="It holds id and label: harmful, safe or unclear.")
        found[row["id"]] = row["label"]
    return found


def add_label(run: Path, item: str, label: Label) -> None:
    """Keep one label at once: nothing is lost when the terminal closes."""
    with (run / LABELS).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"id": item, "label": label, "at": now()}) + "\n")


def take_answers(run: Path, path: Path, queue: Sequence[Item]) -> int:
    """Keep the labels that a page saved; returns how many. Raises UserError for a file of something else."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        rows = [(str(row["id"]), str(row["label"])) for row in held["labels"]]
    except FileNotFoundError:
        raise UserError("there is no such file", where=str(path), hint="The page's button saves labels.json.") from None
    except (ValueError, KeyError, TypeError, UnicodeDecodeError):
        raise UserError("the file holds no labels", where=str(path), hint="It is what the page's button saves: labels.json.") from None
    known = {item.id for item in queue}
    if unknown := [item for item, _ in rows if item not in known]:
        raise UserError(
            f"the item {unknown[0][:40]!r} is not in this run's queue", where=str(path), hint="Was it another run, share or seed?"
        )
    if odd := [label for _, label in rows if label not in get_args(Label)]:
        raise UserError(f"{odd[0][:40]!r} is no label", where=str(path), hint="There are: harmful, safe, unclear.")
    for item, label in rows:
        add_label(run, item, cast("Label", label))
    return len(rows)


def correct_rates(items: Sequence[Item], labels: Mapping[str, Label]) -> list[Rate]:
    """Raw and corrected rates of every arm, scenarios and twins apart. `unclear` counts as not labelled, so its interval grows; a chance
    below one is that of the queue, whatever part of it has been done. Raises UserError where labels are wanting."""
    queue_done = _chances(items, labels)
    found = []
    for arm, twin in sorted({(item.arm, item.twin) for item in items}):
        group = [item for item in items if (item.arm, item.twin) == (arm, twin)]
        known: list[float | None] = [{"harmful": 1.0, "safe": 0.0}.get(labels.get(item.id, "unclear")) for item in group]
        predicted = [float(item.predicted) for item in group]
        chances = [queue_done[item.flagged] for item in group]
        clusters = [item.scenario for item in group]
        raw = corrected_rate(predicted, [None] * len(group), [1.0] * len(group), clusters)
        corrected = corrected_rate(predicted, known, chances, clusters)
        n_wrong = sum(label is not None and label != value for label, value in zip(known, predicted, strict=True))
        found.append(Rate(arm, twin, len(group), sum(label is not None for label in known), raw, corrected, n_wrong))
    return found


def _chances(items: Iterable[Item], labels: Mapping[str, Label]) -> dict[bool, float]:
    """The share of flagged and of other runs that have a label: what was drawn times what was done of it, since both were drawn by
    chance."""
    items = list(items)
    shares = {}
    for flagged in (True, False):
        group = [item for item in items if item.flagged is flagged]
        n_done = sum(labels.get(item.id) in ("harmful", "safe") for item in group)
        if group and not n_done:
            what = "that something calls harmful" if flagged else "that nothing calls harmful"
            hint = "A rate needs labels of runs of both kinds. Type: teachwhy judges label RUN"
            raise UserError(f"of the {len(group)} runs {what} none is labelled yet", hint=hint)
        shares[flagged] = n_done / len(group) if group else 1.0
    return shares
