"""Ray's Jobs REST API, without importing Ray: the service stays small and starts at once."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from terroir.training.errors import RayUnavailable
from terroir.training.scheduling.model import Node

_SECONDS: Final = 30.0
_MOST_NODES: Final = 10_000


class SubmissionStatus(StrEnum):
    """What Ray says of a submission."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


@dataclass(frozen=True)
class Submission:
    """One submission as Ray sees it."""

    status: SubmissionStatus
    message: str

    @property
    def alive(self) -> bool:
        """Whether its driver runs or will run."""
        return self.status in (SubmissionStatus.PENDING, SubmissionStatus.RUNNING)


@dataclass(frozen=True)
class RayEndpoint:
    """Where Ray listens."""

    url: str
    """Of the dashboard, `http://host:port`."""
    token: str = field(repr=False)
    session: str
    """Names this Ray; a Ray that was started anew has another."""


class RayJobs:
    """Submits drivers and looks after them."""

    def __init__(self, endpoint: RayEndpoint) -> None:
        self.endpoint = endpoint
        # A proxy set for the internet must not see calls to the cluster.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def alive(self) -> bool:
        """Whether Ray answers."""
        try:
            self._call("GET", "/api/version", timeout=2.0)
        except (RayUnavailable, urllib.error.HTTPError):
            return False
        return True

    def submit(self, submission_id: str, entrypoint: str, environment: Mapping[str, str]) -> None:
        """Start a driver; harmless if it was submitted before. Raises RayUnavailable."""
        body = {
            "submission_id": submission_id,
            "entrypoint": entrypoint,
            "runtime_env": {"env_vars": dict(environment)},
        }
        try:
            self._call("POST", "/api/jobs/", body)
        except urllib.error.HTTPError as error:
            text = error.read().decode("utf-8", "replace")
            if self.submission(submission_id) is None:
                raise RayUnavailable(
                    f"Ray refused {submission_id} (HTTP {error.code}): {text.strip().splitlines()[-1:] or text}",
                    reason="RAY_REFUSED",
                ) from error

    def submission(self, submission_id: str) -> Submission | None:
        """What became of a submission; None if this Ray does not know it. Raises RayUnavailable."""
        try:
            answer = self._call("GET", f"/api/jobs/{submission_id}")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise RayUnavailable(f"Ray answers {error.code} at {self.endpoint.url}") from error
        return Submission(SubmissionStatus(answer["status"]), answer.get("message") or "")

    def stop(self, submission_id: str) -> None:
        """End a submission; harmless if it has ended."""
        try:
            self._call("POST", f"/api/jobs/{submission_id}/stop")
        except urllib.error.HTTPError as error:
            if error.code not in (400, 404):
                raise RayUnavailable(f"Ray answers {error.code} at {self.endpoint.url}") from error

    def nodes(self) -> tuple[Node, ...]:
        """Nodes that are up, with what Ray may give of each. Raises RayUnavailable."""
        try:
            answer = self._call("GET", f"/api/v0/nodes?limit={_MOST_NODES}")
        except urllib.error.HTTPError as error:
            raise RayUnavailable(f"Ray answers {error.code} at {self.endpoint.url}") from error
        return tuple(
            Node(told["node_id"], float(given.get("CPU", 0.0)), int(given.get("GPU", 0)))
            for told in answer["data"]["result"]["result"]
            if told["state"] == "ALIVE"
            for given in [told.get("resources_total") or {}]
        )

    def _call(self, method: str, path: str, body: Any = None, timeout: float = _SECONDS) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self.endpoint.url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        if self.endpoint.token:
            request.add_header("Authorization", f"Bearer {self.endpoint.token}")
        try:
            with self._opener.open(request, timeout=timeout) as response:
                answer: dict[str, Any] = json.load(response)
        except urllib.error.HTTPError:
            raise
        except (OSError, ValueError) as error:
            raise RayUnavailable(f"no answer from Ray at {self.endpoint.url} ({error}); it is asked again") from error
        return answer
