"""Training jobs from a program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import grpc

from terroir._proto.training.v1 import training_pb2 as pb
from terroir._proto.training.v1 import training_pb2_grpc
from terroir._proto.training.v1.config_pb2 import TrainConfig
from terroir.client.calls import UNARY_SECONDS, new_request_id, typed_errors, typed_stream

ENDED = (pb.JOB_STATE_SUCCEEDED, pb.JOB_STATE_FAILED, pb.JOB_STATE_CANCELLED)


class Training:
    """Calls of TrainingService."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = training_pb2_grpc.TrainingServiceStub(channel)

    def validate(self, config_yaml: str = "", config: TrainConfig | None = None) -> pb.ValidateConfigResponse:
        """Check a configuration without starting anything; fields of `config` overrule keys of the YAML."""
        request = pb.ValidateConfigRequest(config_yaml=config_yaml, config=config)
        with typed_errors():
            return self._stub.ValidateConfig(request, timeout=UNARY_SECONDS)

    def create(
        self, adapter: str, config_yaml: str = "", request_id: str | None = None, *, config: TrainConfig | None = None
    ) -> pb.Job:
        """Queue a job that publishes to `adapters/{id}`; the same `request_id` returns the same job.

        Fields of `config` overrule keys of the YAML; either may be left out.
        """
        request = pb.CreateJobRequest(
            config_yaml=config_yaml, adapter=adapter, request_id=request_id or new_request_id(), config=config
        )
        with typed_errors():
            return self._stub.CreateJob(request, timeout=UNARY_SECONDS)

    def get(self, name: str) -> pb.Job:
        """One job, by `jobs/{id}`."""
        with typed_errors():
            return self._stub.GetJob(pb.GetJobRequest(name=name), timeout=UNARY_SECONDS)

    def list(self) -> Iterator[pb.Job]:
        """All jobs, newest first."""
        token = ""
        while True:
            with typed_errors():
                page = self._stub.ListJobs(pb.ListJobsRequest(page_token=token), timeout=UNARY_SECONDS)
            yield from page.jobs
            if not (token := page.next_page_token):
                return

    def cancel(self, name: str) -> pb.Job:
        """Ask a job to stop at its next step."""
        with typed_errors():
            return self._stub.CancelJob(pb.CancelJobRequest(name=name), timeout=UNARY_SECONDS)

    def watch(self, name: str) -> Iterator[pb.Job]:
        """The job at every change, until it has ended."""
        for answer in typed_stream(self._stub.WatchJob(pb.WatchJobRequest(name=name))):
            yield answer.job

    def logs(self, name: str, attempt: int = 0, *, follow: bool = False) -> Iterator[str]:
        """Log lines of one attempt (0: the newest)."""
        request = pb.TailJobLogsRequest(name=name, attempt=attempt, follow=follow)
        for answer in typed_stream(self._stub.TailJobLogs(request)):
            yield from answer.lines

    def queue(self, max_waiting: int = 100) -> pb.Queue:
        """What runs, and the first of what waits with why."""
        with typed_errors():
            return self._stub.GetQueue(pb.GetQueueRequest(max_waiting=max_waiting), timeout=UNARY_SECONDS)

    def verdict(self, name: str) -> pb.JobVerdict:
        """What the judgement of a job found, with what its pictures are closest to."""
        with typed_errors():
            return self._stub.GetJobVerdict(pb.GetJobVerdictRequest(name=name), timeout=UNARY_SECONDS)

    def report(self, name: str) -> bytes:
        """The report of a job, an HTML file."""
        request = pb.DownloadJobReportRequest(name=name)
        return b"".join(part.chunk for part in typed_stream(self._stub.DownloadJobReport(request)))

    def checkpoints(self, job: str) -> Sequence[pb.Checkpoint]:
        """Checkpoints of a job, newest first."""
        with typed_errors():
            answer = self._stub.ListCheckpoints(pb.ListCheckpointsRequest(job=job), timeout=UNARY_SECONDS)
        return list(answer.checkpoints)
