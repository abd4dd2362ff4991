"""Regions and saved recipes as one sequence of changes.

They share a sequence, one changed resource a document, because its order decides between replicas: no cycle, no lost
update and no region that names a removed recipe can slip between a check and a write. Each process keeps the folded
state and reads on from the last document that it knows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any, Final

from terroir.common.principal import Principal
from terroir.registry.names import recipe_name, region_name
from terroir.registry.regions.codes import same
from terroir.registry.regions.recipes import SavedRecipe, StyleRecipe
from terroir.registry.regions.tree import Region, RegionSpec, RegionTree
from terroir.store.documents import Document, DocumentSequence
from terroir.store.errors import StoreUnavailable

_MANY: Final = 32
"""Documents from which on reading side by side is worth its threads."""
_PARALLEL_READS: Final = 16

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RegionState:
    """All regions and saved recipes after some document."""

    number: int = 0
    """Of the last document that is in it."""
    tree: RegionTree = field(default_factory=lambda: RegionTree({}))
    recipes: Mapping[str, SavedRecipe] = field(default_factory=dict)
    """By id."""

    def after(self, documents: Iterable[Document]) -> RegionState:
        """With the documents that follow; those that are in it already are passed over."""
        regions, recipes, number = dict(self.tree.regions), dict(self.recipes), self.number
        for document in documents:
            if document.number != number + 1:
                continue
            number, body = document.number, document.body
            if "code" in body:
                _set(regions, same(body["code"]), region_of(document) if body["region"] is not None else None)
            else:
                _set(recipes, body["id"], recipe_of(document) if body["recipe"] is not None else None)
        return replace(self, number=number, tree=RegionTree(regions), recipes=recipes)


class RegionLog:
    """Reads and appends changes; safe for threads."""

    def __init__(self, sequence: DocumentSequence, newest_known: Callable[[], int] | None = None) -> None:
        """`newest_known` gives the number of the newest document that this replica heard of; None: ask the store."""
        self._sequence = sequence
        self._newest_known = newest_known
        self._lock = Lock()
        self._state = RegionState()
        self._written = 0
        """Number of the newest document that this process wrote: a replica sees its own writes."""

    def current(self) -> RegionState:
        """The newest state that this replica heard of; while the store can't be reached, what it knows of it."""
        if self._newest_known is not None and 0 < max(self._newest_known(), self._written) <= self._state.number:
            return self._state
        try:
            return self._newest()
        except StoreUnavailable as error:
            if self._state.number == 0:
                raise
            _log.warning("regions are read from memory, document %d: %s", self._state.number, error)
            return self._state

    def append(
        self, build: Callable[[RegionState], Mapping[str, Any]], *, op_id: str, request: Mapping[str, Any]
    ) -> Document:
        """Write the change that `build` makes of the newest state, once a `op_id`; see DocumentSequence.append_with."""
        document = self._sequence.append_with(lambda _: build(self._newest()), op_id=op_id, request=request)
        with self._lock:
            self._written = max(self._written, document.number)
            self._state = self._state.after([document])
        return document

    def _newest(self) -> RegionState:
        # Read without the lock: a slow store must not make callers wait for one another.
        missed = self._missed(self._state.number)
        with self._lock:
            if missed:
                self._state = self._state.after(missed)
            return self._state

    def _missed(self, number: int) -> list[Document]:
        """Documents above `number`; the many of a start are read side by side, as far as they are known to be there."""
        known = self._newest_known() if self._newest_known is not None else 0
        if known - number < _MANY:
            return list(self._sequence.after(number))
        with ThreadPoolExecutor(_PARALLEL_READS, "region-reads") as pool:
            documents = list(pool.map(self._sequence.get, range(number + 1, known + 1)))
        return [*documents, *self._sequence.after(known)]


def region_body(code: str, spec: RegionSpec | None, principal: Principal) -> dict[str, Any]:
    """Document of a region that was put, or (None) removed, by somebody."""
    body = spec.to_body() if spec is not None else None
    return {"name": region_name(code), "code": code, "region": body, "actor": principal.name}


def recipe_body(recipe: str, display_name: str, style: StyleRecipe | None, principal: Principal) -> dict[str, Any]:
    """Document of a saved recipe that was put, or (None) removed, by somebody."""
    body = {"display_name": display_name, "style": style.to_body()} if style is not None else None
    return {"name": recipe_name(recipe), "id": recipe, "recipe": body, "actor": principal.name}


def region_of(document: Document) -> Region:
    """The region that a document put."""
    return Region(RegionSpec.from_body(document.body["region"]), document.etag)


def recipe_of(document: Document) -> SavedRecipe:
    """The saved recipe that a document put."""
    body = document.body["recipe"]
    return SavedRecipe(document.body["id"], body["display_name"], StyleRecipe.from_body(body["style"]), document.etag)


def _set(entries: dict[str, Any], key: str, value: object | None) -> None:
    if value is None:
        entries.pop(key, None)
    else:
        entries[key] = value
