"""What a stored document changed, as watchers are told."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from terroir.registry.moving.state import action_of, change_in
from terroir.registry.names import adapter_name, base_name, version_name
from terroir.store.documents import Document
from terroir.store.errors import CorruptObject


class ChangeKind(StrEnum):
    """Kinds of change, named as in the contract."""

    VERSION_PUBLISHED = "VERSION_PUBLISHED"
    ALIASES_CHANGED = "ALIASES_CHANGED"
    VERSION_DEPRECATED = "VERSION_DEPRECATED"
    PRESETS_CHANGED = "PRESETS_CHANGED"
    BASE_REGISTERED = "BASE_REGISTERED"
    REGION_CHANGED = "REGION_CHANGED"
    RECIPE_CHANGED = "RECIPE_CHANGED"


@dataclass(frozen=True)
class Change:
    """One change of one resource."""

    name: str
    kind: ChangeKind
    time: str
    """RFC 3339, UTC: when it was written."""


_STATE_KINDS: Final = {
    "deprecate": ChangeKind.VERSION_DEPRECATED,
    "reinstate": ChangeKind.VERSION_DEPRECATED,
    "set_presets": ChangeKind.PRESETS_CHANGED,
    "add_sample": ChangeKind.PRESETS_CHANGED,
}
"""Actions of an adapter's state; all others change aliases."""


def change_of(sequence: str, document: Document) -> Change | None:
    """The change that a document of a sequence made; None for a sequence that nobody watches.

    Raises CorruptObject for a document that is not of this release's form.
    """
    try:
        return _change_of(sequence, document)
    except (KeyError, TypeError) as error:
        raise CorruptObject(
            f"document {document.number} of {sequence} does not tell what it changed: {type(error).__name__} {error} "
            "(restore it from a copy of the store, or run the release that wrote it)",
            sequence,
        ) from error


def _change_of(sequence: str, document: Document) -> Change | None:
    collection, _, child = sequence.partition("/")
    time, body = document.created_at, document.body
    if collection == "adapters":
        return Change(version_name(child, document.number), ChangeKind.VERSION_PUBLISHED, time)
    if collection == "aliases":
        kind = _STATE_KINDS.get(action_of(body), ChangeKind.ALIASES_CHANGED)
        name = change_in(body).name if kind is ChangeKind.VERSION_DEPRECATED else adapter_name(child)
        return Change(name, kind, time)
    if collection == "bases":
        return Change(base_name(child), ChangeKind.BASE_REGISTERED, time)
    if sequence == "regions":
        kind = ChangeKind.REGION_CHANGED if "code" in body else ChangeKind.RECIPE_CHANGED
        return Change(str(body["name"]), kind, time)
    return None
