"""The index of one replica as it lives: filled at start, fresh by a thread of its own, snapshotted now and then.

It polls the journal: one request every fifth of a second. MinIO's bucket notifications were tried (its last release,
minio-py 7): a listener heard nothing for seconds after the last write, as if the server held events back until some
thousand bytes are together; the poll is there first.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Event, Lock, Thread
from typing import Final

import structlog

from terroir.common.clock import Clock
from terroir.registry.index.fold import Index
from terroir.registry.index.following import Follower
from terroir.registry.index.rebuild import Rebuild
from terroir.registry.index.snapshots import Snapshots
from terroir.registry.index.watching import Feed
from terroir.store.errors import StoreError, StoreUnavailable
from terroir.store.interface import ObjectStore
from terroir.store.journal import Journal

_LONGEST_PAUSE_SECONDS: Final = 5.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class IndexPolicy:
    """How an index is kept."""

    poll_seconds: float
    snapshot_changes: int
    """Journal entries after which a snapshot is written."""
    snapshot_seconds: float
    """And the time after which it is, if there was any change."""
    rebuild_parallel_reads: int


class LiveIndex:
    """An index that follows its store; reads of it go on while the store can't be reached."""

    def __init__(self, store: ObjectStore, journal: Journal, clock: Clock, policy: IndexPolicy) -> None:
        """Registers itself with the journal: this process's writes are in the index once they return."""
        self.index = Index()
        self.follower = Follower(self.index, journal, store, clock, Feed())
        journal.listen(self.follower.written)
        self._journal = journal
        self._clock = clock
        self._policy = policy
        self._snapshots = Snapshots(store, clock)
        self._rebuild = Rebuild(store, journal, clock, policy.rebuild_parallel_reads)
        self._snapshot_at = 0
        self._snapshot_time = 0.0
        self._fresh_at = 0.0
        self._writing = Lock()
        self._stop = Event()
        self._thread: Thread | None = None

    def fill(self) -> None:
        """Read the newest snapshot and what came after it, or else every document. Raises StoreUnavailable."""
        began = self._clock.monotonic()
        from_snapshot = self._snapshots.load(self.index, self.follower, self._journal)
        if not from_snapshot:
            self._rebuild.fill(self.index, self.follower)
        self._snapshot_at = self.follower.place()[0] if from_snapshot else 0
        tail = self.follower.catch_up()
        self._snapshot_time = self._fresh_at = self._clock.monotonic()
        adapters, versions = self.index.counts()
        _log.info(
            "index_filled", snapshot=from_snapshot, tail=tail, adapters=adapters, versions=versions,
            seconds=round(self._clock.monotonic() - began, 3),
        )  # fmt: skip

    def start(self) -> None:
        """Follow the store from now on."""
        self._thread = Thread(target=self._follow, name="registry-index", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; returns once it has ended or, while the store hangs, after five seconds."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_LONGEST_PAUSE_SECONDS)

    def stale_seconds(self) -> float:
        """How long ago the index was last level with the store."""
        return max(0.0, self._clock.monotonic() - self._fresh_at)

    def refresh(self) -> None:
        """One pass: read on, and write a snapshot if one is due. Raises StoreUnavailable."""
        self.follower.catch_up()
        self._fresh_at = self._clock.monotonic()
        if self._snapshot_due():
            self.write_snapshot()

    def write_snapshot(self) -> None:
        """Write a snapshot now, unless another replica just did. Raises StoreUnavailable."""
        with self._writing:
            newest = self._snapshots.newest_place()
            if newest > self._snapshot_at and self.follower.place()[0] - newest < self._policy.snapshot_changes:
                self._snapshot_at = newest
            else:
                self._snapshot_at = self._snapshots.write(self.index, self.follower)
                _log.info("index_snapshot_written", journal=self._snapshot_at)
            self._snapshot_time = self._clock.monotonic()

    def _snapshot_due(self) -> bool:
        changes = self.follower.place()[0] - self._snapshot_at
        waited = self._clock.monotonic() - self._snapshot_time
        return changes >= self._policy.snapshot_changes or (changes > 0 and waited >= self._policy.snapshot_seconds)

    def _follow(self) -> None:
        pause = self._policy.poll_seconds
        while not self._stop.is_set():
            try:
                self.refresh()
            except StoreUnavailable as error:
                if pause == self._policy.poll_seconds:
                    _log.warning("index_stale", error=str(error), reason=error.reason)
                pause = min(2 * pause, max(_LONGEST_PAUSE_SECONDS, self._policy.poll_seconds))
            except StoreError as error:
                _log.error("index_store_damaged", error=str(error), reason=error.reason)
            except Exception:
                # Without this thread every read would silently grow old; the next pass may well succeed.
                _log.exception("index_pass_failed")
            else:
                if pause != self._policy.poll_seconds:
                    _log.info("index_fresh_again")
                pause = self._policy.poll_seconds
            self._stop.wait(pause)
