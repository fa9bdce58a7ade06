"""Choice prompts a second of the likelihood reading: ours (all actions of a prompt in one forward) against lm-evaluation-harness.

The prompts are shipped honeypots kept for evaluation, each behind the situation of another family and with its first three actions;
those of 170 to 190 tokens are taken. Ours reads them as an evaluation does: one call of score_continuations a prompt, all at once.
The harness reads them through `HFLM.loglikelihood`, one request an action; batches of 1, 2, 4, 8 and 16 are tried first, and the
fastest is measured. Both in fp32; templates and tokenization are counted for both.

Both must agree to 1e-3 nats with one forward pass an action (log-probability summed over the action's tokens). The harness moves a
prompt's last line break to the continuation, and so scores it with the action: it is added to what its scores are compared with.

lm_eval is no dependency of teachwhy: benchmarks/README.md says how to install it.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import logging
import platform
import statistics
import sys
import time
from typing import Any, NamedTuple

import torch
from inspect_ai.model import get_model
from transformers.utils.logging import disable_progress_bar

from teachwhy.evaluations.choice import load_scenarios
from teachwhy.models import score_continuations
from teachwhy.models.chat import encode_prompt, encode_text, load_tokenizer
from teachwhy.models.checkpoints import load_model, resolve_model
from teachwhy.scenarios import choice_prompt, fill

try:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
except ModuleNotFoundError as error:
    sys.exit(f"{error}: it is no dependency of teachwhy, and benchmarks/README.md says how to install it")

N_ACTIONS = 3
N_TOKENS = range(170, 191)
BATCH_SIZES = (1, 2, 4, 8, 16)
TOLERANCE = 1e-3
"""Nats, of an action's summed log-probability."""


class Item(NamedTuple):
    """One prompt and what could follow."""

    messages: list[dict[str, str]]
    actions: list[str]


class Run(NamedTuple):
    """All items, scored in one way."""

    seconds: float
    logprobs: list[float]
    """Of every action of every item, summed over its tokens, nats."""


class Expected(NamedTuple):
    """Log-probabilities of every action of every item, from a forward pass of its own."""

    logprobs: list[float]
    with_line_break: list[float]
    """The same and that of the prompt's last token, a line break."""


