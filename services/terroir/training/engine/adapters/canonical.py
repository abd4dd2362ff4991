"""From trained tensors to the canonical form of an adapter."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from torch import Tensor

from terroir.lora.adapter import Adapter, LoraModule


def adapter_of(tensors: Mapping[str, Tensor], alphas: Mapping[str, float]) -> Adapter:
    """The adapter of `<layer>.down`, `<layer>.up` and perhaps `<layer>.magnitude`, and the alpha of each layer."""
    return Adapter({layer: _module(tensors, layer, alpha) for layer, alpha in alphas.items()})


def _module(tensors: Mapping[str, Tensor], layer: str, alpha: float) -> LoraModule:
    magnitude = tensors.get(f"{layer}.magnitude")
    return LoraModule(
        down=_array(tensors[f"{layer}.down"]),
        up=_array(tensors[f"{layer}.up"]),
        alpha=alpha,
        # PEFT keeps those of a convolution as [1, out, 1, 1].
        magnitude=None if magnitude is None else _array(magnitude).reshape(-1),
    )


def _array(tensor: Tensor) -> npt.NDArray[np.float32]:
    return tensor.detach().float().cpu().numpy().copy()
