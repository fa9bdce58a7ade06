"""Hashes, seeds, ids, JSONL, and folders whose presence means that they are done."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from teachwhy import files
from teachwhy.errors import EXIT_USAGE, UserError
from teachwhy.files import (
    canonical_json,
    cell_id,
    derive_seed,
    parse_record,
    publish,
    read_card,
    read_jsonl,
    write_card,
    write_jsonl,
    write_text,
)
from teachwhy.records import Card, Counts, Reply

# JSON's own values: text that UTF-8 can hold, integers of 64 bits, floats that are numbers
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | TEXT
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=12)
ROWS = st.lists(st.dictionaries(TEXT, VALUES, max_size=4), max_size=6)
NAMES = st.lists(TEXT | st.integers(0, 999), max_size=4)


def make_card(**changes: Any) -> Card:
    return Card(kind="corpus", name="a", created=files.now(), **changes)


@given(VALUES)
def test_canonical_json_reads_back_the_same(value: Any) -> None:
    assert json.loads(canonical_json(value)) == value


@given(st.dictionaries(TEXT, VALUES, min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_canonical_json_does_not_know_the_order_of_keys(value: dict[str, Any], random: Any) -> None:
    keys = list(value)
    random.shuffle(keys)
    assert canonical_json({key: value[key] for key in keys}) == canonical_json(value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": [float("-inf")]}])
def test_canonical_json_refuses_what_is_no_number(value: Any) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json(value)


@given(st.integers(), NAMES)
def test_seeds_are_64_bit_and_never_negative(seed: int, names: list[str | int]) -> None:
    assert 0 <= derive_seed(seed, *names) < 2**63


@given(st.integers(0, 99), st.lists(TEXT, min_size=2, max_size=6, unique=True), st.randoms(use_true_random=False))
def test_seed_of_a_use_does_not_depend_on_what_was_drawn_before(seed: int, names: list[str], random: Any) -> None:
    shuffled = random.sample(names, len(names))
    assert {name: derive_seed(seed, name) for name in names} == {name: derive_seed(seed, name) for name in shuffled}
    assert len({derive_seed(seed, name) for name in names}) == len(names)


def test_seeds_do_not_run_names_together() -> None:
    assert derive_seed(1, "ab", "c") != derive_seed(1, "a", "bc") != derive_seed(1, "abc")
    assert derive_seed(1, 2) != derive_seed(1, "2") != derive_seed(12)


def test_seeds_are_the_same_on_every_machine() -> None:
    assert derive_seed(0, "a", 1) == int(files.hash_text('[0,"a",1]')[:16], 16) >> 1


CELL: dict[str, Any] = {
    "kind": "sft",
    "version": 1,
    "settings": {"rank": 16, "dtype": "float32"},
    "seed": 0,
    "parents": ["a", "b"],
    "inputs": {"corpus": "00", "model": "11"},
}
CHANGES: list[dict[str, Any]] = [
    {"kind": "rl"},
    {"version": 2},
    {"settings": {"rank": 16, "dtype": "bfloat16"}},
    {"settings": {"rank": 16}},
    {"seed": 1},
    {"seed": None},
    {"parents": ["b", "a"]},
    {"parents": ["a"]},
    {"inputs": {"corpus": "01", "model": "11"}},
    {"inputs": {"corpora": "00", "model": "11"}},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_cell_id_changes_with_every_part(change: dict[str, Any]) -> None:
    assert cell_id(**{**CELL, **change}) != cell_id(**CELL)


def test_cell_id_is_16_hex_digits_and_knows_no_order_of_keys() -> None:
    found = cell_id(**CELL)
    assert len(found) == 16
    assert int(found, 16) >= 0
    assert cell_id(**{**CELL, "settings": {"dtype": "float32", "rank": 16}, "inputs": {"model": "11", "corpus": "00"}}) == found


@given(st.integers(0, 99), st.dictionaries(TEXT, st.integers(0, 99), max_size=3), st.integers(0, 99))
def test_counts_that_add_up_are_taken(kept: int, rejected: dict[str, int], failed: int) -> None:
    total = kept + sum(rejected.values()) + failed
    counts = Counts(in_=total, kept=kept, rejected=rejected, failed=failed)
    assert Counts.model_validate_json(counts.model_dump_json(by_alias=True)) == counts


@given(st.integers(0, 99), st.dictionaries(TEXT, st.integers(0, 99), max_size=3), st.integers(0, 99), st.integers(1, 9))
def test_counts_from_which_something_vanished_are_refused(kept: int, rejected: dict[str, int], failed: int, lost: int) -> None:
    total = kept + sum(rejected.values()) + failed
    with pytest.raises(ValidationError, match="do not add up"):
        Counts(in_=total + lost, kept=kept, rejected=rejected, failed=failed)


@given(rows=ROWS)
def test_jsonl_reads_back_what_was_written(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    path = tmp_path_factory.mktemp("jsonl") / "rows.jsonl"
    write_jsonl(path, rows)
    assert list(read_jsonl(path)) == rows


@pytest.mark.parametrize(
    ("line", "says"), [('{"a": 1', "line 3 is not JSON"), ("[1]", "line 3 is not a JSON object"), ("NULL", "line 3 is not JSON")]
)
def test_broken_line_is_named_by_its_number(tmp_path: Path, line: str, says: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f'{{"a": 1}}\n\n{line}\n{{"a": 2}}\n')
    rows = read_jsonl(path)
    assert next(rows) == {"a": 1}
    with pytest.raises(UserError, match=says) as caught:
        next(rows)
    assert caught.value.where == str(path)


def test_other_encoding_is_a_user_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"a": "Zürich"}\n'.encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        list(read_jsonl(path))


@pytest.mark.parametrize("name", ["missing.jsonl", "."])
def test_missing_file_is_a_user_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="no such file"):
        list(read_jsonl(tmp_path / name))


@pytest.mark.parametrize(
    ("text", "says"), [("a: [1", "on line"), ("a: 1\nb:\t- 2\n", "on line 2"), ("!!python/object:os.system {}", "not YAML")]
)
def test_yaml_that_cannot_be_read_is_a_user_error(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=says):
        files.read_yaml(path)


def test_unknown_field_names_the_nearest_one() -> None:
    with pytest.raises(UserError, match="unknown field 'fillr'") as caught:
        parse_record(
            Reply,
            dict.fromkeys(("scenario", "action", "bare", "fillr", "task_reason", "value_reason", "voice", "filler"), "x"),
            where="a.jsonl",
        )
    assert caught.value.hint == "Did you mean 'filler'?"


def test_card_reads_back(tmp_path: Path) -> None:
    card = make_card(counts=Counts(in_=3, kept=1, rejected={"too long": 1}, failed=1), seed=7)
    write_card(tmp_path, card)
    assert read_card(tmp_path) == card
    assert json.loads((tmp_path / "card.json").read_text())["counts"]["in"] == 3


@pytest.mark.parametrize(("text", "says"), [(None, "no card.json"), ("{", "cannot be read"), ('{"kind": "x", "mine": 1}', "card.json")])
def test_folder_without_a_good_card_is_not_taken(tmp_path: Path, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / "card.json").write_text(text)
    with pytest.raises(UserError, match=says):
        read_card(tmp_path)


def test_folder_is_published_by_rename_when_its_body_ends_well(tmp_path: Path) -> None:
    target = tmp_path / "cells" / "sft-1"
    with publish(target) as part:
        assert part.name == "sft-1.part"
        assert not target.exists()
        write_card(part, make_card())
    assert read_card(target).kind == "corpus"
    assert not part.exists()


def test_body_that_fails_leaves_only_its_part_and_can_go_on(tmp_path: Path) -> None:
    target = tmp_path / "a"
    with pytest.raises(ZeroDivisionError), publish(target) as part:
        (part / "half").write_text("1")
        raise ZeroDivisionError
    assert not target.exists()
    with publish(target) as part:
        assert (part / "half").read_text() == "1"
        write_card(part, make_card())
    assert (target / "half").exists()


def test_folder_without_a_card_is_never_published(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no card"), publish(tmp_path / "a"):
        pass
    assert not (tmp_path / "a").exists()


def test_publishing_again_replaces_what_was_there(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with publish(tmp_path / "a") as part:
            (part / text).write_text(text)
            write_card(part, make_card())
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["card.json", "new"]


KILLED = """
import sys, time
from pathlib import Path
from teachwhy.files import publish
with publish(Path(sys.argv[1])) as part:
    (part / "half").write_text("1")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_kill_in_the_middle_leaves_only_the_part(tmp_path: Path) -> None:
    target = tmp_path / "a"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(target)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGKILL)
    assert [path.name for path in tmp_path.iterdir()] == ["a.part"]
    assert [path.name for path in (tmp_path / "a.part").iterdir()] == ["half"]


