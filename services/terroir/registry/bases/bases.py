"""Base models: registered by an operator, one immutable document each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from terroir.common.principal import Principal, Role
from terroir.lora.base_folder import BaseFolderInvalid, read_base_folder
from terroir.lora.key_table import KeyTable
from terroir.registry.bases.registration import BaseRegistration
from terroir.registry.errors import BaseChanged, BaseNotFound
from terroir.registry.names import base_name
from terroir.store.blobs import Blobs
from terroir.store.documents import MUST_NOT_EXIST, Collection, Document
from terroir.store.errors import EtagMismatch, NotFound, OperationConflict, StoreUnavailable

SETTINGS: Final = "settings:base_sources"
"""Actor of a registration that an operator's settings asked for at start."""
_IDENTITY: Final = ("family", "digest", "prediction_type", "native_resolution")
"""What a repeated registration must say again.

Not the layers: they follow from the weights, which the digest names, and a later release may know more layers of the
same weights. Those of the first registration hold.
"""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Base:
    """A registered base model."""

    base: str
    family: str
    digest: str
    prediction_type: str
    component_digests: Mapping[str, str]
    adaptable_layers: int
    native_resolution: int
    layers_digest: str
    """Blob of the key table: `{layer: shape}` as JSON."""
    source: str
    """Where its weights came from: a hub name with its revision, or empty."""
    actor: str
    """Who registered it, as the server saw it."""
    created_at: str
    """RFC 3339, UTC."""


class Bases:
    """Registers and reads base models. A base never changes, so what was read once is kept."""

    def __init__(self, sequences: Collection, blobs: Blobs) -> None:
        self._sequences = sequences
        self._blobs = blobs
        self._known: dict[str, Base] = {}
        self._tables: dict[str, KeyTable] = {}

    def register(self, base: str, registration: BaseRegistration, principal: Principal) -> Base:
        """Register a base under an id; equal content again changes nothing.

        Raises PermissionDenied, InvalidArgument (see `BaseRegistration.ensure`), or BaseChanged for other content under
        a known id.
        """
        principal.require(Role.OPERATOR, f"register {base_name(base)}")
        registration.ensure()
        return self._store(base, registration, principal.name)

    def register_folder(self, base: str, folder: Path) -> Base:
        """Register the folder's content as the settings ask at start.

        A folder that is missing is only a warning once the base is registered, because adapters need its key table and
        digest, not its weights. Raises BaseFolderInvalid, or BaseChanged.
        """
        try:
            content = read_base_folder(folder)
        except BaseFolderInvalid as error:
            if folder.is_dir() or not self._exists(base):
                raise BaseFolderInvalid(
                    f"cannot register {base_name(base)}: {error} (set TERROIR_REGISTRY_BASE_SOURCES)",
                    reason=error.reason,
                ) from error
            _log.warning("base_folder_missing", base=base_name(base), folder=str(folder), kept="earlier registration")
            return self.get(base)
        registration = BaseRegistration.of(content)
        registration.ensure()
        return self._store(base, registration, SETTINGS)

    def get(self, base: str) -> Base:
        """One base; raises BaseNotFound."""
        if base not in self._known:
            try:
                self._known[base] = _base(base, self._sequences.sequence(base).head())
            except NotFound as error:
                known = ", ".join(map(base_name, self._sequences.ids())) or "none"
                raise BaseNotFound(
                    f"{base_name(base)} is not registered; registered are: {known} (terroir base register)",
                    metadata={"base": base_name(base)},
                ) from error
        return self._known[base]

    def all(self) -> list[Base]:
        """All bases by id; while the store can't be reached, those that this process has read."""
        try:
            ids = self._sequences.ids()
        except StoreUnavailable as error:
            if not self._known:
                raise
            _log.warning("bases_from_memory", error=str(error))
            ids = sorted(self._known)
        return [self.get(base) for base in ids]

    def key_table(self, base: Base) -> KeyTable:
        """What an adapter for this base may change."""
        digest = base.layers_digest
        if digest not in self._tables:
            stored: dict[str, list[int]] = json.loads(self._blobs.get(digest))
            self._tables[digest] = {layer: tuple(shape) for layer, shape in stored.items()}
        return self._tables[digest]

    def _exists(self, base: str) -> bool:
        return self._sequences.sequence(base).exists()

    def _store(self, base: str, registration: BaseRegistration, actor: str) -> Base:
        layers = {layer: list(shape) for layer, shape in registration.layers.items()}
        body: dict[str, Any] = {
            "family": registration.family,
            "digest": registration.digest,
            "prediction_type": registration.prediction_type,
            "component_digests": dict(registration.component_digests),
            "adaptable_layers": len(layers),
            "native_resolution": registration.native_resolution,
            "layers_digest": self._blobs.put(json.dumps(layers, sort_keys=True, separators=(",", ":")).encode()),
            "source": registration.source,
            "actor": actor,
        }
        try:
            self._sequences.sequence(base).append_with(
                lambda _: body,
                op_id=registration.digest,
                request={name: body[name] for name in _IDENTITY},
                expected_etag=MUST_NOT_EXIST,
            )
        except (EtagMismatch, OperationConflict) as error:
            raise self._changed(base, body) from error
        registered = self.get(base)
        known = self.key_table(registered)
        for layer, shape in registration.layers.items():
            if layer in known and known[layer] != tuple(shape):
                raise BaseChanged(
                    f"{base_name(base)} is registered with {layer} of shape {list(known[layer])}, not {list(shape)}: "
                    "register the new under another id, or restore the folder",
                    metadata={"base": base_name(base), "layer": layer},
                )
        return registered

    def _changed(self, base: str, body: Mapping[str, Any]) -> BaseChanged:
        registered = self.get(base)
        differing = [name for name in _IDENTITY if body[name] != getattr(registered, name)]
        told = "; ".join(f"{name} {_short(getattr(registered, name))}, now {_short(body[name])}" for name in differing)
        return BaseChanged(
            f"{base_name(base)} is registered with other content: {told}. Adapters are bound to what is registered: "
            "register the new under another id, or restore the folder",
            metadata={"base": base_name(base), "registered": registered.digest, "found": str(body["digest"])},
        )


def _short(value: object) -> str:
    return str(value)[:13]


def _base(base: str, document: Document) -> Base:
    return Base(base=base, created_at=document.created_at, **document.body)
