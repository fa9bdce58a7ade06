"""JSONL, hashes, seeds, cards, and folders whose presence means that they are done."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from teachwhy.errors import UserError
from teachwhy.records import Card

T = TypeVar("T", bound=BaseModel)

CARD = "card.json"
_VERSIONED = ("teachwhy", "torch", "transformers", "peft", "inspect-ai", "numpy", "scipy")


def canonical_json(value: Any) -> str:
    """One text for equal values: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def hash_text(text: str) -> str:
    """sha256 of the UTF-8 bytes, 64 hex digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def hash_file(path: Path) -> str:
    """sha256 of a file's bytes, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_folder(folder: Path, *, skip: Sequence[str] = (CARD,)) -> str:
    """sha256 over the names and contents of all files of a folder, its card left out (it carries the time)."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in skip)
    return hash_text(canonical_json([[path.relative_to(folder).as_posix(), hash_file(path)] for path in files]))


def derive_seed(seed: int, *names: str | int) -> int:
    """A seed in [0, 2**63) for one use, independent of every other use: sha256 over the seed and the names."""
    return int(hash_text(canonical_json([seed, *names]))[:16], 16) >> 1


def cell_id(
    kind: str, version: int, settings: Mapping[str, Any], seed: int | None, parents: Sequence[str], inputs: Mapping[str, str]
) -> str:
    """First 16 hex digits of the sha256 of all that decides a cell's result.

    `settings` are resolved and hold the dtype; `inputs` maps names to content hashes. The code's commit is not in it.
    """
    parts = {"kind": kind, "version": version, "settings": dict(settings), "seed": seed, "parents": list(parents), "inputs": dict(inputs)}
    return hash_text(canonical_json(parts))[:16]


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file, one a line. Raises UserError with the line's number."""
    if not path.is_file():
        raise UserError("there is no such file", where=str(path))
    with path.open(encoding="utf-8") as file:
        try:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise UserError(f"line {number} is not JSON: {error.msg}", where=str(path)) from None
                except (RecursionError, ValueError):  # nested a thousand deep; a number of thousands of digits
                    raise UserError(f"line {number} is too deep or too long to be read", where=str(path)) from None
                if not isinstance(row, dict):
                    raise UserError(f"line {number} is not a JSON object", where=str(path))
                yield row
        except UnicodeDecodeError:
            raise UserError("the file is not UTF-8 text", where=str(path), hint="Save it again as UTF-8.") from None


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One object a line, UTF-8."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing: a reader never sees half of it."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise explain_os_error(error, path) from error


