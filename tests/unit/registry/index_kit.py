"""Replicas that share a store, as bare as the index needs them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from terroir.common.clock import FixedClock
from terroir.registry.index.fold import Index
from terroir.registry.index.live import IndexPolicy, LiveIndex
from terroir.registry.index.rows import unpack
from terroir.registry.index.watch_token import WatchPosition
from terroir.registry.index.watching import WatchEvent
from terroir.store.documents import Collection, Document, DocumentSequence
from terroir.store.interface import ObjectStore
from terroir.store.journal import Journal

POLICY = IndexPolicy(poll_seconds=60, snapshot_changes=10_000, snapshot_seconds=3600, rebuild_parallel_reads=2)


def version_body(seed: str, **fields: Any) -> dict[str, Any]:
    """The parts of a version's document that the index reads; digests follow from `seed`."""
    digests = [hashlib.sha256(f"{seed} {part}".encode()).hexdigest() for part in ("kohya", "diffusers", "tensors")]
    return {
        "base": "tiny",
        "kohya": {"digest": digests[0], "size_bytes": 1},
        "diffusers": {"digest": digests[1], "size_bytes": 1},
        "tensor_digest": digests[2],
        "upload_digest": digests[0],
        "trigger_word": "",
        "description": "",
        "region": "",
        "tags": [],
        "metrics": {},
        "hashes": {},
        "lineage": {"parent": ""},
        **fields,
    }


def state_body(aliases: Mapping[str, int], action: str = "set_alias", **fields: Any) -> dict[str, Any]:
    """The parts of a state's document that the index reads."""
    return {
        "aliases": {name: {"number": number} for name, number in aliases.items()},
        "deprecations": {},
        "change": {"action": action, "name": "adapters/a/versions/1", "actor": "local:ana"},
        **fields,
    }


class Replica:
    """A journal, an index, and sequences that announce."""

    def __init__(self, store: ObjectStore, clock: FixedClock | None = None, policy: IndexPolicy = POLICY) -> None:
        self.store = store
        self.clock = clock or FixedClock()
        self.journal = Journal(store, "journal", self.clock)
        self.live = LiveIndex(store, self.journal, self.clock, policy)
        self.live.fill()
        self.collections = {
            name: Collection(store, name, self.clock, log=self.journal) for name in ("adapters", "aliases", "bases")
        }

    @property
    def index(self) -> Index:
        """What it knows."""
        return self.live.index

    def sequence(self, name: str) -> DocumentSequence:
        """A sequence of it by name."""
        collection, _, child = name.partition("/")
        if not child:
            return DocumentSequence(self.store, name, self.clock, log=self.journal)
        return self.collections[collection].sequence(child)

    def write(self, name: str, op_id: str, body: Mapping[str, Any] | None = None) -> Document:
        """Append a document."""
        return self.sequence(name).append(body if body is not None else body_for(name, op_id), op_id=op_id)

    def publish(self, adapter: str, **fields: Any) -> Document:
        """Append a version."""
        number = self.index.number(f"adapters/{adapter}") + 1
        return self.write(
            f"adapters/{adapter}", f"publish-{adapter}-{number}", version_body(f"{adapter} {number}", **fields)
        )

    def watch(self, token: str = "") -> Watcher:
        """Begin to watch."""
        return Watcher(self, token)


class Watcher:
    """Takes what a replica tells, and keeps the last token that it saw."""

    def __init__(self, replica: Replica, token: str) -> None:
        self._replica = replica
        self._subscription, begin, missed = replica.live.follower.subscribe(token, lambda: None)
        self.token = begin.token()
        self.events: list[WatchEvent] = []
        for event in missed:
            self._see(event)

    def take(self) -> list[str]:
        """Names of what changed, as far as it was told by now."""
        for event in self._subscription.take():
            self._see(event)
        return [event.change.name for event in self.events]

    def leave(self) -> str:
        """End the watch after what was told; returns the token to go on with."""
        self.take()
        self._replica.live.follower.unsubscribe(self._subscription)
        return self.token

    def _see(self, event: WatchEvent) -> None:
        self.events.append(event)
        self.token = event.position.token()
        assert WatchPosition.parse(self.token) == event.position


def body_for(name: str, op_id: str) -> dict[str, Any]:
    """A body that fits a sequence."""
    collection, _, child = name.partition("/")
    if collection == "adapters":
        return version_body(op_id, tags=[op_id[-1]], trigger_word=child)
    if collection == "aliases":
        return state_body({op_id: 1})
    if collection == "regions":
        return {"name": f"regions/{op_id}", "code": op_id, "region": None}
    return {"digest": op_id}


def fold_of(index: Index) -> dict[str, Any]:
    """All that an index knows, in a form that can be compared."""
    records, regions = index.packed()
    folded: dict[str, Any] = {
        f"{sequence}/{number}": unpack(number, packed).body for sequence, number, packed in records
    }
    facets = {
        facet: {value: sorted(index.with_value(facet, value)) for value in index.values(facet)}
        for facet in ("base", "region", "trigger_word", "tag", "alias")
    }
    return {"documents": folded, "regions": regions, "ids": index.ids(), "facets": facets}


def fold_of_store(store: ObjectStore) -> dict[str, Any]:
    """What an index that reads every document of a store must know."""
    index = Index()
    for collection in ("bases", "adapters", "aliases"):
        for child in Collection(store, collection, FixedClock()).ids():
            documents = list(DocumentSequence(store, f"{collection}/{child}", FixedClock()).history())
            for document in documents if collection == "adapters" else documents[-1:]:
                index.apply(f"{collection}/{child}", document)
    index.skip_regions(len(list(DocumentSequence(store, "regions", FixedClock()).history())))
    return fold_of(index)
