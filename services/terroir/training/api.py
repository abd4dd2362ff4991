"""TrainingService over the domain: parse, call, map."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import grpc

from terroir._proto.training.v1 import training_pb2 as pb
from terroir._proto.training.v1 import training_pb2_grpc
from terroir.common.clock import Clock
from terroir.common.principal import PrincipalSource
from terroir.common.validation import ensure_name, ensure_range, page
from terroir.store.interface import ObjectStore
from terroir.training.artifacts.checkpoints import Checkpoints
from terroir.training.attempt.files import LogReader, read_progress
from terroir.training.config.messages import given_keys, to_message
from terroir.training.config.parser import dump_config
from terroir.training.errors import AttemptNotFound
from terroir.training.jobs.documents import Job, Jobs, attempt_prefix
from terroir.training.jobs.queue import Queue
from terroir.training.jobs.queue_messages import queue_message
from terroir.training.jobs.submissions import Submissions
from terroir.training.judging.errors import NotJudged
from terroir.training.judging.judgement import Judgement
from terroir.training.judging.kept import KeptJudgements
from terroir.training.messages import checkpoint_message, config_message, job_message, verdict_message
from terroir.training.metrics import TrainingMetrics
from terroir.training.report.gathering import job_report

_CHUNK_BYTES: Final = 512 * 1024
_POLL_SECONDS: Final = 0.3
_WAITING: Final = 100
_MOST_WAITING: Final = 1000
_Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class Domain:
    """What the methods call."""

    store: ObjectStore
    clock: Clock
    jobs: Jobs
    submissions: Submissions
    metrics: TrainingMetrics
    queue: Queue


class TrainingServicer(training_pb2_grpc.TrainingServiceServicer):
    """Every method of the contract; what blocks runs in threads."""

    def __init__(self, domain: Domain, principals: PrincipalSource) -> None:
        self._domain = domain
        domain.metrics.watch(domain.jobs.census)
        domain.metrics.store.watch(domain.store)
        self._principals = principals

    async def ValidateConfig(self, request: pb.ValidateConfigRequest, _: _Context) -> pb.ValidateConfigResponse:
        """Check a configuration and fill in its defaults."""
        parsed = self._domain.submissions.validate(request.config_yaml, given_keys(request.config))
        return pb.ValidateConfigResponse(
            config_yaml=dump_config(parsed.config), warnings=parsed.warnings, config=to_message(parsed.config)
        )

    async def CreateJob(self, request: pb.CreateJobRequest, context: _Context) -> pb.Job:
        """Queue a job."""
        principal = self._principals.of(context)
        over = given_keys(request.config)
        job = await asyncio.to_thread(
            self._domain.submissions.create, request.config_yaml, request.adapter, request.request_id, principal,
            over=over,
        )  # fmt: skip
        self._domain.metrics.created()
        self._domain.queue.added(job.id)
        return await self._message(job)

    async def GetJob(self, request: pb.GetJobRequest, _: _Context) -> pb.Job:
        """One job."""
        return await self._message(await self._job(request.name))

    async def ListJobs(self, request: pb.ListJobsRequest, _: _Context) -> pb.ListJobsResponse:
        """A page of jobs, newest first."""
        wanted = page(request.page_size, request.page_token, default=50, limit=200)
        jobs = await asyncio.to_thread(self._newest_first)
        keys = [_key(job) for job in jobs]
        start = next((i for i, key in enumerate(keys) if wanted.after is None or key < wanted.after), len(keys))
        end = start + wanted.size
        token = wanted.next_token(keys[end - 1]) if end < len(jobs) else ""
        return pb.ListJobsResponse(
            jobs=[await self._message(job, brief=True) for job in jobs[start:end]], next_page_token=token
        )

    async def CancelJob(self, request: pb.CancelJobRequest, _: _Context) -> pb.Job:
        """Ask a job to stop."""
        job = await self._job(request.name)
        job = await asyncio.to_thread(self._domain.jobs.request_cancel, job.id)
        self._domain.queue.added(job.id)
        return await self._message(job)

    async def WatchJob(self, request: pb.WatchJobRequest, _: _Context) -> AsyncIterator[pb.WatchJobResponse]:
        """The job at every change until it has ended."""
        last = None
        while True:
            job = await self._job(request.name)
            message = await self._message(job)
            if message != last:
                yield pb.WatchJobResponse(job=message)
            if job.ended:
                return
            last = message
            await asyncio.sleep(_POLL_SECONDS)

    async def TailJobLogs(self, request: pb.TailJobLogsRequest, _: _Context) -> AsyncIterator[pb.TailJobLogsResponse]:
        """Lines of an attempt from its beginning."""
        job = await self._job(request.name)
        number = await self._attempt(request, job)
        reader = LogReader(self._domain.store, attempt_prefix(job.id, number))
        while number:
            job = await self._job(request.name)  # before reading, so that the last lines are read after the end
            for lines in await asyncio.to_thread(lambda: list(reader.new_pieces())):
                yield pb.TailJobLogsResponse(lines=lines)
            if not request.follow or job.ended or (job.attempt is not None and job.attempt.number > number):
                return
            await asyncio.sleep(_POLL_SECONDS)

    async def GetQueue(self, request: pb.GetQueueRequest, _: _Context) -> pb.Queue:
        """What runs, what waits and why."""
        ensure_range(request.max_waiting, "max_waiting", 0, _MOST_WAITING)
        return queue_message(self._domain.queue.standing, request.max_waiting or _WAITING)

    async def GetJobVerdict(self, request: pb.GetJobVerdictRequest, _: _Context) -> pb.JobVerdict:
        """The judgement of a job, with evidence."""
        job = await self._job(request.name)
        judgement = await asyncio.to_thread(KeptJudgements(self._domain.store, job.name, self._domain.clock).newest)
        return verdict_message(judgement, evidence=True)

    async def DownloadJobReport(
        self, request: pb.DownloadJobReportRequest, _: _Context
    ) -> AsyncIterator[pb.DownloadJobReportResponse]:
        """The report of a job, made now."""
        job = await self._job(request.name)
        page = await asyncio.to_thread(job_report, self._domain.store, job, self._domain.clock)
        for start in range(0, len(page), _CHUNK_BYTES):
            yield pb.DownloadJobReportResponse(chunk=page[start : start + _CHUNK_BYTES])

    async def ListCheckpoints(self, request: pb.ListCheckpointsRequest, _: _Context) -> pb.ListCheckpointsResponse:
        """Checkpoints of a job, newest first."""
        job = await self._job(request.job, field="job")
        checkpoints = Checkpoints(self._domain.store, job.name, self._domain.clock)
        saved = await asyncio.to_thread(checkpoints.listed)
        return pb.ListCheckpointsResponse(checkpoints=[checkpoint_message(job, one) for one in saved])

    async def _job(self, name: str, field: str = "name") -> Job:
        job_id = ensure_name(name, field, "jobs/{job}")["job"]
        return await asyncio.to_thread(self._domain.jobs.get, job_id)

    async def _message(self, job: Job, *, brief: bool = False) -> pb.Job:
        progress = None
        if job.attempt is not None:
            prefix = attempt_prefix(job.id, job.attempt.number)
            progress = await asyncio.to_thread(read_progress, self._domain.store, prefix)
        judgement = None if brief else await asyncio.to_thread(self._judgement, job)
        message = job_message(job, progress, self._domain.queue.standing.waits.get(job.id), judgement)
        if not brief and (config := config_message(job.config_yaml)) is not None:
            message.config.CopyFrom(config)
        return message

    async def _attempt(self, request: pb.TailJobLogsRequest, job: Job) -> int:
        """The attempt to read; waits for the first one if the caller follows; 0 if the job ended without any."""
        ensure_range(request.attempt, "attempt", 0, 1_000_000)
        while job.attempt is None and request.follow and not job.ended:
            await asyncio.sleep(_POLL_SECONDS)
            job = await self._job(request.name)
        newest = job.attempt.number if job.attempt else 0
        if request.attempt > newest:
            raise AttemptNotFound(f"{job.name} has {newest} attempts, not {request.attempt} (0 means the newest)")
        return request.attempt or newest

    def _judgement(self, job: Job) -> Judgement | None:
        """None before there is one; only ended jobs are asked, as whoever watches asks several times a second."""
        try:
            return KeptJudgements(self._domain.store, job.name, self._domain.clock).newest() if job.ended else None
        except NotJudged:
            return None

    def _newest_first(self) -> list[Job]:
        self._domain.queue.view.refresh()
        return self._domain.queue.view.all()[::-1]


def _key(job: Job) -> str:
    return f"{job.created_at}/{job.id}"
