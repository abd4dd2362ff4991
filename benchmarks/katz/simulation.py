"""Replicas that share the trace, by how requests are placed: what their memories hit and how even their load is.

A discrete simulation with the client's own router and the server's own cache. Requests come at random (Poisson) at 70 %
of what all slots can draw; each takes a slot for a drawing, and a twentieth of one more for each adapter that it loads.
"""

from __future__ import annotations

import heapq
import itertools
import random
import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Final

from benchmarks.katz.trace import Trace
from terroir.client.routing import Router
from terroir.inference.adapters.pinned_lru import PinnedLru

POLICIES: Final = ("random", "round robin", "consistent hashing", "consistent hashing, bounded 1.25")
_SLOTS: Final = 8
_UTILISATION: Final = 0.7
_LOAD_SHARE: Final = 0.05
_DEVICE_ADAPTERS: Final = 32
_HOST_ADAPTERS: Final = 256
_UNBOUNDED: Final = 1e9


@dataclass
class _Replica:
    device: PinnedLru[int] = field(default_factory=lambda: PinnedLru(_DEVICE_ADAPTERS))
    host: PinnedLru[int] = field(default_factory=lambda: PinnedLru(_HOST_ADAPTERS))
    slots: list[float] = field(default_factory=lambda: [0.0] * _SLOTS)
    """When each is free again; a heap."""


@dataclass(frozen=True)
class Outcome:
    """Of one policy at one number of replicas."""

    device_hits: float
    """Share of wanted adapters that were in device memory."""
    host_hits: float
    """Share that were in device or host memory."""
    loads: float
    """Adapters fetched a request."""
    imbalance: float
    """Requests of the busiest replica over the mean, drawing or waiting, averaged over arrivals."""
    waited: float
    """99th percentile of the time in the queue, in drawings."""


def simulate(policy: str, replicas: int, requests: int, seed: int = 1) -> Outcome:
    """Run a policy over the same trace; the first fifth warms the caches and is not counted."""
    return _Simulation(policy, replicas, seed).run(requests)


class _Simulation:
    def __init__(self, policy: str, replicas: int, seed: int) -> None:
        self._names = [f"replica-{number}" for number in range(replicas)]
        self._replicas = {name: _Replica() for name in self._names}
        self._trace, self._chance = iter(Trace(seed)), random.Random(seed)
        self._place = self._placement(policy)
        self._now = 0.0
        self._ends: list[tuple[float, int, str, AbstractContextManager[str]]] = []
        self._numbers = itertools.count()
        self._in_system = dict.fromkeys(self._names, 0)

    def run(self, requests: int) -> Outcome:
        rate = _UTILISATION * _SLOTS * len(self._names)
        wanted = device = host = 0
        imbalances, waits = [], []
        for number in range(requests):
            self._now += self._chance.expovariate(rate)
            self._end_until(self._now)
            worn = next(self._trace)
            place = self._place(" ".join(f"adapters/a-{adapter}" for adapter in worn))
            name = place.__enter__()
            in_device, in_host = self._touch(self._replicas[name], worn)
            waits.append(self._draw(name, place, len(worn) - in_host))
            if number >= requests // 5:
                wanted, device, host = wanted + len(worn), device + in_device, host + in_host
                imbalances.append(max(self._in_system.values()) / statistics.fmean(self._in_system.values()))
        counted = requests - requests // 5
        late = sorted(waits[-counted:])[int(counted * 0.99)]
        return Outcome(device / wanted, host / wanted, (wanted - host) / counted, statistics.fmean(imbalances), late)

    def _placement(self, policy: str) -> Callable[[str], AbstractContextManager[str]]:
        if policy.startswith("consistent"):
            router = Router(self._names, capacity=1.25 if policy.endswith("1.25") else _UNBOUNDED)
            return router.placed
        turn = itertools.cycle(self._names)
        if policy == "random":
            return lambda _key: nullcontext(self._chance.choice(self._names))
        return lambda _key: nullcontext(next(turn))

    def _touch(self, replica: _Replica, worn: tuple[int, ...]) -> tuple[int, int]:
        """How many of the adapters were in device memory, and how many there or in host memory; all are now."""
        in_device = sum(_held(replica.device, adapter) for adapter in worn)
        return in_device, sum(_held(replica.host, adapter) for adapter in worn)

    def _draw(self, name: str, place: AbstractContextManager[str], loads: int) -> float:
        """Take a slot as soon as one is free; seconds waited, in drawings."""
        self._in_system[name] += 1
        slots = self._replicas[name].slots
        begin = max(self._now, slots[0])
        end = begin + 1 + _LOAD_SHARE * loads
        heapq.heapreplace(slots, end)
        heapq.heappush(self._ends, (end, next(self._numbers), name, place))
        return begin - self._now

    def _end_until(self, time: float) -> None:
        while self._ends and self._ends[0][0] <= time:
            _, _, name, place = heapq.heappop(self._ends)
            self._in_system[name] -= 1
            place.__exit__(None, None, None)


def _held(cache: PinnedLru[int], adapter: int) -> bool:
    found = cache.pin(adapter) is not None
    if not found:
        cache.add(adapter, adapter, 1)
        cache.pin(adapter)
    cache.unpin(adapter)
    return found
