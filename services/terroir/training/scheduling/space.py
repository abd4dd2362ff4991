"""Free room on a cluster: where a gang fits, and what would be free if something else were gone.

Workers of a gang are equal, so it fits if the nodes together have places for as many workers; no search is needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from terroir.training.scheduling.model import GPU_UNITS, Capacity, Demand, Node

_ROUNDING: Final = 1e-9
_MANY: Final = 1 << 30
"""Workers of a gang that need nothing of a kind."""


@dataclass(frozen=True)
class _Part:
    """What one node gives."""

    node: int
    cpus: float
    units: tuple[tuple[int, int], ...]
    """GPU and units of it."""


@dataclass(frozen=True)
class Grant:
    """Room that was taken."""

    parts: tuple[_Part, ...]


class Space(Protocol):
    """Room that can be taken and given back."""

    def fits(self, demand: Demand) -> bool:
        """Whether there is room now."""
        ...

    def could_fit(self, demand: Demand) -> bool:
        """Whether there would be room if nothing ran."""
        ...

    def take(self, demand: Demand, avoid: frozenset[str] = frozenset(), /) -> Grant | None:
        """Take room, on other nodes than `avoid` if they have any; None if it does not fit."""
        ...

    def occupy(self, demand: Demand, nodes: Sequence[str], /) -> Grant:
        """Take what a running job holds, whether or not it should fit there."""
        ...

    def hold(self, demand: Demand) -> Grant:
        """Take what is free where the job that does not fit would be next to fit."""
        ...

    def release(self, grants: Iterable[Grant]) -> None:
        """Give back."""
        ...

    def retake(self, grants: Iterable[Grant]) -> None:
        """Take the same again, also where something else has it now: then less than nothing is free."""
        ...


class _FreeNode:
    """What is free of one node."""

    def __init__(self, node: Node) -> None:
        self.id = node.id
        self.all_cpus, self.all_gpus = node.cpus, node.gpus
        self.cpus = node.cpus
        self.units = [GPU_UNITS] * node.gpus

    def places(self, demand: Demand) -> int:
        """How many of the gang's workers would fit."""
        by_gpus = self._by_gpus(demand.units)
        return min(by_gpus, _by_cpus(self.cpus, demand)) if by_gpus else 0

    def empty_places(self, demand: Demand) -> int:
        """The same if nothing ran here."""
        return min(_by_cpus(self.all_cpus, demand), _in_gpus(self.all_gpus, demand.units))

    def _by_gpus(self, units: int) -> int:
        if not units:
            return _MANY
        if units < GPU_UNITS:
            return sum(free // units for free in self.units if free > 0)
        return sum(free == GPU_UNITS for free in self.units) // (units // GPU_UNITS)

    @property
    def free_units(self) -> int:
        """GPU units that somebody could get."""
        return sum(free for free in self.units if free > 0)

    def slack(self, units: int) -> int:
        """What a share would leave of the fullest GPU that still has it: the less, the more GPUs stay whole."""
        return min((free - units for free in self.units if free >= units), default=0) if units < GPU_UNITS else 0

    def pick(self, units: int) -> tuple[tuple[int, int], ...]:
        """GPUs for one worker that fits: of a shared one the fullest, so that whole ones stay whole."""
        if not units:
            return ()
        if units < GPU_UNITS:
            return ((min((free, gpu) for gpu, free in enumerate(self.units) if free >= units)[1], units),)
        whole = [gpu for gpu, free in enumerate(self.units) if free == GPU_UNITS]
        return tuple((gpu, GPU_UNITS) for gpu in whole[: units // GPU_UNITS])

    def emptiest(self, units: int) -> tuple[tuple[int, int], ...]:
        """GPUs for one worker whether or not it fits: those with most free units."""
        if not units or not self.units:
            return ()
        order = sorted(range(len(self.units)), key=lambda gpu: (-self.units[gpu], gpu))
        each = min(units, GPU_UNITS)
        return tuple((gpu, each) for gpu in order[: max(1, units // GPU_UNITS)])


class NodeSpace:
    """Room on nodes that are known."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = [_FreeNode(node) for node in sorted(nodes, key=lambda node: node.id)]
        self._free_units = sum(sum(node.units) for node in self._nodes)
        """What somebody could get, on all nodes."""
        kinds: dict[tuple[float, int], list[_FreeNode]] = {}
        for each in self._nodes:
            kinds.setdefault((each.all_cpus, each.all_gpus), []).append(each)
        self._kinds = [(alike[0], len(alike)) for alike in kinds.values()]
        """One of each kind of node, and how many of them there are."""
        self._by_id = {node.id: index for index, node in enumerate(self._nodes)}

    def fits(self, demand: Demand) -> bool:
        """See Space."""
        if demand.total_units > self._free_units:
            return False
        wanted = demand.workers
        for node in self._nodes:
            wanted -= node.places(demand)
            if wanted <= 0:
                return True
        return False

    def could_fit(self, demand: Demand) -> bool:
        """See Space."""
        return sum(count * node.empty_places(demand) for node, count in self._kinds) >= demand.workers

    def take(self, demand: Demand, avoid: frozenset[str] = frozenset(), /) -> Grant | None:
        """See Space."""
        places = [node.places(demand) for node in self._nodes]
        if sum(places) < demand.workers:
            return None
        parts: list[_Part] = []
        left = demand.workers
        while left:
            index = self._tightest(places, left, demand, avoid)
            count = min(left, places[index])
            parts += [self._take(index, demand) for _ in range(count)]
            places[index] = 0
            left -= count
        return Grant(tuple(parts))

    def occupy(self, demand: Demand, nodes: Sequence[str], /) -> Grant:
        """See Space."""
        known = [self._by_id[node] for node in nodes if node in self._by_id][: demand.workers]
        parts = [self._take(index, demand) for index in known]
        rest = Demand(demand.workers - len(parts), demand.cpus, demand.gpus)
        if rest.workers:
            grant = self.take(rest) or self.hold(rest)
            parts += grant.parts
        return Grant(tuple(parts))

    def hold(self, demand: Demand) -> Grant:
        """See Space."""
        order = sorted(
            (index for index, node in enumerate(self._nodes) if node.empty_places(demand)),
            key=lambda index: (-self._nodes[index].free_units if demand.units else 0, -self._nodes[index].cpus, index),
        )
        parts: list[_Part] = []
        left = demand.workers
        for index in order:
            count = min(left, self._nodes[index].empty_places(demand))
            parts += [self._take(index, demand) for _ in range(count)]
            left -= count
        return Grant(tuple(parts))

    def on(self, node: str, grant: Grant) -> bool:
        """Whether a grant has a part on a node."""
        return any(self._nodes[part.node].id == node for part in grant.parts)

    def fits_on(self, node: str, demand: Demand) -> bool:
        """Whether the whole gang fits on one node now."""
        return self._nodes[self._by_id[node]].places(demand) >= demand.workers

    def could_fit_on(self, node: str, demand: Demand) -> bool:
        """Whether it would fit there if nothing ran."""
        return self._nodes[self._by_id[node]].empty_places(demand) >= demand.workers

    @property
    def node_ids(self) -> list[str]:
        """All nodes, sorted."""
        return [node.id for node in self._nodes]

    def release(self, grants: Iterable[Grant]) -> None:
        """See Space."""
        self._change(grants, 1)

    def retake(self, grants: Iterable[Grant]) -> None:
        """See Space."""
        self._change(grants, -1)

    def _tightest(self, places: Sequence[int], left: int, demand: Demand, avoid: frozenset[str]) -> int:
        """The node that all that is left just fits on; if there is none, the one that takes most of it."""

        def key(index: int) -> tuple[bool, int, int, int, float, int]:
            node = self._nodes[index]
            # Without GPUs too: on a node that has some free, the job would keep its cores from those that need both.
            return (
                node.id in avoid,
                -min(places[index], left),
                node.slack(demand.units),
                node.free_units,
                node.cpus,
                index,
            )

        return min((index for index, count in enumerate(places) if count), key=key)

    def _take(self, index: int, demand: Demand) -> _Part:
        node = self._nodes[index]
        picked = node.pick(demand.units) if node.places(demand) else node.emptiest(demand.units)
        part = _Part(index, demand.cpus, picked)
        self._change([Grant((part,))], -1)
        return part

    def _change(self, grants: Iterable[Grant], sign: int) -> None:
        for grant in grants:
            for part in grant.parts:
                node = self._nodes[part.node]
                node.cpus += sign * part.cpus
                for gpu, units in part.units:
                    before = node.units[gpu]
                    node.units[gpu] = after = before + sign * units
                    self._free_units += max(0, after) - max(0, before)


class ElasticSpace:
    """Room on a cluster that grows: without end, or up to a number of GPUs."""

    def __init__(self, max_gpus: float | None) -> None:
        self._limit = math.inf if max_gpus is None else round(max_gpus * GPU_UNITS)
        self._free = self._limit

    def fits(self, demand: Demand) -> bool:
        """See Space."""
        return not demand.units or demand.workers * demand.units <= self._free

    def could_fit(self, demand: Demand) -> bool:
        """See Space."""
        return demand.workers * demand.units <= self._limit

    def take(self, demand: Demand, _avoid: frozenset[str] = frozenset(), /) -> Grant | None:
        """See Space; where jobs go, Ray alone knows."""
        return self.hold(demand) if self.fits(demand) else None

    def occupy(self, demand: Demand, _nodes: Sequence[str], /) -> Grant:
        """See Space."""
        return self.hold(demand)

    def hold(self, demand: Demand) -> Grant:
        """See Space."""
        grant = Grant((_Part(0, 0.0, ((0, demand.workers * demand.units),)),))
        self.retake([grant])
        return grant

    def release(self, grants: Iterable[Grant]) -> None:
        """See Space."""
        self._free += sum(_units(grant) for grant in grants)

    def retake(self, grants: Iterable[Grant]) -> None:
        """See Space."""
        self._free -= sum(_units(grant) for grant in grants)


def space_of(capacity: Capacity) -> NodeSpace | ElasticSpace:
    """The room of an empty cluster."""
    return ElasticSpace(capacity.max_gpus) if capacity.nodes is None else NodeSpace(capacity.nodes)


def _units(grant: Grant) -> int:
    return sum(units for part in grant.parts for _, units in part.units)


def _by_cpus(free: float, demand: Demand) -> int:
    if demand.cpus <= 0:
        return _MANY
    return max(0, math.floor(free / demand.cpus + _ROUNDING))


def _in_gpus(gpus: int, units: int) -> int:
    if not units:
        return _MANY
    return gpus * (GPU_UNITS // units) if units < GPU_UNITS else gpus // (units // GPU_UNITS)
