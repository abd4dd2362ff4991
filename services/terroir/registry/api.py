"""Servicer of RegistryService: parse, call the domain off the event loop, map the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import nullcontext
from typing import Any, Final, TypeAlias

import grpc

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir._proto.registry.v1 import registry_pb2_grpc
from terroir.common.errors import InvalidArgument
from terroir.common.principal import PrincipalSource
from terroir.registry.assembly import Registry
from terroir.registry.bases.api import BaseCalls
from terroir.registry.compatibility_messages import compatibility_message, compatibility_references
from terroir.registry.downloads import AdapterFormat, chunks_of
from terroir.registry.errors import UploadInvalid
from terroir.registry.index.api import IndexCalls, WatchEnd
from terroir.registry.lineage_api import LineageCalls
from terroir.registry.messages import publish_request, version_message
from terroir.registry.metrics import RegistryMetrics
from terroir.registry.moving.alias_api import AliasCalls
from terroir.registry.moving.preset_api import PresetCalls
from terroir.registry.names import parse_reference
from terroir.registry.operations import operation_id
from terroir.registry.regions.recipe_api import RecipeCalls
from terroir.registry.settings import RegistrySettings
from terroir.registry.uploads import Upload

_Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
_FORMATS: Final = {
    pb.ADAPTER_FORMAT_UNSPECIFIED: AdapterFormat.KOHYA,
    pb.ADAPTER_FORMAT_KOHYA: AdapterFormat.KOHYA,
    pb.ADAPTER_FORMAT_DIFFUSERS: AdapterFormat.DIFFUSERS,
}


class RegistryServicer(
    AliasCalls, BaseCalls, IndexCalls, LineageCalls, PresetCalls, RecipeCalls, registry_pb2_grpc.RegistryServiceServicer
):
    """RegistryService on the domain."""

    def __init__(
        self,
        registry: Registry,
        metrics: RegistryMetrics,
        principals: PrincipalSource,
        settings: RegistrySettings,
        watch_end: WatchEnd,
    ) -> None:
        """`watch_end` is reached when the server is asked to stop."""
        self._bases = registry.bases
        self._adapters = registry.adapters
        self._search = registry.search
        self._live = registry.live
        self._watch_end = watch_end
        self._publisher = registry.publisher
        self._downloads = registry.downloads
        self._recipes = registry.recipes
        self._presets = registry.presets
        self._compatibility = registry.compatibility
        self._audit = registry.audit
        self._lineages = registry.lineages
        self._principals = principals
        self._metrics = metrics
        metrics.store.watch(registry.store)
        self._parsing = asyncio.Semaphore(settings.max_parallel_publishes)
        self._comparing = asyncio.Semaphore(settings.max_parallel_comparisons)

    async def PublishVersion(
        self, request_iterator: AsyncIterator[pb.PublishVersionRequest], context: _Context
    ) -> pb.AdapterVersion:
        """Receive a file, check it and make it the next version."""
        with self._metrics.publishing():
            header = await _header(request_iterator)
            request, op_id = publish_request(header), operation_id(header.request_id)
            principal = self._principals.of(context)
            await asyncio.to_thread(self._publisher.admit, request, principal)
            with Upload(request.size_bytes, request.file_digest) as upload:
                async for message in request_iterator:
                    await asyncio.to_thread(upload.write, _chunk(message))
                    self._metrics.received(len(message.chunk))
                async with self._parsing:
                    data = await asyncio.to_thread(upload.finish)
                    version = await asyncio.to_thread(self._publisher.publish, request, data, principal, op_id=op_id)
            return version_message(version)

    async def DownloadVersion(
        self, request: pb.DownloadVersionRequest, _context: _Context
    ) -> AsyncIterator[pb.DownloadVersionResponse]:
        """Stream a header, then the file."""
        reference, adapter_format = parse_reference(request.name), _format(request.format)
        derived = adapter_format is not AdapterFormat.KOHYA
        async with self._parsing if derived else nullcontext():
            download = await asyncio.to_thread(self._downloads.open, reference, adapter_format)
        header = pb.DownloadHeader(
            version=version_message(download.version),
            file_name=download.file_name,
            size_bytes=download.file.size_bytes,
            digest=download.file.digest,
        )
        yield pb.DownloadVersionResponse(header=header)
        # The next part is read from the store while this one goes out: a third off a download.
        reading = asyncio.ensure_future(asyncio.to_thread(next, download.parts, None))
        try:
            while (part := await reading) is not None:
                reading = asyncio.ensure_future(asyncio.to_thread(next, download.parts, None))
                for chunk in chunks_of(part):
                    self._metrics.sent(len(chunk))
                    yield pb.DownloadVersionResponse(chunk=chunk)
        finally:
            reading.cancel()

    async def GetTrainingPrint(
        self, request: pb.GetTrainingPrintRequest, _context: _Context
    ) -> pb.GetTrainingPrintResponse:
        """Return a version's training print."""
        version, data = await asyncio.to_thread(self._downloads.training_print, parse_reference(request.name))
        digest = version_message(version).training_print_digest
        return pb.GetTrainingPrintResponse(version=version.name, digest=digest, training_print=data)

    async def CheckCompatibility(
        self, request: pb.CheckCompatibilityRequest, _context: _Context
    ) -> pb.CheckCompatibilityResponse:
        """Compare every pair of the adapters."""
        references = compatibility_references(request)
        async with self._comparing:
            return compatibility_message(await asyncio.to_thread(self._compatibility.check, references))


async def _header(messages: AsyncIterator[pb.PublishVersionRequest]) -> pb.PublishHeader:
    async for message in messages:
        if message.WhichOneof("message") == "header":
            return message.header
        break
    raise UploadInvalid("the stream does not begin with a header; send it first", reason="UPLOAD_HEADER_MISSING")


def _chunk(message: pb.PublishVersionRequest) -> bytes:
    if message.WhichOneof("message") != "chunk":
        raise UploadInvalid("a second header or an empty message came; send chunks only", reason="UPLOAD_NOT_A_CHUNK")
    return message.chunk


def _format(value: pb.AdapterFormat.ValueType) -> AdapterFormat:
    if value not in _FORMATS:
        raise InvalidArgument(
            f"format {value} is unknown; use ADAPTER_FORMAT_KOHYA or ADAPTER_FORMAT_DIFFUSERS",
            reason="UNKNOWN_FORMAT",
            field="format",
        )
    return _FORMATS[value]