def read_yaml(path: Path) -> Any:
    """A YAML file as plain Python values. Raises UserError with the line."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader)  # noqa: S506
    except FileNotFoundError:
        raise UserError("there is no such file", where=str(path)) from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise UserError("the file is not UTF-8 text", where=str(path), hint="Save it again as UTF-8.") from None
    except RecursionError:
        raise UserError("the file is nested too deeply", where=str(path)) from None
    except ValueError as error:  # a date that there is not
        raise UserError(f"the file holds a value that cannot be read: {error}", where=str(path)) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" on line {mark.line + 1}" if mark else ""
        raise UserError(f"the file is not YAML: {getattr(error, 'problem', error)}{line}", where=str(path)) from None


def parse_record(kind: type[T], value: Any, *, where: str) -> T:
    """Check plain values against a record; errors name the field and, if it is unknown, the nearest known one."""
    from difflib import get_close_matches

    try:
        return kind.model_validate(value)
    except ValidationError as error:
        errors = error.errors()
        first = next((one for one in errors if one["type"] == "extra_forbidden"), errors[0])  # a slip, before what it leaves missing
        place = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            known = list(_holder(kind, first["loc"]).model_fields)
            near = get_close_matches(str(first["loc"][-1]), known, 1, 0.5)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known fields: {', '.join(known)}."
            raise UserError(f"unknown field {place!r}", where=where, hint=hint) from None
        missing = [".".join(map(str, one["loc"])) for one in errors if one["type"] == "missing"]
        if first["type"] == "missing":
            several = f"fields are missing: {', '.join(missing)}" if len(missing) > 1 else f"the field {place!r} is missing"
            raise UserError(several, where=where) from None
        what, hint = _say_type(first, place)
        raise UserError(what, where=where, hint=hint) from None


_SHOULD_BE = {
    "tuple_type": ("a list", "[{value}]"), "list_type": ("a list", "[{value}]"), "string_type": ("a text", "\"{value}\""),
    "dict_type": ("a mapping", ""), "model_type": ("a mapping of fields", ""), "int_type": ("a whole number", ""),
    "float_type": ("a number", ""), "bool_type": ("true or false", ""),
}  # fmt: skip


def _say_type(error: Any, place: str) -> tuple[str, str]:
    """What is wrong with a value, in the words of a file and not of Python; and how it is written."""
    value = error.get("input")
    if error["type"] not in _SHOULD_BE or not place:
        message = str(error["msg"]).removeprefix("Value error, ")
        return (f"{place}: {message}" if place else message), ""
    kind, form = _SHOULD_BE[error["type"]]
    plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    hint = f"Write {error['loc'][-1]!s}: {form.format(value=value)}" if form and plain and isinstance(error["loc"][-1], str) else ""
    return f"{place} is {kind}, not {value if plain else type(value).__name__}", hint


def _holder(kind: type[BaseModel], place: Sequence[int | str]) -> type[BaseModel]:
    """The record, `kind` or one inside it, that a field at `place` belongs to; keys of mappings and numbers in lists are passed over."""
    from typing import get_args

    def records(annotation: Any) -> Iterator[type[BaseModel]]:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield annotation
        for part in get_args(annotation):
            yield from records(part)

    for part in place[:-1]:
        field = kind.model_fields.get(str(part))
        kind = next(records(field.annotation), kind) if field else kind
    return kind


def write_card(folder: Path, card: Card) -> None:
    """Write the card, last of all files."""
    write_text(folder / CARD, card.model_dump_json(by_alias=True, indent=2) + "\n")


def read_card(folder: Path) -> Card:
    """The card of a folder. Raises UserError where there is none or it is of another version."""
    path = folder / CARD
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError("the folder has no card.json, so it is not finished or not ours", where=str(folder)) from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise UserError("card.json cannot be read", where=str(folder), hint="Remove the folder; it will be made again.") from None
    return parse_record(Card, value, where=str(path))


@contextmanager
def publish(folder: Path) -> Iterator[Path]:
    """Work in FOLDER.part and rename it when the body ends well: presence means done.

    What a killed run left in FOLDER.part is kept, so that the body can resume from it.
    """
    part = folder.with_name(folder.name + ".part")
    try:
        part.mkdir(parents=True, exist_ok=True)
        yield part
        if not (part / CARD).is_file():
            raise RuntimeError(f"{part} has no card")
        if folder.exists():
            shutil.rmtree(folder)
        part.rename(folder)
    except OSError as error:
        raise explain_os_error(error, folder) from error


def explain_os_error(error: OSError, path: Path) -> Exception:
    """A full or read-only disk as a UserError; anything else as it is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "Free some space and type the same command again: what is done is kept."
        return UserError("no space is left on the disk", where=str(path), hint=hint)
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return UserError("a file stands where a folder is needed", where=str(path), hint="Name another place with --output.")
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return UserError("the folder cannot be written", where=str(path))
    return error


@contextmanager
def lock_folder(folder: Path, doing: str) -> Iterator[None]:
    """Held while a process works in a folder, which is made. Raises UserError when another one does."""
    from filelock import FileLock, Timeout

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except Timeout:
        hint = "Wait for it, or name another folder with --output."
        raise UserError(f"another process is {doing} in this folder", where=str(folder), hint=hint) from None
    except OSError as error:
        raise explain_os_error(error, folder) from error
    try:
        yield
    finally:
        lock.release()


def cache_dir() -> Path:
    """TEACHWHY_CACHE, else the platform's cache folder: the only place with hidden state."""
    if chosen := os.environ.get("TEACHWHY_CACHE"):
        return Path(chosen).expanduser().resolve()
    from platformdirs import user_cache_path

    return user_cache_path("teachwhy", appauthor=False)


def changed_files(folder: Path) -> list[str]:
    """Files beside a folder's card that are no longer what the card's `inputs` say of them; none where there is no card."""
    if not (folder / CARD).is_file():
        return []
    held = read_card(folder).inputs
    return [name for name, sha256 in held.items() if (folder / name).is_file() and hash_file(folder / name) != sha256]


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def library_versions() -> dict[str, str]:
    """Versions of the libraries that decide a result; those not installed are left out."""
    found = {"python": platform.python_version()}
    for name in _VERSIONED:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def code_commit() -> str:
    """The commit of this source tree, with `+` after it where files differ; empty when installed from a wheel."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    commit = _run_git(root, "rev-parse", "--short=12", "HEAD")
    return commit + ("+" if commit and _run_git(root, "status", "--porcelain", "--untracked-files=no") else "")


def _run_git(root: Path, *words: str) -> str:
    try:
        return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:  # no git on this machine
        return ""


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Any]) -> None:
    """A row for each record, empty where it has no value; numbers in full. The file is there whole or not at all."""
    import csv

    part = path.with_name(path.name + ".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([getattr(row, name) for name in columns] for row in rows)
    part.replace(path)
