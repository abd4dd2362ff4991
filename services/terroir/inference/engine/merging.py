"""Merged weights: `W0 + delta` computed beside the base and worn for one call; `W0` itself is never written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from terroir.inference.pinned_lru import PinnedLru
from terroir.lora.adapter import Adapter
from terroir.lora.composition import Composition


@dataclass(frozen=True)
class Merged:
    """One merged copy of the layers that a composition changes."""

    weights: tuple[tuple[nn.Module, nn.Parameter], ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all slots."""
        return sum(weight.numel() * weight.element_size() for _, weight in self.weights)


class Merger:
    """Computes, keeps and puts on merged weights. The device thread owns it."""

    def __init__(self, layers: Mapping[str, nn.Module], budget_bytes: int) -> None:
        self._layers = layers
        self._base = {layer: module.get_parameter("weight") for layer, module in layers.items()}
        self._adapters: dict[str, Adapter] = {}
        self._cache: PinnedLru[Merged] = PinnedLru(budget_bytes)

    @property
    def used_bytes(self) -> int:
        """Bytes of all merged weights in memory."""
        return self._cache.used_bytes

    def put(self, digest: str, adapter: Adapter) -> None:
        """Keep an adapter until `drop`."""
        self._adapters[digest] = adapter

    def drop(self, digest: str) -> None:
        """Forget an adapter."""
        self._adapters.pop(digest, None)

    def hold(self, composition: Composition) -> Merged:
        """Merged weights, computed unless another request's are still here; give them back with `release`."""
        merged = self._cache.pin(composition)
        if merged is None:
            merged = self._merge(composition, self._adapters)
            self._cache.add(composition, merged, merged.size_bytes)
            self._cache.pin(composition)
            self._cache.evict()
        return merged

    def release(self, composition: Composition) -> None:
        """Let go of what `hold` gave; it stays while the budget allows."""
        self._cache.unpin(composition)

    @contextmanager
    def worn(self, merged: Merged) -> Iterator[None]:
        """Swap the slots in for the calls inside and put the base's own tensors back, by reference, in any case."""
        before = [(module, module.get_parameter("weight")) for module, _ in merged.weights]
        try:
            for module, weight in merged.weights:
                module.register_parameter("weight", weight)
            yield
        finally:
            for module, weight in before:
                module.register_parameter("weight", weight)

    def _merge(self, composition: Composition, adapters: Mapping[str, Adapter]) -> Merged:
        """Deltas are summed in fp32 and the sum is rounded once, so order can't matter."""
        slots = []
        for layer in composition.layers(adapters):
            base = self._base[layer]
            pristine = base.detach().float().cpu().numpy() if _needs_base(composition, adapters, layer) else None
            delta = torch.from_numpy(composition.delta(adapters, layer, pristine)).to(base.device)
            slots.append((self._layers[layer], nn.Parameter((base + delta).to(base.dtype), requires_grad=False)))
        return Merged(tuple(slots))


def _needs_base(composition: Composition, adapters: Mapping[str, Adapter], layer: str) -> bool:
    modules = (adapters[digest].modules.get(layer) for digest in composition.digests)
    return any(module is not None and module.magnitude is not None for module in modules)
