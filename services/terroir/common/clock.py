"""Time as a dependency, so that tests state it instead of waiting for it."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """What the product may ask about time."""

    def now(self) -> datetime:
        """Wall-clock time, always with the UTC time zone."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go backwards; only differences have a meaning."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """See Clock."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """See Clock."""
        return time.monotonic()


class FixedClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        if start.tzinfo is None:
            raise ValueError(f"start {start.isoformat()} has no time zone (pass tzinfo=UTC)")
        self._now = start.astimezone(UTC)
        self._monotonic = 0.0

    def now(self) -> datetime:
        """See Clock."""
        return self._now

    def monotonic(self) -> float:
        """See Clock."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Move both readings forward by `seconds`."""
        if seconds < 0:
            raise ValueError(f"a clock can't go back by {-seconds} seconds (pass seconds >= 0)")
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds
