"""Preparations in the store: a log by which they are found, states, contents, and what each chunk came to.

* `covers/preparation-log/…` has a line for each, written before it begins.
* `covers/preparations/<id>/state/…` are its states, one document each.
* `covers/preparations/<id>/contents` holds its contents, JSON, a line each.
* `covers/preparations/<id>/chunks/<number>` is written once, when all sets of a chunk are there or have failed.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Final

from terroir.common.clock import Clock
from terroir.inference.covers.contents import Content
from terroir.inference.covers.errors import PreparationNotFound
from terroir.inference.covers.preparation import Preparation, State, Tally
from terroir.store.documents import Document, DocumentSequence
from terroir.store.errors import AlreadyExists, CorruptObject, NotFound
from terroir.store.interface import ObjectStore

_LOG: Final = "covers/preparation-log"
_ID_CHARACTERS: Final = 32


class _UnchangedError(Exception):
    """Nothing is to be written."""


class Preparations:
    """Reads and changes preparations; safe for threads, processes and replicas. Raises StoreUnavailable."""

    def __init__(self, store: ObjectStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._log = DocumentSequence(store, _LOG, clock)

    def begin(self, wanted: Preparation, contents: Sequence[Content]) -> Preparation:
        """Begin one, once for one identifier; raises OperationConflict if it was begun with other wishes."""
        lines = "\n".join(json.dumps(asdict(content), ensure_ascii=False) for content in contents).encode()
        request = {**wanted.to_body(), "created_at": 0, "contents_digest": hashlib.sha256(lines).hexdigest()}
        with suppress(AlreadyExists):
            self._store.create(f"{_prefix(wanted.id)}/contents", lines)
        self._log.append({"id": wanted.id}, op_id=wanted.id)
        self._states(wanted.id).append_with(lambda _head: wanted.to_body(), op_id="begin", request=request)
        return self.get(wanted.id)

    def get(self, preparation_id: str) -> Preparation:
        """One as it is; raises PreparationNotFound."""
        try:
            return Preparation.from_body(self._states(preparation_id).head().body)
        except NotFound as error:
            raise PreparationNotFound(
                f"preparations/{preparation_id} does not exist (list them: terroir covers preparations)"
            ) from error

    def contents(self, preparation_id: str) -> list[Content]:
        """What it draws, in order."""
        lines = self._store.get(f"{_prefix(preparation_id)}/contents").decode().split("\n")
        return [Content(**json.loads(line)) for line in lines]

    def end(self, preparation_id: str, state: State, why: str = "") -> Preparation:
        """End it, unless it has ended; returns it as it is then."""

        def build(head: Document | None) -> dict[str, Any]:
            if head is None:
                raise _UnchangedError
            before = Preparation.from_body(head.body)
            after = before.ending(state, self._clock.now().timestamp(), why)
            if after == before:
                raise _UnchangedError
            return after.to_body()

        with suppress(_UnchangedError):
            self._states(preparation_id).append_with(build, op_id=f"end/{state}", request={"end": state})
        return self.get(preparation_id)

    def chunk(self, preparation_id: str, number: int) -> Tally | None:
        """What a chunk came to; None while it is not done."""
        try:
            return Tally.from_body(json.loads(self._store.get(_chunk(preparation_id, number))))
        except NotFound:
            return None

    def chunks(self, preparation_id: str) -> list[int]:
        """Numbers of the chunks that are done; lists the store."""
        keys = self._store.list(f"{_prefix(preparation_id)}/chunks")
        return [int(key.rpartition("/")[2]) for key in keys]

    def finish_chunk(self, preparation_id: str, number: int, tally: Tally) -> Tally:
        """Say what a chunk came to; what was said first counts."""
        with suppress(AlreadyExists):
            self._store.create(_chunk(preparation_id, number), json.dumps(tally.to_body()).encode())
            return tally
        return self.chunk(preparation_id, number) or tally

    def logged(self, after: int) -> Iterator[tuple[int, str]]:
        """Lines of the log above a number, oldest first: number and identifier."""
        for document in self._log.after(after):
            yield document.number, str(document.body["id"])

    def newest(self, below: int | None) -> Iterator[tuple[int, Preparation]]:
        """Preparations by their line in the log, newest first, those below a number (None: all)."""
        if below is None:
            try:
                below = self._log.head().number + 1
            except NotFound:
                return
        for number in range(below - 1, 0, -1):
            with suppress(PreparationNotFound, CorruptObject):  # announced, and never begun
                yield number, self.get(str(self._log.get(number).body["id"]))

    def claim_key(self, preparation_id: str, number: int) -> str:
        """Where servers claim a chunk."""
        return f"{_prefix(preparation_id)}/claims/{number:06d}"

    def _states(self, preparation_id: str) -> DocumentSequence:
        return DocumentSequence(self._store, f"{_prefix(preparation_id)}/state", self._clock)


def preparation_id(creator: str, request_id: str) -> str:
    """The same for a repeat of a request; a new one where it has no identifier."""
    if not request_id:
        return f"p{uuid.uuid4().hex}"
    return "p" + hashlib.sha256(f"{creator}\n{request_id}".encode()).hexdigest()[:_ID_CHARACTERS]


def _prefix(preparation_id: str) -> str:
    return f"covers/preparations/{preparation_id}"


def _chunk(preparation_id: str, number: int) -> str:
    return f"{_prefix(preparation_id)}/chunks/{number:06d}"
