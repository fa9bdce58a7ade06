"""Chats as token ids: the template, what carries loss, and where a reply begins."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from teachwhy.errors import MissingExtra, UserError
from teachwhy.shipped import ROOT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]

_PROBES: tuple[list[Message], ...] = (
    [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Two."}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "One?"}, {"role": "assistant", "content": " Two.\n\nThree "}],
    [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ],
)


class Encoded(NamedTuple):
    """A training row: token ids, and for each token whether it carries loss."""

    ids: list[int]
    supervised: list[bool]


@cache
def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder. Never imports torch by itself."""
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise MissingExtra(f"local weights need {error.name}, which is not installed") from None
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise UserError(
            f"the model's tokenizer cannot be loaded: {(str(error).splitlines() or [''])[0][:200]}",
            where=str(folder),
            hint="The folder needs config.json, tokenizer.json and tokenizer_config.json.",
        ) from error
    if not tokenizer.chat_template:
        raise UserError(
            "the model has no chat template", where=str(folder), hint="Use an instruction-tuned model, or add chat_template.jinja."
        )
    return tokenizer


def training_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """A template that renders the model's own text and marks what the assistant says.

    The model's own template if it has `{% generation %}` marks, else one that comes with teachwhy and renders the same.
    Raises UserError where neither can be had: training on other text than the model will meet breaks silently.
    """
    own = str(tokenizer.chat_template)
    if "{% generation" in own or "{%- generation" in own:
        return own
    for path in sorted((ROOT / "prompts").glob("*_training.jinja")):
        template = path.read_text()
        if all(_render(tokenizer, probe, template) == _render(tokenizer, probe, own) for probe in _PROBES):
            return template
    raise UserError(
        "the model's chat template does not mark what the assistant says, and no template of ours renders the same text",
        hint="Copy it to chat_template.jinja, {% generation %} ... {% endgeneration %} around the assistant's words and the stop token.",
    )


def _render(tokenizer: PreTrainedTokenizerBase, messages: list[Message], template: str) -> str:
    return str(tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False))


def encode_chat(tokenizer: PreTrainedTokenizerBase, messages: list[Message], template: str | None = None) -> Encoded:
    """A whole chat; loss on what the assistant says and on its stop token, on nothing else."""
    found: Any = tokenizer.apply_chat_template(
        messages, chat_template=template or training_template(tokenizer), return_dict=True, return_assistant_tokens_mask=True
    )
    return Encoded(list(found["input_ids"]), [bool(mark) for mark in found["assistant_masks"]])


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: list[Message]) -> list[int]:
    """Ids of a chat up to where the assistant's reply begins; a last assistant message is a prefill and is left open."""
    open_end = bool(messages) and messages[-1]["role"] == "assistant"
    found: Any = tokenizer.apply_chat_template(
        messages, add_generation_prompt=not open_end, continue_final_message=open_end, return_dict=True
    )
    return list(found["input_ids"])


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of a reply's text as it stands right after the prompt."""
    return list(tokenizer.encode(text, add_special_tokens=False))
