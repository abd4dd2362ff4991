"""Adapter files for the hand-written base, made by `terroir.lora`'s own writer, and files that must be refused."""

from __future__ import annotations

import pickle

import numpy as np

from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.formats import to_kohya
from terroir.lora.loha import HadamardFactor, LohaModule

_BLOCK = "unet.down_blocks.0.attentions.0.transformer_blocks.0"
_LAYERS = {f"{_BLOCK}.attn1.to_q": (8, 8), f"{_BLOCK}.attn1.to_out.0": (8, 8), f"{_BLOCK}.attn2.to_k": (8, 6)}


def adapter_bytes(rank: int, seed: int = 0, layers: dict[str, tuple[int, int]] | None = None) -> bytes:
    """A kohya file for three layers of the hand-written base."""
    return to_kohya(make_adapter(rank, seed, layers), {})


def foreign_shape_bytes() -> bytes:
    """The same layers of a wider base."""
    return adapter_bytes(2, layers={name: (2 * out, 2 * into) for name, (out, into) in _LAYERS.items()})


def infinite_bytes() -> bytes:
    """An adapter with one infinite weight."""
    modules = dict(make_adapter(2).modules)
    name, module = next(iter(modules.items()))
    down = module.down.copy()
    down[0, 0] = np.inf
    return to_kohya(Adapter({**modules, name: LoraModule(down, module.up, module.alpha)}), {})


def pickle_bytes() -> bytes:
    """What torch.save used to write."""
    return pickle.dumps({"lora_unet_x.lora_down.weight": [1.0] * 50})


def make_adapter(rank: int, seed: int = 0, layers: dict[str, tuple[int, int]] | None = None) -> Adapter:
    """Random factors for the layers."""
    rng = np.random.default_rng(seed)
    modules = {}
    for name, (out, into) in (layers or _LAYERS).items():
        down = rng.standard_normal((rank, into), dtype=np.float32)
        modules[name] = LoraModule(down, rng.standard_normal((out, rank), dtype=np.float32), float(rank))
    return Adapter(modules)


def make_loha(rank: int, seed: int = 0) -> Adapter:
    """A LoHa of the same layers."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> HadamardFactor:
        out, into = shape
        return HadamardFactor(
            rng.standard_normal((out, rank), dtype=np.float32), rng.standard_normal((rank, into), dtype=np.float32)
        )

    return Adapter({name: LohaModule(draw(*shape), draw(*shape), 1.0, shape) for name, shape in _LAYERS.items()})
