"""Joins the parts of the rating service."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from terroir._proto.training.v1 import rating_pb2_grpc
from terroir.common.clock import Clock
from terroir.common.server import Server
from terroir.store.interface import ObjectStore
from terroir.training.jobs.documents import Jobs
from terroir.training.rating.api import RatingDomain, RatingServicer
from terroir.training.rating.keeping import KeptDrawings
from terroir.training.rating.making import Datasets, Origins, SheetMaking
from terroir.training.rating.sheets import Sheets

SERVICE: Final = "terroir.training.v1.RatingService"


def add_rating_service(
    server: Server,
    store: ObjectStore,
    clock: Clock,
    jobs: Jobs,
    datasets: Datasets,
    origins: Origins,
    job_changed: Callable[[str], None],
) -> Sheets:
    """Add the servicer; what it keeps is handed back."""
    sheets = Sheets(store, clock)
    making = SheetMaking(sheets, jobs, datasets, origins, KeptDrawings(store))
    servicer = RatingServicer(RatingDomain(sheets, making, jobs, job_changed), server.principals)
    server.add(servicer, rating_pb2_grpc.add_RatingServiceServicer_to_server, SERVICE)
    return sheets
