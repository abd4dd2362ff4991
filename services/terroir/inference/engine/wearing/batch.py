"""What the rows of one membership wear, and what one composition adds to each layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import gcd
from typing import Final, Literal, Protocol

import torch
from torch import Tensor

from terroir.inference.engine.messages import PlanName
from terroir.inference.engine.wearing.device_adapter import DeviceAdapter, DeviceModule, LowRank, merged
from terroir.inference.engine.wearing.layers import (
    AdaptedConv2d,
    AdaptedLayer,
    AdaptedLinear,
    ConvolutionSidePath,
    MergedCopy,
    MergedSegments,
    MergedSlots,
    RankConcatenated,
    Worn,
    is_pointwise,
)
from terroir.inference.engine.wearing.plans import LayerCall, choose
from terroir.lora.composition import Composition

_RANK_STEP: Final = 8
"""Ranks of a bank are padded to multiples of it."""


class Owner(Protocol):
    """Whose layers and memory a batch uses; see `Stacks`."""

    @property
    def plan(self) -> Literal["auto"] | PlanName:
        """What was forced."""
        ...

    def layer(self, name: str) -> AdaptedLayer:
        """A layer by its name in the key table."""
        ...

    def make_room(self, needed_bytes: int, keep: Batch | None = None) -> bool:
        """Whether so much more may be used."""
        ...


class Dressed(Protocol):
    """What a call wears."""

    @property
    def plan(self) -> str:
        """`base`, `copy`, `slots`, `concat` or `mixed`, as chosen in the calls so far."""
        ...


class AllSlots:
    """Slots at fixed addresses, in every layer that has them."""

    plan = "slots"


class Stack:
    """One composition: what it adds to each layer, and the weights merged so far."""

    def __init__(self, composition: Composition, adapters: Mapping[str, DeviceAdapter]) -> None:
        self.composition = composition
        self.pins = 0
        self.terms: dict[str, list[tuple[float, DeviceModule]]] = {}
        for part in composition.parts:
            for layer, module in adapters[part.digest].items():
                if weight := part.weight_on(layer):
                    self.terms.setdefault(layer, []).append((weight, module))
        self._merged: dict[str, Tensor] = {}
        self.size_bytes = 0

    def weight(self, name: str, layer: AdaptedLayer) -> Tensor:
        """The layer's weight in this composition; the layer's own where it changes nothing."""
        if name not in self.terms:
            return layer.weight
        weight = self._merged.get(name)
        if weight is None:
            weight = self._merged[name] = merged(layer.weight, self.terms[name])
            self.size_bytes += weight.nbytes
        return weight

    def has(self, name: str) -> bool:
        """Whether `weight` costs no more memory."""
        return name not in self.terms or name in self._merged

    def forget(self, names: Sequence[str]) -> None:
        """Give merged weights back."""
        for name in names:
            if (weight := self._merged.pop(name, None)) is not None:
                self.size_bytes -= weight.nbytes

    def factors(self, name: str) -> list[tuple[float, LowRank]] | None:
        """The layer's terms with their scales; None if one of them has no low-rank form."""
        found = []
        for weight, module in self.terms.get(name, ()):
            if not isinstance(module, LowRank) or module.magnitude is not None:
                return None
            found.append((weight * module.scale, module))
        return found


