"""Options reach the weights through the whole engine (each key alone: test_every_key.py), and bad batches do not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from training_kit import Bench, MemorySinks, flat

from terroir.training.config import TrainConfig
from terroir.training.engine import train as loop
from terroir.training.engine import update
from terroir.training.engine.data.batches import Batches
from terroir.training.engine.schedule import learning_rate
from terroir.training.errors import NonFiniteLoss, NothingToTrain, OutOfMemory

SHORT = {"max_train_steps": 2}


@pytest.fixture(scope="module")
def plain(bench: Bench) -> np.ndarray:
    return flat(bench.run(**SHORT).adapter)


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": "adam", "weight_decay": 0.5}, {"lora_alpha": 8}, {"lora_dropout": 0.5}, {"caption_dropout": 1.0},
        {"min_snr_gamma": 1.0}, {"noise_offset": 0.5}, {"horizontal_flip": True}, {"batch_size": 3},
        {"lr_warmup_steps": 2}, {"resolution": 48}, {"trigger_word": "painted"},
    ],
    ids=str,
)  # fmt: skip
def test_a_changed_key_changes_the_weights(bench: Bench, plain: np.ndarray, change: dict[str, Any]) -> None:
    changed = flat(bench.run(**{**SHORT, **change}).adapter)
    assert changed.shape == plain.shape and not np.allclose(changed, plain, atol=1e-7)


def test_what_does_not_decide_the_weights_leaves_them_alone(bench: Bench, plain: np.ndarray) -> None:
    assert (flat(bench.run(**SHORT, save_steps=1, adapter="other", output_dir="x").adapter) == plain).all()


@pytest.mark.parametrize(
    ("targets", "endings", "conv"),
    [
        ("attention", {"to_q", "to_k", "to_v", "0"}, False),
        ("attention-ff", {"to_q", "to_k", "to_v", "0", "proj_in", "proj_out", "proj", "2"}, True),
        ("all-linear-conv", None, True),
        (["to_q"], {"to_q"}, False),
    ],
)
def test_target_modules_name_the_adapted_layers(
    bench: Bench, targets: Any, endings: set[str] | None, conv: bool
) -> None:
    modules = bench.run(max_train_steps=1, target_modules=targets).adapter.modules
    found = {name.rpartition(".")[2] for name in modules}
    assert endings is None or found == endings
    assert endings is not None or {"conv1", "conv2", "time_emb_proj", "conv_shortcut", "conv", "to_q"} <= found
    assert any(module.down.ndim == 4 for module in modules.values()) == conv


def test_unknown_target_modules_are_an_error(bench: Bench) -> None:
    with pytest.raises(NothingToTrain) as error:
        bench.run(target_modules=["no_such"])
    assert error.value.reason == "NO_TARGET_MODULES"


def test_accumulated_passes_equal_one_large_batch(bench: Bench) -> None:
    """With SGD: Adam's first steps make a sign out of every gradient, however small."""
    whole = flat(bench.run(**SHORT, batch_size=4, optimizer="sgd").adapter)
    parts = flat(bench.run(**SHORT, batch_size=2, gradient_accumulation_steps=2, optimizer="sgd").adapter)
    assert np.abs(whole - parts).max() < 1e-6


