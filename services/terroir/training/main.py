"""Entry point of the training service: `python -m terroir.training.main`."""

from __future__ import annotations

import asyncio
import threading
from argparse import ArgumentParser
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from terroir._proto.training.v1 import training_pb2_grpc
from terroir.common.clock import SystemClock
from terroir.common.credentials import CallerCredentials
from terroir.common.server import Server
from terroir.common.service import run_service
from terroir.store.opening import open_for_writing
from terroir.training.api import Domain, TrainingServicer
from terroir.training.attempt.order import DriverOrder
from terroir.training.cluster.ray_head import LocalRay
from terroir.training.cluster.ray_runtime import ClusterRay, LocalRayRuntime, RayRuntime, TracedRay
from terroir.training.jobs.admission import QueueAdmission
from terroir.training.jobs.attempts import Attempt
from terroir.training.jobs.documents import PREFIX, Job, Jobs
from terroir.training.jobs.queue import Queue
from terroir.training.jobs.queue_plan import QueueLimits, avoided
from terroir.training.jobs.submissions import Submissions
from terroir.training.metrics import TrainingMetrics
from terroir.training.rating.assembly import add_rating_service
from terroir.training.rating.sheets import Sheets
from terroir.training.scheduling.model import Capacity, Demand, Quota, Quotas, Rules
from terroir.training.settings import TeamQuota, TrainingSettings
from terroir.training.styles.assembly import Workshop, style_service
from terroir.training.styles.registrations import STYLES, Registrations
from terroir.training.upstream import DatasetService, RegistryService

SERVICE: Final = "terroir.training.v1.TrainingService"


def ray_runtime(settings: TrainingSettings) -> RayRuntime:
    """The Ray that the settings name; nothing starts yet."""
    if settings.ray_dashboard_url:
        token = settings.ray_auth_token.get_secret_value()
        return ClusterRay(settings.ray_dashboard_url, token, settings.driver_python)
    local = LocalRay(
        settings.data_dir,
        cpus=settings.max_running_jobs * settings.cpus_per_job,
        object_store_bytes=settings.object_store_bytes,
        start_seconds=settings.local_ray_start_seconds,
    )
    return LocalRayRuntime(local, settings.driver_python)


def driver_order(settings: TrainingSettings, job: Job, attempt: Attempt) -> DriverOrder:
    """What the driver of an attempt is told."""
    return DriverOrder(
        job_id=job.id,
        attempt=attempt.number,
        submission_id=attempt.submission_id,
        data_dir=str(settings.data_dir.resolve()),
        store=settings.store,
        store_endpoint=settings.store_endpoint,
        store_region=settings.store_region,
        dataset_target=settings.dataset_target,
        registry_target=settings.registry_target,
        base_sources={base: str(folder.resolve()) for base, folder in settings.base_sources.items()},
        cpus=settings.cpus_per_job,
        gpus=settings.gpus_per_job if job.wish.gpus is None else job.wish.gpus,
        avoid_nodes=avoided(job),
        otlp_endpoint=settings.otlp_endpoint,
        traceparent=job.traceparent,
        judge_model=settings.judge_model,
    )


def queue_limits(settings: TrainingSettings) -> QueueLimits:
    """What the settings allow."""

    def quota(told: TeamQuota) -> Quota:
        return Quota(told.gpus, told.jobs, told.weight)

    return QueueLimits(
        capacity=Capacity(settings.max_running_jobs, max_gpus=settings.max_gpus),
        grows=settings.cluster_grows,
        quotas=Quotas(
            {team: quota(told) for team, told in settings.team_quotas.items()}, quota(settings.default_quota)
        ),
        rules=Rules(settings.aging_seconds, settings.reserve_after_seconds, settings.min_run_seconds),
        demand=Demand(cpus=settings.cpus_per_job, gpus=settings.gpus_per_job),
        half_life_seconds=settings.usage_half_life_seconds,
        max_retries=settings.max_retries,
        retry_backoff_seconds=settings.retry_backoff_seconds,
        retry_backoff_limit_seconds=settings.retry_backoff_limit_seconds,
        make_room_seconds=settings.make_room_seconds,
    )


@asynccontextmanager
async def build(settings: TrainingSettings, server: Server) -> AsyncIterator[None]:
    """Add the servicer and run the queue beside it; a local Ray ends with the service."""
    store, clock = open_for_writing(settings), SystemClock()
    jobs, ray = Jobs(store, clock), ray_runtime(settings)
    if server.tracing is not None:
        ray = TracedRay(ray, server.tracing)
    limits = queue_limits(settings)
    queue = Queue(jobs, ray, lambda job, attempt: driver_order(settings, job, attempt), limits, clock)
    shown = CallerCredentials.of_settings(settings)
    datasets, registry = (
        DatasetService(settings.dataset_target, shown, server.tracing),
        RegistryService(settings.registry_target, shown, server.tracing),
    )
    submissions = Submissions(
        jobs,
        datasets,
        registry,
        settings.base_sources.keys(),
        QueueAdmission(limits, settings.team_members, settings.high_priority_members),
        settings.judge_model,
    )
    domain = Domain(store, clock, jobs, submissions, TrainingMetrics(server.registry), queue)
    registrations = Registrations(store, clock)
    sheets = add_rating_service(server, store, clock, jobs, datasets, registry, queue.added)
    server.scope_regions(lambda name: _region_of(name, jobs, registrations, sheets, registry))
    server.add(
        TrainingServicer(domain, server.principals), training_pb2_grpc.add_TrainingServiceServicer_to_server, SERVICE
    )
    thread = threading.Thread(target=queue.run, name="queue", daemon=True)
    thread.start()
    try:
        async with style_service(settings, server, Workshop(store, clock, jobs, submissions, queue.added)):
            yield
    finally:
        queue.stop()
        await asyncio.to_thread(ray.close)
        await asyncio.to_thread(thread.join, 30)
        await asyncio.to_thread(ray.close)  # the queue may have been about to start one
        datasets.close()
        registry.close()


def _region_of(name: str, jobs: Jobs, registrations: Registrations, sheets: Sheets, registry: RegistryService) -> str:
    """Of an adapter, of the one that a job makes, of a style that is registered, or of what is rated."""
    if name.startswith("ratingSheets/"):
        name = sheets.get(name.split("/")[1]).subject
    if name.startswith(f"{STYLES}/"):
        return registrations.newest(name.split("/")[1]).wish.region
    if name.startswith(f"{PREFIX}/"):
        name = f"adapters/{jobs.get(name.removeprefix(f'{PREFIX}/')).adapter}"
    return registry.region_of(name)


def main(argv: Sequence[str] | None = None) -> None:
    """Run until told to stop; configured by TERROIR_TRAINING_… alone, so arguments are refused."""
    ArgumentParser(
        prog="terroir.training", description="Training service; set TERROIR_TRAINING_… variables."
    ).parse_args(argv)
    run_service("training", TrainingSettings, build)


if __name__ == "__main__":
    main()
