"""The region tree: which style recipe a place gets.

All regions share one document sequence, one changed region a document: its order decides between replicas, so neither
a cycle nor a lost update can slip between a check and a write. Each process keeps the folded tree and reads on from
the last document that it knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from threading import Lock
from typing import Any, Final

from terroir.common.validation import ensure_text
from terroir.registry.adapters import Adapters
from terroir.registry.errors import RegionCycle, RegionEtagMismatch, RegionNotFound
from terroir.registry.names import parse_reference, region_name
from terroir.registry.paging import Page, PageQuery, page_of
from terroir.registry.recipes import StyleRecipe, ensure_recipe
from terroir.store.documents import Document, DocumentSequence

MAX_DISPLAY_NAME_CHARACTERS: Final = 120


@dataclass(frozen=True)
class RegionSpec:
    """A region as somebody wants it."""

    code: str
    display_name: str = ""
    parent: str | None = None
    """Code of the parent; None at a root."""
    recipe: StyleRecipe | None = None
    """None means the parent's."""


@dataclass(frozen=True)
class Region:
    """A region as it is."""

    spec: RegionSpec
    etag: str


@dataclass(frozen=True)
class Resolution:
    """What a region gets, and how that was found."""

    recipe: StyleRecipe | None
    source: str | None
    """Code of the region that the recipe came from."""
    tried: tuple[str, ...]
    """Codes that were asked, in order."""


class Regions:
    """Reads and changes the region tree; safe for threads."""

    def __init__(self, sequence: DocumentSequence, adapters: Adapters) -> None:
        self._sequence = sequence
        self._adapters = adapters
        self._lock = Lock()
        self._read_up_to = 0
        self._tree: Mapping[str, Region] = {}

    def get(self, code: str) -> Region:
        """One region; raises RegionNotFound."""
        return _find(self._current(), code)

    def page(self, query: PageQuery) -> Page[Region]:
        """Regions by code."""
        tree = self._current()
        return page_of(sorted(tree), query, tree.__getitem__, listing="regions")

    def put(self, spec: RegionSpec, *, op_id: str, etag: str = "") -> Region:
        """Create or replace a region, once however often this is repeated with one `op_id`.

        Raises InvalidArgument for a bad recipe, RegionNotFound for the parent, AdapterNotFound, VersionNotFound or
        AliasNotFound for the recipe, RegionCycle, RegionEtagMismatch when `etag` is not empty and the region changed
        since, and OperationConflict when `op_id` put something else.
        """
        ensure_text(spec.display_name, "region.display_name", MAX_DISPLAY_NAME_CHARACTERS)
        if spec.recipe is not None:
            ensure_recipe(spec.recipe, "region.recipe")
            for index, entry in enumerate(spec.recipe.adapters):
                self._adapters.resolve(parse_reference(entry.adapter, f"region.recipe.adapters[{index}].adapter"))

        def build(_: Document | None) -> dict[str, Any]:
            tree = self._current()
            _ensure_etag(tree, spec.code, etag)
            _ensure_parent(tree, spec)
            return asdict(spec)

        document = self._sequence.append_with(build, op_id=op_id, request={**asdict(spec), "etag": etag})
        return _region(document)

    def resolve(self, code: str) -> Resolution:
        """The recipe of a region or of its nearest ancestor that has one; raises RegionNotFound."""
        tree = self._current()
        tried: list[str] = []
        at: str | None = code
        while at is not None:
            spec = _find(tree, at).spec
            tried.append(at)
            if spec.recipe is not None:
                return Resolution(spec.recipe, at, tuple(tried))
            at = spec.parent
        return Resolution(None, None, tuple(tried))

    def _current(self) -> Mapping[str, Region]:
        """The tree up to the newest document; never changed in place, so a reader may keep it."""
        with self._lock:
            missed = list(self._sequence.after(self._read_up_to))
            if missed:
                self._tree = {**self._tree, **{document.body["code"]: _region(document) for document in missed}}
                self._read_up_to = missed[-1].number
            return self._tree


def _region(document: Document) -> Region:
    fields = dict(document.body)
    recipe = fields.pop("recipe")
    return Region(RegionSpec(**fields, recipe=recipe and StyleRecipe.from_body(recipe)), document.etag)


def _find(tree: Mapping[str, Region], code: str) -> Region:
    if code not in tree:
        raise RegionNotFound(
            f"{region_name(code)} does not exist (create it with PutRegion, list regions with ListRegions)",
            metadata={"region": region_name(code)},
        )
    return tree[code]


def _ensure_etag(tree: Mapping[str, Region], code: str, etag: str) -> None:
    current = tree[code].etag if code in tree else "none"
    if etag and etag != current:
        raise RegionEtagMismatch(
            f"{region_name(code)} changed since it was read: its etag is {current}, not {etag}; read it and repeat",
            metadata={"region": region_name(code), "etag": current},
        )


def _ensure_parent(tree: Mapping[str, Region], spec: RegionSpec) -> None:
    chain = [spec.code]
    at = spec.parent
    while at is not None:
        chain.append(at)
        if at == spec.code:
            raise RegionCycle(
                f"{region_name(spec.code)} would be its own ancestor: {' → '.join(chain)}; choose another parent",
                metadata={"chain": " ".join(chain)},
            )
        at = _find(tree, at).spec.parent
