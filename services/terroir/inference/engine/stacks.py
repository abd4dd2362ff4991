"""Which adapters the rows of a call wear. `W0` is never written: a stack is other weights, or factors beside it.

Whatever is merged for a composition is kept while a request uses it and as long after as the budget allows. A batch's
banks are built when its membership changes, layer by layer at the layer's first call, when its tokens are known.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import gcd
from typing import Final, Literal, Protocol

import torch
from torch import Tensor

from terroir.inference.engine.device_adapter import DeviceAdapter, DeviceModule, LowRank, merged, on_device
from terroir.inference.engine.layers import (
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
from terroir.inference.engine.messages import PlanName
from terroir.inference.engine.plans import LayerCall, choose
from terroir.inference.engine.static_slots import StaticSlots
from terroir.lora.adapter import Adapter
from terroir.lora.composition import Composition

Rows = tuple[tuple[Composition, int], ...]
"""Composition and row count of each request of a batch, in the order of its rows."""

_KEPT_BATCHES: Final = 4
"""Banks are kept for so many memberships: shapes take turns, and each turn would build them anew."""
_KEPT_STACKS: Final = 64
"""Compositions that nobody uses; their terms have a cost that the budget does not count."""
_RANK_STEP: Final = 8


class Stacks:
    """Adapters, merged weights and banks of one model. The device thread owns it; any thread may `prepare`."""

    def __init__(
        self,
        layers: Mapping[str, AdaptedLayer],
        *,
        budget_bytes: int,
        plan: Literal["auto"] | PlanName = "auto",
        static_rows: int = 0,
    ) -> None:
        """`layers` as `adapt` made them, of denoiser and text encoders; the budget is for merged weights and banks.

        With `static_rows`, the most rows of a call, every call wears slots at fixed addresses, beyond the budget.
        """
        self._layers = layers
        self._device = next(iter(layers.values())).weight.device
        self._budget_bytes = budget_bytes
        self.plan = plan
        self._adapters: dict[str, DeviceAdapter] = {}
        self._stacks: OrderedDict[Composition, _Stack] = OrderedDict()
        self._batches: OrderedDict[Rows, Batch] = OrderedDict()
        self._static = StaticSlots(layers, static_rows) if static_rows else None
        self._dressable = [name for name in layers if name.startswith("unet.")]

    @property
    def mixes(self) -> bool:
        """Whether requests of different compositions may share a call."""
        return self.plan != "copy"

    @property
    def static(self) -> bool:
        """Whether every call wears slots at fixed addresses."""
        return self._static is not None

    @property
    def used_bytes(self) -> int:
        """Bytes of merged weights and banks."""
        kept: list[_Stack | Batch] = [*self._stacks.values(), *self._batches.values()]
        return sum(part.size_bytes for part in kept)

    @property
    def pinned(self) -> int:
        """Requests that hold a composition."""
        return sum(stack.pins for stack in self._stacks.values())

    def prepare(self, adapter: Adapter) -> DeviceAdapter:
        """Upload an adapter; keep it off the device thread."""
        return on_device(adapter, self._device)

    def put(self, digest: str, adapter: DeviceAdapter) -> None:
        """Know an adapter until `drop`."""
        self._adapters[digest] = adapter

    def drop(self, digest: str) -> None:
        """Forget an adapter that no joined composition names."""
        self._adapters.pop(digest, None)
        for composition in [c for c, stack in self._stacks.items() if digest in c.digests and not stack.pins]:
            del self._stacks[composition]  # its terms would keep the factors

    def join(self, composition: Composition) -> None:
        """Hold a composition until `leave`; KeyError names an adapter that was not put."""
        for digest in composition.digests:
            if digest not in self._adapters:
                raise KeyError(f"adapter {digest} is not in device memory")
        stack = self._stacks.get(composition)
        if stack is None:
            terms = {part.digest: self._adapters[part.digest] for part in composition.parts}
            stack = self._stacks[composition] = _Stack(composition, terms)
        stack.pins += 1
        self._stacks.move_to_end(composition)

    def leave(self, composition: Composition) -> None:
        """Let go of what `join` held; it stays while the budget allows."""
        self._stacks[composition].pins -= 1
        self.make_room(0)

    @contextmanager
    def worn(self, rows: Sequence[tuple[Composition, int]]) -> Iterator[Dressed]:
        """Dress the denoiser for one call whose rows come in this order; every composition has joined."""
        batch = None if self._static is not None else self._batch(tuple(rows))
        try:
            for name, worn in self._static_wearing(rows) if batch is None else batch.wearing():
                self._layers[name].hanger.worn = worn
            yield batch or _AllSlots()
        finally:
            for name in self._dressable if batch is None else batch.layers:
                self._layers[name].hanger.worn = None
            self.make_room(0, keep=batch)

    @contextmanager
    def worn_by_text(self, composition: Composition) -> Iterator[None]:
        """Dress the text encoders for one call; the composition has joined."""
        stack = self._stacks[composition]
        names = [name for name in stack.terms if not name.startswith("unet.")]
        try:
            for name in names:
                self._layers[name].hanger.worn = MergedCopy(stack.weight(name, self._layers[name]))
            yield
        finally:
            for name in names:
                self._layers[name].hanger.worn = None
            stack.forget(names)  # one call a prompt: the embedding is what is worth keeping

    def free(self) -> None:
        """Give back all memory that no running request needs; after an allocation failed."""
        self._batches.clear()
        for composition in [c for c, stack in self._stacks.items() if not stack.pins]:
            del self._stacks[composition]

    def make_room(self, needed_bytes: int, keep: Batch | None = None) -> bool:
        """Drop banks, then unused merged weights, oldest first, until so much fits; whether it does."""
        for rows in [rows for rows, batch in self._batches.items() if batch is not keep]:
            if self.used_bytes + needed_bytes <= self._budget_bytes and len(self._batches) <= _KEPT_BATCHES:
                break
            del self._batches[rows]
        unused = [composition for composition, stack in self._stacks.items() if not stack.pins]
        for at, composition in enumerate(unused):
            if self.used_bytes + needed_bytes <= self._budget_bytes and len(unused) - at <= _KEPT_STACKS:
                break
            del self._stacks[composition]
        return self.used_bytes + needed_bytes <= self._budget_bytes

    def _static_wearing(self, rows: Sequence[tuple[Composition, int]]) -> Iterable[tuple[str, Worn]]:
        assert self._static is not None
        stacks = [(self._stacks[composition], count) for composition, count in rows]
        slots = [(stack.composition, stack.terms.keys(), stack.weight, count) for stack, count in stacks]
        return self._static.wear(slots).items()

    def _batch(self, rows: Rows) -> Batch:
        batch = self._batches.get(rows)
        if batch is None or not batch.of(self._stacks):
            stacks = [(self._stacks[composition], count) for composition, count in rows]
            batch = self._batches[rows] = Batch(self, stacks)
        self._batches.move_to_end(rows)
        return batch

    def layer(self, name: str) -> AdaptedLayer:
        """A layer by its name in the key table."""
        return self._layers[name]


class Dressed(Protocol):
    """What a call wears."""

    @property
    def plan(self) -> str:
        """`base`, `copy`, `slots`, `concat` or `mixed`, as chosen in the calls so far."""
        ...


class _AllSlots:
    plan = "slots"


class _Stack:
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

    def __init__(self, owner: Stacks, stacks: Sequence[tuple[_Stack, int]]) -> None:
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

    def of(self, stacks: Mapping[Composition, _Stack]) -> bool:
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
