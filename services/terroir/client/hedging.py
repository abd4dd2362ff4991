"""Calls that answer soon or not at all: a second one where the first is late, and the first answer of both."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, TypeVar

from terroir.client.calls import typed_errors
from terroir.client.routing import Router
from terroir.common.clock import Clock, SystemClock
from terroir.common.errors import (
    DeadlineExceeded,
    InvalidArgument,
    PermissionDenied,
    TerroirError,
    Unauthenticated,
    Unavailable,
)

LEAST_SECONDS: Final = 0.01
"""No second call before: what is faster needs none."""
_FIRST_SECONDS: Final = 0.05
"""Until enough answers were seen."""
_ENOUGH: Final = 20
_KEPT: Final = 200
REFUSALS: Final = (InvalidArgument, PermissionDenied, Unauthenticated)
"""What another replica would say as well: the caller's own mistakes."""
_LATE_IN_A_ROW: Final = 3
"""A replica that loses so many races one after the other is left out for a while."""

Answer = TypeVar("Answer")


class Pace:
    """When a second call is worth it: after about the 95th percentile of the last answers. Thread safe.

    Answers count from the first call on, whichever call brought them: else those that a second call saved would look
    fast, and ever more calls would be made twice.
    """

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=_KEPT)
        self._lock = threading.Lock()

    def learn(self, seconds: float) -> None:
        """An answer came after so long."""
        with self._lock:
            self._seconds.append(seconds)

    def hedge_after(self, timeout: float) -> float:
        """Seconds; at most half of a call's timeout, so that the second call has as much time as the first had."""
        with self._lock:
            seen = sorted(self._seconds)
        slow = seen[int(0.95 * len(seen))] if len(seen) >= _ENOUGH else _FIRST_SECONDS
        return min(max(slow, LEAST_SECONDS), timeout / 2)


class Hedged(Generic[Answer]):
    """One unary method of several replicas, or of one over two connections. Thread safe."""

    def __init__(self, router: Router, methods: Mapping[str, Any], spare: Any, clock: Clock | None = None) -> None:
        """`methods` are stubs' methods by replica, `spare` the same method of the only one over a second connection."""
        self._router = router
        self._methods = methods
        self._spare = spare
        self._clock = clock or SystemClock()
        self._late: Counter[str] = Counter()
        """Races that a replica lost since its last answer."""
        self.pace = Pace()

    def call(self, request: Any, *, key: str, timeout: float, hedge_after_seconds: float | None = None) -> Answer:
        """The first answer.

        `key` says where it is warm (see Router). Raises REFUSALS at once, DeadlineExceeded past `timeout` seconds, and
        what the last call failed with where all did.
        """
        pause = self.pace.hedge_after(timeout) if hedge_after_seconds is None else hedge_after_seconds
        with _Race(self._clock, timeout) as race:
            self._begin(race, request, key)
            while True:
                may_hedge = len(race.tried) == 1 and pause < timeout
                call = race.next_ended(pause if may_hedge else timeout)
                if call is None:
                    if not may_hedge:
                        raise DeadlineExceeded(f"no answer within {timeout:g} s")
                    self._begin(race, request, key)
                    continue
                try:
                    with typed_errors():
                        answer: Answer = call.future.result()
                except REFUSALS:
                    raise
                except TerroirError as error:
                    if isinstance(error, Unavailable):
                        self._router.failed(call.replica)
                    if len(race.tried) == 1:
                        self._begin(race, request, key)
                    elif not race.running:
                        raise
                    continue
                self.pace.learn(race.elapsed)
                self._judge(call.replica, race)
                return answer

    def _begin(self, race: _Race, request: Any, key: str) -> None:
        """One more call, elsewhere."""
        alone, again = len(self._methods) == 1, bool(race.tried)
        replica = race.enter_context(self._router.placed(key, () if alone else race.tried))
        method = self._spare if alone and again else self._methods[replica]
        race.add(replica, method.future(request, timeout=max(0.001, race.timeout - race.elapsed)))

    def _judge(self, winner: str, race: _Race) -> None:
        self._late[winner] = 0
        self._router.answered(winner)
        for call in race.running:
            if call.replica != winner:
                self._late[call.replica] += 1
                if self._late[call.replica] >= _LATE_IN_A_ROW:
                    self._router.failed(call.replica)


@dataclass(frozen=True, eq=False)
class _Call:
    replica: str
    future: Any


class _Race(ExitStack):
    """The calls of one request; what still runs in the end is cancelled."""

    def __init__(self, clock: Clock, timeout: float) -> None:
        super().__init__()
        self._clock = clock
        self._began = clock.monotonic()
        self._ended: SimpleQueue[_Call] = SimpleQueue()
        self.timeout = timeout
        self.tried: list[str] = []
        self.running: set[_Call] = set()

    @property
    def elapsed(self) -> float:
        """Seconds since its first call."""
        return self._clock.monotonic() - self._began

    def add(self, replica: str, future: Any) -> None:
        """A call has begun."""
        call = _Call(replica, future)
        self.tried.append(replica)
        self.running.add(call)
        self.callback(future.cancel)
        future.add_done_callback(lambda _future: self._ended.put(call))

    def next_ended(self, until: float) -> _Call | None:
        """The next call to end; None so many seconds after the first began."""
        try:
            call = self._ended.get(timeout=max(0.0, until - self.elapsed))
        except Empty:
            return None
        self.running.discard(call)
        return call
