"""What the rows of one membership wear, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import gcd
from typing import Literal, Protocol

import torch
from torch import Tensor

from terroir.inference.engine.messages import PlanName
from terroir.inference.engine.wearing.bank import Bank
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
from terroir.inference.engine.wearing.merging import Factors, padded, unflattened
from terroir.inference.engine.wearing.plans import LayerCall, choose
from terroir.inference.engine.wearing.stack import Stack


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


class Batch:
    """What the rows of one membership wear, layer by layer."""

    def __init__(self, owner: Owner, stacks: Sequence[tuple[Stack, int]], banks: dict[str, Bank]) -> None:
        """`banks` are those of a batch that it takes the place of."""
        self._owner, self._stacks, self._banks = owner, stacks, banks
        self._rows = [count for _, count in stacks]
        self._unit = gcd(*self._rows)
        names = {name for stack, _ in stacks for name in stack.terms if name.startswith("unet.")}
        self.layers = sorted(names)
        self._same = all(stack is stacks[0][0] for stack, _ in stacks) and owner.plan in ("auto", "copy")
        self._built: dict[str, Worn] = {}
        self._chosen: set[str] = set()
        self.size_bytes = sum(bank.memory.nbytes for bank in banks.values())

    @property
    def plan(self) -> str:
        """`base`, `copy`, `slots`, `concat` or `mixed`, as chosen in the calls so far."""
        return "mixed" if len(self._chosen) > 1 else next(iter(self._chosen), "base")

    def of(self, stacks: Iterable[Stack]) -> bool:
        """Whether its stacks are still the ones that are kept."""
        kept = set(map(id, stacks))
        return all(id(stack) in kept for stack, _ in self._stacks)

    def hand_over(self) -> dict[str, Bank]:
        """Its banks, for the batch that takes its place."""
        return self._banks

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
        (weight,) = self._held(name, layer, [self._stacks[0][0]])
        return MergedCopy(unflattened(weight, layer.weight.shape))

    def _mixed(self, name: str, layer: AdaptedLayer, tokens: int) -> Worn:
        factors = [stack.factors(name) for stack, _ in self._stacks]
        low_rank = [found for found in factors if found is not None]
        units = [stack for stack, rows in self._stacks for _ in range(rows // self._unit if is_pointwise(layer) else 1)]
        needed = layer.weight.nbytes * (self._room(name, len(units)) - self._units(name))
        call = LayerCall(
            tokens=tokens * self._unit,
            inputs=layer.weight[0].numel(),
            outputs=layer.weight.shape[0],
            low_rank=len(low_rank) == len(factors),
            slots_fit=self._owner.make_room(needed, keep=self),
        )
        plan = choose(call, layer.weight.device.type, self._owner.plan)
        self._chosen.add(plan)
        return self._slots(name, layer, units) if plan == "slots" else self._concat(layer, low_rank)

    def _slots(self, name: str, layer: AdaptedLayer, units: Sequence[Stack]) -> Worn:
        held = self._held(name, layer, units)
        if is_pointwise(layer):
            return MergedSlots(held)
        return MergedSegments(list(unflattened(held, layer.weight.shape)), self._rows)

    def _concat(self, layer: AdaptedLayer, factors: Sequence[Factors]) -> Worn:
        if isinstance(layer, AdaptedConv2d):
            return ConvolutionSidePath([_joined(layer, found) for found in factors], self._rows)
        units = [found for found, rows in zip(factors, self._rows, strict=True) for _ in range(rows // self._unit)]
        out, inner = layer.weight.shape
        down, up, scale = padded(units, out, inner, layer.weight.dtype, layer.weight.device)
        self.size_bytes += down.nbytes + up.nbytes + scale.nbytes
        return RankConcatenated(down, up, scale)

    def _held(self, name: str, layer: AdaptedLayer, units: Sequence[Stack]) -> Tensor:
        """Merged weights, in memory that was there if it is large enough."""
        bank, room = self._banks.get(name), self._room(name, len(units))
        if bank is None or bank.units < room:
            wider = Bank(name, layer, room) if bank is None else bank.widened(room)
            self.size_bytes += wider.memory.nbytes - (0 if bank is None else bank.memory.nbytes)
            bank = self._banks[name] = wider
        return bank.hold(units)

    def _units(self, name: str) -> int:
        return self._banks[name].units if name in self._banks else 0

    def _room(self, name: str, units: int) -> int:
        """Of a layer's bank: more than are worn, so that those who join next need no new memory."""
        return max(self._units(name), 1 << (units - 1).bit_length())


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


def _joined(layer: AdaptedConv2d, found: Factors) -> tuple[Tensor, Tensor] | None:
    if not found:
        return None
    down = torch.cat([module.down for _, module in found])
    up = torch.cat([weight * module.up for weight, module in found], dim=1)
    kernels = unflattened(down, torch.Size([len(down), *layer.weight.shape[1:]]))
    return kernels.to(layer.weight.dtype), up.to(layer.weight.dtype)[:, :, None, None]
