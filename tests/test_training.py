"""Training: loss on the assistant's tokens alone, only the adapter moves, seeds and killed runs repeat to the bit, TRL agrees."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from safetensors.torch import load_file  # noqa: E402

from teachwhy.errors import CellFailed  # noqa: E402
from teachwhy.files import derive_seed  # noqa: E402
from teachwhy.models.chat import Encoded, encode_chat, load_tokenizer, training_template  # noqa: E402
from teachwhy.models.checkpoints import load_model  # noqa: E402
from teachwhy.training import sft as sut  # noqa: E402
from teachwhy.training.settings import SftSettings  # noqa: E402

SETTINGS = SftSettings(updates=6, learning_rate=5e-3, rank=4, alpha=8, dtype="float32")
CHATS: list[list[dict[str, str]]] = [
    [{"role": "system", "content": "Choose."}, {"role": "user", "content": f"Tea or {other}?"}, {"role": "assistant", "content": says}]
    for other, says in (("coffee", "Tea."), ("milk from the farm", "The milk, since it is near."), ("water", "Water costs nothing."))
]
CHATS.append([{"role": role, "content": f"{role} {turn}"} for turn in range(2) for role in ("user", "assistant")])


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def rows(tiny_model_dir: Path) -> list[Encoded]:
    tokenizer = load_tokenizer(tiny_model_dir)
    return [encode_chat(tokenizer, chat) for chat in CHATS]


@pytest.fixture(scope="module")
def batches(rows: list[Encoded]) -> list[list[Encoded]]:
    """Six updates of one, two or three rows, as equal effort makes them."""
    return [[rows[0], rows[1]], [rows[2]], [rows[3], rows[0], rows[2]], [rows[1]], [rows[3]], [rows[2], rows[3]]]


def load(folder: Path, dtype: str = "float32") -> Any:
    return load_model(folder, dtype=dtype, train=True)


@pytest.fixture(scope="module")
def peft_model(tiny_model_dir: Path) -> Any:
    """An adapter that already says something of its own, so that every tensor of it has a gradient."""
    torch.manual_seed(3)
    model = sut.add_lora(load(tiny_model_dir), SETTINGS)
    with torch.no_grad():
        for value in trainable(model).values():
            value.normal_(std=0.1)
    return model


def trainable(model: Any) -> dict[str, Any]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def gradients(model: Any, batch: Sequence[Encoded]) -> tuple[float, dict[str, Any]]:
    model.zero_grad()
    loss, _ = sut.summed_loss(model, batch)
    loss.backward()
    found = {name: value.grad.clone() for name, value in trainable(model).items()}
    model.zero_grad()
    return loss.item(), found


def token_losses(model: Any, row: Encoded) -> list[float]:
    """Nats of every token of a row given those before it, from the model's own forward; the first has none."""
    ids = torch.tensor([row.ids])
    with torch.no_grad():
        log_p = model(input_ids=ids).logits.float().log_softmax(-1)[0, :-1]
    return [0.0, *(-log_p.gather(1, ids[0, 1:, None])[:, 0]).tolist()]


def test_loss_is_the_sum_over_assistant_tokens_and_their_stop_token(peft_model: Any, rows: list[Encoded]) -> None:
    for row in rows:
        each = token_losses(peft_model, row)
        loss, n_tokens = sut.summed_loss(peft_model, [row])
        wanted = [value for value, marked in zip(each, row.supervised, strict=True) if marked]
        assert n_tokens == len(wanted) == sum(row.supervised)
        assert loss.item() == pytest.approx(sum(wanted), rel=1e-5)


def test_stop_token_carries_loss(peft_model: Any, tiny_model_dir: Path, rows: list[Encoded]) -> None:
    stop = load_tokenizer(tiny_model_dir).convert_tokens_to_ids("<|im_end|>")
    row = rows[0]
    last = max(place for place, marked in enumerate(row.supervised) if marked)
    assert row.ids[last] == stop
    without = Encoded(row.ids, [marked and place != last for place, marked in enumerate(row.supervised)])
    difference = sut.summed_loss(peft_model, [row])[0].item() - sut.summed_loss(peft_model, [without])[0].item()
    assert difference == pytest.approx(token_losses(peft_model, row)[last], rel=1e-3)


