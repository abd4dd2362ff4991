"""The part of RegistryService about base models."""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

import grpc

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir._proto.registry.v1 import registry_pb2_grpc
from terroir.common.principal import PrincipalSource
from terroir.registry.bases.bases import Bases
from terroir.registry.bases.messages import base_message, base_registration
from terroir.registry.names import parse_base
from terroir.registry.operations import operation_id

_Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class BaseCalls(registry_pb2_grpc.RegistryServiceServicer):
    """Calls about bases; a base of the class that serves all of RegistryService, which sets these."""

    _bases: Bases
    _principals: PrincipalSource

    async def RegisterBase(self, request: pb.RegisterBaseRequest, context: _Context) -> pb.Base:
        """Register a base model, or confirm it."""
        base, principal = parse_base(request.name), self._principals.of(context)
        operation_id(request.request_id)  # checked alone: equal content is one registration whoever repeats it
        registration = base_registration(request)
        return base_message(await asyncio.to_thread(self._bases.register, base, registration, principal))

    async def GetBase(self, request: pb.GetBaseRequest, _context: _Context) -> pb.Base:
        """Return one base model."""
        return base_message(await asyncio.to_thread(self._bases.get, parse_base(request.name)))

    async def ListBases(self, _request: pb.ListBasesRequest, _context: _Context) -> pb.ListBasesResponse:
        """List all registered base models."""
        bases = await asyncio.to_thread(self._bases.all)
        return pb.ListBasesResponse(bases=[base_message(base) for base in bases])
