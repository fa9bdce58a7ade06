"""New tokens a second of generation: our model API (requests gathered into batches), and stock `generate` one by one and at once.

The prompts are those of the evaluation `honeypots`; replies are greedy, in fp32, 64 new tokens at most. In fp32 a reply does
not depend on its neighbours, so that all ways must give the same replies: the table says how many are the same.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import statistics
import time
from typing import Any, NamedTuple

import torch
from inspect_ai.model import GenerateConfig, get_model
from transformers import GenerationConfig

from teachwhy.evaluations.choice import choice_task, load_scenarios
from teachwhy.models import plain_messages
from teachwhy.models.chat import encode_prompt, load_tokenizer
from teachwhy.models.checkpoints import load_model, resolve_model

BATCH_SIZE = 32


class Run(NamedTuple):
    """All prompts, answered in one way."""

    seconds: float
    n_tokens: int
    """New ones, the stop token included, padding not."""
    replies: list[str]


async def generate_ours(model: Any, tokenizer: Any, samples: list[Any], n_new: int) -> Run:
    """As an evaluation does it: concurrent requests through Inspect."""
    config = GenerateConfig(temperature=0, max_tokens=n_new)
    started = time.monotonic()
    outputs = await asyncio.gather(*(model.generate(sample.input, config=config) for sample in samples))
    seconds = time.monotonic() - started
    assert all(output.usage.input_tokens == len(encode_sample(tokenizer, one)) for output, one in zip(outputs, samples, strict=True))
    return Run(seconds, sum(output.usage.output_tokens for output in outputs), [output.completion for output in outputs])


def generate_stock(model: Any, tokenizer: Any, samples: list[Any], n_new: int, batch_size: int) -> Run:
    """`generate` of transformers, prompts padded on the left."""
    config = GenerationConfig(
        do_sample=False, max_new_tokens=n_new, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    n_tokens = 0
    replies = []
    started = time.monotonic()
    for start in range(0, len(samples), batch_size):
        prompts = [encode_sample(tokenizer, sample) for sample in samples[start : start + batch_size]]
        length = max(map(len, prompts))
        ids = torch.tensor([[tokenizer.pad_token_id] * (length - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (length - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        with torch.inference_mode():
            found = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
        for new in found[:, length:].tolist():
            ended = tokenizer.eos_token_id in new
            n_tokens += new.index(tokenizer.eos_token_id) + 1 if ended else len(new)
            replies.append(tokenizer.decode(new, skip_special_tokens=True))
    return Run(time.monotonic() - started, n_tokens, replies)


def encode_sample(tokenizer: Any, sample: Any) -> list[int]:
    """A prompt's ids."""
    return encode_prompt(tokenizer, plain_messages(sample.input))


async def measure(threads: int, *, short: bool) -> None:
    """Measure and print."""
    n_rounds, n_prompts, n_new = (1, 3, 4) if short else (4, BATCH_SIZE, 64)
    torch.set_num_threads(threads)
    base = resolve_model("builtin")
    tokenizer: Any = load_tokenizer(base)
    samples: list[Any] = list(choice_task("honeypots", load_scenarios("honeypots")).dataset)[:n_prompts]
    ours = get_model("teachwhy/builtin", memoize=False, dtype="float32", batch_size=BATCH_SIZE, threads=threads)
    stock = load_model(base, dtype="float32")

    async def run_way(name: str, some: list[Any], n_tokens: int) -> Run:
        if name == "teachwhy":
            return await generate_ours(ours, tokenizer, some, n_tokens)
        return generate_stock(stock, tokenizer, some, n_tokens, 1 if name == "stock, one by one" else BATCH_SIZE)

    names = ["teachwhy", "stock, batch of 32", "stock, one by one"]
    for name in names:  # weights are loaded at the first request, and the first passes of a process are slow: not counted
        await run_way(name, samples[:2], 2)
    runs: dict[str, list[Run]] = {name: [] for name in names}
    for number in range(n_rounds):
        for name in names if number % 2 == 0 else names[::-1]:
            runs[name].append(await run_way(name, samples, n_new))
    ours.api.close()

    n_input = sum(len(encode_sample(tokenizer, sample)) for sample in samples) / n_prompts
    print(f"{n_prompts} prompts of the evaluation honeypots ({n_input:.0f} tokens on average), {n_new} new tokens at most, greedy,")
    print(f"{n_rounds} rounds, float32, {threads} thread(s), {platform.machine()}", end=" ")
    print(f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}\n")
    print(f"{'way':<20}{'new tokens/s':>14}{'teachwhy is faster by':>24}{'(rounds)':>14}{'same replies':>15}")
    for name in names:
        rate = sum(run.n_tokens for run in runs[name]) / sum(run.seconds for run in runs[name])
        pairs = zip(runs["teachwhy"], runs[name], strict=True)
        ratios = [own.n_tokens / own.seconds / (other.n_tokens / other.seconds) for own, other in pairs]
        spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
        n_same = sum(a == b for a, b in zip(runs[name][0].replies, runs["teachwhy"][0].replies, strict=True))
        print(f"{name:<20}{rate:>14.1f}{statistics.median(ratios):>24.2f}{spread:>14}{n_same:>9} of {n_prompts:<2}")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1, help="of torch (default 1, as a study's worker has)")
    parser.add_argument("--short", action="store_true", help="three prompts, four new tokens: does it run at all?")
    options = parser.parse_args()
    asyncio.run(measure(options.threads, short=options.short))


if __name__ == "__main__":
    main()
