"""Checkpoints: found, refused, hashed, loaded, merged."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from teachwhy.errors import UserError  # noqa: E402
from teachwhy.models import builtin  # noqa: E402
from teachwhy.models import checkpoints as sut  # noqa: E402

IDS = torch.tensor([[5, 6, 7, 8]])


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def test_local_folder_is_found(tiny_model_dir: Path) -> None:
    assert sut.resolve_model(str(tiny_model_dir)) == tiny_model_dir.resolve()
    assert sut.resolve_model(f"teachwhy/{tiny_model_dir}") == tiny_model_dir.resolve()


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize("name", ["builtin", "teachwhy/builtin"])
def test_missing_builtin_names_the_command(name: str) -> None:
    with pytest.raises(UserError) as caught:
        sut.resolve_model(name)
    assert "teachwhy models get builtin" in caught.value.hint


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "~/nothing-here", "a/b/c"])
def test_missing_folder_is_not_looked_for_elsewhere(name: str) -> None:
    with pytest.raises(UserError, match="no such folder"):
        sut.resolve_model(name)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.pt"])
def test_pickle_alone_is_refused(tiny_model_dir: Path, tmp_path: Path, file: str) -> None:
    folder = copied(tiny_model_dir, tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / file)
    with pytest.raises(UserError, match="pickle") as caught:
        sut.resolve_model(str(folder))
    assert "save_pretrained" in caught.value.hint
    with pytest.raises(UserError, match="pickle"):
        sut.load_model(folder, dtype="float32")


def test_folder_that_is_no_model_is_refused(tiny_model_dir: Path, tiny_adapter_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config\.json"):
        sut.resolve_model(str(tmp_path))
    with pytest.raises(UserError, match="adapter, not a model"):
        sut.resolve_model(str(tiny_adapter_dir))
    folder = copied(tiny_model_dir, tmp_path / "empty")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights"):
        sut.resolve_model(str(folder))


def test_broken_weights_are_an_error_for_people(tiny_model_dir: Path, tmp_path: Path) -> None:
    folder = copied(tiny_model_dir, tmp_path / "broken")
    (folder / "model.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match="cannot be loaded"):
        sut.load_model(folder, dtype="float32")


def fake_hub(monkeypatch: pytest.MonkeyPatch, cached: Path | Exception, fetched: Path | Exception) -> list[bool]:
    """Answers of the hub, cache first; returns what was asked of it (True: cache)."""
    asked: list[bool] = []

    def snapshot_download(name: str, *, local_files_only: bool = False, **patterns: Any) -> str:
        asked.append(local_files_only)
        found = cached if local_files_only else fetched
        if isinstance(found, Exception):
            raise found
        return str(found)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return asked


def test_cached_model_asks_nothing_of_the_network(monkeypatch: pytest.MonkeyPatch, tiny_model_dir: Path) -> None:
    asked = fake_hub(monkeypatch, tiny_model_dir, OSError("no network"))
    assert sut.resolve_model("owner/name") == tiny_model_dir
    assert asked == [True]


def test_half_of_a_model_in_the_cache_is_fetched(monkeypatch: pytest.MonkeyPatch, tiny_model_dir: Path, tmp_path: Path) -> None:
    asked = fake_hub(monkeypatch, tmp_path, tiny_model_dir)
    assert sut.resolve_model("owner/name") == tiny_model_dir
    assert asked == [True, False]


def test_network_failure_is_an_error_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    fake_hub(monkeypatch, LocalEntryNotFoundError("not here"), ConnectionError("name not resolved"))
    with pytest.raises(UserError, match="name not resolved") as caught:
        sut.resolve_model("owner/name")
    assert "network" in caught.value.hint


def test_name_that_can_be_no_id_is_refused() -> None:
    with pytest.raises(UserError, match="neither a folder nor"):
        sut.resolve_model("no spaces allowed")


@pytest.mark.usefixtures("own_cache")
def test_hash_follows_the_content(tiny_model_dir: Path, tmp_path: Path) -> None:
    folder = copied(tiny_model_dir, tmp_path / "copy")
    found = sut.hash_model(folder)
    assert found == sut.hash_model(tiny_model_dir)
    (folder / "README.md").write_text("words")
    (folder / "card.json").write_text("{}")
    assert sut.hash_model(folder) == found
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    assert sut.hash_model(folder) != found


def test_hash_of_a_big_folder_is_kept_until_it_changes(
    tiny_model_dir: Path, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(tiny_model_dir, tmp_path / "copy")
    small = sut.hash_model(folder)
    assert not own_cache.exists()
    monkeypatch.setattr(sut, "_SMALL_BYTES", 0)
    assert sut.hash_model(folder) == small
    with monkeypatch.context() as patched:
        patched.setattr(sut, "hash_file", lambda path: pytest.fail("read again"))
        assert sut.hash_model(folder) == small
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    assert sut.hash_model(folder) != small


def test_attention_and_dtype_are_as_told(tiny_model_dir: Path) -> None:
    trained = sut.load_model(tiny_model_dir, dtype="bfloat16", train=True)
    assert (trained.config._attn_implementation, trained.dtype, trained.training) == ("eager", torch.bfloat16, True)
    served = sut.load_model(tiny_model_dir, dtype="float32")
    assert (served.config._attn_implementation, served.dtype, served.training) == ("sdpa", torch.float32, False)
    with pytest.raises(UserError, match="no dtype"):
        sut.load_model(tiny_model_dir, dtype="int4")


def test_installed_sdpa_decodes_grouped_queries_itself() -> None:
    """Why there is no attention of our own: it was measured as no faster than this."""
    from transformers.integrations import sdpa_attention

    assert sdpa_attention.pack_gqa(torch.zeros(1, 4, 1, 8), 2).shape == (1, 2, 2, 8)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_merged_adapters_equal_adapters_beside_the_model(tiny_model_dir: Path, tiny_adapter_dir: Path) -> None:
    from peft import PeftModel

    plain = sut.load_model(tiny_model_dir, dtype="float32")
    merged = sut.load_model(tiny_model_dir, adapters=[tiny_adapter_dir], dtype="float32")
    beside = PeftModel.from_pretrained(sut.load_model(tiny_model_dir, dtype="float32"), str(tiny_adapter_dir))
    with torch.inference_mode():
        assert torch.allclose(merged(IDS).logits, beside(IDS).logits, atol=1e-4)
        assert not torch.allclose(merged(IDS).logits, plain(IDS).logits, atol=1e-2)
    assert not any("lora" in name for name, _ in merged.named_parameters())


def test_adapters_are_merged_before_the_cast(tiny_model_dir: Path, tiny_adapter_dir: Path) -> None:
    exact = sut.load_model(tiny_model_dir, adapters=[tiny_adapter_dir, tiny_adapter_dir], dtype="float32")
    cast = sut.load_model(tiny_model_dir, adapters=[tiny_adapter_dir, tiny_adapter_dir], dtype="bfloat16")
    for (_, wanted), (name, found) in zip(exact.named_parameters(), cast.named_parameters(), strict=True):
        assert torch.equal(wanted.bfloat16(), found), name


def test_adapter_without_safetensors_is_refused(tiny_model_dir: Path, tiny_adapter_dir: Path, tmp_path: Path) -> None:
    folder = copied(tiny_adapter_dir, tmp_path / "pickled")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(UserError, match=r"adapter_model\.safetensors"):
        sut.load_model(tiny_model_dir, adapters=[folder], dtype="float32")


def test_dtype_and_device_are_known_ones() -> None:
    assert sut.best_dtype() in sut.DTYPES
    assert sut.pick_device() == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.builtin
def test_builtin_hash_comes_from_its_card(builtin_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sut, "hash_file", lambda path: pytest.fail("540 MB read"))
    assert sut.resolve_model("builtin") == builtin_model_dir == builtin.builtin_dir()
    assert len(sut.hash_model(builtin_model_dir)) == 64
