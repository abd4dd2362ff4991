"""A registry, an engine's memory and files to load, all in the test's hands."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from terroir.common.clock import FixedClock
from terroir.common.errors import NotFound, TerroirError, Unavailable
from terroir.common.signatures import SignedFacts, Verifier
from terroir.inference.adapters.device_tier import DeviceTier
from terroir.inference.adapters.directory import Directory
from terroir.inference.adapters.disk_cache import DiskCache
from terroir.inference.adapters.loading import AdapterLoader
from terroir.inference.adapters.popularity import Popularity
from terroir.inference.adapters.prefetching import Prefetcher
from terroir.inference.adapters.residency import Residency
from terroir.inference.adapters.signature_policy import SignaturePolicy
from terroir.inference.adapters.sources import Change, Recipe, VersionInfo
from terroir.inference.adapters.styling import Base, Stylist
from terroir.inference.adapters.tier_metrics import TierMetrics
from terroir.inference.adapters.warming import Warmer
from terroir.inference.errors import ModelLoading
from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.formats import to_kohya
from terroir.lora.key_table import KeyTable

LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
TABLE: KeyTable = {LAYER: (8, 8)}
BASE = Base("bases/tiny", "b" * 64, TABLE)
SIZE = 2 * 8 * 4 * 2
"""Bytes of the factors of `small_adapter`."""
_FACTS = SignedFacts("adapters/a", BASE.digest, "t" * 64, "")


def small_adapter(seed: int, rank: int = 2, broken: float | None = None) -> Adapter:
    """Factors of one layer; `broken` replaces a number."""
    rng = np.random.default_rng(seed)
    down, up = rng.standard_normal((rank, 8), dtype=np.float32), rng.standard_normal((8, rank), dtype=np.float32)
    if broken is not None:
        up[0, 0] = broken
    return Adapter({LAYER: LoraModule(down, up, 2.0)})


def small_file(seed: int, rank: int = 2, broken: float | None = None) -> bytes:
    """The same as a kohya file."""
    return to_kohya(small_adapter(seed, rank, broken), {})


class FakeRegistry:
    """Implements AdapterSource and ChangeSource on dictionaries; fails when told to."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.prints: dict[str, bytes] = {}
        """By digest."""
        self.versions: dict[str, VersionInfo] = {}
        self.aliases: dict[str, str] = {}
        self.recipes: dict[str, Recipe] = {}
        self.failure: TerroirError | None = None
        self.lookups: list[str] = []
        self.downloads: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.altered = b""
        self.watches: list[str] = []
        """Resume tokens of the watches that were begun."""
        self.told: list[Callable[[], AsyncGenerator[Change]]] = []
        """What the next watches tell."""

    def publish(self, name: str, data: bytes, **fields: Any) -> VersionInfo:
        """Put a version `adapters/{id}/versions/{number}` in and make it the newest."""
        digest = hashlib.sha256(data).hexdigest()
        info = VersionInfo(name, BASE.name, BASE.digest, digest, len(data), _FACTS)
        self.files[name], self.versions[name] = data, replace(info, **fields)
        self.aliases[name.partition("/versions/")[0]] = name
        return self.versions[name]

    async def version(self, name: str) -> VersionInfo:
        self.lookups.append(name)
        self._fail()
        found = self.versions.get(self.aliases.get(name, name))
        if found is None:
            raise NotFound(f"there is no {name}", reason="ADAPTER_NOT_FOUND")
        return found

    async def download(self, version: VersionInfo) -> bytes:
        self.downloads.append(version.name)
        await self.gate.wait()
        self._fail()
        return self.files[version.name] + self.altered

    async def training_print(self, version: VersionInfo) -> bytes | None:
        self._fail()
        return self.prints[version.training_print_digest] if version.training_print_digest else None

    async def recipe(self, region: str) -> Recipe:
        self.lookups.append(region)
        self._fail()
        if region not in self.recipes:
            raise NotFound(f"there is no {region}", reason="REGION_NOT_FOUND")
        return self.recipes[region]

    async def changes(self, resume_token: str) -> AsyncGenerator[Change]:
        self.watches.append(resume_token)
        self._fail()
        if not self.told:
            await asyncio.Event().wait()
        async for change in self.told.pop(0)():
            yield change

    def go(self) -> None:
        """Stop answering."""
        self.failure = Unavailable("connection refused", reason="SERVICE_UNREACHABLE")

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure


@dataclass
class FakeDevice:
    """Implements Device; notes the order of commands and refuses what an engine could not obey."""

    commands: list[tuple[str, str]] = field(default_factory=list)
    held: set[str] = field(default_factory=set)
    gone: bool = False

    def put(self, digest: str, adapter: Adapter) -> None:
        if self.gone:
            raise ModelLoading("the base model is being loaded")
        assert digest not in self.held, "put twice"
        self.held.add(digest)
        self.commands.append(("put", digest))

    def drop(self, digest: str) -> None:
        self.held.remove(digest)
        self.commands.append(("drop", digest))


class Tiers:
    """All parts between registry and device, over the fakes."""

    def __init__(
        self, folder: Path, *, host_bytes: int = 1 << 20, device_bytes: int = 1 << 20, disk_bytes: int = 1 << 20,
        max_rank: int = 256,
    ) -> None:  # fmt: skip
        self.registry, self.engine, self.clock = FakeRegistry(), FakeDevice(), FixedClock()
        self.counters = CollectorRegistry()
        self.metrics = TierMetrics(self.counters)
        self.disk = DiskCache(folder, disk_bytes, self.metrics)
        self.disk.open()
        self.loader = AdapterLoader(
            self.registry, self.disk, self.metrics, self.clock, SignaturePolicy("off", Verifier(())),
            max_rank=max_rank, max_bytes=host_bytes,
        )  # fmt: skip
        self.residency = Residency(self.loader, host_bytes, self.metrics)
        self.device = DeviceTier(self.engine, device_bytes, self.metrics)
        self.directory = Directory(self.registry, self.clock, self.metrics)
        self.popularity = Popularity[str](self.clock)
        self.prefetcher = Prefetcher(self.directory, self.residency, self.device, self.metrics, pause=no_pause)
        self.warmer = Warmer(
            self.directory, self.popularity, self.prefetcher, always=(), most=4, budget_bytes=1 << 20,
            interval_seconds=60,
        )  # fmt: skip
        self.stylist = Stylist(self.directory, self.residency, self.device, self.popularity, self.metrics)

    def resident(self) -> list[str]:
        """Versions in host memory, least recently used first."""
        return [entry.version for entry in self.residency.resident()]

    def evict(self, digest: str) -> None:
        """Drop from host memory what would leave it last when other adapters need the place."""
        self.residency._cache.discard(digest)

    def pins(self) -> int:
        """Of all adapters in host memory."""
        return sum(entry.pins for entry in self.residency.resident())

    def counted(self, name: str, **labels: str) -> float:
        """Value of a metric; 0 if nothing was counted."""
        return self.counters.get_sample_value(f"terroir_inference_{name}", labels) or 0.0


async def no_pause(_seconds: float) -> None:
    """Instead of a sleep."""
    await asyncio.sleep(0)


def version_name(number: int, adapter: str = "a") -> str:
    return f"adapters/{adapter}/versions/{number}"


async def settled(condition: Callable[[], bool]) -> None:
    """Let other tasks and threads work until the condition holds."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def beside(work: Coroutine[Any, Any, None], scenario: Coroutine[Any, Any, None]) -> None:
    """Run a scenario while a part works, and end the part with it; the part's own failure fails the test."""
    part, test = asyncio.ensure_future(work), asyncio.ensure_future(scenario)
    await asyncio.wait({part, test}, return_when=asyncio.FIRST_COMPLETED)
    for task in (part, test):
        if task.done():
            task.result()
    part.cancel()
    await asyncio.gather(part, return_exceptions=True)