def test_marking_a_token_adds_its_own_loss_and_changes_nothing_else(peft_model: Any, rows: list[Encoded]) -> None:
    row = rows[1]
    place = row.supervised.index(False, 5)
    marked = Encoded(row.ids, [*row.supervised[:place], True, *row.supervised[place + 1 :]])
    alone = Encoded(row.ids, [number == place for number in range(len(row.ids))])
    (loss, plain), (more, with_mark), (own, one) = (gradients(peft_model, [each]) for each in (row, marked, alone))
    assert own > 0
    assert more == pytest.approx(loss + own, rel=1e-5)
    for name, value in plain.items():
        torch.testing.assert_close(with_mark[name], value + one[name], rtol=1e-3, atol=1e-4)


def test_token_that_nothing_supervised_sees_has_no_gradient(peft_model: Any, rows: list[Encoded]) -> None:
    """What follows the stop token is in the row, and may be anything."""
    row = rows[0]
    assert not row.supervised[-1]
    other = Encoded([*row.ids[:-1], row.ids[-1] + 7], row.supervised)
    (loss, plain), (same, found) = gradients(peft_model, [row]), gradients(peft_model, [other])
    assert loss == same
    assert all(torch.equal(found[name], value) for name, value in plain.items())


def test_batch_is_the_sum_of_its_rows(peft_model: Any, rows: list[Encoded]) -> None:
    assert len({len(row.ids) for row in rows}) == len(rows), "rows of one length would need no padding"
    loss, together = gradients(peft_model, rows)
    apart = [gradients(peft_model, [row]) for row in rows]
    assert loss == pytest.approx(sum(one for one, _ in apart), rel=1e-5)
    assert sut.summed_loss(peft_model, rows)[1] == sum(sum(row.supervised) for row in rows)
    for name, value in together.items():
        torch.testing.assert_close(value, sum(found[name] for _, found in apart), rtol=1e-3, atol=1e-4)


def start_weights(model: Any, seed: int) -> dict[str, Any]:
    torch.manual_seed(derive_seed(seed, "lora"))
    return {name: value.detach().clone() for name, value in trainable(sut.add_lora(model, SETTINGS)).items()}


def test_every_adapter_tensor_moves_and_the_base_does_not(tiny_model_dir: Path, tmp_path: Path, batches: list[list[Encoded]]) -> None:
    model = load(tiny_model_dir)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start = start_weights(load(tiny_model_dir), seed=1)
    settings = SETTINGS.model_copy(update={"weight_decay": 0.0})  # decay would move them without any gradient
    trained = sut.train_adapter(model, batches, settings, seed=1, folder=tmp_path)
    after = {name.replace(".base_layer", ""): value for name, value in model.state_dict().items()}
    assert all(torch.equal(after[name], value) for name, value in before.items())
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert len(saved) == len(start) == 2 * 7 * 2, "two tensors for each of seven linear layers in two blocks"
    for name, value in start.items():
        assert not torch.equal(saved[name.replace(".default", "")], value), name
    assert trained.n_supervised == sum(sum(row.supervised) for batch in batches for row in batch)
    assert trained.n_tokens == sum(len(row.ids) for batch in batches for row in batch)
    assert len(trained.losses) == len(batches)


def train(
    model_dir: Path, folder: Path, batches: list[list[Encoded]], *, seed: int = 1, dtype: str = "float32", report: Any = None
) -> bytes:
    """The bytes of the adapter."""
    folder.mkdir(exist_ok=True)
    report = report or (lambda progress: None)
    sut.train_adapter(load(model_dir, dtype), batches, SETTINGS, seed=seed, folder=folder, report=report)
    return (folder / "adapter" / "adapter_model.safetensors").read_bytes()


def test_seed_decides_the_adapter(tiny_model_dir: Path, tmp_path: Path, batches: list[list[Encoded]]) -> None:
    first = train(tiny_model_dir, tmp_path / "a", batches)
    torch.rand(5)  # what was drawn before is of no account
    assert train(tiny_model_dir, tmp_path / "b", batches) == first
    assert train(tiny_model_dir, tmp_path / "c", batches, seed=2) != first


def test_loss_falls_on_rows_seen_again(tiny_model_dir: Path, tmp_path: Path, rows: list[Encoded]) -> None:
    trained = sut.train_adapter(load(tiny_model_dir), [rows] * 12, SETTINGS, seed=1, folder=tmp_path)
    assert trained.losses[-1] < 0.9 * trained.losses[0]


