"""Which adapters the rows of a call wear. `W0` is never written: a stack is other weights, or factors beside it.

Merged weights are in the banks of the batches that wear them. When the membership of a batch changes, its banks are
changed where it did, layer by layer at the layer's first call, when its tokens are known.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final, Literal

from terroir.inference.engine.messages import PlanName
from terroir.inference.engine.wearing.batch import AllSlots, Batch, Dressed
from terroir.inference.engine.wearing.device_adapter import DeviceAdapter, on_device
from terroir.inference.engine.wearing.layers import AdaptedLayer, MergedCopy, Worn
from terroir.inference.engine.wearing.merging import merged
from terroir.inference.engine.wearing.stack import Stack
from terroir.inference.engine.wearing.static_slots import StaticSlots
from terroir.lora.adapter import Adapter
from terroir.lora.composition import Composition

Rows = tuple[tuple[Composition, int], ...]
"""Composition and row count of each request of a batch, in the order of its rows."""

_NOTHING: Final[tuple[object, Rows]] = (None, ())
_KEPT_BATCHES: Final = 4
"""Banks are kept for so many memberships: shapes take turns, and each turn would build them anew."""
_KEPT_IDLE: Final = 2
"""Of them, memberships in which nobody draws any more; the memory of an older one goes to the next new one."""
_KEPT_STACKS: Final = 64
"""Compositions that nobody uses; their terms have a cost that the budget does not count."""


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
        self._stacks: OrderedDict[Composition, Stack] = OrderedDict()
        self._batches: OrderedDict[tuple[object, Rows], Batch] = OrderedDict()
        self._static = StaticSlots(layers, static_rows) if static_rows else None
        self._last: Rows = ()
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
        return sum(batch.size_bytes for batch in self._batches.values())

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
            stack = self._stacks[composition] = Stack(composition, terms)
        stack.pins += 1
        self._stacks.move_to_end(composition)

    def leave(self, composition: Composition) -> None:
        """Let go of what `join` held; it stays while the budget allows."""
        self._stacks[composition].pins -= 1
        self.make_room(0)

    def arranged(self, wanted: Sequence[tuple[Composition, int]], lane: object = None) -> list[int]:
        """An order of these requests in which those of the lane's last calls keep their places: little is written."""
        before = self._last if self._static is not None else self._nearest(lane, tuple(wanted))[1]
        places: list[int | None] = [None] * len(wanted)
        left = list(range(len(wanted)))
        for place, entry in enumerate(before[: len(wanted)]):
            at = next((index for index in left if wanted[index] == entry), None)
            if at is not None:
                places[place] = at
                left.remove(at)
        return [left.pop(0) if at is None else at for at in places]

    @contextmanager
    def worn(self, rows: Sequence[tuple[Composition, int]], lane: object = None) -> Iterator[Dressed]:
        """Dress the denoiser for one call whose rows come in this order; every composition has joined.

        Calls that take turns have a `lane` each, or they would take banks from each other.
        """
        batch = None if self._static is not None else self._batch(lane, tuple(rows))
        try:
            for name, worn in self._static_wearing(tuple(rows)) if batch is None else batch.wearing():
                self._layers[name].hanger.worn = worn
            yield batch or AllSlots()
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
                self._layers[name].hanger.worn = MergedCopy(merged(self._layers[name].weight, stack.terms[name]))
            yield  # one call a prompt: the embedding is what is worth keeping
        finally:
            for name in names:
                self._layers[name].hanger.worn = None

    def free(self) -> None:
        """Give back all memory that no running request needs; after an allocation failed."""
        self._batches.clear()
        for composition in [c for c, stack in self._stacks.items() if not stack.pins]:
            del self._stacks[composition]

    def make_room(self, needed_bytes: int, keep: Batch | None = None) -> bool:
        """Drop banks, oldest first, until so much fits; whether it does."""
        for key in [key for key, batch in self._batches.items() if batch is not keep]:
            if self.used_bytes + needed_bytes <= self._budget_bytes and len(self._batches) <= _KEPT_BATCHES:
                break
            del self._batches[key]
        unused = [composition for composition, stack in self._stacks.items() if not stack.pins]
        for composition in unused[:-_KEPT_STACKS]:
            del self._stacks[composition]
        return self.used_bytes + needed_bytes <= self._budget_bytes

    def _static_wearing(self, rows: Rows) -> Iterable[tuple[str, Worn]]:
        assert self._static is not None
        self._last = rows
        return self._static.wear([(self._stacks[composition], count) for composition, count in rows]).items()

    def _batch(self, lane: object, rows: Rows) -> Batch:
        batch = self._batches.get((lane, rows))
        if batch is None or not batch.of(self._stacks.values()):
            before = self._batches.pop(self._nearest(lane, rows), None)
            stacks = [(self._stacks[composition], count) for composition, count in rows]
            batch = self._batches[lane, rows] = Batch(self, stacks, {} if before is None else before.hand_over())
        self._batches.move_to_end((lane, rows))
        return batch

    def _nearest(self, lane: object, wanted: Rows) -> tuple[object, Rows]:
        """The kept membership whose banks are best for this one: it shares the most, or else nobody draws in it."""
        if (lane, wanted) in self._batches:
            return lane, wanted
        names = {composition for composition, _ in wanted}
        shared = {
            (owner, rows): sum(composition in names for composition, _ in rows)
            for owner, rows in self._batches
            if owner == lane
        }
        nearest = max(shared, key=shared.__getitem__, default=_NOTHING)
        if shared.get(nearest):
            return nearest
        idle = [key for key in self._batches if not any(self._pinned(composition) for composition, _ in key[1])]
        idle.sort(key=lambda key: key[0] != lane)  # another lane's may be drawn in again
        return idle[0] if len(idle) >= _KEPT_IDLE else _NOTHING

    def _pinned(self, composition: Composition) -> bool:
        stack = self._stacks.get(composition)
        return stack is not None and stack.pins > 0

    def layer(self, name: str) -> AdaptedLayer:
        """A layer by its name in the key table."""
        return self._layers[name]
