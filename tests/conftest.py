"""What many tests share. Nothing here touches the network, the user's cache or more than one core."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from servers import Server

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts jobs in the background so, and the commands under test inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

LONGEST = (
    "test_run", "test_kills", "test_rules_run", "test_outside", "test_api", "test_statistics", "test_comparisons", "test_page_browser",
    "test_own_scenarios", "test_updates", "test_rules_preference", "test_rules_fix", "test_training", "test_builtin", "test_readings",
    "test_evaluations", "test_local",
)  # fmt: skip
"""Files that wait for processes or simulate: first, so that no core idles while another does them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The built-in model's; tests/test_builtin.py holds the two together."""


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama of two layers in safetensors and a tokenizer with one token a byte; context 4096."""
    torch = pytest.importorskip("torch")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    words = special + sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(special)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=special[1], eos_token=special[2], pad_token=special[2])
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.save_pretrained(folder)
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        initializer_range=0.2,  # the usual 0.02 gives an almost even distribution, in which nothing could go wrong
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    model = LlamaForCausalLM(config)
    rare = [number for number, word in enumerate(words) if not (len(word) == 1 and word.isascii())]
    with torch.no_grad():
        model.get_input_embeddings().weight[rare] *= 0.1  # so that what it says is mostly letters
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_adapter_dir(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA adapter of the tiny model that changes what it says."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        peft_model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    torch.manual_seed(2)
    with torch.no_grad():
        for value in peft_model.parameters():
            if value.requires_grad:
                value.normal_(std=0.3)
    folder = tmp_path_factory.mktemp("adapters") / "tiny"
    peft_model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def builtin_model_dir() -> Path:
    """The built-in model where it is already on this machine; the test is skipped where it is not."""
    from teachwhy.models.builtin import find_builtin

    folder = find_builtin()
    if folder is None:
        pytest.skip("the built-in model is not on this machine: teachwhy models get builtin")
    return folder


@pytest.fixture
def server() -> Iterator[Server]:
    """A provider on loopback; `server.surroundings()` names it `openai-api/here/...`."""
    made = Server()
    yield made
    made.close()


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty TEACHWHY_CACHE."""
    monkeypatch.setenv("TEACHWHY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
