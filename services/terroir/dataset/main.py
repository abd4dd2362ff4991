"""Start the dataset service: `python -m terroir.dataset.main`, configured by TERROIR_DATASET_… variables only."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from terroir._proto.dataset.v1 import dataset_pb2, dataset_pb2_grpc
from terroir.common.clock import Clock, SystemClock
from terroir.common.server import Server
from terroir.common.service import run_service
from terroir.dataset.album import Albums
from terroir.dataset.api import DatasetServicer, Domain
from terroir.dataset.captions import Captions
from terroir.dataset.catalogue import Catalogue
from terroir.dataset.freezing import Versions
from terroir.dataset.importing import Importer, ImportLimits
from terroir.dataset.metrics import DatasetMetrics
from terroir.dataset.pictures import Pictures
from terroir.dataset.settings import DatasetSettings
from terroir.dataset.tagger_process import TaggerProcess
from terroir.dataset.tagging import Tagger
from terroir.store.blobs import Blobs
from terroir.store.documents import Collection
from terroir.store.interface import ObjectStore
from terroir.store.opening import open_for_writing


def build_domain(
    settings: DatasetSettings, store: ObjectStore, tagger: Tagger, metrics: DatasetMetrics, clock: Clock
) -> Domain:
    """Join the parts over one store."""
    blobs = Blobs(store)
    albums = Albums(store, blobs, clock)
    catalogue = Catalogue(Collection(store, "datasets", clock), albums)
    limits = ImportLimits(
        pixel_limit=settings.pixel_limit,
        max_pictures=settings.max_pictures,
        window_bytes=settings.import_window_bytes,
        max_streams=settings.max_import_streams,
        max_decoding=settings.max_decoding,
    )
    return Domain(
        catalogue=catalogue,
        importer=Importer(albums, blobs, settings.gates, limits, metrics),
        pictures=Pictures(catalogue, albums, blobs, settings.gates),
        captions=Captions(albums, blobs, tagger, settings.gates, metrics, clock),
        versions=Versions(store, blobs, catalogue, albums, settings.gates, clock),
    )


@asynccontextmanager
async def build(settings: DatasetSettings, server: Server) -> AsyncIterator[None]:
    """Add the servicer; end the tagger's process when the server has stopped."""
    store = open_for_writing(settings)
    tagger = TaggerProcess(
        settings.tagger_dir,
        settings.tagger_vocabulary,
        threads=settings.tagger_threads,
        idle_seconds=settings.tagger_idle_seconds,
    )
    domain = build_domain(settings, store, tagger, DatasetMetrics(server.registry), SystemClock())
    name = dataset_pb2.DESCRIPTOR.services_by_name["DatasetService"].full_name
    server.scope_regions(lambda name: domain.catalogue.get(name.split("/")[1]).fields.region)
    server.add(DatasetServicer(domain), dataset_pb2_grpc.add_DatasetServiceServicer_to_server, name)
    try:
        yield
    finally:
        await tagger.close()


def main() -> None:
    """Serve until stopped."""
    run_service("dataset", DatasetSettings, build)


if __name__ == "__main__":
    main()
