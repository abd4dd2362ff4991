"""Slots at fixed addresses for a compiled denoiser: adapters change what is in them, never which tensors they are.

A compiled graph is kept for a row count and for tensors of given shapes; banks that come and go, or layers that wear
something only now and then, would compile it anew. So every linear layer and plain 1×1 convolution of the denoiser
always wears its slots, the base's own weight in those that no adapter changes. Larger convolutions take slots from the
first adapter on that changes them; that one compiles the graph once more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor

from terroir.inference.engine.wearing.layers import AdaptedLayer, MergedSegments, MergedSlots, Worn, is_pointwise

Weight = Callable[[str, AdaptedLayer], Tensor]
"""A stack's weight of a layer."""


class StaticSlots:
    """One bank a layer, `[units, out, in]`; filled where a unit's stack differs from the last call's."""

    def __init__(self, layers: Mapping[str, AdaptedLayer], units: int) -> None:
        """Banks for all layers that have a `bmm` form, for at most so many rows."""
        self._layers = {name: layer for name, layer in layers.items() if name.startswith("unet.")}
        self._units = units
        self._banks: dict[str, Tensor] = {}
        self._filled: dict[str, list[object]] = {}
        self._worn: dict[tuple[str, int], Worn] = {}
        for name, layer in self._layers.items():
            if is_pointwise(layer):
                self._open(name, layer)

    @property
    def size_bytes(self) -> int:
        """Bytes of all banks."""
        return sum(bank.nbytes for bank in self._banks.values())

    def wear(self, stacks: Sequence[tuple[object, Collection[str], Weight, int]]) -> dict[str, Worn]:
        """What each layer wears for rows of stacks given as key, changed layers, weight and row count.

        ValueError beyond the units that there are.
        """
        rows = [(key, changed, weight) for key, changed, weight, count in stacks for _ in range(count)]
        if len(rows) > self._units:
            raise ValueError(f"{len(rows)} rows, but there are {self._units} static slots")
        changed_layers = {name for _, changed, _, _ in stacks for name in changed if name in self._layers}
        for name in changed_layers - self._banks.keys():
            self._open(name, self._layers[name])
        for name, bank in self._banks.items():
            self._fill(name, bank, rows)
        return {name: self._view(name, len(rows)) for name in self._banks}

    def _open(self, name: str, layer: AdaptedLayer) -> None:
        weight = layer.weight.detach()
        flat = weight.flatten(1) if is_pointwise(layer) else weight
        bank = self._banks[name] = flat.unsqueeze(0).repeat(self._units, *([1] * flat.dim()))
        self._filled[name] = [None] * self._units
        # Else CUDA graphs would copy the bank before every replay.
        torch._dynamo.mark_static_address(bank)

    def _fill(self, name: str, bank: Tensor, rows: Sequence[tuple[object, Collection[str], Weight]]) -> None:
        filled = self._filled[name]
        for unit, (key, changed, weight) in enumerate(rows):
            wanted = key if name in changed else None
            if filled[unit] != wanted:
                layer = self._layers[name]
                source = layer.weight if wanted is None else weight(name, layer)
                bank[unit].copy_(source.view(bank[unit].shape))
                filled[unit] = wanted

    def _view(self, name: str, rows: int) -> Worn:
        """Always the same object for the same row count: its identity guards the compiled graph."""
        worn = self._worn.get((name, rows))
        if worn is None:
            bank = self._banks[name][:rows]
            if is_pointwise(self._layers[name]):
                torch._dynamo.mark_static_address(bank)
                worn = MergedSlots(bank)
            else:
                worn = MergedSegments(list(bank), [1] * rows)
            self._worn[name, rows] = worn
        return worn
