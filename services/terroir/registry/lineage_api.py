"""The part of RegistryService that follows versions to where they came from and to what came of them."""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias

import grpc

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir._proto.registry.v1 import registry_pb2_grpc
from terroir.registry.lineage import LineageGraph, Lineages
from terroir.registry.names import parse_reference

_Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class LineageCalls(registry_pb2_grpc.RegistryServiceServicer):
    """GetLineage; a base of the class that serves all of RegistryService, which sets this."""

    _lineages: Lineages

    async def GetLineage(self, request: pb.GetLineageRequest, _context: _Context) -> pb.GetLineageResponse:
        """Return the graph around a version."""
        return _message(await asyncio.to_thread(self._lineages.around, parse_reference(request.name)))


def _message(graph: LineageGraph) -> pb.GetLineageResponse:
    return pb.GetLineageResponse(
        nodes=[pb.LineageNode(name=thing.name, kind=thing.kind, digest=thing.digest) for thing in graph.things],
        edges=[
            pb.LineageEdge(source=each.source, target=each.target, relation=each.relation) for each in graph.dependences
        ],
    )
