"""Local weights as an Inspect model: `teachwhy/builtin`, `teachwhy//path/to/folder`, `teachwhy/owner/name`.

Why not Inspect's provider `hf`: it cannot prefill or score, ignores the seeds of requests and polls for seconds.
Requests of concurrent samples are run as one batch by one worker thread, which sleeps on a condition until one comes.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    Logprob,
    Logprobs,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    TopLogprob,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from teachwhy.errors import UserError
from teachwhy.models import Scored, plain_messages
from teachwhy.models.chat import encode_prompt, encode_text, load_tokenizer
from teachwhy.models.checkpoints import DTYPES, best_dtype, check_adapter, load_model, resolve_model

if TYPE_CHECKING:
    import torch

MAX_NEW_TOKENS = 512
"""Where a request names no `max_tokens`."""
_REFUSED = ("best_of", "frequency_penalty", "presence_penalty", "logit_bias", "prompt_logprobs", "response_schema")


@dataclass(eq=False)
class Job:
    """One request and who waits for it."""

    kind: str
    """`generate` or `score`: only jobs of one kind share a batch."""
    payload: Any
    n_tokens: int
    future: Future[Any] = field(default_factory=Future)


class Worker:
    """One thread that runs jobs in batches. It is awake only while there is work: no polling, no delay."""

    def __init__(self, run: Callable[[str, list[Any]], list[Any]], batch_size: int) -> None:
        self.run = run
        self.batch_size = batch_size
        self.condition = threading.Condition()
        self.pending: list[Job] = []
        self.closed = False
        self.thread = threading.Thread(target=self._loop, name="teachwhy-model", daemon=True)
        self.thread.start()

    async def submit(self, job: Job) -> Any:
        """The job's result. Requests of the same turn of the event loop go in before the worker is woken."""
        with self.condition:
            if self.closed:
                raise RuntimeError("the model was closed")
            self.pending.append(job)
        waiting = asyncio.wrap_future(job.future)
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            job.future.cancel()
            raise
        finally:
            with self.condition:
                self.condition.notify()
        return await waiting

    def close(self) -> None:
        """End the thread after the batch at work; what still waits fails."""
        with self.condition:
            self.closed = True
            self.condition.notify()
        if threading.current_thread() is not self.thread:
            self.thread.join()

    def _loop(self) -> None:
        while True:
            with self.condition:
                while not self.pending and not self.closed:
                    self.condition.wait()
                if self.closed:
                    for job in self.pending:
                        if job.future.set_running_or_notify_cancel():
                            job.future.set_exception(RuntimeError("the model was closed"))
                    self.pending.clear()
                    return
                batch = take_batch(self.pending, self.batch_size)
            batch = [job for job in batch if job.future.set_running_or_notify_cancel()]
            if batch:
                self._finish(batch)
            del batch  # nothing of a done request outlives it

    def _finish(self, batch: list[Job]) -> None:
        try:
            results = self.run(batch[0].kind, [job.payload for job in batch])
        except BaseException as error:  # noqa: BLE001  # it belongs to those who wait, and the worker goes on
            for job in batch:
                job.future.set_exception(error)
        else:
            for job, result in zip(batch, results, strict=True):
                job.future.set_result(result)


def take_batch(pending: list[Job], size: int) -> list[Job]:
    """Take out of `pending` the oldest job and those of its kind that are nearest to it in length, `size` at most."""
    first = pending[0]
    alike = [job for job in pending if job.kind == first.kind]
    batch = sorted(alike, key=lambda job: abs(job.n_tokens - first.n_tokens))[:size]
    pending[:] = [job for job in pending if job not in batch]
    return batch


