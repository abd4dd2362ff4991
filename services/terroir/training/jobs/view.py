"""All jobs in memory, kept fresh by the journal: a queue of a thousand jobs costs one read when nothing has changed.

Nothing in here is authoritative. What decides over a job reads its documents, and every write finds its head itself.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from threading import Lock, RLock
from typing import Final

import structlog

from terroir.common.clock import Clock
from terroir.store.documents import Document
from terroir.store.errors import CorruptObject, NotFound
from terroir.store.journal import Hint
from terroir.training.jobs.documents import PREFIX, Job, Jobs, job_of

_READERS: Final = 16
"""Threads that read all jobs at the start."""
_REHEARD: Final = 64
"""Entries of the journal before the newest one that a start hears again: their writes may still have been under way."""
_AWAY: Final = timedelta(hours=6)
"""After so long without a look what was announced meanwhile may be trimmed: every job is read again."""
_FIRST_LOOKS_SECONDS: Final = 5.0
_PAUSE_SECONDS: Final = 30.0
_PENDING_SECONDS: Final = 3600.0
"""No write comes an hour after its hint."""
_REMEMBERED: Final = 8_192
_SWEEP_SECONDS: Final = 30.0
_SWEPT: Final = 8
"""Jobs that each refresh looks at without having heard of them: older drivers and replicas announce nothing."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Known:
    number: int
    """Of the document."""
    job: Job


@dataclass
class _Pending:
    """A hint whose write was not seen yet."""

    heard: float
    looked: float


class JobsView:
    """Safe for threads; `refresh` asks the store, everything else answers from memory."""

    def __init__(self, jobs: Jobs, clock: Clock) -> None:
        self._jobs = jobs
        self._clock = clock
        self._reading = Lock()
        self._folding = RLock()
        self._known: dict[str, _Known] = {}
        self._open: set[str] = set()
        self._position: int | None = None
        """Number of the journal's entry up to which everything was heard; None: nothing was read yet."""
        self._level = clock.now()
        """When everything was last heard."""
        self._pending: dict[Hint, _Pending] = {}
        self._seen: OrderedDict[Hint, None] = OrderedDict()
        self._swept = float("-inf")
        self._sweep: list[str] = []
        jobs.journal.listen(self._written)

    def refresh(self) -> None:
        """Read what is new; the first call, and one after hours without any, reads every job.

        Raises StoreUnavailable: what is known stays.
        """
        with self._reading:
            now = self._clock.now()
            if self._position is None or now - self._level > _AWAY:
                self._load()
            self._hear()
            self._level = now
            self._look_again()
            self._look_unasked()

    def all(self) -> list[Job]:
        """Every job, oldest first."""
        with self._folding:
            return sorted((known.job for known in self._known.values()), key=_age)

    def open(self) -> list[Job]:
        """Jobs that have not ended, oldest first."""
        with self._folding:
            return sorted((self._known[job_id].job for job_id in self._open), key=_age)

    def get(self, job_id: str) -> Job | None:
        """One job as it was seen last."""
        with self._folding:
            known = self._known.get(job_id)
            return known.job if known else None

    def look(self, job_id: str) -> None:
        """Read one job's newest document."""
        with self._folding:
            known = self._known.get(job_id)
        try:
            if known is None:
                self._fold(job_id, self._jobs.documents(job_id).head())
            else:
                for document in self._jobs.documents(job_id).after(known.number):
                    self._fold(job_id, document)
        except NotFound:
            return  # announced, and its first document is still to come
        except CorruptObject as error:
            _log.error("job_document_damaged", job=f"{PREFIX}/{job_id}", error=str(error))

    def _load(self) -> None:
        newest = self._jobs.journal.last()
        with ThreadPoolExecutor(_READERS, thread_name_prefix="jobs-view") as readers:
            list(readers.map(self.look, self._jobs.ids()))
        self._position = max(0, newest - _REHEARD)

    def _hear(self) -> None:
        assert self._position is not None
        while True:
            try:
                entry = self._jobs.journal.find(self._position + 1)
            except CorruptObject as error:
                _log.error("journal_entry_damaged", number=self._position + 1, error=str(error))
                self._position += 1
                continue
            if entry is None:
                return
            self._settle(hint for hint in entry.hints if hint.sequence.startswith(f"{PREFIX}/"))
            self._position += 1

    def _settle(self, hints: Iterable[Hint]) -> None:
        now = self._clock.monotonic()
        for hint in hints:
            if not self._settled(hint):
                self._pending[hint] = _Pending(now, now)

    def _settled(self, hint: Hint) -> bool:
        """Whether the write that a hint announces is known; looks for it."""
        if hint in self._seen:
            return True
        job_id = _job_of(hint.sequence)
        self.look(job_id)
        try:
            return hint in self._seen or self._jobs.documents(job_id).find_operation(hint.op_id) is not None
        except CorruptObject:  # told when it was looked at
            return True

    def _look_again(self) -> None:
        now = self._clock.monotonic()
        for hint, pending in list(self._pending.items()):
            if now - pending.heard > _FIRST_LOOKS_SECONDS and now - pending.looked < _PAUSE_SECONDS:
                continue
            pending.looked = now
            if now - pending.heard > _PENDING_SECONDS or self._settled(hint):
                del self._pending[hint]

    def _look_unasked(self) -> None:
        now = self._clock.monotonic()
        if now - self._swept >= _SWEEP_SECONDS:
            self._swept = now
            with self._folding:
                unknown = set(self._jobs.ids()) - self._known.keys()
                self._sweep = self._sweep or sorted(self._open)
            for job_id in unknown:
                self.look(job_id)
        due, self._sweep = self._sweep[:_SWEPT], self._sweep[_SWEPT:]
        for job_id in due:
            self.look(job_id)

    def _written(self, sequence: str, document: Document) -> None:
        """A write of this process."""
        if sequence.startswith(f"{PREFIX}/"):
            self._fold(_job_of(sequence), document)

    def _fold(self, job_id: str, document: Document) -> None:
        with self._folding:
            self._seen[Hint(f"{PREFIX}/{job_id}", document.op_id)] = None
            while len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
            known = self._known.get(job_id)
            if known is not None and known.number >= document.number:
                return
            job = job_of(document)
            self._known[job_id] = _Known(document.number, job)
            (self._open.discard if job.ended else self._open.add)(job_id)


def _age(job: Job) -> tuple[str, str]:
    return (job.created_at, job.id)


def _job_of(sequence: str) -> str:
    return sequence.removeprefix(f"{PREFIX}/").partition("/")[0]
