"""Servicer of RegionService: parse, call the domain off the event loop, map the answer."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, TypeAlias

import grpc

from terroir._proto.registry.v1 import region_pb2 as pb
from terroir._proto.registry.v1 import region_pb2_grpc
from terroir.common.principal import PrincipalSource
from terroir.registry.names import parse_region
from terroir.registry.operations import operation_id
from terroir.registry.paging import PageQuery
from terroir.registry.regions.messages import region_message, region_spec, resolution_message
from terroir.registry.regions.regions import Regions
from terroir.registry.regions.seasons import ensure_day

_Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class RegionServicer(region_pb2_grpc.RegionServiceServicer):
    """RegionService on the domain."""

    def __init__(self, regions: Regions, principals: PrincipalSource) -> None:
        self._regions = regions
        self._principals = principals

    async def GetRegion(self, request: pb.GetRegionRequest, _context: _Context) -> pb.Region:
        """Return one region."""
        return region_message(await asyncio.to_thread(self._regions.get, parse_region(request.name)))

    async def ListRegions(self, request: pb.ListRegionsRequest, _context: _Context) -> pb.ListRegionsResponse:
        """List regions by code."""
        found = await asyncio.to_thread(self._regions.page, PageQuery(request.page_size, request.page_token))
        return pb.ListRegionsResponse(
            regions=[region_message(region) for region in found.items], next_page_token=found.next_token
        )

    async def PutRegion(self, request: pb.PutRegionRequest, context: _Context) -> pb.Region:
        """Create or replace a region."""
        spec, op_id = region_spec(request.region), operation_id(request.request_id)
        put = partial(self._regions.put, spec, self._principals.of(context), op_id=op_id, etag=request.region.etag)
        return region_message(await asyncio.to_thread(put))

    async def DeleteRegion(self, request: pb.DeleteRegionRequest, context: _Context) -> pb.DeleteRegionResponse:
        """Remove a region."""
        code, op_id = parse_region(request.name), operation_id(request.request_id)
        await asyncio.to_thread(
            self._regions.delete, code, self._principals.of(context), op_id=op_id, etag=request.etag
        )
        return pb.DeleteRegionResponse()

    async def ResolveRegion(self, request: pb.ResolveRegionRequest, _context: _Context) -> pb.ResolveRegionResponse:
        """Find the recipe that a region gets, and tell the chain that was tried."""
        code = parse_region(request.name)
        day = ensure_day(request.date, "date") if request.date else None
        resolve = partial(self._regions.resolve, day=day, campaign=request.campaign)
        return resolution_message(await asyncio.to_thread(resolve, code))
