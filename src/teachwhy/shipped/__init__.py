"""Data that comes with the program: a name or a path -> a path.

constitution.md         values with their reasons, one section a principle
names.yaml              people and firms for slots: one half for training, the other for evaluation
scenarios/KIND/*.yaml   one file a family
replies/*.jsonl         what training shows for scenarios of the split `train` (and `oracle`)
corpora/NAME/           corpora that are kept as rows
ambiguity/*.yaml        words from which the ambiguity corpus is made
prompts/                chat templates for training
studies/NAME/           study.yaml
rules/*.yaml            rules that commands alone decide: how they are worded, their checks and a reason
card.json               what all this is, how it was made, a hash of every file (python -m teachwhy.datacard writes it anew)
"""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from teachwhy.errors import UserError

ROOT = Path(__file__).parent


def data_files() -> list[Path]:
    """Every file of data, sorted: neither code nor the card."""
    return sorted(path for path in ROOT.rglob("*") if path.suffix in (".yaml", ".jsonl", ".md", ".jinja"))


def shipped_path(kind: str, name: str) -> Path:
    """The path of shipped data, `kind` being a folder here. Raises UserError that names what there is."""
    folder = ROOT / kind
    for candidate in (folder / name, folder / f"{name}.yaml", folder / f"{name}.jsonl"):
        if candidate.exists() and candidate.resolve().is_relative_to(folder.resolve()):
            return candidate
    known = sorted(path.stem for path in folder.iterdir() if not path.name.startswith(("_", ".")))
    near = get_close_matches(name, known, 1, 0.5)
    hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(known)}."
    if name.endswith((".yaml", ".yml")):
        raise UserError(f"there is no file {name}", hint=f"Of the {kind} that come with teachwhy there are: {', '.join(known)}.")
    raise UserError(f"no {kind} of the name {name!r} come with teachwhy", hint=hint)


def find(kind: str, name_or_path: str, *, beside: Path | None = None) -> Path:
    """A path of the user's, taken relative to `beside` (else the working folder), or shipped data of that name."""
    path = Path(name_or_path).expanduser()
    for candidate in ([beside / path] if beside else []) + [path]:
        if candidate.exists() and (candidate.suffix or "/" in name_or_path or candidate.is_dir()):
            return candidate
    return shipped_path(kind, name_or_path)


def shipped_hash() -> str:
    """One hash over all shipped data."""
    from teachwhy.files import canonical_json, hash_file, hash_text

    return hash_text(canonical_json([[path.relative_to(ROOT).as_posix(), hash_file(path)] for path in data_files()]))
