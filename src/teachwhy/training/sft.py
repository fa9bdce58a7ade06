"""Supervised fine-tuning: one flat loop, one device.

Why not TRL's trainer: equal effort between arms needs updates of unequal rows (an arm's own row beside neutral ones) with one
weight for every supervised token, logits at supervised positions alone, and a checkpoint that resumes to the same bits.
benchmarks/training.py measures what that buys; a test holds the loss against TRL's.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import LoraConfig, get_peft_model
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy

from teachwhy.errors import CellFailed
from teachwhy.files import derive_seed
from teachwhy.models.chat import Encoded
from teachwhy.training.settings import SftSettings

Batch = Sequence[Encoded]
CHECKPOINT = "checkpoint.safetensors"
CHECKPOINT_SECONDS = 45.0


class Progress(NamedTuple):
    """After an update. `loss` is the mean over the update's supervised tokens, nats."""

    update: int
    n_updates: int
    loss: float
    tokens_per_second: float


class Trained(NamedTuple):
    """What a stage did."""

    losses: list[float]
    n_tokens: int
    n_supervised: int
    seconds: float


def train_adapter(
    model: Any,
    batches: Sequence[Batch],
    settings: SftSettings,
    *,
    seed: int,
    folder: Path,
    keep: Mapping[int, str] | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Trained:
    """Train a LoRA adapter on `model` (frozen, already in its training dtype) and save it to `folder`/adapter; keep: number
    of updates -> name of a folder beside it, for the adapter as it then is.

    One batch is one update. Every supervised token of the stage has the same weight: an update's loss is the sum over its
    supervised tokens divided by the mean number of them. Resumes from a checkpoint that a killed run left in `folder`, to the
    same result. Raises CellFailed when the loss is no number.
    """
    torch.manual_seed(derive_seed(seed, "lora"))
    peft_model = add_lora(model, settings)
    weights = {name: value for name, value in peft_model.named_parameters() if value.requires_grad}
    # fp32 masters: bf16 has 8 bits, and an update of 1e-4 would round away
    masters = {name: value.detach().float().clone().requires_grad_() for name, value in weights.items()}
    optimizer = torch.optim.AdamW(list(masters.values()), lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    losses, done_seconds = _resume(folder / CHECKPOINT, masters, weights, optimizer)
    n_supervised = sum(sum(row.supervised) for batch in batches for row in batch)
    per_update = n_supervised / len(batches)
    started = saved = time.monotonic()
    n_tokens = 0
    for number in range(len(losses), len(batches)):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * schedule_rate(number, len(batches), settings.warmup)
        loss, n_batch = summed_loss(peft_model, batches[number])
        if not math.isfinite(loss.item()):
            raise CellFailed(
                f"the loss of update {number + 1} is {loss.item()}: try half the learning rate ({settings.learning_rate / 2:g})"
            )
        (loss / per_update).backward()
        _step(optimizer, masters, weights, settings.max_norm)
        losses.append(loss.item() / n_batch)
        n_tokens += sum(len(row.ids) for row in batches[number])
        if name := (keep or {}).get(number + 1):
            peft_model.save_pretrained(folder / name)
        clock = time.monotonic()
        report(Progress(number + 1, len(batches), losses[-1], n_tokens / max(clock - started, 1e-9)))
        if clock - saved > CHECKPOINT_SECONDS and number + 1 < len(batches):
            _save(folder / CHECKPOINT, masters, optimizer, losses, done_seconds + clock - started)
            saved = clock
    peft_model.save_pretrained(folder / "adapter")
    (folder / CHECKPOINT).unlink(missing_ok=True)
    total = sum(len(row.ids) for batch in batches for row in batch)
    return Trained(losses, total, n_supervised, done_seconds + time.monotonic() - started)


def add_lora(model: Any, settings: SftSettings) -> Any:
    """The model with a fresh adapter on the linear layers; only the adapter asks for gradients."""
    n_layers = model.config.num_hidden_layers
    layers = None if settings.top_layers is None else list(range(max(0, n_layers - settings.top_layers), n_layers))
    head = model.get_output_embeddings()
    linear = {name.rpartition(".")[2] for name, part in model.named_modules() if isinstance(part, torch.nn.Linear) and part is not head}
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, target_modules=sorted(linear), layers_to_transform=layers, task_type="CAUSAL_LM"
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # peft asks transformers by an old name
        peft_model = get_peft_model(model, config, autocast_adapter_dtype=False)
    peft_model.config.use_cache = False
    return peft_model.train()


def schedule_rate(update: int, n_updates: int, warmup: float) -> float:
    """Share of the highest learning rate at an update (0-based): linear warm-up, then cosine to zero."""
    n_warm = math.ceil(n_updates * warmup)
    if update < n_warm:
        return (update + 1) / n_warm
    return 0.5 * (1 + math.cos(math.pi * (update - n_warm) / max(1, n_updates - n_warm)))


def summed_loss(peft_model: Any, batch: Batch) -> tuple[torch.Tensor, int]:
    """Summed cross-entropy (nats) over the supervised tokens of a batch, and their number.

    Rows are padded on the right, where nothing sees the padding; logits are computed at supervised positions alone.
    """
    model = peft_model.get_base_model()
    device = next(model.parameters()).device
    n_tokens = max(len(row.ids) for row in batch)
    ids = torch.tensor([row.ids + [0] * (n_tokens - len(row.ids)) for row in batch], device=device)
    mask = torch.tensor([[1] * len(row.ids) + [0] * (n_tokens - len(row.ids)) for row in batch], device=device)
    spots = [(row, place) for row, encoded in enumerate(batch) for place, marked in enumerate(encoded.supervised) if marked and place]
    rows, places = (torch.tensor(column, device=device) for column in zip(*spots, strict=True))
    hidden = model.get_decoder()(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    logits = model.get_output_embeddings()(hidden[rows, places - 1])
    return cross_entropy(logits.float(), ids[rows, places], reduction="sum"), len(spots)


def _step(optimizer: torch.optim.Optimizer, masters: dict[str, torch.Tensor], weights: dict[str, torch.Tensor], max_norm: float) -> None:
    for name, master in masters.items():
        gradient = weights[name].grad
        master.grad = None if gradient is None else gradient.float()
        weights[name].grad = None
    torch.nn.utils.clip_grad_norm_(list(masters.values()), max_norm)
    optimizer.step()
    with torch.no_grad():
        for name, master in masters.items():
            weights[name].copy_(master)


def _save(path: Path, masters: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer, losses: list[float], seconds: float) -> None:
    """Masters, the optimizer's two moments and the losses so far; written beside and renamed."""
    tensors = {f"master.{name}": value.detach() for name, value in masters.items()}
    for (name, _), state in zip(masters.items(), optimizer.state.values(), strict=True):
        tensors |= {f"{key}.{name}": state[key] for key in ("exp_avg", "exp_avg_sq", "step")}
    tensors |= {"losses": torch.tensor(losses, dtype=torch.float64), "seconds": torch.tensor([seconds])}
    part = path.with_suffix(".part")
    save_file(tensors, part)
    part.replace(path)


def _resume(
    path: Path, masters: dict[str, torch.Tensor], weights: dict[str, torch.Tensor], optimizer: torch.optim.Optimizer
) -> tuple[list[float], float]:
    if not path.is_file():
        return [], 0.0
    try:
        tensors = load_file(path)
        missing = {f"{kind}.{name}" for name in masters for kind in ("master", "exp_avg", "exp_avg_sq", "step")} | {"losses", "seconds"}
        if missing - tensors.keys():
            raise ValueError("it lacks tensors")
    except (SafetensorError, ValueError, OSError):  # damaged: the training begins anew
        path.unlink()
        return [], 0.0
    with torch.no_grad():
        for name, master in masters.items():
            master.copy_(tensors[f"master.{name}"])
            weights[name].copy_(master)
            moments = {key: tensors[f"{key}.{name}"].to(master.device, copy=True) for key in ("exp_avg", "exp_avg_sq")}
            optimizer.state[master] = {"step": tensors[f"step.{name}"].clone(), **moments}  # torch keeps the step on the CPU
    return tensors["losses"].tolist(), float(tensors["seconds"][0])
