"""The local model API: batches change nothing, every request's settings are its own, the worker never polls."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from inspect_ai.model import (  # noqa: E402
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    ContentImage,
    GenerateConfig,
    ModelOutput,
    get_model,
)
from inspect_ai.tool import ToolInfo  # noqa: E402

import teachwhy._registry  # noqa: E402, F401
from teachwhy.errors import UserError  # noqa: E402
from teachwhy.models import local as sut  # noqa: E402
from teachwhy.models.chat import encode_prompt, load_tokenizer  # noqa: E402
from teachwhy.models.checkpoints import load_model  # noqa: E402

WORDS = ["Hi", "What is it?", "a", "Tell me a long story about a boat", "Why", "x y z", "Name one thing, please.", "No"]


@pytest.fixture
def api(tiny_model_dir: Path) -> Iterator[sut.LocalModel]:
    model = sut.LocalModel(str(tiny_model_dir), batch_size=8)
    yield model
    model.close()


def chat(text: str, prefill: str = "") -> list[Any]:
    messages: list[Any] = [ChatMessageSystem(content="Be brief."), ChatMessageUser(content=text)]
    return [*messages, ChatMessageAssistant(content=prefill)] if prefill else messages


def ask(api: sut.LocalModel, texts: Sequence[str], configs: Sequence[GenerateConfig]) -> list[ModelOutput]:
    async def run() -> list[ModelOutput]:
        replies = [api.generate(chat(text), [], "none", config) for text, config in zip(texts, configs, strict=True)]
        return list(await asyncio.gather(*replies))

    return asyncio.run(run())


def one(api: sut.LocalModel, text: str = "Hi", **settings: Any) -> ModelOutput:
    return ask(api, [text], [GenerateConfig(**settings)])[0]


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"temperature": 0.8, "top_p": 0.9}, {"top_k": 20}], ids=str)
def test_batch_of_eight_equals_eight_of_one(api: sut.LocalModel, settings: dict[str, Any]) -> None:
    configs = [GenerateConfig(max_tokens=12 + row, seed=row, logprobs=True, top_logprobs=2, **settings) for row in range(8)]
    together = ask(api, WORDS, configs)
    for text, config, batched in zip(WORDS, configs, together, strict=True):
        (alone,) = ask(api, [text], [config])
        assert alone.completion == batched.completion
        assert alone.stop_reason == batched.stop_reason
        assert alone.usage == batched.usage
        assert logprobs_of(alone) == pytest.approx(logprobs_of(batched), abs=1e-4)


def logprobs_of(output: ModelOutput) -> list[float]:
    assert output.choices[0].logprobs is not None
    return [token.logprob for token in output.choices[0].logprobs.content]


def test_concurrent_requests_share_one_batch(api: sut.LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    run = api._run
    monkeypatch.setattr(api, "_run", lambda kind, payloads: sizes.append(len(payloads)) or run(kind, payloads))
    ask(api, WORDS, [GenerateConfig(max_tokens=2)] * 8)
    assert sizes == [8]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_greedy_output_is_that_of_stock_generate(tiny_model_dir: Path, api: sut.LocalModel, attention: str) -> None:
    model = load_model(tiny_model_dir, dtype="float32")
    model.set_attn_implementation(attention)
    tokenizer = load_tokenizer(tiny_model_dir)
    found = ask(api, WORDS, [GenerateConfig(temperature=0, max_tokens=16)] * 8)
    for text, output in zip(WORDS, found, strict=True):
        ids = encode_prompt(tokenizer, [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}])
        stock = model.generate(input_ids=torch.tensor([ids]), do_sample=False, max_new_tokens=16)[0, len(ids) :]
        assert output.completion == tokenizer.decode(stock, skip_special_tokens=True)


def test_seed_decides_the_sample(api: sut.LocalModel) -> None:
    texts = {seed: one(api, max_tokens=24, seed=seed).completion for seed in range(4)}
    assert len(set(texts.values())) == 4
    assert all(one(api, max_tokens=24, seed=seed).completion == text for seed, text in texts.items())
    assert one(api, max_tokens=24).completion != one(api, max_tokens=24).completion


def test_samples_follow_the_distribution() -> None:
    """4000 rows of one distribution, each with its own seed: shares within 4 standard errors of the probabilities."""
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0, float("-inf")])
    probs = (logits / 0.7).softmax(-1)
    requests = [sut.Request([1], 1, temperature=0.7, seed=seed) for seed in range(4000)]
    sampler = sut._Sampler(None, requests, frozenset())
    shares = torch.bincount(sampler._choose(logits.expand(4000, -1)), minlength=5) / 4000
    assert ((shares - probs).abs() <= 4 * (probs * (1 - probs) / 4000).sqrt()).all()


def test_cuts_keep_the_likeliest() -> None:
    logits = torch.tensor([0.1, 0.5, 0.15, 0.25]).log()
    kept = lambda top_k, top_p: sut.cut_logits(logits, top_k, top_p).isfinite().tolist()  # noqa: E731
    assert kept(0, 1.0) == [True] * 4
    assert kept(2, 1.0) == [False, True, False, True]
    assert kept(0, 0.6) == [False, True, False, True]
    assert kept(0, 0.0) == [False, True, False, False]
    assert kept(3, 0.99) == [False, True, True, True]


def test_prefill_is_continued(api: sut.LocalModel) -> None:
    greedy = GenerateConfig(temperature=0, max_tokens=10)
    whole = ask(api, ["Hi"], [greedy])[0].completion
    head = next(whole[:size] for size in range(1, len(whole)) if whole[:size].isascii() and not whole[:size].isspace())
    rest = asyncio.run(api.generate(chat("Hi", head), [], "none", GenerateConfig(temperature=0, max_tokens=10 - len(head))))
    assert head + rest.completion == whole


def first_tokens(api: sut.LocalModel, n_tokens: int) -> list[str]:
    output = one(api, temperature=0.0, max_tokens=n_tokens, logprobs=True)
    assert output.choices[0].logprobs is not None
    return [token.token for token in output.choices[0].logprobs.content]


def test_stop_reasons(api: sut.LocalModel, tiny_model_dir: Path) -> None:
    assert one(api, temperature=0.0, max_tokens=3).stop_reason == "max_tokens"
    tokens = first_tokens(api, 8)
    stop = next(token for token in tokens[1:] if token.isascii() and token != tokens[0])
    stopped = one(api, temperature=0.0, max_tokens=8, stop_seqs=["never seen", stop])
    assert stopped.stop_reason == "stop"
    assert stop not in stopped.completion
    assert stopped.completion == "".join(tokens[: tokens.index(stop)])
    api.context = (
        len(encode_prompt(load_tokenizer(tiny_model_dir), [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]))
        + 2
    )
    cut = one(api, temperature=0.0, max_tokens=8)
    assert (cut.stop_reason, cut.usage and cut.usage.output_tokens) == ("model_length", 2)
    full = one(api, "Hi, this is too long", temperature=0.0)
    assert (full.stop_reason, full.completion) == ("model_length", "")


def test_stop_token_ends_a_reply_and_is_no_text(api: sut.LocalModel) -> None:
    one(api, max_tokens=1)
    api._stop_ids = [load_tokenizer(api.folder).encode(first_tokens(api, 1)[0])[0]]
    output = one(api, temperature=0.0, max_tokens=8, logprobs=True)
    assert (output.stop_reason, output.completion) == ("stop", "")
    assert output.usage is not None
    assert output.usage.output_tokens == len(logprobs_of(output)) == 1


def test_logprobs_are_the_models_own(api: sut.LocalModel, tiny_model_dir: Path) -> None:
    output = one(api, max_tokens=6, seed=3, temperature=1.7, top_k=9, logprobs=True, top_logprobs=3)
    tokenizer = load_tokenizer(tiny_model_dir)
    prompt = encode_prompt(tokenizer, [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}])
    request = sut.make_request(prompt, GenerateConfig(max_tokens=6, seed=3, temperature=1.7, top_k=9, top_logprobs=3), 100)
    model = load_model(tiny_model_dir, dtype="float32")
    (reply,) = sut.generate_batch(model, tokenizer, [request], [2])
    with torch.inference_mode():
        expected = model(torch.tensor([prompt + reply.ids])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    wanted = [float(row[token]) for row, token in zip(expected, reply.ids, strict=True)]
    assert logprobs_of(output) == pytest.approx(wanted, abs=1e-4)
    assert output.choices[0].logprobs is not None
    top = output.choices[0].logprobs.content[0].top_logprobs
    assert [token.logprob for token in top or []] == pytest.approx(expected[0].topk(3).values.tolist(), abs=1e-4)
    assert one(api, max_tokens=2).choices[0].logprobs is None


def test_adapter_changes_the_reply(tiny_model_dir: Path, tiny_adapter_dir: Path, api: sut.LocalModel) -> None:
    adapted = sut.LocalModel(str(tiny_model_dir), adapters=[tiny_adapter_dir])
    assert one(adapted, temperature=0.0, max_tokens=8).completion != one(api, temperature=0.0, max_tokens=8).completion
    adapted.close()


def test_what_is_not_supported_is_refused(api: sut.LocalModel, tiny_model_dir: Path) -> None:
    tool = ToolInfo(name="look", description="Look.")
    with pytest.raises(UserError, match="tools"):
        asyncio.run(api.generate(chat("Hi"), [tool], "auto", GenerateConfig()))
    picture = [ChatMessageUser(content=[ContentImage(image="data:image/png;base64,AA==")])]
    with pytest.raises(UserError, match="text alone"):
        asyncio.run(api.generate(picture, [], "none", GenerateConfig()))
    with pytest.raises(UserError, match="frequency_penalty"):
        one(api, frequency_penalty=1.0)
    with pytest.raises(UserError, match="one reply"):
        one(api, num_choices=2)
    for wrong in ({"dtype": "int4"}, {"batch_size": 0}, {"nonsense": 1}, {"adapters": [tiny_model_dir]}):
        with pytest.raises(UserError):
            sut.LocalModel(str(tiny_model_dir), **wrong)  # type: ignore[arg-type, unused-ignore]


@pytest.mark.filterwarnings("ignore:The 'initial' parameter:DeprecationWarning")
def test_get_model_finds_the_provider(tiny_model_dir: Path) -> None:
    async def run() -> str:
        async with get_model(f"teachwhy/{tiny_model_dir}", memoize=False, threads=1) as model:
            return (await model.generate("Hi", config=GenerateConfig(max_tokens=4, temperature=0))).completion

    assert asyncio.run(run()) == asyncio.run(run())


def test_closed_model_frees_its_weights_and_can_be_asked_again(api: sut.LocalModel) -> None:
    before = one(api, temperature=0.0, max_tokens=4).completion
    assert api._worker is not None
    thread = api._worker.thread
    api.close()
    assert not thread.is_alive()
    assert not api._weights
    assert one(api, temperature=0.0, max_tokens=4).completion == before


# The worker


class Watched(threading.Condition):
    """A condition that notes how it was waited for."""

    def __init__(self, lock: Any = None) -> None:
        super().__init__(lock)
        self.timeouts: list[float | None] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.timeouts.append(timeout)
        return super().wait(timeout)


def test_worker_waits_for_a_condition_without_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sut.threading, "Condition", Watched)
        worker = sut.Worker(lambda kind, payloads: payloads, 4)
    for number in range(3):
        assert asyncio.run(worker.submit(sut.Job("score", number, 1))) == number
    worker.close()
    assert isinstance(worker.condition, Watched)
    assert set(worker.condition.timeouts) <= {None}
    assert "condition.wait()" in inspect.getsource(sut.Worker._loop)


def test_error_reaches_those_who_wait_and_the_worker_goes_on() -> None:
    def run(kind: str, payloads: list[Any]) -> list[Any]:
        if "bad" in payloads:
            raise ValueError("bad")
        return payloads

    worker = sut.Worker(run, 1)
    with pytest.raises(ValueError, match="bad"):
        asyncio.run(worker.submit(sut.Job("score", "bad", 1)))
    assert asyncio.run(worker.submit(sut.Job("score", "good", 1))) == "good"
    worker.close()
    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run(worker.submit(sut.Job("score", "late", 1)))


def test_cancelled_request_is_not_run() -> None:
    started, go_on, ran = threading.Event(), threading.Event(), []

    def run(kind: str, payloads: list[Any]) -> list[Any]:
        started.set()
        go_on.wait(10)
        ran.extend(payloads)
        return payloads

    async def both() -> None:
        first = asyncio.create_task(worker.submit(sut.Job("score", "first", 1)))
        while not started.is_set():
            await asyncio.sleep(0)
        second = asyncio.create_task(worker.submit(sut.Job("score", "second", 1)))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        go_on.set()
        assert await first == "first"

    worker = sut.Worker(run, 1)
    asyncio.run(both())
    worker.close()
    assert ran == ["first"]


def test_batch_is_of_one_kind_and_of_like_length() -> None:
    pending = [sut.Job("generate", None, size) for size in (10, 90, 12, 11)] + [sut.Job("score", None, 10)]
    batch = sut.take_batch(pending, 3)
    assert [job.n_tokens for job in batch] == [10, 11, 12]
    assert [(job.kind, job.n_tokens) for job in pending] == [("generate", 90), ("score", 10)]


@pytest.mark.builtin
def test_builtin_answers_alike_alone_and_in_a_batch(builtin_model_dir: Path) -> None:
    api = sut.LocalModel("builtin", threads=1)
    texts = ["What is the capital of France?", "Hi"]
    config = GenerateConfig(temperature=0, max_tokens=8)
    together = [output.completion for output in ask(api, texts, [config] * 2)]
    assert [ask(api, [text], [config])[0].completion for text in texts] == together
    assert "Paris" in together[0]
    api.close()
