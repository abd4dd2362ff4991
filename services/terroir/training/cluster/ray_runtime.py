"""The Ray that jobs go to: a cluster that an operator named, or a local one that starts with the first job."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from terroir.common.tracing import current_traceparent, following
from terroir.training.attempt.order import DriverOrder
from terroir.training.cluster.ray_head import LocalRay
from terroir.training.cluster.ray_jobs import RayEndpoint, RayJobs, Submission
from terroir.training.jobs.attempts import Attempt
from terroir.training.scheduling.model import Node

if TYPE_CHECKING:
    from terroir.common.otel import Tracing


class RayRuntime(Protocol):
    """What the queue needs of Ray. Calls block; all raise RayUnavailable."""

    def session(self) -> str:
        """The Ray that `submit` would use; a local one is started."""
        ...

    def submit(self, order: DriverOrder) -> None:
        """Start an attempt's driver; harmless if it was started before."""
        ...

    def look(self, attempt: Attempt) -> Submission | None:
        """What became of an attempt's driver; None if its Ray is gone or does not know it. Starts nothing."""
        ...

    def stop_submission(self, attempt: Attempt) -> None:
        """End an attempt's driver and worker."""
        ...

    def nodes(self) -> tuple[Node, ...]:
        """Nodes that are up; none while a local Ray has not started. Starts nothing."""
        ...

    def close(self) -> None:
        """End a local Ray; a cluster is left alone."""
        ...


class ClusterRay:
    """A cluster reached through the Jobs API of its dashboard."""

    def __init__(self, url: str, token: str, python: str) -> None:
        self._jobs = RayJobs(RayEndpoint(url.rstrip("/"), token, session=url.rstrip("/")))
        self._python = python or "python"

    def session(self) -> str:
        """See RayRuntime."""
        return self._jobs.endpoint.session

    def submit(self, order: DriverOrder) -> None:
        """See RayRuntime."""
        self._jobs.submit(order.submission_id, entrypoint(self._python, order), {})

    def look(self, attempt: Attempt) -> Submission | None:
        """See RayRuntime."""
        return self._jobs.submission(attempt.submission_id)

    def stop_submission(self, attempt: Attempt) -> None:
        """See RayRuntime."""
        self._jobs.stop(attempt.submission_id)

    def nodes(self) -> tuple[Node, ...]:
        """See RayRuntime."""
        return self._jobs.nodes()

    def close(self) -> None:
        """Nothing is ours to end."""


class LocalRayRuntime:
    """A Ray of this machine alone."""

    def __init__(self, local: LocalRay, python: str) -> None:
        self._local = local
        self._python = python or sys.executable

    def session(self) -> str:
        """See RayRuntime."""
        return self._local.ensure().session

    def submit(self, order: DriverOrder) -> None:
        """See RayRuntime."""
        RayJobs(self._local.ensure()).submit(order.submission_id, entrypoint(self._python, order), {})

    def look(self, attempt: Attempt) -> Submission | None:
        """See RayRuntime."""
        endpoint = self._local.running()
        if endpoint is None or endpoint.session != attempt.ray_session:
            return None
        return RayJobs(endpoint).submission(attempt.submission_id)

    def stop_submission(self, attempt: Attempt) -> None:
        """See RayRuntime."""
        if endpoint := self._local.running():
            RayJobs(endpoint).stop(attempt.submission_id)

    def nodes(self) -> tuple[Node, ...]:
        """See RayRuntime."""
        endpoint = self._local.running()
        return RayJobs(endpoint).nodes() if endpoint else ()

    def close(self) -> None:
        """See RayRuntime."""
        self._local.stop()


class TracedRay:
    """Another one whose submissions are spans in the traces of their jobs; drivers go on from there."""

    def __init__(self, ray: RayRuntime, tracing: Tracing) -> None:
        self._ray, self._tracing = ray, tracing
        self.session, self.look, self.close = ray.session, ray.look, ray.close
        self.stop_submission, self.nodes = ray.stop_submission, ray.nodes

    def submit(self, order: DriverOrder) -> None:
        """See RayRuntime."""
        job, attempt, trace = f"jobs/{order.job_id}", order.attempt, order.traceparent
        with following(self._tracing, trace, "dispatch attempt", "producer", job=job, attempt=attempt):
            self._ray.submit(replace(order, traceparent=current_traceparent()))


def entrypoint(python: str, order: DriverOrder) -> str:
    """The shell command of a driver."""
    return shlex.join([python, "-m", "terroir.training.attempt.driver", order.to_json()])
