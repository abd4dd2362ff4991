"""The part of RegistryService that keeps presets and sample pictures."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, TypeAlias

import grpc

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir._proto.registry.v1 import registry_pb2_grpc
from terroir.common.principal import PrincipalSource
from terroir.registry.moving.adapter_presets import PresetBook
from terroir.registry.moving.preset_messages import preset_values, presets_message, sample_message
from terroir.registry.names import parse_adapter
from terroir.registry.operations import operation_id

_Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class PresetCalls(registry_pb2_grpc.RegistryServiceServicer):
    """Calls about presets; a base of the class that serves all of RegistryService, which sets the two parts."""

    _presets: PresetBook
    _principals: PrincipalSource

    async def GetPresets(self, request: pb.GetPresetsRequest, _context: _Context) -> pb.AdapterPresets:
        """Return the presets and samples of an adapter."""
        return presets_message(await asyncio.to_thread(self._presets.get, parse_adapter(request.adapter, "adapter")))

    async def SetPresets(self, request: pb.SetPresetsRequest, context: _Context) -> pb.AdapterPresets:
        """Replace the presets of an adapter."""
        change = partial(
            self._presets.set,
            parse_adapter(request.presets.adapter, "presets.adapter"),
            preset_values(request.presets),
            self._principals.of(context),
            op_id=operation_id(request.request_id),
            etag=request.presets.etag,
        )
        return presets_message(await asyncio.to_thread(change))

    async def AddSample(self, request: pb.AddSampleRequest, context: _Context) -> pb.Sample:
        """Keep a sample picture."""
        adapter = parse_adapter(request.adapter, "adapter")
        change = partial(
            self._presets.add_sample,
            adapter,
            request.picture,
            self._principals.of(context),
            op_id=operation_id(request.request_id),
            caption=request.caption,
            version=request.version,
        )
        return sample_message(adapter, await asyncio.to_thread(change))

    async def GetSample(self, request: pb.GetSampleRequest, _context: _Context) -> pb.GetSampleResponse:
        """Return a sample picture."""
        adapter = parse_adapter(request.adapter, "adapter")
        sample, picture = await asyncio.to_thread(self._presets.sample, adapter, request.digest)
        return pb.GetSampleResponse(sample=sample_message(adapter, sample), picture=picture)
