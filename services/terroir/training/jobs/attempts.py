"""Attempts at a job: the one that Ray has, and those that are over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

_SHOWN: Final = 500
"""Characters of a reason that are kept."""


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """By an error of the run itself: it would fail again."""
    CANCELLED = "cancelled"
    LOST = "lost"
    """Its worker, its node, the store or a service failed; the only one that counts against `max_retries`."""
    RAY_GONE = "ray_gone"
    """Its whole Ray is gone."""
    PREEMPTED = "preempted"
    """It made room for a more urgent job."""


@dataclass(frozen=True)
class Attempt:
    """One try at a job on Ray."""

    number: int
    submission_id: str
    ray_session: str
    """Which Ray it was given to; an attempt that vanished with its Ray is not held against the job."""
    worker_pid: int = 0
    node_id: str = ""
    since: str = ""
    """When it was given to Ray, RFC 3339; empty: before this was kept."""
    started: str = ""
    """When its worker began; empty: not yet."""


@dataclass(frozen=True)
class PastAttempt:
    """An attempt that is over."""

    number: int
    node_id: str
    since: str
    """When it was given to Ray."""
    started: str
    """When its worker began; empty: never."""
    ended: str
    outcome: Outcome
    why: str
    """In words."""

    @classmethod
    def of(cls, attempt: Attempt, ended: str, outcome: Outcome, why: str) -> Self:
        """An attempt that has just ended."""
        return cls(attempt.number, attempt.node_id, attempt.since, attempt.started, ended, outcome, why[:_SHOWN])

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> Self:
        """From a job's document."""
        return cls(**{**body, "outcome": Outcome(body["outcome"])})
