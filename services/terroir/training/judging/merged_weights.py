"""An adapter worn by a pipeline: `W0 + change` in each layer, as the inference service merges it, then W0 again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from terroir.lora.adapter import Adapter, Array, Module
from terroir.training.judging.errors import AdapterUnfit

_DROPPED_LEVEL = "text_model."
"""transformers 5 left it out of CLIPTextModel's names; adapters all carry it."""


@contextmanager
def worn(components: Mapping[str, nn.Module], adapter: Adapter | None) -> Iterator[None]:
    """Let the components (`unet`, `text_encoder`, …) wear the adapter at weight 1 while the body runs.

    Sums in fp32 and rounds once to the weight's own precision. The pristine weights come back bit for bit, also when
    the body raises. Raises AdapterUnfit for a layer that is not there or has another shape.
    """
    kept: list[tuple[Tensor, Tensor]] = []
    try:
        for layer, module in sorted((adapter.modules if adapter else {}).items()):
            weight = _weight(components, layer)
            pristine = weight.detach().clone()
            base = pristine.float().cpu().numpy()
            change = _change(layer, module, np.ascontiguousarray(base))
            kept.append((weight, pristine))
            weight.copy_(torch.from_numpy(base + change))
        yield
    finally:
        for weight, pristine in kept:
            weight.copy_(pristine)


def _change(layer: str, module: Module, base: Array) -> Array:
    try:
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # what is not finite shows in the pictures, and is told there
            change = module.change_of(base)
    except ValueError as error:
        raise AdapterUnfit(f"{layer}: its factors do not fit a weight of {list(base.shape)} ({error})") from error
    if change.shape != base.shape:
        raise AdapterUnfit(f"{layer}: a change of {list(change.shape)} on a weight of {list(base.shape)}")
    return change


def _weight(components: Mapping[str, nn.Module], layer: str) -> Tensor:
    component, _, path = layer.partition(".")
    root = components.get(component)
    for name in (path, path.removeprefix(_DROPPED_LEVEL)):
        module = _submodule(root, name)
        if isinstance(module, nn.Linear | nn.Conv2d):
            return module.weight
    raise AdapterUnfit(f"the base has no layer {layer}; the adapter was trained on another one")


def _submodule(root: nn.Module | None, path: str) -> nn.Module | None:
    try:
        return None if root is None else root.get_submodule(path)
    except AttributeError:
        return None
