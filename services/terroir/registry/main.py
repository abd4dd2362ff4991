"""Entry point of the registry service: `python -m terroir.registry.main`."""

from __future__ import annotations

import asyncio
from argparse import ArgumentParser
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from terroir._proto.registry.v1 import region_pb2_grpc, registry_pb2_grpc
from terroir.common.clock import SystemClock
from terroir.common.server import Server
from terroir.common.service import run_service
from terroir.registry.api import RegistryServicer
from terroir.registry.assembly import assemble
from terroir.registry.index.api import WatchEnd
from terroir.registry.metrics import RegistryMetrics
from terroir.registry.names import parse_reference
from terroir.registry.regions.api import RegionServicer
from terroir.registry.settings import RegistrySettings
from terroir.store.opening import open_for_writing

REGISTRY_SERVICE: Final = "terroir.registry.v1.RegistryService"
REGION_SERVICE: Final = "terroir.registry.v1.RegionService"


@asynccontextmanager
async def build(settings: RegistrySettings, server: Server) -> AsyncIterator[None]:
    """Add both servicers; raises StoreUnavailable, BaseFolderInvalid or BaseChanged."""
    store = open_for_writing(settings)
    clock = SystemClock()
    registry = await asyncio.to_thread(assemble, store, clock, settings)
    metrics = RegistryMetrics(clock, server.registry)
    metrics.watch_index(registry.live)
    watch_end = WatchEnd()
    servicer = RegistryServicer(registry, metrics, server.principals, settings, watch_end)
    server.add(servicer, registry_pb2_grpc.add_RegistryServiceServicer_to_server, REGISTRY_SERVICE)
    regions = RegionServicer(registry.regions, server.principals)
    server.add(regions, region_pb2_grpc.add_RegionServiceServicer_to_server, REGION_SERVICE)
    server.on_stop(watch_end.reach)
    server.scope_regions(lambda name: registry.adapters.resolve(parse_reference(name)).manifest.region)
    registry.live.start()
    try:
        yield
    finally:
        await asyncio.to_thread(registry.live.stop)


def main(argv: Sequence[str] | None = None) -> None:
    """Run until told to stop; configured by TERROIR_REGISTRY_… alone, so arguments are refused."""
    ArgumentParser(description=__doc__).parse_args(argv)
    run_service("registry", RegistrySettings, build)


if __name__ == "__main__":
    main()