class Batch:
    """What the rows of one membership wear, layer by layer."""

    def __init__(self, owner: Owner, stacks: Sequence[tuple[Stack, int]]) -> None:
        self._owner, self._stacks = owner, stacks
        self._rows = [count for _, count in stacks]
        self._unit = gcd(*self._rows)
        names = {name for stack, _ in stacks for name in stack.terms if name.startswith("unet.")}
        self.layers = sorted(names)
        self._same = all(stack is stacks[0][0] for stack, _ in stacks) and owner.plan in ("auto", "copy")
        self._built: dict[str, Worn] = {}
        self._chosen: set[str] = set()
        self.size_bytes = 0

    @property
    def plan(self) -> str:
        """`base`, `copy`, `slots`, `concat` or `mixed`, as chosen in the calls so far."""
        return "mixed" if len(self._chosen) > 1 else next(iter(self._chosen), "base")

    def of(self, stacks: Mapping[Composition, Stack]) -> bool:
        """Whether its stacks are still the ones that are kept."""
        kept = {id(stack) for stack in stacks.values()}
        return all(id(stack) in kept for stack, _ in self._stacks)

    def wearing(self) -> Iterator[tuple[str, Worn]]:
        """What each layer is to wear now."""
        for name in self.layers:
            yield name, self._built.get(name) or _Undecided(self, name)

    def build(self, name: str, tokens: int) -> Worn:
        """Decide a layer's plan by its call, build what it needs, and hang it up."""
        layer = self._owner.layer(name)
        worn = self._copy(name, layer) if self._same else self._mixed(name, layer, tokens)
        layer.hanger.worn = self._built[name] = worn
        return worn

    def _copy(self, name: str, layer: AdaptedLayer) -> Worn:
        self._chosen.add("copy")
        return MergedCopy(self._stacks[0][0].weight(name, layer))

    def _mixed(self, name: str, layer: AdaptedLayer, tokens: int) -> Worn:
        factors = [stack.factors(name) for stack, _ in self._stacks]
        size = layer.weight.nbytes
        bank_bytes = size * (sum(self._rows) // self._unit) if is_pointwise(layer) else 0
        needed = bank_bytes + sum(size for stack in {id(s): s for s, _ in self._stacks}.values() if not stack.has(name))
        low_rank = [found for found in factors if found is not None]
        call = LayerCall(
            tokens=tokens * self._unit,
            inputs=layer.weight[0].numel(),
            outputs=layer.weight.shape[0],
            low_rank=len(low_rank) == len(factors),
            slots_fit=self._owner.make_room(needed, keep=self),
        )
        plan = choose(call, layer.weight.device.type, self._owner.plan)
        self._chosen.add(plan)
        return self._slots(name, layer) if plan == "slots" else self._concat(layer, low_rank)

    def _slots(self, name: str, layer: AdaptedLayer) -> Worn:
        weights = [stack.weight(name, layer) for stack, _ in self._stacks]
        if not is_pointwise(layer):
            return MergedSegments(weights, self._rows)
        units = [weight for weight, rows in zip(weights, self._rows, strict=True) for _ in range(rows // self._unit)]
        bank = torch.stack([weight.flatten(1) for weight in units])
        self.size_bytes += bank.nbytes
        return MergedSlots(bank)

    def _concat(self, layer: AdaptedLayer, factors: Sequence[Sequence[tuple[float, LowRank]]]) -> Worn:
        if isinstance(layer, AdaptedConv2d):
            return ConvolutionSidePath([_joined(layer, found) for found in factors], self._rows)
        rank = max(sum(module.down.shape[0] for _, module in found) for found in factors)
        rank = -(-rank // _RANK_STEP) * _RANK_STEP
        units = sum(self._rows) // self._unit
        out, inner = layer.weight.shape
        down, up = layer.weight.new_zeros(units, rank, inner), layer.weight.new_zeros(units, out, rank)
        scale = layer.weight.new_zeros(units, 1, rank)
        unit = 0
        for found, rows in zip(factors, self._rows, strict=True):
            repeats, at = rows // self._unit, 0
            for weight, module in found:
                to = at + module.down.shape[0]
                down[unit : unit + repeats, at:to] = module.down
                up[unit : unit + repeats, :, at:to] = module.up
                scale[unit : unit + repeats, :, at:to] = weight
                at = to
            unit += repeats
        self.size_bytes += down.nbytes + up.nbytes + scale.nbytes
        return RankConcatenated(down, up, scale)


class _Undecided:
    """A layer's first call in a batch: decides by its token count, then computes."""

    def __init__(self, batch: Batch, name: str) -> None:
        self._batch, self._name = batch, name

    def linear(self, layer: AdaptedLinear, x: Tensor) -> Tensor:
        """Tokens are all axes between rows and channels."""
        return self._batch.build(self._name, x[0, ..., 0].numel()).linear(layer, x)

    def convolution(self, layer: AdaptedConv2d, x: Tensor) -> Tensor:
        """Tokens are pixels."""
        return self._batch.build(self._name, x[0, 0].numel()).convolution(layer, x)


def _joined(layer: AdaptedConv2d, found: Sequence[tuple[float, LowRank]]) -> tuple[Tensor, Tensor] | None:
    if not found:
        return None
    kernel = layer.weight.shape[1:]
    down = torch.cat([module.down for _, module in found]).view(-1, *kernel)
    up = torch.cat([weight * module.up for weight, module in found], dim=1)
    return down.to(layer.weight.dtype), up.to(layer.weight.dtype)[:, :, None, None]
