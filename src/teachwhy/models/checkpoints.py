"""Checkpoints: find weights by name, hash them, load them, merge adapters. Safetensors alone; no code out of a checkpoint is ever run."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from teachwhy.errors import MissingExtra, UserError
from teachwhy.files import cache_dir, canonical_json, hash_file, hash_text, read_card, write_text
from teachwhy.models import builtin

DTYPES = ("float32", "bfloat16", "float16")
_KEPT = (".safetensors", ".json", ".jinja", ".model", ".txt")
"""Files of a checkpoint that decide what it does."""
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_SMALL_BYTES = 2**24


def resolve_model(name: str) -> Path:
    """The folder of a model: `builtin`, a local folder, or a Hugging Face id (its cache, else a download).

    Raises UserError where there is none, where it has no safetensors weights, and when a download fails.
    """
    if name in builtin.ALIASES:
        if folder := builtin.find_builtin():
            return folder
        raise UserError("the built-in model is not on this machine", hint="Type: teachwhy models get builtin")
    name = name.removeprefix("teachwhy/")
    path = Path(name).expanduser()
    if path.is_dir():
        check_weights(path)
        return path.resolve()
    if name.startswith((".", "~", "/")) or name.count("/") > 1:
        raise UserError("there is no such folder", where=name)
    folder = _fetch(name)
    check_weights(folder)
    return folder


def check_weights(folder: Path) -> None:
    """Raise UserError unless a folder holds a config.json and safetensors weights of a whole model."""
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            raise UserError(
                "the folder holds an adapter, not a model",
                where=str(folder),
                hint="Name its base model, and the folder among the adapters.",
            )
        raise UserError("the folder has no config.json, so it is no model", where=str(folder))
    if any(folder.glob("*.safetensors")):
        return
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    if pickles:
        raise UserError(
            f"the weights are a pickle ({pickles[0]}), and loading a pickle runs code",
            where=str(folder),
            hint="Where you trust its author, convert it: "
            "AutoModelForCausalLM.from_pretrained(FOLDER, use_safetensors=False).save_pretrained(NEW_FOLDER)",
        )
    raise UserError("the folder has no weights: no *.safetensors file", where=str(folder))


def _fetch(name: str) -> Path:
    """The folder of a Hugging Face id. What lies in the cache is taken as it is: nothing is asked of the network then."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError
    except ImportError:
        raise MissingExtra("local weights need transformers, which is not installed") from None
    patterns: dict[str, Any] = {"allow_patterns": [f"*{suffix}" for suffix in _KEPT], "ignore_patterns": ["*/*"]}
    missing = "Give `builtin`, a folder, or the id of a model on huggingface.co (owner/name)."
    try:
        cached = Path(snapshot_download(name, local_files_only=True, **patterns))
        if (cached / "config.json").is_file() and any(cached.glob("*.safetensors")):
            return cached
    except HFValidationError:
        raise UserError(f"{name!r} is neither a folder nor the id of a model", hint=missing) from None
    except LocalEntryNotFoundError:
        pass
    try:
        return Path(snapshot_download(name, **patterns))
    except RepositoryNotFoundError:
        raise UserError(f"huggingface.co has no model {name!r}, or it is not open to you", hint=missing) from None
    except Exception as error:  # every network stack has its own errors: requests, httpx, sockets, proxies
        raise UserError(
            f"the model {name!r} could not be fetched: {type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}",
            hint="Check the network, or give the path of a folder that holds it.",
        ) from error


def hash_model(path: Path) -> str:
    """sha256 of what a model's folder holds, 64 hex digits: weights, configuration, tokenizer; no card, no README.

    The built-in model's comes from its card. Of a folder over 16 MB it is kept in the cache until a size or a time changes.
    """
    if path.resolve() == builtin.builtin_dir().resolve():
        card = read_card(path)
        return hash_text(canonical_json([path.name, card.inputs, card.settings]))
    return _hash_files(path, [file for file in path.iterdir() if file.is_file() and file.suffix in _KEPT and file.name != "card.json"])


def hash_weights(path: Path) -> str:
    """sha256 of a model's or an adapter's weights alone, 64 hex digits, whatever lies beside them: whether two trainings are one. Kept as
    `hash_model`'s."""
    return _hash_files(path, list(path.glob("*.safetensors")))


def _hash_files(path: Path, files: Sequence[Path]) -> str:
    files = sorted(files)
    stats = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    kept = cache_dir() / "hashes" / f"{hash_text(canonical_json([str(path.resolve()), stats]))[:32]}.txt"
    big = sum(size for _, size, _ in stats) > _SMALL_BYTES
    if big and kept.is_file():
        return kept.read_text(encoding="utf-8").strip()
    found = hash_text(canonical_json([[file.name, hash_file(file)] for file in files]))
    if big:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_text(kept, found + "\n")
    return found


def load_model(path: Path, *, adapters: Sequence[Path] = (), dtype: str, train: bool = False) -> Any:
    """A model's weights on `pick_device()`, with adapters (PEFT folders) merged in fp32 in order, then cast to `dtype`.

    Attention is eager for training and sdpa else: each measured as the faster on a CPU. The sdpa of transformers decodes
    grouped queries without repeating keys, as fast as an attention of our own did. Raises UserError where it cannot be
    loaded, MissingExtra without torch.
    """
    if dtype not in DTYPES:
        raise UserError(f"there is no dtype {dtype!r}", hint=f"There are: {', '.join(DTYPES)}.")
    try:
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM
    except ImportError as error:
        raise MissingExtra(f"local weights need {error.name}, which is not installed") from None
    check_weights(path)
    final = getattr(torch, dtype)
    try:
        with _quiet():
            model: Any = AutoModelForCausalLM.from_pretrained(
                path,
                dtype=torch.float32 if adapters else final,
                attn_implementation="eager" if train else "sdpa",
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise UserError(f"the model cannot be loaded: {(str(error).splitlines() or [''])[0]}", where=str(path)) from error
    for adapter in adapters:
        model = _merge(model, adapter)
    return model.to(device=pick_device(), dtype=final).train(train)


def check_adapter(adapter: Path) -> None:
    """Raise UserError unless a folder holds an adapter in safetensors."""
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if not (adapter / name).is_file():
            raise UserError(f"the folder has no {name}, so it is no adapter", where=str(adapter))


def _merge(model: Any, adapter: Path) -> Any:
    from peft import PeftModel, get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    check_adapter(adapter)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # peft asks transformers by an old name
            warnings.filterwarnings("ignore", "Found missing adapter keys", UserWarning)  # said below, as an error
            whole = PeftModel.from_pretrained(model, str(adapter))
        with safe_open(adapter / "adapter_model.safetensors", "pt") as file:
            odd = set(file.keys()) ^ set(get_peft_model_state_dict(whole))
        if odd:  # peft merges what fits and says nothing of the rest
            raise ValueError(f"{len(odd)} tensors have no place in it or are missing, e.g. {min(odd)}")
        return whole.merge_and_unload()
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        what = (str(error).splitlines() or [""])[0]
        raise UserError(f"the adapter does not fit the model: {what}", where=str(adapter)) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bar for half a second of loading."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def best_dtype() -> Literal["bfloat16", "float32"]:
    """`bfloat16` where the machine computes in it (a GPU with it; AVX512-BF16 or AMX), else `float32`."""
    import torch

    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return "bfloat16" if any(check is not None and check() for check in checks) else "float32"


def pick_device() -> Literal["cuda", "cpu"]:
    """A CUDA device where there is one, else the CPU. Not Apple's MPS: some versions compute padded batches wrongly."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"
