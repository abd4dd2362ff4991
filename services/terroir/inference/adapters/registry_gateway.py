"""The registry over gRPC, behind the seam of `terroir.inference.adapters.sources`."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Final

import grpc

from terroir._proto.registry.v1 import region_pb2, region_pb2_grpc, registry_pb2_grpc
from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.common.grpc_client import error_from_rpc
from terroir.common.signed_version import signature_of, signed_facts
from terroir.inference.adapters.sources import CanaryInfo, Change, ChangeKind, Recipe, VersionInfo
from terroir.inference.errors import AdapterCorrupt

_LOOKUP_SECONDS: Final = 10.0
_KINDS: Final = {
    pb.CHANGE_KIND_VERSION_PUBLISHED: ChangeKind.PUBLISHED,
    pb.CHANGE_KIND_ALIASES_CHANGED: ChangeKind.ALIASES,
    pb.CHANGE_KIND_VERSION_DEPRECATED: ChangeKind.DEPRECATED,
    pb.CHANGE_KIND_REGION_CHANGED: ChangeKind.REGION,
    pb.CHANGE_KIND_RECIPE_CHANGED: ChangeKind.RECIPE,
}


class RegistryGateway:
    """Implements AdapterSource and ChangeSource; the channel belongs to whoever opened it."""

    def __init__(self, channel: grpc.aio.Channel, download_timeout_seconds: float) -> None:
        self._registry = registry_pb2_grpc.RegistryServiceStub(channel)
        self._regions = region_pb2_grpc.RegionServiceStub(channel)
        self._download_timeout_seconds = download_timeout_seconds

    async def version(self, name: str) -> VersionInfo:
        """GetVersion: never cached, so that a moved alias or a new version is seen by the next request."""
        with _typed_errors():
            found = await self._registry.GetVersion(pb.GetVersionRequest(name=name), timeout=_LOOKUP_SECONDS)
        return VersionInfo(
            found.name,
            found.base,
            found.base_digest,
            found.file_digest,
            found.size_bytes,
            signed_facts(found),
            signature_of(found),
            found.deprecation.reason if found.deprecation.for_cause else "",
            found.training_print_digest,
        )

    async def download(self, version: VersionInfo) -> bytes:
        """DownloadVersion, whole, as the kohya file."""
        request = pb.DownloadVersionRequest(name=version.name, format=pb.ADAPTER_FORMAT_KOHYA)
        with _typed_errors():
            file = BytesIO()  # copies each piece as it comes: hundreds of MB at the end would hold up the event loop
            async for message in self._registry.DownloadVersion(request, timeout=self._download_timeout_seconds):
                file.write(message.chunk)
        return file.getvalue()

    async def training_print(self, version: VersionInfo) -> bytes | None:
        """GetTrainingPrint; None without a call if the version has none. Raises AdapterCorrupt for another's bytes."""
        if not version.training_print_digest:
            return None
        request = pb.GetTrainingPrintRequest(name=version.name)
        with _typed_errors():
            found = await self._registry.GetTrainingPrint(request, timeout=self._download_timeout_seconds)
        digest = await asyncio.to_thread(lambda: hashlib.sha256(found.training_print).hexdigest())
        if digest != version.training_print_digest:
            raise AdapterCorrupt(
                f"the training print of {version.name} came with digest {digest[:12]}, it was published with "
                f"{version.training_print_digest[:12]}; the registry's copy or the way here is damaged: publish again",
                metadata={"version": version.name, "expected": version.training_print_digest, "found": digest},
            )
        return bytes(found.training_print)

    async def recipe(self, region: str) -> Recipe:
        """ResolveRegion."""
        request = region_pb2.ResolveRegionRequest(name=region)
        with _typed_errors():
            found = await self._regions.ResolveRegion(request, timeout=_LOOKUP_SECONDS)
        adapters = tuple((entry.adapter, entry.weight) for entry in found.recipe.adapters)
        recipe = found.recipe
        return Recipe(
            adapters, recipe.prompt_prefix, recipe.negative_prompt, tuple(found.tried), found.source,
            tuple(found.further),
        )  # fmt: skip

    async def canary(self, name: str) -> CanaryInfo | None:
        """The canary of `adapters/{id}@{alias}`, by GetAdapter; None without one, and for names that are no alias."""
        adapter, _, alias = name.partition("@")
        if not alias:
            return None
        with _typed_errors():
            found = await self._registry.GetAdapter(pb.GetAdapterRequest(name=adapter), timeout=_LOOKUP_SECONDS)
        for entry in found.aliases:
            if entry.alias == alias and entry.HasField("canary"):
                canary = entry.canary
                expires = float(canary.expire_time.seconds) if canary.HasField("expire_time") else None
                return CanaryInfo(canary.version, canary.percent, expires)
        return None

    async def changes(self, resume_token: str) -> AsyncGenerator[Change]:
        """Watch; the call is cancelled when the generator is closed."""
        call = self._registry.Watch(pb.WatchRequest(resume_token=resume_token))
        try:
            with _typed_errors():
                async for message in call:
                    yield _change(message)
        finally:
            call.cancel()


def _change(message: pb.WatchResponse) -> Change:
    if not message.HasField("change"):
        return Change(message.resume_token)
    kind = _KINDS.get(message.change.kind, ChangeKind.OTHER)
    return Change(message.resume_token, kind, message.change.name)


@contextmanager
def _typed_errors() -> Iterator[None]:
    try:
        yield
    except grpc.RpcError as error:
        raise error_from_rpc(error) from error
