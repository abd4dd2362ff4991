"""Half precision: what is held and computed in it, and a loss scale that adapts and survives a restart."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from training_kit import Bench, MemorySinks, flat

from terroir.training.config import MixedPrecision
from terroir.training.engine import loss as loss_module
from terroir.training.engine import train as engine
from terroir.training.engine.ports import Stopped
from terroir.training.engine.precision import Precision
from terroir.training.errors import NonFiniteLoss

FP16: dict[str, Any] = {"mixed_precision": "fp16", "max_train_steps": 4}


def difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_nearly_what_single_precision_learns(small: Bench, precision: str) -> None:
    """With SGD, whose steps are in proportion to gradients; Adam makes a sign of each."""
    keys: dict[str, Any] = {"optimizer": "sgd", "learning_rate": 0.5, "max_grad_norm": 0}
    exact = flat(small.run(**keys).adapter)
    start = flat(small.run(**{**keys, "learning_rate": 1e-30}).adapter)
    half = flat(small.run(**keys, mixed_precision=precision).adapter)
    assert not np.array_equal(half, exact)
    assert difference(half - start, exact - start) < 0.1


def test_what_is_trained_is_in_single_precision(small: Bench) -> None:
    sinks = MemorySinks()
    small.run(sinks, **FP16, use_dora=True, ema_decay=0.9)
    from safetensors.torch import load

    assert {tensor.dtype for tensor in load(sinks.checkpoints[-1].state).values()} == {torch.float32}


def overflow_in(monkeypatch: pytest.MonkeyPatch, steps: set[int], factor: float = 1e36) -> None:
    """Gradients that exceed fp32 once they are scaled by 65,536; the loss itself stays finite."""

    class Steep(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, loss: Tensor) -> Tensor:
            return loss.clone()

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return gradient * factor

    calls = 0
    loss_of = loss_module.loss_of

    def steep(predicted: Tensor, batch: Any) -> Tensor:
        nonlocal calls
        calls += 1
        loss = loss_of(predicted, batch)
        return Steep.apply(loss) if calls - 1 in steps else loss

    monkeypatch.setattr(engine, "loss_of", steep)


def test_an_overflow_lowers_the_loss_scale_and_is_no_bad_batch(small: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    overflow_in(monkeypatch, {1})
    sinks = MemorySinks()
    result = small.run(sinks, **FP16)
    assert result.skipped_batches == 0
    assert [(step, values["loss_scale"]) for step, values in sinks.curves] == [(1, 65536), (3, 32768), (4, 32768)]
    assert any("step 2 overflowed fp16: the loss scale is 32768 now" in line for line in sinks.lines)
    assert np.isfinite(flat(result.adapter)).all()


def test_overflows_that_no_scale_cures_are_bad_batches_in_the_end(
    small: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scale falls from 65,536 to 1 in 16 steps; from then on it is not to blame."""
    overflow_in(monkeypatch, set(range(40)), math.inf)
    sinks = MemorySinks()
    with pytest.raises(NonFiniteLoss, match="up to step 19"):
        small.run(sinks, mixed_precision="fp16", max_train_steps=40, max_bad_batches=3)
    assert sum("overflowed" in line for line in sinks.lines) == 16


def test_a_loss_that_is_not_finite_is_a_bad_batch_and_leaves_the_scale_alone(
    small: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss_of, calls = loss_module.loss_of, 0

    def spoiled(predicted: Tensor, batch: Any) -> Tensor:
        nonlocal calls
        calls += 1
        return loss_of(predicted, batch) * (math.nan if calls == 2 else 1)

    monkeypatch.setattr(engine, "loss_of", spoiled)
    sinks = MemorySinks()
    assert small.run(sinks, **FP16).skipped_batches == 1
    assert [values["loss_scale"] for _, values in sinks.curves if "loss_scale" in values] == [65536] * 3


def test_a_resumed_run_goes_on_with_the_scale_that_it_had(small: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    overflow_in(monkeypatch, {0, 1})
    whole = small.run(**FP16)
    overflow_in(monkeypatch, {0, 1})
    sinks = MemorySinks(stop_at=1)
    with pytest.raises(Stopped):
        small.run(sinks, **FP16)
    monkeypatch.undo()
    sinks.stop_at = None
    resumed = small.run(sinks, **FP16)
    assert [values["loss_scale"] for _, values in sinks.curves] == [16384, 16384]
    assert (flat(resumed.adapter) == flat(whole.adapter)).all()


def test_scaled_gradients_are_clipped_and_reported_at_their_real_length(small: Bench) -> None:
    sinks, exact = MemorySinks(), MemorySinks()
    small.run(sinks, **FP16, max_grad_norm=0)
    small.run(exact, max_train_steps=4, max_grad_norm=0)
    norms, expected = ([values["gradient_norm"] for _, values in one.curves] for one in (sinks, exact))
    assert norms[0] == pytest.approx(expected[0], rel=0.05)


@pytest.mark.parametrize("kind", list(MixedPrecision))
def test_only_fp16_has_a_loss_scale_to_keep(kind: MixedPrecision) -> None:
    precision = Precision(kind, "cpu")
    assert precision.scales == bool(precision.state()) == (kind is MixedPrecision.FP16)