def test_training_lowers_the_loss_and_reports_progress(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one batch again and again, so that nothing but learning lowers the loss.

    A random base, whose output layer is not adapted, allows 0.87 of the first loss in 30 steps.
    """
    make = Batches.make
    monkeypatch.setattr(Batches, "make", lambda self, step, part, *workers: make(self, 0, 0, *workers))
    sinks = MemorySinks()
    bench.run(sinks, max_train_steps=30, learning_rate=2e-2, target_modules="all-linear-conv", lora_rank=8)
    losses = [values["loss"] for _, values in sinks.curves]
    assert losses[-1] < 0.92 * losses[0]
    last = sinks.progresses[-1]
    assert (last.phase, last.step, last.total_steps, last.eta_seconds) == ("training", 30, 30, 0.0)
    assert last.steps_per_second > 0
    assert [p.phase for p in sinks.progresses[:3]] == ["preparing", "caching", "training"]


@pytest.mark.parametrize(
    ("kind", "warm_up", "expected"),
    [
        ("constant", 0, [1, 1, 1, 1]),
        ("linear", 0, [1, 0.75, 0.5, 0.25]),
        ("constant", 2, [0.5, 1, 1, 1]),
        ("cosine", 2, [0.5, 1, 1, 0.5]),
    ],
)
def test_the_learning_rate_follows_its_course(kind: str, warm_up: int, expected: list[float]) -> None:
    config = TrainConfig(learning_rate=1.0, lr_scheduler=kind, lr_warmup_steps=warm_up)
    assert [learning_rate(config, step, 4) for step in range(4)] == pytest.approx(expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_batch_is_skipped_and_counted_and_the_weights_stay_good(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    _spoil(monkeypatch, bad, {1})
    sinks = MemorySinks()
    result = bench.run(sinks)
    assert result.skipped_batches == 1 and np.isfinite(flat(result.adapter)).all()
    assert sinks.progresses[-1].skipped_batches == 1 and any("skipped step 2" in line for line in sinks.lines)


def test_a_run_of_bad_batches_stops_the_job_and_keeps_the_last_good_checkpoint(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = MemorySinks()
    bench.run(good, save_steps=2, max_train_steps=6)
    _spoil(monkeypatch, float("nan"), set(range(2, 9)))
    sinks = MemorySinks()
    with pytest.raises(NonFiniteLoss, match="3 steps in a row") as error:
        bench.run(sinks, save_steps=2, max_train_steps=6, max_bad_batches=3)
    assert error.value.reason == "NON_FINITE_LOSS"
    assert [c.step for c in sinks.checkpoints][:1] == [2] and sinks.checkpoints[0].state == good.checkpoints[0].state


def test_gradients_that_are_not_finite_are_not_applied(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update.nn.utils, "clip_grad_norm_", lambda weights, limit: torch.tensor(float("inf")))
    with pytest.raises(NonFiniteLoss):
        bench.run(max_train_steps=3, max_bad_batches=2)


def _spoil(monkeypatch: pytest.MonkeyPatch, value: float, steps: set[int]) -> None:
    make = Batches.make

    def spoiled(self: Batches, step: int, part: int, *workers: int) -> Any:
        batch = make(self, step, part, *workers)
        return replace(batch, target=batch.target * value) if step in steps else batch

    monkeypatch.setattr(Batches, "make", spoiled)


def test_no_pictures_are_an_error(bench: Bench) -> None:
    with pytest.raises(NothingToTrain):
        bench.run(data=[])


def test_memory_that_runs_out_in_a_step_names_the_key_and_the_value_to_try(
    small: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nand much more")

    monkeypatch.setattr(loop, "loss_of", out_of_memory)
    sinks = MemorySinks()
    with pytest.raises(OutOfMemory) as error:
        small.run(sinks, batch_size=4, gradient_checkpointing=True, mixed_precision="bf16")
    assert "Tried to allocate 2.00 GiB);" in str(error.value), "the first line only"
    assert "try batch_size 4 → 2 and gradient_accumulation_steps 1 → 2" in str(error.value)
    assert not sinks.checkpoints


def test_what_the_losses_suggest_is_said_at_the_end(small: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses are made up, as forty real ones do not misbehave on demand."""
    keys: dict[str, Any] = {"max_train_steps": 40, "optimizer": "sgd", "batch_size": 1}
    sinks = MemorySinks()
    assert small.run(sinks, **keys).hint == "" or "hint" in sinks.lines[-1]
    growing = iter(range(1, 1000))
    real = loop.loss_of
    monkeypatch.setattr(loop, "loss_of", lambda *given: real(*given) * 0 + next(growing))
    sinks = MemorySinks()
    result = small.run(sinks, **keys)
    assert result.hint.startswith("The loss rises: try learning_rate 0.01 → 0.0033 ")
    assert f"hint: {result.hint}" in sinks.lines and "docs/troubleshooting.md#loss-rises" in result.hint