def read_items(tokenizer: Any, n_items: int) -> list[Item]:
    """The first prompts of the wanted length; scenarios are sorted by family, and half the list away is another one's."""
    scenarios = load_scenarios("honeypots")
    items = []
    for number, scenario in enumerate(scenarios):
        other, own = fill(scenarios[number - len(scenarios) // 2], 0), fill(scenario, 0)
        assert other.scenario.family != scenario.family
        text = f"{other.text(other.scenario.situation)}\n\n{own.text(scenario.situation)}"
        item = Item(choice_prompt(scenario.kind, text), [own.text(action.text) for action in scenario.actions[:N_ACTIONS]])
        if len(encode_prompt(tokenizer, item.messages)) in N_TOKENS:
            items.append(item)
    assert len(items) >= n_items
    return items[:n_items]


async def score_ours(model: Any, items: list[Item]) -> Run:
    """As the evaluation does it: concurrent calls, which the model gathers into batches."""
    started = time.monotonic()
    found = await asyncio.gather(*(score_continuations(model, [item.messages], [item.actions]) for item in items))
    return Run(time.monotonic() - started, [one.logprob for ((*scored,),) in found for one in scored])


def score_harness(harness: Any, items: list[Item], batch_size: int) -> Run:
    """As a task of output type multiple_choice does it: one request an action, all at once; the harness sorts and batches them."""
    harness.batch_size_per_gpu = batch_size
    started = time.monotonic()
    pairs = [(harness.apply_chat_template(item.messages), action) for item in items for action in item.actions]
    requests = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]
    found = harness.loglikelihood(requests, disable_tqdm=True)
    return Run(time.monotonic() - started, [logprob for logprob, _ in found])


def score_singly(model: Any, tokenizer: Any, harness: Any, items: list[Item]) -> Expected:
    """Each action alone behind its prompt, in a forward pass of its own. Checks that the harness meets the same tokens."""
    expected = Expected([], [])
    for item in items:
        for action in item.actions:
            ids, after = encode_prompt(tokenizer, item.messages), encode_text(tokenizer, action)
            assert harness.tok_encode(harness.apply_chat_template(item.messages) + action) == ids + after
            assert tokenizer.decode(ids[-1:]) == "\n"
            with torch.inference_mode():
                logprobs = model(torch.tensor([ids + after]), use_cache=False).logits[0].float().log_softmax(-1)
            wanted = torch.tensor([ids[-1], *after])
            found = logprobs[-len(wanted) - 1 : -1].gather(1, wanted[:, None])[:, 0]
            expected.logprobs.append(found[1:].sum().item())
            expected.with_line_break.append(found.sum().item())
    return expected


def largest_difference(runs: list[Run], wanted: list[float]) -> float:
    """From one by one, in nats, over all runs."""
    return max(abs(a - b) for run in runs for a, b in zip(run.logprobs, wanted, strict=True))


async def measure(threads: int, *, short: bool) -> None:
    """Measure and print."""
    n_tries, n_rounds, n_items = (1, 1, 2) if short else (2, 8, 16)  # 48 requests: no batch size leaves a rest
    torch.set_num_threads(threads)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    disable_progress_bar()
    base = resolve_model("builtin")
    tokenizer: Any = load_tokenizer(base)
    items = read_items(tokenizer, n_items)
    ours = get_model("teachwhy/builtin", memoize=False, dtype="float32", threads=threads)
    harness: Any = HFLM(pretrained=str(base), device="cpu", dtype="float32")
    expected = score_singly(load_model(base, dtype="float32"), tokenizer, harness, items)

    await score_ours(ours, items[:2])  # weights are loaded at the first request, and the first passes of a process are slow: not counted
    tries: dict[int, list[Run]] = {size: [] for size in BATCH_SIZES}
    for number in range(n_tries):
        for size in BATCH_SIZES if number % 2 == 0 else BATCH_SIZES[::-1]:
            tries[size].append(score_harness(harness, items, size))
    fastest = {size: min(run.seconds for run in tries[size]) for size in BATCH_SIZES}
    best = min(BATCH_SIZES, key=lambda size: fastest[size])

    names = ["teachwhy", f"lm_eval, batch of {best}"]
    runs: dict[str, list[Run]] = {name: [] for name in names}
    for number in range(n_rounds):
        for name in names if number % 2 == 0 else names[::-1]:
            runs[name].append(await score_ours(ours, items) if name == "teachwhy" else score_harness(harness, items, best))
    ours.api.close()
    assert torch.get_num_threads() == threads and next(harness.model.parameters()).dtype == torch.float32

    differences = {
        "teachwhy": largest_difference(runs["teachwhy"], expected.logprobs),
        names[1]: largest_difference([*runs[names[1]], *(run for size in tries for run in tries[size])], expected.with_line_break),
    }
    assert all(difference < TOLERANCE for difference in differences.values()), f"differences from one by one: {differences}"

    n_tokens = sum(len(encode_prompt(tokenizer, item.messages)) for item in items) / n_items
    n_after = sum(len(encode_text(tokenizer, action)) for item in items for action in item.actions) / n_items / N_ACTIONS
    print(f"{n_items} prompts of two honeypots ({n_tokens:.0f} tokens on average), {N_ACTIONS} actions each ({n_after:.0f} tokens),")
    print(f"{n_rounds} rounds, float32, {threads} thread(s), {platform.machine()} {torch.backends.cpu.get_cpu_capability()},")
    print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers", "lm_eval")))
    print(f"lm_eval, prompts/s by batch: {', '.join(f'{n_items / fastest[size]:.2f} ({size})' for size in BATCH_SIZES)}\n")
    print(f"{'way':<22}{'prompts/s':>10}{'teachwhy is faster by':>24}{'(rounds)':>14}{'largest difference':>20}")
    for name in names:
        rate = n_items * n_rounds / sum(run.seconds for run in runs[name])
        ratios = [other.seconds / own.seconds for other, own in zip(runs[name], runs["teachwhy"], strict=True)]
        spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
        print(f"{name:<22}{rate:>10.2f}{statistics.median(ratios):>24.2f}{spread:>14}{differences[name]:>20.1e}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="of torch (default 1, as a study's worker has)")
    parser.add_argument("--short", action="store_true", help="two prompts: does it run at all?")
    options = parser.parse_args()
    asyncio.run(measure(options.threads, short=options.short))


if __name__ == "__main__":
    main()
