"""The pictures and captions of one dataset: an append-only log of changes, folded into a state.

Every change is one document of `datasets/<id>/album`. Changes commute where they must: the first import of a digest
wins, unless only a later one could read it, the first draft of a picture stays, and the newest sidecar or human text
counts; so concurrent imports only need the create-only append. Every document names the newest snapshot (a blob with
the fold of all before it), so that a cold reader replays little more than `SNAPSHOT_EVERY` documents and needs no LIST.
A snapshot of number n is a function of documents 1 to n: two writers who make it make the same bytes.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Final

from pydantic import TypeAdapter

from terroir.common.clock import Clock
from terroir.dataset.model import Caption, CaptionEdit, CaptionKind, Picture
from terroir.store.blobs import Blobs
from terroir.store.documents import Document, DocumentSequence
from terroir.store.errors import NotFound
from terroir.store.interface import ObjectStore

SNAPSHOT_EVERY: Final = 64
"""Documents between two snapshots."""
_CACHED_DATASETS: Final = 32


@dataclass(frozen=True)
class Change:
    """Pictures that came and captions that were written, in order."""

    pictures: tuple[Picture, ...] = ()
    captions: tuple[CaptionEdit, ...] = ()


_CHANGE: Final = TypeAdapter(Change)


@dataclass(frozen=True)
class Album:
    """State after document `number`: pictures in order of import, and each picture's captions by who wrote them."""

    number: int = 0
    pictures: Mapping[str, Picture] = field(default_factory=dict)
    captions: Mapping[str, Mapping[CaptionKind, CaptionEdit]] = field(default_factory=dict)

    def caption(self, digest: str) -> Caption | None:
        """The text in use: a person's, else the sidecar's, else the draft."""
        edits = self.captions.get(digest, {})
        for kind in (CaptionKind.HUMAN, CaptionKind.SIDECAR, CaptionKind.TAGGER):
            if chosen := edits.get(kind):
                draft = edits.get(CaptionKind.TAGGER)
                return Caption(chosen.text, draft.text if draft else "", kind, chosen.agreement)
        return None

    def advanced(self, number: int, changes: Iterable[Change]) -> Album:
        """The state after `changes`, the last of which is document `number`."""
        pictures = dict(self.pictures)
        captions = dict(self.captions)
        for change in changes:
            for picture in change.pictures:
                if picture.replaces(pictures.get(picture.digest)):
                    pictures[picture.digest] = picture
            for edit in change.captions:
                before = captions.get(edit.digest, {})
                if edit.kind is not CaptionKind.TAGGER or edit.kind not in before:
                    captions[edit.digest] = {**before, edit.kind: edit}
        return Album(number, pictures, captions)

    def whole(self) -> Change:
        """The change that makes this state from nothing."""
        edits = (edit for by_kind in self.captions.values() for edit in by_kind.values())
        return Change(tuple(self.pictures.values()), tuple(edits))


class Albums:
    """Reads and writes the albums of all datasets. Safe for threads."""

    def __init__(self, store: ObjectStore, blobs: Blobs, clock: Clock) -> None:
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._cache: OrderedDict[str, Album] = OrderedDict()
        self._lock = Lock()

    def load(self, dataset_id: str) -> Album:
        """The state with every change that was acknowledged before this call."""
        sequence = self._sequence(dataset_id)
        with self._lock:
            cached = self._cache.get(dataset_id)
        start = self._restored(sequence) if cached is None else cached
        missed = list(sequence.after(start.number))
        if missed:
            changes = (_CHANGE.validate_python(document.body["change"]) for document in missed)
            start = start.advanced(missed[-1].number, changes)
        self._remember(dataset_id, start)
        return start

    def append(self, dataset_id: str, change: Change, *, op_id: str) -> Album:
        """Record `change` and return the state with it. The same `op_id` again changes nothing."""
        if not change.pictures and not change.captions:
            return self.load(dataset_id)
        body = _CHANGE.dump_python(change, mode="json")

        def build(head: Document | None) -> Mapping[str, Any]:
            return {"change": body, "snapshot": self._snapshot(dataset_id, head)}

        self._sequence(dataset_id).append_with(build, op_id=op_id, request=body)
        return self.load(dataset_id)

    def _sequence(self, dataset_id: str) -> DocumentSequence:
        return DocumentSequence(self._store, f"datasets/{dataset_id}/album", self._clock)

    def _restored(self, sequence: DocumentSequence) -> Album:
        """The newest snapshot; the empty album if there is none yet."""
        try:
            pointer = sequence.head().body["snapshot"]
        except NotFound:
            return Album()
        if pointer is None:
            return Album()
        return Album().advanced(pointer["number"], [_CHANGE.validate_json(self._blobs.get(pointer["digest"]))])

    def _snapshot(self, dataset_id: str, head: Document | None) -> dict[str, Any] | None:
        """The pointer that the document after `head` carries; makes the snapshot when one is due."""
        if head is None:
            return None
        pointer: dict[str, Any] | None = head.body["snapshot"]
        if head.number - (pointer["number"] if pointer else 0) < SNAPSHOT_EVERY:
            return pointer
        # Another writer may be ahead of `head` by now: then this append conflicts and is built again.
        album = self.load(dataset_id)
        text = json.dumps(_CHANGE.dump_python(album.whole(), mode="json"), sort_keys=True, ensure_ascii=False)
        return {"number": album.number, "digest": self._blobs.put(text.encode())}

    def _remember(self, dataset_id: str, album: Album) -> None:
        with self._lock:
            known = self._cache.get(dataset_id)
            if known is None or known.number < album.number:
                self._cache[dataset_id] = album
            self._cache.move_to_end(dataset_id)
            while len(self._cache) > _CACHED_DATASETS:
                self._cache.popitem(last=False)
