"""Likelihood: what is scored together equals full forward passes one by one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from teachwhy.errors import UserError  # noqa: E402
from teachwhy.models import Scored, plain_messages, score_continuations  # noqa: E402
from teachwhy.models import scoring as sut  # noqa: E402
from teachwhy.models.chat import encode_prompt, encode_text, load_tokenizer  # noqa: E402
from teachwhy.models.checkpoints import load_model  # noqa: E402

PREFIXES = [[5, 6, 7, 8], [5, 6, 9], [5, 6, 7, 8, 9, 10, 11, 12], [5, 6, 3, 3, 3]]
GROUPS = [[[20, 21, 22], [20, 21, 30, 31]], [[40]], [[50, 51], [50, 51], [50]], [[60, 61, 62, 63, 64, 65], [70]]]


@pytest.fixture(scope="module")
def model(tiny_model_dir: Path) -> Any:
    return load_model(tiny_model_dir, dtype="float32")


def score_alone(model: Any, prefix: list[int], continuation: list[int]) -> list[float]:
    with torch.inference_mode():
        logprobs = model(torch.tensor([prefix + continuation])).logits[0].log_softmax(-1)
    return [float(logprobs[len(prefix) - 1 + place, token]) for place, token in enumerate(continuation)]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("max_tokens", [1, 20, 1024])
def test_scores_equal_full_forward_passes(model: Any, attention: str, max_tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sut, "MAX_TOKENS", max_tokens)
    model.set_attn_implementation(attention)
    found = sut.score_ids(model, PREFIXES, GROUPS)
    for prefix, group, scores in zip(PREFIXES, GROUPS, found, strict=True):
        for continuation, logprobs in zip(group, scores, strict=True):
            assert logprobs == pytest.approx(score_alone(model, prefix, continuation), abs=1e-4)


def test_score_does_not_depend_on_its_neighbours(model: Any) -> None:
    together = sut.score_ids(model, PREFIXES, GROUPS)
    for prefix, group, scores in zip(PREFIXES, GROUPS, together, strict=True):
        (alone,) = sut.score_ids(model, [prefix], [group])
        assert [sum(part) for part in alone] == pytest.approx([sum(part) for part in scores], abs=1e-4)


def test_one_token_of_a_prefix_is_never_shared() -> None:
    assert sut.count_shared(PREFIXES) == 2
    assert sut.count_shared([[1, 2, 3], [1, 2, 3]]) == 2
    assert sut.count_shared([[1], [1, 2]]) == 0
    assert sut.count_shared([[1, 2, 3]]) == 0


def test_tree_holds_equal_beginnings_once_and_no_last_tokens() -> None:
    tree = sut.grow_tree([7, 8], [[1, 2, 3], [1, 2, 4], [1]])
    assert tree.ids == [7, 8, 1, 2]
    assert tree.parents == [-1, 0, 1, 2]
    assert tree.sources == [[(1, 1), (2, 2), (3, 3)], [(1, 1), (2, 2), (3, 4)], [(1, 1)]]


def test_token_sees_its_ancestors_alone() -> None:
    tree = sut.grow_tree([7, 8], [[1, 2, 0], [3, 4, 0]])
    ids, positions, sees = sut.lay_out([tree, sut.grow_tree([9], [[1]])], n_shared=1)
    assert ids.tolist() == [[7, 8, 1, 2, 3, 4], [9, 0, 0, 0, 0, 0]]
    assert positions[0].tolist() == [1, 2, 3, 4, 3, 4]
    assert sees.shape == (2, 6, 7)
    assert sees[0, 5].tolist() == [True, True, True, False, False, True, True]
    assert sees[1, 0].tolist() == [True, True, False, False, False, False, False]


@pytest.mark.parametrize(("prefixes", "groups"), [([[]], [[[1]]]), ([[1]], [[[]]]), ([[1]], [[]])])
def test_empty_texts_are_refused(model: Any, prefixes: list[list[int]], groups: list[list[list[int]]]) -> None:
    with pytest.raises(ValueError, match="no tokens"):
        sut.score_ids(model, prefixes, groups)


def test_chats_are_scored_through_inspect(tiny_model_dir: Path, model: Any) -> None:
    from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser, get_model

    import teachwhy._registry  # noqa: F401

    chats = [
        [ChatMessageSystem(content="Choose."), ChatMessageUser(content="Tea or coffee?")],
        [{"role": "system", "content": "Choose."}, {"role": "user", "content": "Left?"}],
        [ChatMessageUser(content="Why?"), ChatMessageAssistant(content="Because")],
    ]
    texts = [["Tea.", "Coffee."], ["Yes."], [" of", " not"]]

    async def run() -> list[list[Scored]]:
        async with get_model(f"teachwhy/{tiny_model_dir}", memoize=False) as inspect_model:
            alone = [score_continuations(inspect_model, [chat], [group]) for chat, group in zip(chats, texts, strict=True)]
            together = await score_continuations(inspect_model, chats, texts)
            for (one,), group in zip(await asyncio.gather(*alone), together, strict=True):
                assert [part.logprob for part in one] == pytest.approx([part.logprob for part in group], abs=1e-4)
            assert await score_continuations(inspect_model, [], []) == []
            with pytest.raises(ValueError, match="no tokens"):
                await score_continuations(inspect_model, [chats[0]], [[""]])
            with pytest.raises(UserError, match="does not fit"):
                await score_continuations(inspect_model, [chats[0]], [["a" * 5000]])
            return together

    found = asyncio.run(run())
    tokenizer = load_tokenizer(tiny_model_dir)
    for chat, group, scores in zip(chats, texts, found, strict=True):
        prefix = encode_prompt(tokenizer, plain_messages(chat))
        for text, scored in zip(group, scores, strict=True):
            ids = encode_text(tokenizer, text)
            assert scored.n_tokens == len(ids)
            assert scored.logprob == pytest.approx(sum(score_alone(model, prefix, ids)), abs=1e-3)


def test_bfloat16_model_is_scored_in_float32(tiny_model_dir: Path) -> None:
    from teachwhy.models.local import LocalModel

    async def score(dtype: str) -> list[list[Scored]]:
        api = LocalModel(str(tiny_model_dir), dtype=dtype)
        try:
            return await api.score([[{"role": "user", "content": "Tea?"}]], [["Yes, please."]])
        finally:
            api.close()

    assert asyncio.run(score("bfloat16")) == asyncio.run(score("float32"))


def test_api_model_has_no_likelihood() -> None:
    from inspect_ai.model import get_model

    with pytest.raises(UserError, match="local weights") as caught:
        asyncio.run(score_continuations(get_model("mockllm/model"), [[{"role": "user", "content": "Tea?"}]], [["Yes."]]))
    assert "text" in caught.value.hint


def test_lists_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="1 prefixes"):
        asyncio.run(score_continuations(None, [[]], []))


def test_models_are_imported_without_torch() -> None:
    import subprocess
    import sys

    code = "import sys, teachwhy.models; print([name for name in ('torch', 'transformers', 'inspect_ai') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.builtin
def test_builtin_scores_equal_full_forward_passes(builtin_model_dir: Path) -> None:
    model = load_model(builtin_model_dir, dtype="float32")
    tokenizer = load_tokenizer(builtin_model_dir)
    chats = [[{"role": "user", "content": text}] for text in ("Tea or coffee?", "Which way leads to the station?")]
    prefixes = [encode_prompt(tokenizer, chat) for chat in chats]
    groups = [[encode_text(tokenizer, text) for text in ("The one on the left.", "The one that is cheap.")]] * 2
    found = sut.score_ids(model, prefixes, groups)
    for prefix, group, scores in zip(prefixes, groups, found, strict=True):
        for ids, logprobs in zip(group, scores, strict=True):
            assert sum(logprobs) == pytest.approx(sum(score_alone(model, prefix, ids)), abs=1e-3)