class Killed(Exception):
    """Stands for a killed process."""


def kill_after(update: int) -> Callable[[sut.Progress], None]:
    def report(progress: sut.Progress) -> None:
        if progress.update == update:
            raise Killed

    return report


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("updates", [[2], [6], [3, 5]], ids=["early", "last", "twice"])
def test_killed_run_resumes_to_the_same_bits(
    tiny_model_dir: Path, tmp_path: Path, batches: list[list[Encoded]], monkeypatch: pytest.MonkeyPatch, dtype: str, updates: list[int]
) -> None:
    whole = train(tiny_model_dir, tmp_path / "whole", batches, dtype=dtype)
    monkeypatch.setattr(sut, "CHECKPOINT_SECONDS", -1.0)
    for update in updates:
        with pytest.raises(Killed):
            train(tiny_model_dir, tmp_path / "killed", batches, dtype=dtype, report=kill_after(update))
        assert (tmp_path / "killed" / sut.CHECKPOINT).is_file()
    seen: list[sut.Progress] = []
    assert train(tiny_model_dir, tmp_path / "killed", batches, dtype=dtype, report=seen.append) == whole
    assert [progress.update for progress in seen] == list(range(updates[-1], 7)), "the update of the kill is done again, none before it"
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == ["adapter"]


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"{" + data])
def test_damaged_checkpoint_is_dropped_and_training_begins_anew(
    tiny_model_dir: Path, tmp_path: Path, batches: list[list[Encoded]], monkeypatch: pytest.MonkeyPatch, damage: Callable[[bytes], bytes]
) -> None:
    whole = train(tiny_model_dir, tmp_path / "whole", batches)
    monkeypatch.setattr(sut, "CHECKPOINT_SECONDS", -1.0)
    with pytest.raises(Killed):
        train(tiny_model_dir, tmp_path / "killed", batches, report=kill_after(4))
    checkpoint = tmp_path / "killed" / sut.CHECKPOINT
    checkpoint.write_bytes(damage(checkpoint.read_bytes()))
    assert train(tiny_model_dir, tmp_path / "killed", batches) == whole


