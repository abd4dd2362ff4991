"""A small servicer over the real contracts, with one method of each of the four kinds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc

from terroir._proto.dataset.v1 import dataset_pb2, dataset_pb2_grpc
from terroir._proto.registry.v1 import registry_pb2, registry_pb2_grpc
from terroir.common.call import remaining_seconds
from terroir.common.grpc_client import aio_channel
from terroir.common.server import Server
from terroir.common.settings import ServiceSettings

DATASET = "terroir.dataset.v1.DatasetService"
REGISTRY = "terroir.registry.v1.RegistryService"


class Probe(dataset_pb2_grpc.DatasetServiceServicer, registry_pb2_grpc.RegistryServiceServicer):
    """Calls `act` in every method; it may raise, or wait for `release`."""

    def __init__(self) -> None:
        self.act: Callable[[], Any] = lambda: None
        self.entered, self.release = asyncio.Event(), asyncio.Event()
        self.remaining: float | None = None
        self.cancelled = False

    async def GetDataset(self, request: Any, context: Any) -> dataset_pb2.Dataset:
        self.remaining = remaining_seconds(context)
        self.act()
        return dataset_pb2.Dataset(name=request.name)

    async def ListDatasets(self, request: Any, context: Any) -> dataset_pb2.ListDatasetsResponse:
        """Waits until the test lets it go."""
        self.entered.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)  # a cleanup that takes its time
            self.cancelled = True
            raise
        return dataset_pb2.ListDatasetsResponse(next_page_token="late")

    async def DownloadImage(self, request: Any, context: Any) -> AsyncIterator[dataset_pb2.DownloadImageResponse]:
        yield dataset_pb2.DownloadImageResponse(data=b"first")
        self.act()
        yield dataset_pb2.DownloadImageResponse(data=b"second")

    async def ImportImages(
        self, requests: AsyncIterator[Any], context: Any
    ) -> AsyncIterator[dataset_pb2.ImportImagesResponse]:
        async for request in requests:
            yield dataset_pb2.ImportImagesResponse(wanted=dataset_pb2.ImageWanted(digest=request.offer.digest))
        self.act()

    async def PublishVersion(self, requests: AsyncIterator[Any], context: Any) -> registry_pb2.AdapterVersion:
        size = 0
        async for request in requests:
            size += len(request.chunk)
        self.act()
        return registry_pb2.AdapterVersion(size_bytes=size)


class Running:
    """A started server and a channel to it."""

    def __init__(self, server: Server, probe: Probe, channel: grpc.aio.Channel) -> None:
        self.server, self.probe, self.channel = server, probe, channel
        self.dataset = dataset_pb2_grpc.DatasetServiceStub(channel)
        self.registry = registry_pb2_grpc.RegistryServiceStub(channel)

    async def ask(self, kind: str, **options: Any) -> Any:
        """One call of a kind; all messages of the answer."""
        options = {"timeout": 20, **options}
        if kind == "unary_unary":
            return await self.dataset.GetDataset(dataset_pb2.GetDatasetRequest(name="datasets/a"), **options)
        if kind == "unary_stream":
            call = self.dataset.DownloadImage(dataset_pb2.DownloadImageRequest(), **options)
            return [message.data async for message in call]
        if kind == "stream_unary":
            chunks = [registry_pb2.PublishVersionRequest(chunk=b"abc") for _ in range(3)]
            return await self.registry.PublishVersion(iter(chunks), **options)
        offers = [dataset_pb2.ImportImagesRequest(offer=dataset_pb2.ImageOffer(digest=d)) for d in ("x", "y")]
        return [message.wanted.digest async for message in self.dataset.ImportImages(iter(offers), **options)]


@asynccontextmanager
async def running_probe(**settings: Any) -> AsyncIterator[Running]:
    """The probe behind a real server on loopback."""
    probe = Probe()
    server = Server(ServiceSettings(**settings), service_name="probe")
    server.add(probe, dataset_pb2_grpc.add_DatasetServiceServicer_to_server, DATASET)
    server.add(probe, registry_pb2_grpc.add_RegistryServiceServicer_to_server, REGISTRY)
    port = await server.start()
    async with aio_channel(f"127.0.0.1:{port}") as channel:
        try:
            yield Running(server, probe, channel)
        finally:
            await server.stop(0)
