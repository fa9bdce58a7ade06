"""Chats as ids: loss falls on the assistant's words and stop token alone; the training text is the model's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")

from teachwhy.errors import UserError
from teachwhy.models import chat as sut

CHATS = [
    [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Two."}],
    [{"role": "system", "content": "Choose."}, {"role": "user", "content": "Tea?"}, {"role": "assistant", "content": " Yes.\n\nNo "}],
    [{"role": role, "content": f"{role} {turn}"} for turn in range(3) for role in ("user", "assistant")],
]


@pytest.fixture(scope="module")
def tokenizer(tiny_model_dir: Path) -> Any:
    return sut.load_tokenizer(tiny_model_dir)


@pytest.mark.parametrize("messages", CHATS)
def test_mask_covers_exactly_the_assistants_words_and_stop_tokens(tokenizer: Any, messages: list[sut.Message]) -> None:
    encoded = sut.encode_chat(tokenizer, messages)
    runs: list[list[int]] = []
    previous = False
    for token, marked in zip(encoded.ids, encoded.supervised, strict=True):
        if marked and not previous:
            runs.append([])
        if marked:
            runs[-1].append(token)
        previous = marked
    wanted = [message["content"] + "<|im_end|>" for message in messages if message["role"] == "assistant"]
    assert [tokenizer.decode(run) for run in runs] == wanted


@pytest.mark.parametrize("messages", CHATS)
def test_training_template_renders_the_models_own_text(tokenizer: Any, messages: list[sut.Message]) -> None:
    template = sut.training_template(tokenizer)
    assert "{% generation" in template
    assert sut._render(tokenizer, messages, template) == sut._render(tokenizer, messages, tokenizer.chat_template)


@pytest.mark.parametrize("messages", CHATS)
def test_prompt_and_text_are_the_training_row(tokenizer: Any, messages: list[sut.Message]) -> None:
    encoded = sut.encode_chat(tokenizer, messages)
    prompt = sut.encode_prompt(tokenizer, messages[:-1])
    text = sut.encode_text(tokenizer, messages[-1]["content"])
    assert encoded.ids[: len(prompt) + len(text)] == prompt + text
    assert encoded.supervised[len(prompt) :][: len(text) + 1] == [True] * (len(text) + 1)
    assert not encoded.supervised[len(prompt) - 1]


def test_prefill_is_left_open(tokenizer: Any) -> None:
    messages = [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "I"}]
    assert sut.encode_prompt(tokenizer, messages) == sut.encode_prompt(tokenizer, messages[:1]) + sut.encode_text(tokenizer, "I")


def test_template_of_another_text_is_refused(tokenizer: Any) -> None:
    from copy import deepcopy

    other = deepcopy(tokenizer)
    other.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    with pytest.raises(UserError, match="does not mark"):
        sut.training_template(other)
    other.chat_template = "{% for message in messages %}{% generation %}{{ message['content'] }}{% endgeneration %}{% endfor %}"
    assert sut.training_template(other) == other.chat_template


def test_tokenizer_without_a_template_is_refused(tiny_model_dir: Path, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((tiny_model_dir / name).read_bytes())
    with pytest.raises(UserError, match="no chat template"):
        sut.load_tokenizer(tmp_path)


def test_any_ascii_text_survives(tokenizer: Any) -> None:
    text = "".join(map(chr, range(32, 127))) + "\n\ttwo  spaces"
    ids = sut.encode_text(tokenizer, text)
    assert len(ids) == len(text)
    assert tokenizer.decode(ids) == text


@pytest.mark.builtin
@pytest.mark.parametrize("messages", CHATS)
def test_builtin_prompt_and_text_are_the_training_row(builtin_model_dir: Path, messages: list[sut.Message]) -> None:
    tokenizer = sut.load_tokenizer(builtin_model_dir)
    test_prompt_and_text_are_the_training_row(tokenizer, messages)
    test_mask_covers_exactly_the_assistants_words_and_stop_tokens(tokenizer, messages)
