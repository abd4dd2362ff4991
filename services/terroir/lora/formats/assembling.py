"""From named factors to checked modules."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from terroir.lora.adapter import Adapter, Array, LoraModule, Module
from terroir.lora.errors import IncompleteModule, NotFinite, RankTooLarge, UnsupportedAdapter, WrongShape
from terroir.lora.formats import lycoris
from terroir.lora.formats.reading import Factors
from terroir.lora.formats.strength import alpha_of
from terroir.lora.key_table import KeyTable


def assemble(layers: Mapping[str, Factors], table: KeyTable, max_rank: int) -> Adapter:
    """Check every layer against the base; raises a LoraError other than NotAnAdapterFile and MatchesNothing."""
    return Adapter(
        {layer: _module(layer, factors, tuple(table[layer]), max_rank) for layer, factors in sorted(layers.items())}
    )


def _module(layer: str, factors: Factors, weight: tuple[int, ...], max_rank: int) -> Module:
    read = lycoris.module_of if factors.lycoris else _lora
    return read(layer, factors, weight, max_rank)


def _lora(layer: str, factors: Factors, weight: tuple[int, ...], max_rank: int) -> LoraModule:
    down, up = factors.down, factors.up
    if down is None or up is None:
        missing = "down (lora_A)" if down is None else "up (lora_B)"
        raise IncompleteModule(f"{layer} has no {missing} factor; the file is incomplete: save it again", key=layer)
    # Some tools store the factors of 1 × 1 convolutions as matrices, some those of matrices as such convolutions.
    down, up = _with_axes(down, len(weight)), _with_axes(up, len(weight))
    rank = down.shape[0] if down.ndim else 0
    if factors.mid is not None:
        rank = factors.mid.shape[0] if factors.mid.ndim else 0
    if rank > max_rank:  # before anything is computed from it: a core of a few bytes can name a huge product
        raise RankTooLarge(
            f"{layer}: rank {rank} exceeds max_rank {max_rank}; shrink it (resize_lora of sd-scripts) or "
            "retrain it with a lower rank",
            key=layer,
        )
    if factors.mid is not None:
        down = _folded(layer, factors.mid, down, weight)
    expected_up = (weight[0], rank) if len(weight) == 2 else (weight[0], rank, 1, 1)
    if rank < 1 or down.shape[1:] != tuple(weight[1:]) or up.shape != expected_up:
        raise WrongShape(
            f"{layer}: factors down {list(down.shape)} and up {list(up.shape)} do not fit a weight of {list(weight)}; "
            "the adapter is for another base, or its rank is 0",
            key=layer,
        )
    magnitude = _magnitude(layer, factors.magnitude, weight)
    return LoraModule(np.ascontiguousarray(down), np.ascontiguousarray(up), alpha_of(layer, factors, rank), magnitude)


def _with_axes(factor: Array, axes: int) -> Array:
    if axes == 4 and factor.ndim == 2:
        return factor.reshape(*factor.shape, 1, 1)
    if axes == 2 and factor.ndim == 4 and factor.shape[2:] == (1, 1):
        return factor.reshape(factor.shape[:2])
    return factor


def _folded(layer: str, mid: Array, down: Array, weight: tuple[int, ...]) -> Array:
    """Down `[r, in, kh, kw]` of a Tucker form: core mid `[r, r', kh, kw]` over down `[r', in, 1, 1]` (LyCORIS)."""
    fits = mid.ndim == 4 == down.ndim and down.shape[2:] == (1, 1) and mid.shape[1] == down.shape[0]
    if not fits or (down.shape[1], *mid.shape[2:]) != tuple(weight[1:]):
        raise WrongShape(
            f"{layer}: the core {list(mid.shape)} and down {list(down.shape)} do not fit a weight of {list(weight)}; "
            "the adapter is for another base",
            key=layer,
        )
    with np.errstate(all="ignore"):
        folded = np.einsum("mnhw,ni->mihw", mid, down[:, :, 0, 0])
    if not np.isfinite(folded).all():
        raise NotFinite(
            f"{layer}: its core times its down factor exceeds 32-bit floats; the file is damaged", key=layer
        )
    return folded


def _magnitude(layer: str, magnitude: Array | None, weight: tuple[int, ...]) -> Array | None:
    """A DoRA magnitude as `[out]`, from `[out]`, `[out, 1]` or `[out, 1, 1, 1]`."""
    if magnitude is None:
        return None
    if magnitude.ndim > 1 and magnitude.shape[:2] == (1, weight[1]) and weight[1] > 1:
        raise UnsupportedAdapter(
            f"{layer}: this DoRA keeps one magnitude an input ({weight[1]}), which PEFT and diffusers cannot express; "
            "train it with wd_on_output=True (LyCORIS), or turn it into a LoRA first",
            key=layer,
        )
    if magnitude.size != weight[0] or magnitude.ndim < 1 or magnitude.shape[0] != weight[0]:
        raise WrongShape(
            f"{layer}: a DoRA magnitude of {list(magnitude.shape)} is not one number an output ({weight[0]}); the "
            "adapter is for another base",
            key=layer,
        )
    if (magnitude < 0).any():
        raise WrongShape(
            f"{layer}: a DoRA magnitude is a length and cannot be negative; the file is damaged", key=layer
        )
    return np.ascontiguousarray(magnitude.reshape(-1))
