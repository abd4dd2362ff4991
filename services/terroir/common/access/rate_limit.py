"""Rate limits: a token bucket a principal, in this replica's memory."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from terroir.common.clock import Clock
from terroir.common.errors import ResourceExhausted

_PRINCIPALS: Final = 10_000
"""Remembered at once; the one that has called least recently is forgotten first, and begins with a full bucket."""


@dataclass
class _Bucket:
    tokens: float
    at: float


class RateLimit:
    """At most `calls_per_second` on average for each principal, `burst_calls` at once; no limit at 0."""

    def __init__(self, calls_per_second: float, burst_calls: int, clock: Clock) -> None:
        self._rate = calls_per_second
        self._burst = float(max(1, burst_calls))
        self._clock = clock
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def spend(self, principal: str) -> None:
        """Take one call; raises ResourceExhausted (RATE_LIMITED) that says when the next is allowed."""
        if not self._rate:
            return
        now = self._clock.monotonic()
        bucket = self._buckets.pop(principal, None) or _Bucket(self._burst, now)
        self._buckets[principal] = bucket
        if len(self._buckets) > _PRINCIPALS:
            self._buckets.popitem(last=False)
        bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.at) * self._rate)
        bucket.at = now
        if bucket.tokens < 1:
            wait = (1 - bucket.tokens) / self._rate
            raise ResourceExhausted(
                f"{principal} calls more often than {self._rate:g} times a second; try again in {wait:.2f} s",
                reason="RATE_LIMITED",
                metadata={"principal": principal},
                retry_after_seconds=wait,
            )
        bucket.tokens -= 1
