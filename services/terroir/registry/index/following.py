"""Keeps an index fresh: tails the journal, reads the announced sequences forward, and folds this replica's own writes.

The one place that decides what has been heard of. A hint is settled once its operation's document is folded; until then
it stays pending and its sequence is looked at again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from threading import Lock, RLock
from typing import Final

import structlog

from terroir.common.clock import Clock
from terroir.registry.errors import WatchTokenAhead
from terroir.registry.index.changes import Change, change_of
from terroir.registry.index.fold import ADAPTERS, BASES, REGIONS, STATES, Index
from terroir.registry.index.watch_token import WatchPosition
from terroir.registry.index.watching import Feed, Subscription, WatchEvent
from terroir.store.documents import Document, DocumentSequence
from terroir.store.errors import CorruptObject, StoreUnavailable
from terroir.store.interface import ObjectStore
from terroir.store.journal import Hint, Journal

PENDING_SECONDS: Final = 3600.0
"""No write comes an hour after its hint: every call has a deadline long before."""

_REMEMBERED: Final = 65_536
_FIRST_LOOKS_SECONDS: Final = 5.0
_LONGEST_PAUSE_SECONDS: Final = 30.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class PendingHint:
    """A hint whose document could not be seen yet."""

    entry: int
    announced_at: str
    hint: Hint


class Follower:
    """Folds what the journal announces; safe for threads.

    Two locks: `_reading` lets one thread at a time read on in the journal; `_folding` guards position, pending hints
    and the fold together, and is never held while the store is asked.
    """

    def __init__(self, index: Index, journal: Journal, store: ObjectStore, clock: Clock, feed: Feed) -> None:
        self._index = index
        self._journal = journal
        self._store = store
        self._clock = clock
        self._feed = feed
        self._reading = Lock()
        self._folding = RLock()
        self._position = 0
        self._pending: dict[Hint, PendingHint] = {}
        self._looked_at: dict[str, float] = {}
        self._early: dict[Hint, Change | None] = {}
        """Folded operations whose hint has not been read yet: a watcher that begins now must still hear of them."""
        self._seen: OrderedDict[Hint, Change | None] = OrderedDict()

    def begin_at(self, position: int, pending: list[PendingHint]) -> None:
        """Go on where a snapshot or a rebuild ended; call before anything else."""
        self._position = position
        self._pending = {each.hint: each for each in pending}

    def remember(self, sequence: str, op_id: str) -> None:
        """Take an operation as folded, so that its hint needs no look; for rebuilds."""
        self._seen[Hint(sequence, op_id)] = None
        self._trim(self._seen)

    def place(self) -> tuple[int, list[PendingHint]]:
        """The journal number up to which everything is folded, except the pending hints."""
        with self._folding:
            return self._position, list(self._pending.values())

    @property
    def watchers(self) -> int:
        """How many hear of what is folded."""
        return self._feed.watchers

    def frozen(self, read: Callable[[int, list[PendingHint]], None]) -> None:
        """Call `read` with the place while nothing is folded: what it reads of the index belongs to that place."""
        with self._folding:
            read(*self.place())

    def catch_up(self) -> int:
        """Read and fold all that is new; returns how many entries were read. Raises StoreUnavailable."""
        with self._reading:
            read = 0
            while True:
                number = self._position + 1
                try:
                    entry = self._journal.find(number)
                except CorruptObject as error:
                    _log.error("journal_entry_damaged", number=number, error=str(error))
                    self._advance(number)
                    continue
                if entry is None:
                    break
                hints = [hint for hint in entry.hints if _followed(hint.sequence)]
                unsettled = [hint for hint in hints if not self._settle(hint)]
                self._advance(number, entry.announced_at, hints, unsettled)
                read += 1
            self._look_again()
            return read

    def written(self, sequence: str, document: Document) -> None:
        """Fold a write of this process at once; a listener of the journal."""
        if not _followed(sequence):
            return
        try:
            with self._folding:
                if document.number <= self._index.number(sequence) + 1:
                    self._fold(sequence, document)
                    return
            for each in self._documents(sequence):  # others wrote in between
                self._fold(sequence, each)
        except (StoreUnavailable, CorruptObject) as error:
            # The write itself has succeeded; its hint is in the journal, so that the next pass folds it.
            _log.warning("own_write_folds_later", sequence=sequence, error=str(error))

    def subscribe(
        self, token: str, wake: Callable[[], None]
    ) -> tuple[Subscription, WatchPosition, Iterator[WatchEvent]]:
        """A buffer of what changes from now on, where it begins, and what to tell before: what a token has missed.

        Raises WatchTokenInvalid, and WatchTokenAhead for a place that this store's journal has not reached.
        """
        asked = WatchPosition.parse(token) if token else None
        if asked is None:
            with suppress(StoreUnavailable):
                self.catch_up()  # so that the first token is behind what this replica wrote itself a moment ago
        elif asked.number > self._position:
            self.catch_up()  # given out by a replica that was a little faster
        with self._folding:
            here = self._here()
            if asked is not None and asked.number > here.number:
                raise WatchTokenAhead(
                    f"resume_token is at change {asked.number} of the journal, this store has {here.number}: it comes "
                    "from another store or from before a restore; read what you need and watch without a token",
                    field="resume_token",
                )
            subscription = self._feed.subscribe(wake)
            early, pending = dict(self._early), set(self._pending)
        if asked is None:
            return subscription, here, iter(())
        return subscription, asked, self._missed(asked, here, early, pending)

    def here(self) -> WatchPosition:
        """Up to where everything was told."""
        with self._folding:
            return self._here()

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription."""
        self._feed.unsubscribe(subscription)

    def _missed(
        self, asked: WatchPosition, here: WatchPosition, early: dict[Hint, Change | None], pending: set[Hint]
    ) -> Iterator[WatchEvent]:
        """Changes announced between two places; pending ones are left to the subscription. Raises StoreUnavailable."""
        place = asked
        for number in (*sorted(asked.pending), *range(asked.number + 1, here.number + 1)):
            try:
                entry = self._journal.find(number)
            except CorruptObject:  # was logged when the index came by
                continue
            hints = [hint for hint in entry.hints if _followed(hint.sequence)] if entry is not None else []
            changes = [self._change(hint) for hint in hints if hint not in pending]
            for change in changes:
                if change is not None:
                    yield WatchEvent(change, place)
            if number > asked.number:
                unseen = {each for each in here.pending if each <= number}
                place = WatchPosition.of(number, unseen)
        for change in early.values():
            if change is not None:
                yield WatchEvent(change, here)

    def _change(self, hint: Hint) -> Change | None:
        """What a settled hint's operation changed; None if it never wrote."""
        with self._folding:
            known = self._seen.get(hint)
        if known is not None:
            return known
        try:
            document = self._sequence(hint.sequence).find_operation(hint.op_id)
            return change_of(hint.sequence, document) if document is not None else None
        except CorruptObject as error:
            _log.error("announced_document_damaged", sequence=hint.sequence, error=str(error))
            return None

    def _settle(self, hint: Hint) -> bool:
        """Fold what a hint announced; False if it is not there yet."""
        with self._folding:
            if hint in self._seen:
                return True
        try:
            for document in self._documents(hint.sequence):
                self._fold(hint.sequence, document)
                if document.op_id == hint.op_id:
                    break
            with self._folding:
                if hint in self._seen:
                    return True
            # Folded before this process can remember: from a snapshot, or long ago.
            return self._index.number(hint.sequence) > 0 and self._operation_is_known(hint)
        except CorruptObject as error:
            _log.error("announced_document_damaged", sequence=hint.sequence, error=str(error))
            return False

    def _operation_is_known(self, hint: Hint) -> bool:
        document = self._sequence(hint.sequence).find_operation(hint.op_id)
        return document is not None and document.number <= self._index.number(hint.sequence)

    def _look_again(self) -> None:
        """Look for the documents of pending hints: often at first, ever less often the longer they fail to come."""
        now = self._clock.now().timestamp()
        with self._folding:
            waiting = list(self._pending.values())
        newest: dict[str, float] = {}
        for each in waiting:
            at = _seconds(each.announced_at)
            if now - at > PENDING_SECONDS:
                with self._folding:
                    self._pending.pop(each.hint, None)
            else:
                newest[each.hint.sequence] = max(at, newest.get(each.hint.sequence, at))
        for sequence, at in newest.items():
            pause = 0.0 if now - at < _FIRST_LOOKS_SECONDS else min((now - at) / 10, _LONGEST_PAUSE_SECONDS)
            if now - self._looked_at.get(sequence, 0.0) < pause:
                continue
            self._looked_at[sequence] = now
            try:
                for document in self._documents(sequence):
                    self._fold(sequence, document)
            except CorruptObject as error:
                _log.error("announced_document_damaged", sequence=sequence, error=str(error))
        self._looked_at = {sequence: at for sequence, at in self._looked_at.items() if sequence in newest}

    def _fold(self, sequence: str, document: Document) -> None:
        hint, change = Hint(sequence, document.op_id), change_of(sequence, document)
        with self._folding:
            if not self._index.apply(sequence, document):
                return
            self._seen[hint] = change
            self._trim(self._seen)
            # Told with the place before it: whoever resumes from there hears of it again rather than never.
            place = self._here()
            if self._pending.pop(hint, None) is None:
                self._early[hint] = change
                self._trim(self._early)
            if change is not None:
                self._feed.emit(WatchEvent(change, place))

    def _advance(
        self, number: int, announced_at: str = "", hints: Sequence[Hint] = (), unsettled: Sequence[Hint] = ()
    ) -> None:
        # Position, early and pending move together: whoever subscribes sees a hint in exactly one of them.
        with self._folding:
            self._position = number
            for hint in hints:
                self._early.pop(hint, None)
            for hint in unsettled:
                if hint not in self._seen:  # else its writer was faster than this pass
                    self._pending.setdefault(hint, PendingHint(number, announced_at, hint))

    def _here(self) -> WatchPosition:
        return WatchPosition.of(self._position, {each.entry for each in self._pending.values()})

    def _documents(self, sequence: str) -> Iterator[Document]:
        return self._sequence(sequence).after(self._index.number(sequence))

    def _sequence(self, sequence: str) -> DocumentSequence:
        return DocumentSequence(self._store, sequence, self._clock)

    @staticmethod
    def _trim(remembered: dict[Hint, Change | None]) -> None:
        while len(remembered) > _REMEMBERED:
            del remembered[next(iter(remembered))]


def _followed(sequence: str) -> bool:
    collection, slash, child = sequence.partition("/")
    return sequence == REGIONS or (bool(slash) and "/" not in child and collection in (ADAPTERS, STATES, BASES))


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp).timestamp()
