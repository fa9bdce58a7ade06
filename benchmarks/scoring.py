"""Prompts a second of the likelihood reading: ours (shared prefixes, one masked forward) against one forward pass a continuation.

The prompts are those of the evaluation `honeypots`, scenarios and twins, each with its four actions, read in fp32 as the
evaluation reads them: one call of score_continuations a prompt, all at once. Tokenization is counted for all. The difference
is the largest between two ways' log-probabilities of an action (summed over its tokens, nats).
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import statistics
import time
from typing import Any, NamedTuple

import torch
from inspect_ai.model import get_model

from teachwhy.evaluations.choice import choice_task, load_scenarios
from teachwhy.models import plain_messages, score_continuations
from teachwhy.models.chat import encode_prompt, encode_text, load_tokenizer
from teachwhy.models.checkpoints import load_model, resolve_model


class Item(NamedTuple):
    """One prompt and what could follow."""

    messages: list[dict[str, str]]
    actions: list[str]


class Run(NamedTuple):
    """All items, scored in one way."""

    seconds: float
    logprobs: list[float]
    """Of every action of every item, summed over its tokens, nats."""


def read_items(n_items: int) -> list[Item]:
    """The first prompts of the evaluation."""
    samples: Any = list(choice_task("honeypots", load_scenarios("honeypots")).dataset)[:n_items]
    return [Item(plain_messages(sample.input), [action["text"] for action in sample.metadata["actions"]]) for sample in samples]


async def score_ours(model: Any, items: list[Item]) -> Run:
    """As the evaluation does it: concurrent calls, which the model gathers into batches."""
    started = time.monotonic()
    found = await asyncio.gather(*(score_continuations(model, [item.messages], [item.actions]) for item in items))
    return Run(time.monotonic() - started, [one.logprob for ((*scored,),) in found for one in scored])


def score_singly(model: Any, tokenizer: Any, items: list[Item], *, all_logits: bool) -> Run:
    """Each action alone behind its prompt, in a forward pass of its own; logits everywhere, or where the action is predicted."""
    started = time.monotonic()
    logprobs = []
    for item in items:
        for action in item.actions:
            ids, after = encode_prompt(tokenizer, item.messages), encode_text(tokenizer, action)
            with torch.inference_mode():
                logits = model(torch.tensor([ids + after]), use_cache=False, logits_to_keep=0 if all_logits else len(after) + 1).logits
            found = logits[0, -len(after) - 1 : -1].float().log_softmax(-1)
            logprobs.append(found.gather(1, torch.tensor(after)[:, None]).sum().item())
    return Run(time.monotonic() - started, logprobs)


async def measure(threads: int, *, short: bool) -> None:
    """Measure and print."""
    n_rounds, n_items = (1, 2) if short else (2, 48)
    torch.set_num_threads(threads)
    base = resolve_model("builtin")
    tokenizer = load_tokenizer(base)
    items = read_items(n_items)
    ours = get_model("teachwhy/builtin", memoize=False, dtype="float32", threads=threads)
    stock = load_model(base, dtype="float32")

    async def run_way(name: str, some: list[Item]) -> Run:
        if name == "teachwhy":
            return await score_ours(ours, some)
        return score_singly(stock, tokenizer, some, all_logits=name == "one by one")

    names = ["teachwhy", "one by one", "one by one, fewer logits"]
    for name in names:  # weights are loaded at the first request, and the first passes of a process are slow: not counted
        await run_way(name, items[:2])
    runs: dict[str, list[Run]] = {name: [] for name in names}
    for number in range(n_rounds):
        for name in names if number % 2 == 0 else names[::-1]:
            runs[name].append(await run_way(name, items))
    ours.api.close()

    n_tokens = sum(len(encode_prompt(tokenizer, item.messages)) for item in items) / n_items
    print(f"{n_items} prompts of the evaluation honeypots ({n_tokens:.0f} tokens on average), 4 actions each, {n_rounds} rounds,")
    print(f"float32, {threads} thread(s), {platform.machine()} {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}\n")
    print(f"{'way':<26}{'prompts/s':>10}{'teachwhy is faster by':>24}{'(rounds)':>14}{'largest difference':>20}")
    for name in names:
        rate = n_items * n_rounds / sum(run.seconds for run in runs[name])
        ratios = [other.seconds / own.seconds for other, own in zip(runs[name], runs["teachwhy"], strict=True)]
        spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
        differences = [abs(a - b) for a, b in zip(runs[name][0].logprobs, runs["teachwhy"][0].logprobs, strict=True)]
        print(f"{name:<26}{rate:>10.2f}{statistics.median(ratios):>24.2f}{spread:>14}{max(differences):>20.1e}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="of torch (default 1, as a study's worker has)")
    parser.add_argument("--short", action="store_true", help="two prompts: does it run at all?")
    options = parser.parse_args()
    asyncio.run(measure(options.threads, short=options.short))


if __name__ == "__main__":
    main()
