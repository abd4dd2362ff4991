"""Fetches, verifies and parses adapters, off the event loop and off the device."""

from __future__ import annotations

import asyncio
import hashlib

import structlog

from terroir.common.clock import Clock
from terroir.common.errors import FailedPrecondition
from terroir.inference.disk_cache import DiskCache
from terroir.inference.errors import AdapterCorrupt, AdapterMatchesNothing
from terroir.inference.metrics import InferenceMetrics
from terroir.inference.residency import LoadedAdapter
from terroir.inference.signature_policy import SignaturePolicy
from terroir.inference.sources import AdapterSource, VersionInfo
from terroir.lora.errors import LoraError, MatchesNothing
from terroir.lora.formats import parse
from terroir.lora.key_table import KeyTable

_log = structlog.get_logger()


class AdapterLoader:
    """Implements Loader: disk first, then the registry."""

    def __init__(
        self,
        source: AdapterSource,
        disk: DiskCache,
        metrics: InferenceMetrics,
        clock: Clock,
        signatures: SignaturePolicy,
    ) -> None:
        self._source = source
        self._signatures = signatures
        self._disk = disk
        self._metrics = metrics
        self._clock = clock

    async def load(self, version: VersionInfo, key_table: KeyTable) -> LoadedAdapter:
        """Raises AdapterCorrupt, SignatureRefused, AdapterMatchesNothing, or FailedPrecondition as `terroir.lora`."""
        began = self._clock.monotonic()
        data = await asyncio.to_thread(self._disk.get, version.file_digest)
        origin = "disk" if data is not None else "registry"
        if data is None:
            data = await self._fetch(version)
        await asyncio.to_thread(self._signatures.check, version, data)
        loaded = await asyncio.to_thread(_parse, version, data, key_table)
        seconds = self._clock.monotonic() - began
        self._metrics.loaded(origin, seconds)
        _log.info("adapter loaded", version=version.name, source=origin, seconds=round(seconds, 4))
        return loaded

    async def _fetch(self, version: VersionInfo) -> bytes:
        data = await self._source.download(version)
        found = hashlib.sha256(data).hexdigest()
        if found != version.file_digest:
            raise AdapterCorrupt(
                f"{version.name} came with digest {found[:12]}, it was published with {version.file_digest[:12]}; "
                "the registry's copy or the way here is damaged: publish it again",
                metadata={"version": version.name, "expected": version.file_digest, "found": found},
            )
        try:
            await asyncio.to_thread(self._disk.put, version.file_digest, data)
        except OSError as error:
            # The disk tier only saves downloads: a full disk must not stop pictures.
            _log.warning("adapter not kept on disk", version=version.name, error=str(error))
        return data


def _parse(version: VersionInfo, data: bytes, key_table: KeyTable) -> LoadedAdapter:
    try:
        parsed = parse(data, key_table)
    except MatchesNothing as error:
        raise AdapterMatchesNothing(f"{version.name}: {error}", metadata={"version": version.name}) from error
    except LoraError as error:
        raise FailedPrecondition(
            f"{version.name}: {error}", reason=error.reason, metadata={"version": version.name}
        ) from error
    return LoadedAdapter(version.name, version.file_digest, parsed.adapter, len(parsed.ignored) + len(parsed.unknown))
