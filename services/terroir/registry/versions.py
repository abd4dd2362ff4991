"""Versions of an adapter: immutable manifests whose numbers the create-only write allocates.

A version's identity is the digest of the kohya file that the registry wrote itself from the parsed tensors, never that
of the uploaded bytes: every stored file is then in the one spelling that all tools load and free of whatever else an
upload carried. The digest of the upload stays in the manifest and, where it differs, shows as the label
`upload-sha256`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from terroir.common.signatures import Signature
from terroir.registry.errors import AdapterNotFound, VersionNotFound
from terroir.registry.moving.state import Deprecation
from terroir.registry.names import adapter_name, version_name
from terroir.store.documents import Collection, Document
from terroir.store.errors import NotFound

UPLOAD_LABEL: Final = "upload-sha256"


@dataclass(frozen=True)
class Lineage:
    """Where a version came from; empty strings where nobody said."""

    job: str = ""
    dataset_version: str = ""
    dataset_digest: str = ""
    config_digest: str = ""
    code_version: str = ""
    parent: str = ""
    """`adapters/{id}/versions/{number}` that training continued from."""
    checkpoint: str = ""
    """`jobs/{id}/checkpoints/{step}` that was published."""


@dataclass(frozen=True)
class StoredFile:
    """One file of a version, kept as a blob."""

    digest: str
    size_bytes: int


@dataclass(frozen=True)
class Manifest:
    """All that is known of a version except its number and time."""

    base: str
    base_digest: str
    kohya: StoredFile
    tensor_digest: str
    rank: int
    matched_layers: int
    ignored: tuple[tuple[str, str], ...]
    """(key as in the upload, why it was left out)."""
    trigger_word: str
    lineage: Lineage
    labels: Mapping[str, str]
    upload_digest: str
    upload_format: str
    actor: str = ""
    """Who published it, as the server saw it."""
    tags: tuple[str, ...] = ()
    region: str = ""
    """Code of the region that it was made for."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    description: str = ""
    hashes: Mapping[str, str] = field(default_factory=dict)
    """Of the kohya file, by the names that sites give them, and `diffusers`: SHA-256 of the file in that format, if it
    can be had."""
    unknown: tuple[tuple[str, str], ...] = ()
    """(key as in the upload, why it is not understood)."""
    signature: Signature | None = None
    """Over the kohya file and `facts`; None where the registry does not sign."""
    missing_layers: int = 0
    """Attention projections of the denoiser that it does not change."""
    training_print: StoredFile | None = None
    """What tells copies of the pictures that it was trained on, if the publisher sent it."""

    def to_body(self) -> dict[str, Any]:
        """As a JSON-able document."""
        body = asdict(self)
        if self.training_print is None:  # replicas that know nothing of prints read the others' versions
            del body["training_print"]
        return body

    @staticmethod
    def from_body(body: Mapping[str, Any]) -> Manifest:
        """Inverse of `to_body`."""
        fields = dict(body)
        fields["kohya"] = StoredFile(**body["kohya"])
        fields["lineage"] = Lineage(**body["lineage"])
        fields["ignored"] = tuple((key, why) for key, why in body["ignored"])
        fields["unknown"] = tuple((key, why) for key, why in body["unknown"])
        fields["tags"] = tuple(body["tags"])
        fields["signature"] = body["signature"] and Signature(**body["signature"])
        fields["training_print"] = StoredFile(**body["training_print"]) if "training_print" in body else None
        return Manifest(**fields)


@dataclass(frozen=True)
class Version:
    """One immutable version of an adapter."""

    adapter: str
    number: int
    created_at: str
    """RFC 3339, UTC."""
    manifest: Manifest
    deprecation: Deprecation | None = None
    """Set once it must no longer be used."""

    @property
    def name(self) -> str:
        """`adapters/{id}/versions/{number}`."""
        return version_name(self.adapter, self.number)

    def visible_labels(self) -> dict[str, str]:
        """The publisher's labels and, where the upload was rewritten, its digest."""
        manifest = self.manifest
        rewritten = {} if manifest.upload_digest == manifest.kohya.digest else {UPLOAD_LABEL: manifest.upload_digest}
        return {**manifest.labels, **rewritten}


class Versions:
    """The version sequences of all adapters."""

    def __init__(self, sequences: Collection) -> None:
        self._sequences = sequences

    def append(self, adapter: str, manifest: Manifest, *, op_id: str, request: Mapping[str, Any]) -> Version:
        """Create the next version once, however often this is repeated with one `op_id` and equal `request`.

        The manifest's blobs must be stored already. Raises OperationConflict when `op_id` published something else.
        """
        body = manifest.to_body()
        document = self._sequences.sequence(adapter).append_with(lambda _: body, op_id=op_id, request=request)
        return version_of(adapter, document)

    def newest(self, adapter: str) -> Version:
        """The version with the highest number; raises AdapterNotFound."""
        try:
            return version_of(adapter, self._sequences.sequence(adapter).head())
        except NotFound as error:
            raise _no_adapter(adapter) from error

    def get(self, adapter: str, number: int) -> Version:
        """One version; raises AdapterNotFound or VersionNotFound."""
        sequence = self._sequences.sequence(adapter)
        try:
            return version_of(adapter, sequence.get(number))
        except NotFound as error:
            newest = self.newest(adapter).number
            raise VersionNotFound(
                f"{adapter_name(adapter)} has no version {number}; its newest is {newest} (see ListVersions)",
                metadata={"adapter": adapter_name(adapter), "newest_version": str(newest)},
            ) from error

    def adapters(self) -> list[str]:
        """Identifiers of all adapters with at least one version, sorted."""
        return self._sequences.ids()


def version_of(adapter: str, document: Document) -> Version:
    """The version that a document holds."""
    return Version(adapter, document.number, document.created_at, Manifest.from_body(document.body))


def _no_adapter(adapter: str) -> AdapterNotFound:
    return AdapterNotFound(
        f"{adapter_name(adapter)} does not exist; publish a version of it first (list adapters with ListAdapters)",
        metadata={"adapter": adapter_name(adapter)},
    )
