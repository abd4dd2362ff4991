"""The part of RegistryService that moves aliases, deprecates versions, and tells who did what."""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

import grpc

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir._proto.registry.v1 import registry_pb2_grpc
from terroir.common.principal import PrincipalSource
from terroir.common.validation import ensure_identifier
from terroir.registry.adapters import Adapters
from terroir.registry.messages import version_message
from terroir.registry.moving.alias_messages import alias_message, alias_move, audit_message, deprecation_request
from terroir.registry.moving.audit import Audit
from terroir.registry.names import parse_adapter
from terroir.registry.operations import operation_id
from terroir.registry.paging import PageQuery

_Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class AliasCalls(registry_pb2_grpc.RegistryServiceServicer):
    """Calls about what moves; a base of the class that serves all of RegistryService, which sets these."""

    _adapters: Adapters
    _audit: Audit
    _principals: PrincipalSource

    async def SetAlias(self, request: pb.SetAliasRequest, context: _Context) -> pb.Alias:
        """Point an alias at a version."""
        move, op_id = alias_move(request), operation_id(request.request_id)
        principal = self._principals.of(context)
        return alias_message(
            await asyncio.to_thread(self._adapters.set_alias, move, principal, op_id=op_id, etag=request.etag)
        )

    async def RollbackAlias(self, request: pb.RollbackAliasRequest, context: _Context) -> pb.Alias:
        """Point an alias at the version before."""
        adapter, alias = parse_adapter(request.adapter, "adapter"), ensure_identifier(request.alias, "alias")
        op_id, principal = operation_id(request.request_id), self._principals.of(context)
        rolled = await asyncio.to_thread(
            self._adapters.roll_back, adapter, alias, request.reason, principal, op_id=op_id, etag=request.etag
        )
        return alias_message(rolled)

    async def DeleteAlias(self, request: pb.DeleteAliasRequest, context: _Context) -> pb.DeleteAliasResponse:
        """Remove an alias."""
        adapter, alias = parse_adapter(request.adapter, "adapter"), ensure_identifier(request.alias, "alias")
        op_id, principal = operation_id(request.request_id), self._principals.of(context)
        await asyncio.to_thread(
            self._adapters.delete_alias, adapter, alias, request.reason, principal, op_id=op_id, etag=request.etag
        )
        return pb.DeleteAliasResponse()

    async def DeprecateVersion(self, request: pb.DeprecateVersionRequest, context: _Context) -> pb.AdapterVersion:
        """Deprecate a version, or take that back."""
        wanted, op_id = deprecation_request(request), operation_id(request.request_id)
        principal = self._principals.of(context)
        return version_message(await asyncio.to_thread(self._adapters.deprecate, wanted, principal, op_id=op_id))

    async def ListAuditEvents(
        self, request: pb.ListAuditEventsRequest, _context: _Context
    ) -> pb.ListAuditEventsResponse:
        """List what was changed by whom."""
        adapter, query = parse_adapter(request.adapter, "adapter"), PageQuery(request.page_size, request.page_token)
        found = await asyncio.to_thread(self._audit.page, adapter, query)
        return pb.ListAuditEventsResponse(
            events=[audit_message(event) for event in found.items], next_page_token=found.next_token
        )
