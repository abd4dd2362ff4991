"""Host and device tier under any order of requests, loads, failures, cancellations and withdrawals."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule
from prometheus_client import CollectorRegistry

from terroir.common.errors import Unavailable
from terroir.common.signatures import SignedFacts
from terroir.inference.adapters.device_tier import DeviceTier
from terroir.inference.adapters.residency import LoadedAdapter, Residency
from terroir.inference.adapters.sources import VersionInfo
from terroir.inference.adapters.tier_metrics import TierMetrics
from terroir.inference.adapters.tiers import Tier
from terroir.inference.errors import AdapterDeviceMemoryFull, AdapterMemoryFull
from terroir.lora.key_table import KeyTable
from tests.unit.inference.tier_kit import SIZE, TABLE, FakeDevice, small_adapter

DIGESTS = ("a", "b", "c", "d", "e")
RANKS = {"a": 2, "b": 2, "c": 4, "d": 6, "e": 2}
"""So that sizes differ: rank 2 is SIZE."""
BUDGET = 4 * SIZE
DEVICE_BUDGET = 3 * SIZE


def version(digest: str) -> VersionInfo:
    facts = SignedFacts("adapters/a", "b" * 64, "t" * 64, "")
    return VersionInfo(f"adapters/{digest}/versions/1", "bases/b", "b" * 64, digest, 1, facts)


class GatedLoader:
    """Implements Loader; every load waits until it is told how to end."""

    def __init__(self) -> None:
        self.running: dict[str, asyncio.Future[None]] = {}

    async def load(self, version: VersionInfo, key_table: KeyTable) -> LoadedAdapter:
        digest = version.file_digest
        assert digest not in self.running, "two loads of one digest at the same time"
        self.running[digest] = asyncio.get_running_loop().create_future()
        try:
            await self.running[digest]
        finally:
            del self.running[digest]
        return LoadedAdapter(version.name, digest, small_adapter(1, RANKS[digest]), 0, Tier.REGISTRY)

    async def vouch(self, version: VersionInfo) -> None:
        raise AssertionError("each digest has one version here")

    def forget(self, digest: str) -> None:
        """Nothing is kept."""

    async def close(self) -> None:
        """Nothing is kept."""


@dataclass(eq=False)
class Request:
    """One that asks for an adapter, then holds it, then draws with it on the device."""

    digest: str
    task: asyncio.Task[None]
    end: asyncio.Event
    holds: bool = False
    vanished: bool = False


class TierMachine(RuleBasedStateMachine):
    """Drives the real tiers; the model is who holds what."""

    requests: Bundle[Request] = Bundle("requests")

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.loader, self.engine = GatedLoader(), FakeDevice()
        metrics = TierMetrics(CollectorRegistry())
        self.residency = Residency(self.loader, BUDGET, metrics)
        self.device = DeviceTier(self.engine, DEVICE_BUDGET, metrics)
        self.open: list[Request] = []

    def settle(self) -> None:
        """Let every task go as far as it can."""

        async def turns() -> None:
            for _ in range(12):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())
        for request in [request for request in self.open if request.task.done()]:
            self.open.remove(request)
            assert request.vanished or not request.task.cancelled(), "somebody else's going ended this request"
            error = None if request.task.cancelled() else request.task.exception()
            assert error is None or isinstance(error, Unavailable | AdapterMemoryFull | AdapterDeviceMemoryFull), error

    @rule(target=requests, digest=st.sampled_from(DIGESTS), draws=st.booleans())
    def ask(self, digest: str, draws: bool) -> Request:
        end = asyncio.Event()

        async def work() -> None:
            async with AsyncExitStack() as held:
                loaded = await held.enter_async_context(self.residency.hold(version(digest), TABLE))
                request.holds = True
                held.callback(setattr, request, "holds", False)
                if draws:
                    await held.enter_async_context(self.device.hold({digest: loaded.adapter}))
                    assert digest in self.engine.held
                await end.wait()
                assert not draws or digest in self.engine.held or self.lost_engine

        self.lost_engine = getattr(self, "lost_engine", False)
        request = Request(digest, self.loop.create_task(work()), end)
        self.open.append(request)
        self.settle()
        return request

    @rule(request=consumes(requests))
    def finish(self, request: Request) -> None:
        request.end.set()
        self.settle()

    @rule(request=consumes(requests))
    def vanish(self, request: Request) -> None:
        request.vanished = True
        request.task.cancel()
        self.settle()

    @precondition(lambda self: self.loader.running)
    @rule(data=st.data(), fails=st.booleans())
    def end_load(self, data: st.DataObject, fails: bool) -> None:
        digest = data.draw(st.sampled_from(sorted(self.loader.running)))
        if fails:
            self.loader.running[digest].set_exception(Unavailable("the registry is gone"))
        else:
            self.loader.running[digest].set_result(None)
        self.settle()

    @rule(digest=st.sampled_from(DIGESTS))
    def withdraw(self, digest: str) -> None:
        self.residency.forget(digest)
        self.device.forget(digest)
        self.settle()

    @rule(digest=st.sampled_from(DIGESTS))
    def prefetch_to_device(self, digest: str) -> None:
        before = set(self.engine.held)
        self.device.prefetch(digest, small_adapter(1, RANKS[digest]))
        assert before <= self.engine.held, "a prefetch evicted something"

    @rule()
    def restart_engine(self) -> None:
        self.lost_engine = True
        self.engine.held.clear()
        self.device.reset()

    @invariant()
    def pins_are_those_of_the_requests_that_hold(self) -> None:
        pins = {entry.digest: entry.pins for entry in self.residency.resident()}
        held = [request.digest for request in self.open if request.holds]
        assert {digest: count for digest, count in pins.items() if count} == {d: held.count(d) for d in set(held)}

    @invariant()
    def budgets_hold(self) -> None:
        assert self.residency.used_bytes == sum(entry.size_bytes for entry in self.residency.resident()) <= BUDGET
        assert self.device.used_bytes <= DEVICE_BUDGET

    @invariant()
    def the_engine_has_what_the_directory_says(self) -> None:
        assert {digest for digest in DIGESTS if digest in self.device} == self.engine.held

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        for request in list(self.open):
            request.end.set()
        for future in list(self.loader.running.values()):
            future.set_result(None)
        self.settle()
        assert not self.open, "a request never ended"
        assert all(entry.pins == 0 for entry in self.residency.resident())
        self.loop.run_until_complete(self.residency.close())
        self.loop.close()


TestTiers = TierMachine.TestCase
TestTiers.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