class LocalModel(ModelAPI):
    """Weights on this machine. Made through `get_model("teachwhy/NAME", adapters=[...], dtype=..., memoize=False)`.

    Inspect keeps every model of `get_model` in memory unless `memoize=False` is given: give it, and close the model (or use
    `async with`), or a study's models pile up. A closed model that is asked again loads its weights again.

    adapters: PEFT folders, merged in order. dtype: `float32` (replies do not depend on the batch), `bfloat16`, `float16`, or
    `auto`; likelihood is always computed with float32 weights. batch_size: requests in one batch. threads: of torch, for the
    whole process. Raises UserError for an unknown model or argument; weights are loaded at the first request.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008  # as Inspect's own
        *,
        adapters: Sequence[str | Path] = (),
        dtype: str = "float32",
        batch_size: int = 32,
        threads: int | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__(model_name, base_url, api_key, [], config)
        if unknown:
            raise UserError(f"local models have no argument {min(unknown)!r}", hint="There are: adapters, dtype, batch_size, threads.")
        if dtype not in (*DTYPES, "auto"):
            raise UserError(f"there is no dtype {dtype!r}", hint=f"There are: {', '.join(DTYPES)}, auto.")
        if batch_size < 1 or (threads is not None and threads < 1):
            raise UserError("batch_size and threads are 1 at least")
        self.folder = resolve_model(model_name)
        self.adapters = [Path(adapter) for adapter in adapters]
        for adapter in self.adapters:
            check_adapter(adapter)
        self.dtype = best_dtype() if dtype == "auto" else dtype
        self.batch_size = batch_size
        self.threads = threads
        self.tokenizer = load_tokenizer(self.folder)
        self.context = _context_length(self.folder)
        self._weights: dict[str, Any] = {}
        self._stop_ids: list[int] = []
        self._worker: Worker | None = None

    async def generate(
        self,
        input: list[ChatMessage],  # noqa: A002
        tools: list[ToolInfo],
        tool_choice: ToolChoice,  # noqa: ARG002
        config: GenerateConfig,
    ) -> ModelOutput:
        """A reply; temperature 1 where none is given. Log-probabilities are the model's own, before temperature and cuts.

        `stop_reason`: `stop` (stop token or stop string), `max_tokens`, `model_length` (the context is full). Raises UserError
        for tools and for settings that are not supported.
        """
        if tools:
            raise UserError(
                "models with local weights cannot call tools here",
                hint="Take an API model for agents with tools, or the choice form: teachwhy/honeypots.",
            )
        _refuse(config)
        ids = encode_prompt(self.tokenizer, plain_messages(input))
        started = time.monotonic()
        room = self.context - len(ids)
        if room < 1:
            return self._output(Reply(stop="max_tokens"), len(ids), True, started)
        request = make_request(ids, config, room)
        reply = await self._submit(Job("generate", request, len(ids)))
        return self._output(reply, len(ids), len(reply.ids) == room, started)

    async def score(self, prefixes: Sequence[Sequence[dict[str, str]]], continuations: Sequence[Sequence[str]]) -> list[list[Scored]]:
        """Likelihood (float32 weights) of each prefix's continuations. Concurrent calls share batches.

        Raises ValueError for an empty text, UserError for one that does not fit the context.
        """
        rows = [encode_prompt(self.tokenizer, list(prefix)) for prefix in prefixes]
        groups = [[encode_text(self.tokenizer, text) for text in texts] for texts in continuations]
        longest = max((len(row) + len(part) for row, group in zip(rows, groups, strict=True) for part in group), default=0)
        if longest > self.context:
            raise UserError(f"a text of {longest} tokens does not fit the model's context of {self.context}", where=self.model_name)
        if not all(group and all(group) for group in groups):
            raise ValueError("a continuation has no tokens")
        if not rows:
            return []
        found = await self._submit(Job("score", (rows, groups), max(map(len, rows))))
        return [[Scored(sum(part), len(part)) for part in group] for group in found]

    def close(self) -> None:
        """Free the worker and the weights."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()
        self._weights.clear()
        gc.collect()

    def max_connections(self) -> int:
        """As many requests at once as fill a batch."""
        return self.batch_size

    def max_tokens(self) -> int:
        """New tokens where a request names no number."""
        return MAX_NEW_TOKENS

    def connection_key(self) -> str:
        """Models do not wait for each other's requests."""
        return f"{self.folder}:{self.adapters}:{self.dtype}:{self.batch_size}"

    async def _submit(self, job: Job) -> Any:
        if self._worker is None:
            self._worker = Worker(self._run, self.batch_size)
        return await self._worker.submit(job)

    def _run(self, kind: str, payloads: list[Any]) -> list[Any]:
        """In the worker's thread."""
        from teachwhy.models.scoring import score_ids

        model = self._load("float32" if kind == "score" else self.dtype)
        if kind == "generate":
            return generate_batch(model, self.tokenizer, payloads, self._stop_ids)
        rows = [row for prefixes, _ in payloads for row in prefixes]
        groups = [group for _, continuations in payloads for group in continuations]
        scores = iter(score_ids(model, rows, groups))
        return [[next(scores) for _ in prefixes] for prefixes, _ in payloads]

    def _load(self, dtype: str) -> Any:
        if dtype not in self._weights:
            import torch
            from transformers import GenerationConfig

            if self.threads is not None:
                torch.set_num_threads(self.threads)
            model = load_model(self.folder, adapters=self.adapters, dtype=dtype)
            named = model.generation_config.eos_token_id
            ids = [self.tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])]
            self._stop_ids = list(dict.fromkeys(token for token in ids if token is not None))
            model.generation_config = GenerationConfig()  # a checkpoint's own penalties and temperatures would apply unseen
            self._weights[dtype] = model
        return self._weights[dtype]

    def _output(self, reply: Reply, n_prompt: int, full: bool, started: float) -> ModelOutput:
        stop = "model_length" if reply.stop == "max_tokens" and full else reply.stop
        message = ChatMessageAssistant(content=reply.text, model=self.model_name, source="generate")
        return ModelOutput(
            model=self.model_name,
            choices=[ChatCompletionChoice(message=message, stop_reason=stop or "unknown", logprobs=self._logprobs(reply))],
            usage=ModelUsage(input_tokens=n_prompt, output_tokens=len(reply.ids), total_tokens=n_prompt + len(reply.ids)),
            time=time.monotonic() - started,
        )

    def _logprobs(self, reply: Reply) -> Logprobs | None:
        """Of every new token, the stop token included."""
        if not reply.logprobs:
            return None
        name: Callable[[int], str] = lambda token: str(self.tokenizer.decode([token]))  # noqa: E731
        rows = [
            Logprob(token=name(token), logprob=own, top_logprobs=[TopLogprob(token=name(other), logprob=nats) for other, nats in top])
            for token, (own, top) in zip(reply.ids, reply.logprobs, strict=True)
        ]
        return Logprobs(content=rows)


