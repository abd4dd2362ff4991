"""A base in few bits: refused clearly where it cannot be, and otherwise trained on as PEFT trains on it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from engine_kit import config, filled, forward, load
from torch import nn
from training_kit import Bench

from terroir.training.config import BaseQuantization
from terroir.training.engine.adapters import quantization
from terroir.training.engine.adapters.layers import inject, plan
from terroir.training.errors import BaseQuantizationUnavailable

BITSANDBYTES = importlib.util.find_spec("bitsandbytes") is not None


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_a_processor_says_what_to_choose_instead(small: Bench, kind: str) -> None:
    with pytest.raises(BaseQuantizationUnavailable, match=f"base_quantization {kind} needs a GPU") as error:
        small.run(base_quantization=kind)
    assert (error.value.reason, error.value.field) == ("BASE_QUANTIZATION_UNAVAILABLE", "base_quantization")


def test_a_gpu_without_the_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BaseQuantizationUnavailable, match="pip install bitsandbytes"):
        quantization.ensure_quantizable(BaseQuantization.NF4, "cuda:0")
    quantization.ensure_quantizable(BaseQuantization.NONE, "cuda:0")


@pytest.mark.skipif(not BITSANDBYTES, reason="bitsandbytes is an extra of GPU images")
@pytest.mark.parametrize("kind", [BaseQuantization.INT8, BaseQuantization.NF4])
def test_a_quantised_base_draws_nearly_the_same_and_takes_adapters(sd_dir: Path, kind: BaseQuantization) -> None:
    exact, family = load(sd_dir), load(sd_dir)
    quantization.quantize_(family.unet, kind, torch.float32)
    family.unet.to("cpu")
    assert not any(type(module) is nn.Linear for module in family.unet.modules())
    settings = config()
    layers = inject(family, plan(family, settings), settings)
    with torch.no_grad():
        assert (forward(family) - forward(exact)).norm() < 0.2 * forward(exact).norm()
        before = forward(family)
    filled(layers)
    forward(family).square().mean().backward()
    assert all(weight.parameter.grad is not None for weight in layers.weights)
    with torch.no_grad():
        assert not torch.allclose(forward(family), before, atol=1e-3)