def test_resumed_run_reports_the_losses_of_the_whole(
    tiny_model_dir: Path, tmp_path: Path, batches: list[list[Encoded]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "whole").mkdir()
    whole = sut.train_adapter(load(tiny_model_dir), batches, SETTINGS, seed=1, folder=tmp_path / "whole")
    monkeypatch.setattr(sut, "CHECKPOINT_SECONDS", -1.0)
    with pytest.raises(Killed):
        train(tiny_model_dir, tmp_path / "killed", batches, report=kill_after(4))
    resumed = sut.train_adapter(load(tiny_model_dir), batches, SETTINGS, seed=1, folder=tmp_path / "killed")
    assert resumed.losses == whole.losses
    assert resumed[1:3] == whole[1:3]


def test_loss_that_is_no_number_fails_the_cell_and_says_what_to_try(
    tiny_model_dir: Path, tmp_path: Path, batches: list[list[Encoded]]
) -> None:
    model = load(tiny_model_dir)
    with torch.no_grad():
        model.get_input_embeddings().weight[batches[0][0].ids[3]] = math.nan
    with pytest.raises(CellFailed, match=r"the loss of update 1 is nan: try half the learning rate \(0\.0025\)"):
        sut.train_adapter(model, batches, SETTINGS, seed=1, folder=tmp_path)
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize(
    ("update", "n_updates", "warmup", "rate"),
    [
        (0, 10, 0.2, 0.5),  # two warm-up updates: a half, then the whole
        (1, 10, 0.2, 1.0),
        (2, 10, 0.2, 1.0),  # cos 0
        (6, 10, 0.2, 0.5),  # halfway through the eight that are left
        (4, 10, 0.2, (2 + math.sqrt(2)) / 4),  # a quarter: (1 + cos 45 degrees) / 2
        (8, 10, 0.2, (2 - math.sqrt(2)) / 4),
        (0, 4, 0.0, 1.0),
        (2, 4, 0.0, 0.5),
        (0, 120, 0.05, 1 / 6),
        (0, 3, 0.05, 1.0),  # one warm-up update at least
        (0, 1, 0.5, 1.0),
    ],
)
def test_learning_rate_warms_up_and_falls_as_a_cosine(update: int, n_updates: int, warmup: float, rate: float) -> None:
    assert sut.schedule_rate(update, n_updates, warmup) == pytest.approx(rate)


def test_every_supervised_token_of_a_stage_weighs_the_same(
    tiny_model_dir: Path, tmp_path: Path, batches: list[list[Encoded]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient that reaches the optimizer is the batch's sum over one number, the same for every update."""
    divisors: list[float] = []
    made: list[Any] = []
    add_lora = sut.add_lora
    monkeypatch.setattr(sut, "add_lora", lambda *parts: made.append(add_lora(*parts)) or made[-1])

    def compare(optimizer: Any, masters: dict[str, Any], weights: dict[str, Any], max_norm: float) -> None:
        found = {name: value.grad.clone() for name, value in weights.items()}
        _, whole = gradients(made[-1], batches[len(divisors)])
        name = max(whole, key=lambda key: float(whole[key].norm()))
        divisors.append(float(whole[name].norm() / found[name].norm()))

    monkeypatch.setattr(sut, "_step", compare)
    sut.train_adapter(load(tiny_model_dir), batches, SETTINGS, seed=1, folder=tmp_path)
    mean = sum(sum(row.supervised) for batch in batches for row in batch) / len(batches)
    assert divisors == pytest.approx([mean] * len(batches), rel=1e-4)


def test_adapter_loads_and_changes_the_logits(tiny_model_dir: Path, tmp_path: Path, batches: list[list[Encoded]]) -> None:
    train(tiny_model_dir, tmp_path, batches)
    ids = torch.tensor([batches[0][0].ids])
    plain, merged = (load_model(tiny_model_dir, adapters=adapters, dtype="float32") for adapters in ([], [tmp_path / "adapter"]))
    with torch.inference_mode():
        assert (plain(ids).logits - merged(ids).logits).abs().max() > 0.1


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning", "ignore::ResourceWarning")
def test_losses_and_adapter_are_trls(tiny_model_dir: Path, tmp_path: Path) -> None:
    """Rows with equally many supervised tokens, so that TRL's mean over a batch weighs them as we do."""
    trl = pytest.importorskip("trl", reason="TRL IS NOT INSTALLED, so nothing holds our loss against its: pip install teachwhy[dev]")
    datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install teachwhy[dev]")
    from torch.utils.data import SequentialSampler
    from transformers import AutoTokenizer

    says = ["Tea is near.", "Milk is dear", "Water is far", "Beer is 4 a.", "Juice is ok.", "Wine is old.", "Soup is hot.", "Rice is dry."]
    assert {len(text) for text in says} == {12}
    chats = [
        [{"role": "user", "content": f"What of the {'long ' * number}list?"}, {"role": "assistant", "content": text}]
        for number, text in enumerate(says)
    ]
    settings = SETTINGS.model_copy(update={"updates": 4, "warmup": 0.0})
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    tokenizer.chat_template = training_template(tokenizer)
    encoded = [encode_chat(tokenizer, chat) for chat in chats]
    ours = sut.train_adapter(load(tiny_model_dir), [encoded[at : at + 2] for at in range(0, 8, 2)], settings, seed=1, folder=tmp_path)

    torch.manual_seed(derive_seed(1, "lora"))
    theirs = sut.add_lora(load(tiny_model_dir), settings)
    config = trl.SFTConfig(
        output_dir=str(tmp_path / "trl"),
        max_steps=4,
        per_device_train_batch_size=2,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_norm,
        optim="adamw_torch",
        assistant_only_loss=True,
        packing=False,
        gradient_checkpointing=False,
        use_cpu=True,
        bf16=False,
        report_to="none",
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
    )
    trainer = trl.SFTTrainer(
        model=theirs,
        args=config,
        processing_class=tokenizer,
        train_dataset=datasets.Dataset.from_list([{"messages": chat} for chat in chats]),
    )
    trainer._get_train_sampler = lambda data=None: SequentialSampler(trainer.train_dataset)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses == pytest.approx(ours.losses, abs=2e-4)
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    for name, value in trainable(theirs).items():
        torch.testing.assert_close(value.detach(), saved[name.replace(".default", "")], rtol=1e-2, atol=1e-4)