def make_request(ids: list[int], config: GenerateConfig, room: int) -> Request:
    """What a batch needs to know of a request with `room` tokens left in the context."""
    return Request(
        ids=ids,
        max_tokens=max(1, min(MAX_NEW_TOKENS if config.max_tokens is None else config.max_tokens, room)),
        temperature=1.0 if config.temperature is None else config.temperature,
        top_p=1.0 if config.top_p is None else config.top_p,
        top_k=max(0, config.top_k or 0),
        seed=config.seed,
        stop_seqs=tuple(stop for stop in config.stop_seqs or () if stop),
        n_top=(config.top_logprobs or 0) if config.logprobs or config.top_logprobs else None,
    )


def _refuse(config: GenerateConfig) -> None:
    for name in _REFUSED:
        if getattr(config, name):
            raise UserError(f"models with local weights do not support the setting {name}")
    if (config.num_choices or 1) > 1:
        raise UserError(
            "models with local weights give one reply to a request", hint="Use epochs, or several requests with their own seeds."
        )


def _context_length(folder: Path) -> int:
    """Tokens that fit: `max_position_embeddings` of the model's text part."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False).get_text_config()
    return int(getattr(config, "max_position_embeddings", None) or 2**20)


# Sampling in a batch whose rows do not know of each other: temperature, cuts, seed, length and stop strings per row.

Stop = Literal["stop", "max_tokens"]
Ranked = list[tuple[int, float]]


class Request(NamedTuple):
    """One reply that is wanted."""

    ids: list[int]
    """Of the prompt, a prefill included; at least one."""
    max_tokens: int
    """New tokens at most, at least one."""
    temperature: float = 1.0
    """0: the likeliest token each time."""
    top_p: float = 1.0
    top_k: int = 0
    """0: no cut."""
    seed: int | None = None
    """None: a fresh random one."""
    stop_seqs: tuple[str, ...] = ()
    n_top: int | None = None
    """None: no log-probabilities; else of that many likeliest tokens beside the sampled one."""


@dataclass
class Reply:
    """One reply as it grows."""

    ids: list[int] = field(default_factory=list)
    """New tokens, the stop token included."""
    logprobs: list[tuple[float, Ranked]] = field(default_factory=list)
    """For each token, where asked: its log-probability (nats, before temperature and cuts) and the likeliest (id, nats)."""
    text: str = ""
    """Without stop token and stop string."""
    stop: Stop | None = None


def generate_batch(model: Any, tokenizer: Any, requests: Sequence[Request], stop_ids: Sequence[int]) -> list[Reply]:
    """Replies to requests, run as one batch padded on the left. In fp32 a reply does not depend on its neighbours."""
    import torch
    from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

    n_tokens = max(len(request.ids) for request in requests)
    pads = [n_tokens - len(request.ids) for request in requests]
    pad_id = stop_ids[0] if stop_ids else 0
    ids = torch.tensor([[pad_id] * pad + request.ids for pad, request in zip(pads, requests, strict=True)], device=model.device)
    mask = torch.tensor([[0] * pad + [1] * len(request.ids) for pad, request in zip(pads, requests, strict=True)], device=model.device)
    sampler = _Sampler(tokenizer, requests, frozenset(stop_ids))
    config = GenerationConfig(do_sample=False, max_new_tokens=max(request.max_tokens for request in requests), pad_token_id=pad_id)
    with torch.inference_mode():
        model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=config,
            logits_processor=LogitsProcessorList([sampler]),
            stopping_criteria=StoppingCriteriaList([_Done(sampler)]),
        )
    return sampler.replies


class _Sampler:
    """Draws each row's next token itself, then leaves that token alone possible: greedy decoding takes it."""

    def __init__(self, tokenizer: Any, requests: Sequence[Request], stop_ids: frozenset[int]) -> None:
        import torch

        self.tokenizer = tokenizer
        self.requests = requests
        self.stop_ids = stop_ids
        self.replies = [Reply() for _ in requests]
        self.generators = [torch.Generator() for _ in requests]
        for request, generator in zip(requests, self.generators, strict=True):
            if request.seed is None:
                generator.seed()
            else:
                generator.manual_seed(request.seed % 2**63)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        import torch

        logits = scores.float()
        chosen = self._choose(logits)
        for row, token in enumerate(chosen.tolist()):
            if self.replies[row].stop is None:
                self._take(row, token, logits[row])
        only = torch.full_like(scores, float("-inf"))
        return only.scatter_(1, chosen[:, None], 0.0)

    def _choose(self, logits: torch.Tensor) -> torch.Tensor:
        """n_rows x n_vocabulary -> n_rows. Inverse of the distribution function at one uniform number a row."""
        import torch

        chosen = logits.argmax(-1)
        rows = [row for row, request in enumerate(self.requests) if request.temperature > 0]
        if not rows:
            return chosen
        temperatures = torch.tensor([self.requests[row].temperature for row in rows], device=logits.device)
        hot = logits[rows] / temperatures[:, None]
        for place, row in enumerate(rows):
            hot[place] = cut_logits(hot[place], self.requests[row].top_k, self.requests[row].top_p)
        cumulated = hot.softmax(-1).double().cumsum(-1)
        draws = torch.cat([torch.rand(1, dtype=torch.float64, generator=self.generators[row]) for row in rows]).to(logits.device)
        found = torch.searchsorted(cumulated, draws[:, None] * cumulated[:, -1:], right=True)[:, 0]
        chosen[rows] = found.clamp(max=logits.shape[-1] - 1)
        return chosen

    def _take(self, row: int, token: int, logits: torch.Tensor) -> None:
        request, reply = self.requests[row], self.replies[row]
        reply.ids.append(token)
        if request.n_top is not None:
            logprobs = logits.log_softmax(-1)
            top = logprobs.topk(request.n_top)
            reply.logprobs.append((float(logprobs[token]), list(zip(top.indices.tolist(), top.values.tolist(), strict=True))))
        if token in self.stop_ids:
            reply.stop = "stop"
            reply.text = self._decode(reply.ids[:-1])
        elif self._ends_in_stop(request, reply):
            reply.stop = "stop"
            text = self._decode(reply.ids)
            reply.text = text[: min(place for stop in request.stop_seqs if (place := text.find(stop)) >= 0)]
        elif len(reply.ids) >= request.max_tokens:
            reply.stop = "max_tokens"
            reply.text = self._decode(reply.ids)

    def _ends_in_stop(self, request: Request, reply: Reply) -> bool:
        """A cheap look at the last tokens (one may be a single byte), then a full one."""
        for stop in request.stop_seqs:
            if stop in self._decode(reply.ids[-len(stop.encode()) - 4 :]) and stop in self._decode(reply.ids):
                return True
        return False

    def _decode(self, ids: list[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))


def cut_logits(logits: torch.Tensor, top_k: int, top_p: float) -> torch.Tensor:
    """n_vocabulary -> n_vocabulary: -inf outside the `top_k` likeliest and outside the smallest set that holds `top_p`."""
    if 0 < top_k < len(logits):
        logits = logits.masked_fill(logits < logits.topk(top_k).values[-1], float("-inf"))
    if top_p < 1:
        probs, order = logits.softmax(-1).sort(descending=True, stable=True)
        outside = order[probs.cumsum(-1) - probs >= top_p]
        outside = outside[outside != order[0]]
        logits = logits.index_fill(0, outside, float("-inf"))
    return logits


class _Done:
    def __init__(self, sampler: _Sampler) -> None:
        self.sampler = sampler

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:  # noqa: ARG002
        import torch

        return torch.tensor([reply.stop is not None for reply in self.sampler.replies], device=input_ids.device)
