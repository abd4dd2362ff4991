"""Merged weights of one layer, one a unit of rows, in memory that outlives the batch that it was filled for.

A request that joins or leaves changes few units, and fresh memory is dearer than what is written to it: on the tiny
base eight new stacks took 400 ms to merge one by one into new tensors; see docs/inference.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from torch import Tensor

from terroir.inference.engine.wearing.layers import AdaptedLayer
from terroir.inference.engine.wearing.merging import merge_factors, merge_terms
from terroir.inference.engine.wearing.stack import Stack

_BARE: Final = object()
"""What a unit holds whose stack does not change the layer."""


class Bank:
    """`[units, out, inputs]`, each unit as `flattened` makes it."""

    def __init__(self, name: str, layer: AdaptedLayer, units: int) -> None:
        self._name, self._layer = name, layer
        weight = layer.weight.detach()
        self.memory = weight.new_empty((units, weight.shape[0], weight[0].numel()))
        """All units, filled or not."""
        self._held: list[object] = [None] * units

    @property
    def units(self) -> int:
        """How many it has room for."""
        return len(self._held)

    def hold(self, stacks: Sequence[Stack]) -> Tensor:
        """One unit a stack, in their order; only units that hold something else are written."""
        keys = [stack.key if self._name in stack.terms else _BARE for stack in stacks]
        stale = [unit for unit, key in enumerate(keys) if self._held[unit] is not key]
        if stale:
            self._change(stale, keys, stacks)
        return self.memory[: len(stacks)]

    def widened(self, units: int) -> Bank:
        """The same with room for more; this one is of no use any more."""
        wider = Bank(self._name, self._layer, units)
        wider.memory[: self.units].copy_(self.memory)
        wider._held[: self.units] = self._held
        return wider

    def _change(self, stale: Sequence[int], keys: Sequence[object], stacks: Sequence[Stack]) -> None:
        for unit in stale:
            self._held[unit] = None  # a write that fails leaves nothing that counts
        sources = {key: unit for unit, key in enumerate(self._held) if key is not None}
        fresh, copies = list[int](), list[int]()
        for unit in stale:
            (copies if keys[unit] in sources else fresh).append(unit)
            sources.setdefault(keys[unit], unit)
        for run in _runs(fresh):
            self._write(run, stacks[run.start : run.stop])
        for unit in copies:
            self.memory[unit].copy_(self.memory[sources[keys[unit]]])
        for unit in stale:
            self._held[unit] = keys[unit]

    def _write(self, run: range, stacks: Sequence[Stack]) -> None:
        base, flat = self._layer.weight, self.memory[run.start : run.stop]
        factors = [stack.factors(self._name) for stack in stacks]
        low_rank = [found for found in factors if found is not None]
        if len(low_rank) == len(factors):
            merge_factors(flat, base, low_rank)
            return
        for unit, stack in zip(flat, stacks, strict=True):
            merge_terms(unit, base, stack.terms.get(self._name, ()))


def _runs(units: Sequence[int]) -> Iterator[range]:
    """Ascending numbers as ranges without gaps."""
    start = 0
    for at in range(1, len(units) + 1):
        if at == len(units) or units[at] != units[at - 1] + 1:
            yield range(units[start], units[at - 1] + 1)
            start = at
