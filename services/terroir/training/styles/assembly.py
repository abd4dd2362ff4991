"""Joins the parts of the style service and runs the registrar beside the server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from terroir._proto.training.v1 import style_pb2_grpc
from terroir.client.datasets import Datasets
from terroir.client.regions import Regions
from terroir.client.registry import Registry
from terroir.common.clock import Clock
from terroir.common.credentials import CallerCredentials
from terroir.common.grpc_client import channel
from terroir.common.server import Server
from terroir.store.errors import StoreUnavailable
from terroir.store.foreign import ForeignBucket
from terroir.store.interface import ObjectStore
from terroir.store.opening import location_of
from terroir.store.s3 import S3Location
from terroir.training.jobs.documents import Jobs
from terroir.training.jobs.submissions import Submissions
from terroir.training.settings import TrainingSettings
from terroir.training.styles.admission import Admission
from terroir.training.styles.api import StyleDomain, StyleServicer
from terroir.training.styles.gateways import DatasetGateway, RegistryGateway
from terroir.training.styles.registrar import Registrar
from terroir.training.styles.registrations import Registrations
from terroir.training.styles.sources import ConfiguredSources
from terroir.training.styles.steps import Steps

SERVICE: Final = "terroir.training.v1.StyleService"
_END_SECONDS: Final = 10.0


@dataclass(frozen=True)
class Workshop:
    """What the training service has already."""

    store: ObjectStore
    clock: Clock
    jobs: Jobs
    submissions: Submissions
    job_added: Callable[[str], None]


@asynccontextmanager
async def style_service(settings: TrainingSettings, server: Server, shop: Workshop) -> AsyncIterator[Registrations]:
    """Add the servicer and move registrations along until the end of the block."""
    shown = CallerCredentials.of_settings(settings)
    with (
        channel(settings.dataset_target, shown, server.tracing) as dataset,
        channel(settings.registry_target, shown, server.tracing) as registry,
    ):
        datasets = DatasetGateway(Datasets(dataset))
        shelf = RegistryGateway(Registry(registry), Regions(registry))
        sources = import_sources(settings)
        registrations = Registrations(shop.store, shop.clock)
        steps = Steps(datasets, shelf, sources, shop.submissions, shop.jobs, shop.job_added, shop.clock)
        registrar = Registrar(shop.store, registrations, steps, shop.jobs, shop.clock)
        admission = Admission(registrations, shop.submissions, datasets, shelf, sources)
        domain = StyleDomain(shop.store, registrations, admission, shop.jobs, registrar.added)
        servicer = StyleServicer(domain, server.principals)
        server.add(servicer, style_pb2_grpc.add_StyleServiceServicer_to_server, SERVICE)
        thread = threading.Thread(target=registrar.run, name="registrar", daemon=True)
        thread.start()
        try:
            yield registrations
        finally:
            registrar.stop()
            await asyncio.to_thread(thread.join, _END_SECONDS)


def import_sources(settings: TrainingSettings) -> ConfiguredSources:
    """Those of the settings; buckets are reached as the store is."""

    def opened(place: str) -> ForeignBucket:
        location = location_of(settings.model_copy(update={"store": place}))
        if not isinstance(location, S3Location):
            raise StoreUnavailable(f"{place} is no bucket (write s3://bucket/prefix)", "", "STORE_URL_INVALID")
        return ForeignBucket(location)

    def scratch() -> Path:
        folder = settings.data_dir.expanduser() / "run" / "import"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    return ConfiguredSources(settings.import_sources, opened, scratch)
