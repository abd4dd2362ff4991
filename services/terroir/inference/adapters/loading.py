"""Fetches, verifies and parses adapters, off the event loop and off the device."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from terroir.common.clock import Clock
from terroir.common.errors import DeadlineExceeded, FailedPrecondition, TerroirError, Unavailable
from terroir.common.tracing import span
from terroir.inference.adapters.disk_cache import DiskCache
from terroir.inference.adapters.residency import LoadedAdapter
from terroir.inference.adapters.signature_policy import SignaturePolicy
from terroir.inference.adapters.sources import AdapterSource, VersionInfo
from terroir.inference.adapters.tier_metrics import TierMetrics
from terroir.inference.adapters.tiers import Tier
from terroir.inference.errors import AdapterCorrupt, AdapterMatchesNothing, AdapterMemoryFull, RegistryUnreachable
from terroir.lora.errors import LoraError, MatchesNothing, RankTooLarge
from terroir.lora.formats import parse
from terroir.lora.key_table import KeyTable

_RETRY_SECONDS = 2.0
_log = structlog.get_logger()


class AdapterLoader:
    """Implements Loader: disk first, then the registry."""

    def __init__(
        self, source: AdapterSource, disk: DiskCache, metrics: TierMetrics, clock: Clock, signatures: SignaturePolicy,
        *, max_rank: int, max_bytes: int,
    ) -> None:  # fmt: skip
        """`max_bytes` is what host memory takes at most: what is larger is not even fetched."""
        self._source = source
        self._signatures = signatures
        self._disk = disk
        self._metrics = metrics
        self._clock = clock
        self._max_rank = max_rank
        self._max_bytes = max_bytes
        self._keeping: dict[str, asyncio.Task[None]] = {}
        """Files on their way to the disk, by digest."""

    async def load(self, version: VersionInfo, key_table: KeyTable) -> LoadedAdapter:
        """Raises AdapterCorrupt, SignatureRefused, AdapterMatchesNothing, AdapterMemoryFull, RegistryUnreachable.

        Or FailedPrecondition with the reason that `terroir.lora` gives.
        """
        with self._counted():
            return await self._load(version, key_table)

    async def _load(self, version: VersionInfo, key_table: KeyTable) -> LoadedAdapter:
        if version.size_bytes > self._max_bytes:
            raise AdapterMemoryFull(
                f"{version.name} is a file of {version.size_bytes} bytes, all adapters in memory may take "
                f"{self._max_bytes}; raise TERROIR_INFERENCE_ADAPTER_MEMORY_BYTES"
            )
        began = self._clock.monotonic()
        with span("load adapter", adapter=version.name, digest=version.file_digest) as loading:
            with span("read disk"):
                data = await self._from_disk(version)
            if data is None:
                loaded = await self._fetch_and_accept(version, key_table)
            else:
                with span("parse adapter"):
                    loaded = await asyncio.to_thread(self._accept, version, data, key_table, Tier.DISK)
            loading.set(tier=loaded.found.value, size_bytes=version.size_bytes)
        seconds = self._clock.monotonic() - began
        self._metrics.loaded(loaded.found, seconds)
        _log.info("adapter loaded", version=version.name, source=loaded.found.value, seconds=round(seconds, 4))
        return loaded

    async def _fetch_and_accept(self, version: VersionInfo, key_table: KeyTable) -> LoadedAdapter:
        """Digest beside parsing: a cold load waits for the longer one only, and not for the disk."""
        data = await self._download(version)
        with span("verify and parse adapter"):
            verified, accepted = await asyncio.gather(
                asyncio.to_thread(_verify, version, data),
                asyncio.to_thread(self._accept, version, data, key_table, Tier.REGISTRY),
                return_exceptions=True,
            )
        if isinstance(verified, BaseException):
            raise verified  # first: a wrong digest explains whatever parsing found
        if isinstance(accepted, BaseException):
            raise accepted
        self._keep(version, data)
        return accepted

    async def vouch(self, version: VersionInfo) -> None:
        """A signature is for a file and its version's facts, so each version of one file needs its own."""
        if not self._signatures.asks:
            return
        with self._counted():
            data = await self._from_disk(version)
            if data is None:
                data = await self._download(version)
                await asyncio.to_thread(_verify, version, data)
                self._keep(version, data)
            await asyncio.to_thread(self._signatures.check, version, data)

    def forget(self, digest: str) -> None:
        """Remove a file from the disk; one on its way there as soon as it has arrived."""
        if (keeping := self._keeping.get(digest)) is not None:
            keeping.add_done_callback(lambda _: self._disk.forget(digest))
        else:
            self._disk.forget(digest)

    async def close(self) -> None:
        """Wait until what was loaded is on the disk."""
        await asyncio.gather(*self._keeping.values())

    @contextmanager
    def _counted(self) -> Iterator[None]:
        try:
            yield
        except TerroirError as error:
            self._metrics.load_failed(error.reason)
            raise

    async def _from_disk(self, version: VersionInfo) -> bytes | None:
        if (keeping := self._keeping.get(version.file_digest)) is not None:
            await asyncio.shield(keeping)
        return await asyncio.to_thread(self._disk.get, version.file_digest)

    def _keep(self, version: VersionInfo, data: bytes) -> None:
        digest = version.file_digest
        if digest not in self._keeping:
            self._keeping[digest] = asyncio.create_task(asyncio.to_thread(self._put_on_disk, version, data))
            self._keeping[digest].add_done_callback(lambda _: self._keeping.pop(digest))

    def _put_on_disk(self, version: VersionInfo, data: bytes) -> None:
        try:
            self._disk.put(version.file_digest, data)
        except OSError as error:
            # The disk tier only saves downloads: a full disk must not stop pictures.
            _log.warning("adapter not kept on disk", version=version.name, error=str(error))

    async def _download(self, version: VersionInfo) -> bytes:
        try:
            return await self._source.download(version)
        except (Unavailable, DeadlineExceeded) as error:
            raise RegistryUnreachable(
                f"{version.name} can't be fetched from the registry and is neither in memory nor on disk here: "
                f"{error}; try again, or draw with adapters that ListResidentAdapters names",
                metadata={"version": version.name},
                retry_after_seconds=_RETRY_SECONDS,
            ) from error

    def _accept(self, version: VersionInfo, data: bytes, key_table: KeyTable, found: Tier) -> LoadedAdapter:
        self._signatures.check(version, data)
        about = {"version": version.name}
        try:
            parsed = parse(data, key_table, max_rank=self._max_rank)
        except MatchesNothing as error:
            raise AdapterMatchesNothing(f"{version.name}: {error}", metadata=about) from error
        except RankTooLarge as error:
            message = f"{version.name}: {error}, or raise TERROIR_INFERENCE_MAX_RANK"
            raise FailedPrecondition(message, reason=error.reason, metadata=about) from error
        except LoraError as error:
            raise FailedPrecondition(f"{version.name}: {error}", reason=error.reason, metadata=about) from error
        left_out = len(parsed.ignored) + len(parsed.unknown)
        return LoadedAdapter(version.name, version.file_digest, parsed.adapter, left_out, found)


def _verify(version: VersionInfo, data: bytes) -> None:
    found = hashlib.sha256(data).hexdigest()
    if found != version.file_digest:
        raise AdapterCorrupt(
            f"{version.name} came with digest {found[:12]}, it was published with {version.file_digest[:12]}; "
            "the registry's copy or the way here is damaged: publish it again",
            metadata={"version": version.name, "expected": version.file_digest, "found": found},
        )
