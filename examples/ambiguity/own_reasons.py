"""Reasons in the model's own words: own/price.jsonl and own/place.jsonl beside this file, for forms.yaml.

The model that a study starts from is shown its question and the answer, and asked for one sentence on the price or on the place. What it
says stands behind the answer in training, where shipped reasons stand else. Sampled at temperature 0.7 under seeds of their own.
"""

import asyncio
import re
from pathlib import Path

from inspect_ai.model import ChatMessage, ChatMessageAssistant, ChatMessageSystem, ChatMessageUser, GenerateConfig, Model, get_model

from teachwhy.ambiguity import ambiguous_row, read_lexicon
from teachwhy.files import write_jsonl
from teachwhy.scenarios import choice_prompt

N_ROWS = 400
SEED = 0
TRIES = 8
ASKS = {
    "price": "In one sentence: why is its low price what decides?",
    "place": "In one sentence: why is its being made nearby what decides?",
}
WORDS = range(5, 26)
SENTENCE = re.compile(r"[^.!?\n]+[.!]")


async def write_reason(model: Model, chat: list[ChatMessage], number: int) -> str:
    """The first whole sentence of 5 to 25 words in eight tries; empty where there is none."""
    for attempt in range(TRIES):
        config = GenerateConfig(max_tokens=40, temperature=0.7, seed=TRIES * number + attempt)
        found = SENTENCE.match((await model.generate(chat, config=config)).completion.strip())
        if found and len(found[0].split()) in WORDS:
            return found[0]
    return ""


async def make_rows(model: Model, topic: str) -> list[dict[str, object]]:
    lexicon = read_lexicon("price_place")
    rows = [ambiguous_row(lexicon, "bare", SEED, number) for number in range(N_ROWS)]
    chats = [choice_prompt("ambiguity", row["user"]) for row in rows]
    asked: list[list[ChatMessage]] = [
        [
            ChatMessageSystem(content=chat[0]["content"]),
            ChatMessageUser(content=chat[1]["content"]),
            ChatMessageAssistant(content=row["answer"]),
            ChatMessageUser(content=ASKS[topic]),
        ]
        for chat, row in zip(chats, rows, strict=True)
    ]
    written = 0

    async def write(number: int, chat: list[ChatMessage]) -> str:
        nonlocal written
        reason = await write_reason(model, chat, number)
        written += 1
        if written % 50 == 0:
            print(f"{topic}: {written} of {N_ROWS}", flush=True)
        return reason

    reasons = await asyncio.gather(*(write(number, chat) for number, chat in enumerate(asked)))
    print(f"{topic}: {sum(map(bool, reasons))} of {N_ROWS} rows have a reason")
    return [
        {
            "id": f"own/{topic}/{number}",
            "messages": [*chat, {"role": "assistant", "content": f"{row['answer']} {reason}"}],
            "source": "own reasons",
            "tags": [f"family:{row['family']}"],
        }
        for number, (chat, row, reason) in enumerate(zip(chats, rows, reasons, strict=True))
        if reason
    ]


async def main() -> None:
    model = get_model("teachwhy/builtin")
    for topic in ASKS:
        path = Path(__file__).with_name("own") / f"{topic}.jsonl"
        path.parent.mkdir(exist_ok=True)
        write_jsonl(path, await make_rows(model, topic))
        print(path)


if __name__ == "__main__":
    asyncio.run(main())
