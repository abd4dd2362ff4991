"""The feed of changes: what the index folds, told to whoever watches, in the order in which it was folded.

A watcher hears of every change at least once, also across reconnects to other replicas; right after a reconnect it may
hear of some twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Final

from terroir.registry.errors import WatchersExhausted, WatcherTooSlow
from terroir.registry.index.changes import Change
from terroir.registry.index.watch_token import WatchPosition

MAX_BUFFERED: Final = 10_000
"""Changes that wait for one slow watcher; about 2 MB."""
MAX_WATCHERS: Final = 1_000


@dataclass(frozen=True)
class WatchEvent:
    """A change, and where to go on after it."""

    change: Change
    position: WatchPosition


class Subscription:
    """One watcher's buffer; safe for threads."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._lock = Lock()
        self._events: deque[WatchEvent] = deque()
        self._overflown = False

    def put(self, event: WatchEvent) -> None:
        """Add an event, or give the watcher up if it has not taken the last 10,000."""
        with self._lock:
            if self._overflown or len(self._events) >= MAX_BUFFERED:
                self._overflown = True  # for good: what came behind the gap would carry tokens that are past it
            else:
                self._events.append(event)
        self._wake()

    def take(self) -> list[WatchEvent]:
        """All events since the last call; raises WatcherTooSlow once those in front of a gap were taken."""
        with self._lock:
            events, self._events = list(self._events), deque()
            if self._overflown and not events:
                raise WatcherTooSlow(
                    f"the watcher did not take {MAX_BUFFERED} changes in time; watch again with the resume_token of "
                    "the last response, which misses nothing",
                    metadata={"buffered": str(MAX_BUFFERED)},
                    retry_after_seconds=1.0,
                )
            return events


class Feed:
    """Passes changes on to all subscriptions; safe for threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._subscriptions: set[Subscription] = set()

    @property
    def watchers(self) -> int:
        """How many are subscribed."""
        return len(self._subscriptions)

    def subscribe(self, wake: Callable[[], None]) -> Subscription:
        """A new buffer; `wake` is called from any thread after something was put into it. Raises WatchersExhausted."""
        with self._lock:
            if len(self._subscriptions) >= MAX_WATCHERS:
                raise WatchersExhausted(
                    f"{MAX_WATCHERS} watchers are connected to this replica, its limit; connect to another or later",
                    retry_after_seconds=5.0,
                )
            subscription = Subscription(wake)
            self._subscriptions.add(subscription)
            return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """Drop a buffer."""
        with self._lock:
            self._subscriptions.discard(subscription)

    def emit(self, event: WatchEvent) -> None:
        """Tell everybody."""
        with self._lock:
            subscriptions = list(self._subscriptions)
        for subscription in subscriptions:
            subscription.put(event)
