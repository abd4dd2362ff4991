"""Slots at fixed addresses for a compiled denoiser: adapters change what is in them, never which tensors they are.

A compiled graph is kept for a row count and for tensors of given shapes; banks that come and go, or layers that wear
something only now and then, would compile it anew. So every linear layer and plain 1×1 convolution of the denoiser
always wears its slots, the base's own weight in those that no adapter changes. Larger convolutions take slots from the
first adapter on that changes them; that one compiles the graph once more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from terroir.inference.engine.wearing.bank import Bank
from terroir.inference.engine.wearing.device_adapter import flattened
from terroir.inference.engine.wearing.layers import AdaptedLayer, MergedSegments, MergedSlots, Worn, is_pointwise
from terroir.inference.engine.wearing.merging import unflattened
from terroir.inference.engine.wearing.stack import Stack


class StaticSlots:
    """One bank a layer, one unit a row."""

    def __init__(self, layers: Mapping[str, AdaptedLayer], rows: int) -> None:
        """Banks for all layers that have a `bmm` form, for at most so many rows."""
        self._layers = {name: layer for name, layer in layers.items() if name.startswith("unet.")}
        self._rows = rows
        self._banks: dict[str, Bank] = {}
        self._worn: dict[tuple[str, int], Worn] = {}
        for name, layer in self._layers.items():
            if is_pointwise(layer):
                self._open(name)

    @property
    def size_bytes(self) -> int:
        """Bytes of all banks."""
        return sum(bank.memory.nbytes for bank in self._banks.values())

    def wear(self, stacks: Sequence[tuple[Stack, int]]) -> dict[str, Worn]:
        """What each layer wears for rows of stacks; ValueError beyond the rows that there are."""
        rows = [stack for stack, count in stacks for _ in range(count)]
        if len(rows) > self._rows:
            raise ValueError(f"{len(rows)} rows, but there are {self._rows} static slots")
        for name in {name for stack, _ in stacks for name in stack.terms if name in self._layers} - self._banks.keys():
            self._open(name)
        for bank in self._banks.values():
            bank.hold(rows)
        return {name: self._view(name, len(rows)) for name in self._banks}

    def _open(self, name: str) -> None:
        layer = self._layers[name]
        bank = self._banks[name] = Bank(name, layer, self._rows)
        bank.memory.copy_(flattened(layer.weight.detach()))
        # Else CUDA graphs would copy the bank before every replay.
        torch._dynamo.mark_static_address(bank.memory)

    def _view(self, name: str, rows: int) -> Worn:
        """Always the same object for the same row count: its identity guards the compiled graph."""
        worn = self._worn.get((name, rows))
        if worn is None:
            memory = self._banks[name].memory[:rows]
            if is_pointwise(self._layers[name]):
                torch._dynamo.mark_static_address(memory)
                worn = MergedSlots(memory)
            else:
                worn = MergedSegments(list(unflattened(memory, self._layers[name].weight.shape)), [1] * rows)
            self._worn[name, rows] = worn
        return worn
