"""Tokens a second of supervised fine-tuning: our loop, a bare bf16 loop, and TRL's SFTTrainer, in one run and in turns.

All three train the same adapter on the same rows in the same batches, on weights loaded alike (eager attention). Tokens are
those of the rows, padding not counted. The first loss is printed because it must be the same for all: the work is.
"""

from __future__ import annotations

import argparse
import copy
import platform
import statistics
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset, disable_progress_bars  # type: ignore[import-untyped, unused-ignore]
from transformers import PrinterCallback
from transformers.utils import logging
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from teachwhy.corpora import CorpusRow, corpus_rows
from teachwhy.models.chat import Encoded, encode_chat, load_tokenizer, training_template
from teachwhy.models.checkpoints import best_dtype, load_model, resolve_model
from teachwhy.training.settings import SftSettings
from teachwhy.training.sft import add_lora, train_adapter

CORPUS = "ambiguity/price_reason"


class Run(NamedTuple):
    """Some updates by one loop."""

    seconds: float
    """Of the updates alone: no loading, no tokenization."""
    first_loss: float
    """Nats a supervised token."""


def run_ours(model: Any, rows: list[Encoded], settings: SftSettings, folder: Path) -> Run:
    """train_adapter, as a study calls it: schedule, clipping, fp32 masters, logits at supervised positions alone."""
    trained = train_adapter(model, split_rows(rows, settings.rows_per_update), settings, seed=0, folder=folder)
    return Run(trained.seconds, trained.losses[0])


def run_bare(model: Any, rows: list[Encoded], settings: SftSettings) -> Run:
    """What one would write in a minute: padded batches, all logits, AdamW on the adapter's bf16 weights."""
    peft_model = add_lora(model, settings)
    optimizer = torch.optim.AdamW([value for value in peft_model.parameters() if value.requires_grad], lr=settings.learning_rate)
    losses = []
    started = time.monotonic()
    for batch in split_rows(rows, settings.rows_per_update):
        length = max(len(row.ids) for row in batch)
        ids = torch.tensor([row.ids + [0] * (length - len(row.ids)) for row in batch])
        mask = torch.tensor([[1] * len(row.ids) + [0] * (length - len(row.ids)) for row in batch])
        marked = torch.tensor([row.supervised + [False] * (length - len(row.ids)) for row in batch])
        loss = peft_model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(~marked, -100)).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return Run(time.monotonic() - started, losses[0])


def run_trl(model: Any, tokenizer: Any, rows: list[CorpusRow], settings: SftSettings, folder: Path) -> Run:
    """SFTTrainer with its defaults, but: no gradient checkpointing, rows in their order, and the adapter and its dtype as ours."""
    config = SFTConfig(
        output_dir=str(folder), max_steps=len(rows) // settings.rows_per_update, per_device_train_batch_size=settings.rows_per_update,
        learning_rate=settings.learning_rate, assistant_only_loss=True, gradient_checkpointing=False, bf16=False, use_cpu=True,
        train_sampling_strategy="sequential", save_strategy="no", report_to="none", logging_first_step=True, disable_tqdm=True,
    )  # fmt: skip
    dataset = Dataset.from_list([{"messages": list(row.messages)} for row in rows])
    trainer = SFTTrainer(model=add_lora(model, settings), args=config, train_dataset=dataset, processing_class=tokenizer)
    trainer.remove_callback(PrinterCallback)
    done = trainer.train()
    return Run(done.metrics["train_runtime"], trainer.state.log_history[0]["loss"])


def split_rows(rows: list[Encoded], size: int) -> list[list[Encoded]]:
    """Batches of `size` rows, in order."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="of torch (default 1, as a study's worker has)")
    parser.add_argument("--short", action="store_true", help="two updates a loop: does it run at all?")
    options = parser.parse_args()
    n_rounds, n_updates = (1, 2) if options.short else (6, 12)
    torch.set_num_threads(options.threads)
    logging.set_verbosity_error()
    disable_progress_bars()
    warnings.filterwarnings("ignore")
    settings = SftSettings(updates=n_updates)
    base = resolve_model("builtin")
    tokenizer: Any = copy.deepcopy(load_tokenizer(base))
    tokenizer.chat_template = training_template(tokenizer)
    rows = corpus_rows(CORPUS, n_updates * settings.rows_per_update, seed=0)
    encoded = [encode_chat(tokenizer, list(row.messages)) for row in rows]
    dtype = best_dtype()

    def run_loop(name: str, n_rows: int) -> Run:
        model = load_model(base, dtype=dtype, train=True)
        with tempfile.TemporaryDirectory() as folder:
            if name == "teachwhy":
                return run_ours(model, encoded[:n_rows], settings, Path(folder))
            if name == "bare loop":
                return run_bare(model, encoded[:n_rows], settings)
            return run_trl(model, tokenizer, rows[:n_rows], settings, Path(folder))

    names = ["teachwhy", "bare loop", "TRL's SFTTrainer"]
    for name in names:  # the first passes of a process are slow: not counted
        run_loop(name, settings.rows_per_update)
    runs: dict[str, list[Run]] = {name: [] for name in names}
    for number in range(n_rounds):
        for name in names[number % 3 :] + names[: number % 3]:
            runs[name].append(run_loop(name, len(rows)))

    n_tokens = sum(len(row.ids) for row in encoded)
    print(f"SFT of the built-in model, {settings.rows_per_update} rows of {CORPUS} an update ({n_tokens / len(rows):.0f} tokens a row),")
    print(f"{n_rounds} rounds of {n_updates} updates, {dtype}, {options.threads} thread(s), {platform.machine()}", end=" ")
    print(f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}\n")
    print(f"{'loop':<18}{'tokens/s':>10}{'teachwhy is faster by':>24}{'(rounds)':>16}{'first loss':>12}")
    for name in names:
        rate = n_tokens * n_rounds / sum(run.seconds for run in runs[name])
        ratios = [other.seconds / ours.seconds for other, ours in zip(runs[name], runs["teachwhy"], strict=True)]
        spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
        print(f"{name:<18}{rate:>10.0f}{statistics.median(ratios):>24.2f}{spread:>16}{runs[name][0].first_loss:>12.3f}")


if __name__ == "__main__":
    main()
