"""Rows of the keys of the adapter's own form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from engine_kit import adapted, filled, forward
from key_table import Ground, shows

from terroir.lora.adapter import Adapter, LoraModule
from terroir.training.errors import BaseQuantizationUnavailable


def extracted(at: Ground, **keys: Any) -> Adapter:
    _, layers = adapted(at.base, **{"lora_rank": 4, **keys})
    return filled(layers).extract()


def one(adapter: Adapter) -> LoraModule:
    found = next(iter(adapter.modules.values()))
    assert isinstance(found, LoraModule)
    return found


def large(adapter: Adapter) -> list[LoraModule]:
    """Convolutions larger than 1 × 1."""
    return [
        m for m in adapter.modules.values() if isinstance(m, LoraModule) and m.down.ndim == 4 and m.down.shape[-1] > 1
    ]


@shows("lora_rank")
def the_rank_of_every_layer(at: Ground) -> None:
    assert {module.rank for module in extracted(at, lora_rank=3).modules.values()} == {3}


@shows("lora_alpha")
def the_strength_of_the_same_factors(at: Ground) -> None:
    weak, strong = one(extracted(at, lora_alpha=2)), one(extracted(at, lora_alpha=8))
    assert np.allclose(4 * weak.delta(), strong.delta()) and np.abs(weak.delta()).max() > 0
    assert one(extracted(at)).alpha == 4, "unset means the rank"


@shows("lora_dropout")
def inputs_that_are_dropped_in_training(at: Ground) -> None:
    def scatter(share: float) -> bool:
        family, layers = adapted(at.base, lora_dropout=share)
        filled(layers)
        family.unet.train()
        drawn = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            drawn.append(forward(family))
        return not torch.equal(*drawn)

    assert scatter(0.5) and not scatter(0.0)


@shows("target_modules")
def the_layers_that_are_adapted(at: Ground) -> None:
    assert {name.rpartition(".")[2] for name in extracted(at, target_modules=["to_q"]).modules} == {"to_q"}
    sets = [set(extracted(at, target_modules=n).modules) for n in ("attention", "attention-ff", "all-linear-conv")]
    assert sets[0] < sets[1] < sets[2]


@shows("conv_rank")
def convolutions_beside_the_named_layers(at: Ground) -> None:
    assert not large(extracted(at))
    assert {module.rank for module in large(extracted(at, conv_rank=2))} == {2}


@shows("conv_alpha")
def the_strength_of_those_convolutions(at: Ground) -> None:
    found = extracted(at, conv_rank=2, conv_alpha=1)
    assert {module.alpha for module in large(found)} == {1.0} and one(found).alpha == 4


@shows("use_rslora")
def a_scale_of_alpha_over_the_root_of_rank(at: Ground) -> None:
    usual, stable = one(extracted(at)), one(extracted(at, use_rslora=True))
    assert stable.scale == pytest.approx(2 * usual.scale)  # rank 4


@shows("use_dora")
def lengths_of_rows_that_are_learnt(at: Ground) -> None:
    assert extracted(at, use_dora=True).has_magnitudes and not extracted(at).has_magnitudes


@shows("base_quantization")
def a_base_in_few_bits_or_a_refusal_where_that_cannot_be(at: Ground) -> None:
    """What it does on a GPU: `make bench-gpu AREA=training`, row `qlora`."""
    with pytest.raises(BaseQuantizationUnavailable, match="base_quantization nf4 needs a GPU"):
        at.adapter(base_quantization="nf4")