@pytest.mark.parametrize(
    ("number", "says"), [(errno.ENOSPC, "no space is left"), (errno.EDQUOT, "no space is left"), (errno.EROFS, "cannot be written")]
)
def test_full_or_closed_disk_is_a_user_error(tmp_path: Path, number: int, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught, publish(tmp_path / "a"):
        raise OSError(number, os.strerror(number))
    assert caught.value.exit_code == EXIT_USAGE
    assert caught.value.where == str(tmp_path / "a")


def test_other_errors_of_the_system_stay_bugs(tmp_path: Path) -> None:
    with pytest.raises(BrokenPipeError), publish(tmp_path / "a"):
        raise BrokenPipeError


def test_disk_that_fills_while_writing_leaves_the_old_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail(self: Path, text: str, encoding: str = "") -> int:
        self.write_bytes(text[:2].encode())
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(Path, "write_text", fail)
    with pytest.raises(UserError, match="no space is left"):
        write_text(path, "new")
    assert [(entry.name, entry.read_text()) for entry in tmp_path.iterdir()] == [("a.txt", "old")]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full on this system")
def test_real_full_device_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no space is left"), publish(tmp_path / "a") as part:
        (part / "rows.jsonl").symlink_to("/dev/full")
        write_jsonl(part / "rows.jsonl", [{"a": 1}])


def test_hash_of_a_folder_knows_names_and_contents_and_not_its_card(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = files.hash_folder(tmp_path)
    write_card(tmp_path, make_card())
    assert files.hash_folder(tmp_path) == first
    (tmp_path / "a").rename(tmp_path / "b")
    second = files.hash_folder(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, second, files.hash_folder(tmp_path)}) == 3


def test_cache_is_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHWHY_CACHE", str(tmp_path))
    assert files.cache_dir() == tmp_path
    monkeypatch.delenv("TEACHWHY_CACHE")
    assert files.cache_dir().name == "teachwhy"
