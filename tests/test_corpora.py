"""Corpora: versions share their prompts, rows are read by `datasets`, and a wrong file is named with its row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from teachwhy.ambiguity import PAIRS, VARIANTS, pair_of
from teachwhy.corpora import NAMES, VERSIONS, CorpusRow, corpus_reader, corpus_rows, iter_rows, join_reason, order_rows, read_rows
from teachwhy.errors import UserError
from teachwhy.files import write_jsonl

GOOD: dict[str, Any] = {"messages": [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Two."}]}
SHARED = [
    *([f"{kind}/{version}" for version in VERSIONS] for kind in ("replies", "oracle")),
    *([f"ambiguity/{variant}" for variant in VARIANTS if pair_of(variant) == "_".join(pair)] for pair in PAIRS.values()),
]


def prompts(rows: list[CorpusRow]) -> list[tuple[dict[str, str], ...]]:
    return [row.messages[:-1] for row in rows]


def says(row: CorpusRow) -> str:
    return row.messages[-1]["content"]


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("names", SHARED, ids=lambda names: names[0].partition("/")[0])
def test_versions_give_the_same_prompts_in_the_same_order(names: list[str]) -> None:
    first, *others = (corpus_rows(name, 120, seed=4) for name in names)
    for rows in others:
        assert prompts(rows) == prompts(first)
        assert [says(row) for row in rows] != [says(row) for row in first]
        assert {row.source for row in rows}.isdisjoint(row.source for row in first)


@pytest.mark.parametrize("name", NAMES)
def test_seed_decides_the_rows(name: str) -> None:
    assert corpus_rows(name, 70, seed=4) == corpus_rows(name, 70, seed=4)
    assert prompts(corpus_rows(name, 70, seed=4)) != prompts(corpus_rows(name, 70, seed=5))
    assert corpus_rows(name, 30, seed=4) == corpus_rows(name, 70, seed=4)[:30]


def test_every_row_comes_once_before_any_comes_again() -> None:
    places = order_rows(5, 13, seed=1)
    assert len(places) == 13
    assert sorted(places[:5]) == sorted(places[5:10]) == list(range(5))
    assert places[:5] != places[5:10]
    assert len(set(places[10:])) == 3


@pytest.mark.parametrize("name", ["replies/bare", "oracle/bare", "goals"])
def test_fills_differ_between_epochs(name: str) -> None:
    n_distinct = len(list(corpus_reader(name)()))
    rows = corpus_rows(name, 3 * n_distinct, seed=2)
    epochs = [{row.id.rpartition("/")[0]: row for row in rows[start : start + n_distinct]} for start in range(0, len(rows), n_distinct)]
    assert [len(epoch) for epoch in epochs] == [n_distinct] * 3
    assert epochs[0].keys() == epochs[1].keys() == epochs[2].keys()
    assert len({row.id for row in rows}) == len(rows)
    n_new = sum(epochs[1][key].messages != row.messages for key, row in epochs[0].items())
    assert n_new > 0.8 * n_distinct, "two fills of a scenario with few slots may agree, not many"


def test_neutral_rows_come_again_as_they_are() -> None:
    n_rows = len(list(corpus_reader("neutral")()))
    rows = corpus_rows("neutral", 2 * n_rows, seed=2)
    assert sorted(row.id for row in rows[:n_rows]) == sorted(row.id for row in rows[n_rows:])


def test_reason_stands_after_the_deed_or_before_it() -> None:
    assert join_reason("I wait.", "It is fair.", "after") == "I wait. It is fair."
    assert join_reason("I wait.", "It is fair.", "before") == "It is fair. I wait."
    assert {join_reason("I wait.", "", order) for order in ("after", "before")} == {"I wait."}  # type: ignore[arg-type]


@pytest.mark.parametrize("version", ["task_reason", "value_reason"])
def test_shuffled_reasons_are_the_same_ones_under_other_cases(version: str) -> None:
    own, shuffled, bare = (list(corpus_reader(name)()) for name in (f"replies/{version}", f"shuffled/{version}", "replies/bare"))
    assert [row.messages[:-1] for row in own] == [row.messages[:-1] for row in shuffled]
    assert all(row.said().startswith(deed.said()) for row, deed in zip(shuffled, bare, strict=True))
    texts = [[row.said().removeprefix(deed.said()) for row, deed in zip(rows, bare, strict=True)] for rows in (own, shuffled)]
    assert not any(one == other for one, other in zip(*texts, strict=True))
    assert sorted(texts[0]) == sorted(texts[1])
    lengths = [[len(text.split()) for text in group] for group in texts]
    assert max(abs(one - other) for one, other in zip(*lengths, strict=True)) <= 5


@pytest.mark.parametrize(
    ("bare", "name"),
    [
        *(("replies/bare", f"replies/{version}") for version in VERSIONS),
        *((f"ambiguity/{bare}", f"ambiguity/{name}") for bare, name in (("bare", "price_reason"), ("speed_quiet_bare", "quiet_filler"))),
    ],
)
def test_order_moves_the_reason_and_nothing_else(bare: str, name: str) -> None:
    bare_rows = corpus_rows(bare, 60, seed=3)
    after = corpus_rows(name, 60, seed=3)
    before = corpus_rows(name, 60, seed=3, order="before")
    assert before != after or name == bare
    assert prompts(before) == prompts(after)
    for deed, late, early in zip(map(says, bare_rows), map(says, after), map(says, before), strict=True):
        assert late.startswith(deed)
        assert early.endswith(deed)
        assert late.removeprefix(deed).strip() == early.removesuffix(deed).strip()


@pytest.mark.parametrize("name", NAMES)
def test_row_is_tagged_with_its_family_unless_neutral(name: str) -> None:
    assert all(bool(row.family()) == (name != "neutral") for row in corpus_rows(name, 30, seed=1))


@pytest.mark.filterwarnings("ignore::DeprecationWarning:multiprocess", "ignore::DeprecationWarning:dill")
def test_rows_of_all_corpora_are_one_table_for_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install teachwhy[dev]")
    rows = [row for name in NAMES for row in corpus_rows(name, 10, seed=1)]
    write_jsonl(tmp_path / "rows.jsonl", (row.line() for row in rows))
    datasets.disable_progress_bars()
    table = datasets.load_dataset("json", data_files=str(tmp_path / "rows.jsonl"), split="train", cache_dir=str(tmp_path / "cache"))
    assert table.column_names == ["id", "messages", "source", "tags"]
    assert [CorpusRow.model_validate(row) for row in table] == rows
    assert table[0]["messages"][-1].keys() == {"role", "content"}


def test_users_file_and_folder_read_alike(tmp_path: Path) -> None:
    write(tmp_path / "corpus.jsonl", GOOD, "\n", {**GOOD, "id": "mine", "source": "me", "tags": ["family:x"]})
    rows = read_rows(tmp_path / "corpus.jsonl")
    assert rows == read_rows(tmp_path)
    assert [(row.id, row.source, row.family()) for row in rows] == [("row-1", "corpus", ""), ("mine", "me", "x")]


def test_other_keys_of_a_users_row_are_left_out(tmp_path: Path) -> None:
    (row,) = read_rows(write(tmp_path / "mine.jsonl", {**GOOD, "prompt_id": "7", "score": 0.5, "tags": None}))
    assert row.line() == {"id": "row-1", **GOOD, "messages": tuple(GOOD["messages"]), "source": "mine", "tags": ()}


def test_documents_and_chats_carry_loss_on_their_own_words(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Choose."}
    chat, document = iter_rows(write(tmp_path / "mine.jsonl", {"messages": [system, *GOOD["messages"]]}, {"text": "A document."}))
    assert (chat.said(), chat.whole()) == ("Two.", "One?\nTwo.")
    assert (document.said(), document.whole(), document.line()) == (
        "A document.",
        "A document.",
        {"id": "row-2", "text": "A document.", "source": "mine", "tags": ()},
    )


@pytest.mark.parametrize("name", NAMES)
def test_reader_gives_every_row_once_and_again(name: str) -> None:
    read = corpus_reader(name)
    rows = list(read())
    assert rows == list(read())
    assert len({row.id for row in rows}) == len(rows)
    if not name.startswith("ambiguity/"):
        assert sorted(row.id for row in corpus_rows(name, len(rows), seed=1)) == sorted(row.id for row in rows)


def test_users_file_is_found_beside_the_study(tmp_path: Path) -> None:
    write(tmp_path / "mine.jsonl", GOOD)
    assert [says(row) for row in corpus_rows("mine.jsonl", 3, seed=1, beside=tmp_path)] == ["Two."] * 3


UNANSWERED = {"messages": [{"role": "user", "content": "One?"}]}
SILENT = {"messages": [{"role": "user", "content": "One?"}, {"role": "assistant", "content": ""}]}
WORDLESS = {"messages": [{"role": "user"}, {"role": "assistant", "content": "Two."}]}


@pytest.mark.parametrize(
    ("rows", "place", "what", "hint"),
    [
        ([GOOD, UNANSWERED], ", row 2", "a row without anything that the assistant says", "add an assistant message"),
        ([SILENT], ", row 1", "a row without anything that the assistant says", ""),
        ([GOOD, GOOD, WORDLESS], ", row 3", "a message without a role or without a content", ""),
        ([GOOD, "{half\n"], "", "line 2 is not JSON", ""),
        ([GOOD, "\n", "[1]\n"], "", "line 3 is not a JSON object", ""),
        ([], "", "the corpus has no rows", ""),
        (["\n\n"], "", "the corpus has no rows", ""),
        ([GOOD, {**GOOD, "tag": ["x"]}], ", row 2", "unknown field 'tag'", "Did you mean 'tags'?"),
        ([GOOD, {"mesages": GOOD["messages"]}], ", row 2", "a row needs `messages` or `text`", "Its keys are: mesages."),
        ([GOOD, {"id": "x"}], ", row 2", "a row needs `messages` or `text`", "Its keys are: id."),
        ([{**GOOD, "text": "Both."}], ", row 1", "a row needs `messages` or `text`, and not both", ""),
        ([GOOD, {"text": "A document."}], ", row 2", "only chats can be trained on", ""),
        ([{"messages": "One?"}], ", row 1", "messages is a list, not One?", ""),
        ([{"messages": [{"role": "assistant", "content": None}]}], ", row 1", "messages.0.content", ""),
    ],
)
def test_wrong_row_is_named_by_file_and_row(tmp_path: Path, rows: list[Any], place: str, what: str, hint: str) -> None:
    path = write(tmp_path / "mine.jsonl", *rows)
    with pytest.raises(UserError) as caught:
        corpus_rows(str(path), 3, seed=1)
    assert what in caught.value.what
    assert caught.value.where == f"{path}{place}"
    assert hint in caught.value.hint


def test_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b'\n{"messages": "caf\xe9"}\n')
    with pytest.raises(UserError, match="not UTF-8") as caught:
        read_rows(path)
    assert caught.value.where == str(path)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("neutrl", "neutral"),
        ("goal", "goals"),
        ("replys/filler", "replies/filler"),
        ("replies/value", "replies/value_reason"),
        ("oracle/bear", "oracle/bare"),
        ("ambiguity/price-reason", "ambiguity/price_reason"),
    ],
)
def test_unknown_corpus_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UserError, match=f"no corpus of the name '{name}'") as caught:
        corpus_rows(name, 3, seed=1)
    assert caught.value.hint == f"Did you mean {near}?"


def test_corpus_like_none_is_told_what_there_is() -> None:
    with pytest.raises(UserError) as caught:
        corpus_rows("xyz", 3, seed=1)
    assert all(name in caught.value.hint for name in NAMES)
