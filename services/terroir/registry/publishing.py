"""Publishing: what is uploaded becomes a version only after every check has passed.

Order that must hold: checks, then blobs, then the manifest. Whatever breaks on the way leaves at most blobs that no
manifest names, and those are never listed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from terroir.common.errors import InvalidArgument
from terroir.common.validation import ensure_text
from terroir.registry.adapter_file import read_adapter_file
from terroir.registry.bases import Base, Bases
from terroir.registry.errors import BaseMismatch, UploadInvalid
from terroir.registry.names import base_name
from terroir.registry.versions import Lineage, Manifest, StoredFile, Version, Versions
from terroir.store.blobs import Blobs

MAX_LABELS: Final = 64
MAX_LABEL_CHARACTERS: Final = 256
MAX_TRIGGER_CHARACTERS: Final = 64
_DIGEST: Final = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class PublishRequest:
    """What somebody wants to publish, without the bytes."""

    adapter: str
    base: str
    base_digest: str
    """Of the base that the trainer loaded; empty for a foreign file."""
    size_bytes: int
    file_digest: str
    trigger_word: str = ""
    lineage: Lineage = field(default_factory=Lineage)
    labels: Mapping[str, str] = field(default_factory=dict)

    def to_body(self) -> dict[str, Any]:
        """What a retry must repeat."""
        return asdict(self)


class Publisher:
    """Checks uploads and makes versions of them."""

    def __init__(self, bases: Bases, versions: Versions, blobs: Blobs, max_upload_bytes: int) -> None:
        self._bases = bases
        self._versions = versions
        self._blobs = blobs
        self._max_upload_bytes = max_upload_bytes

    def admit(self, request: PublishRequest) -> None:
        """Refuse, before the first byte, what no bytes can make right.

        Raises InvalidArgument, UploadInvalid (UPLOAD_TOO_LARGE), BaseNotFound or BaseMismatch.
        """
        _ensure_notes(request)
        if not 1 <= request.size_bytes <= self._max_upload_bytes:
            raise UploadInvalid(
                f"size_bytes {request.size_bytes} is outside 1 … {self._max_upload_bytes} "
                "(prune the file, retrain with a lower rank, or raise TERROIR_REGISTRY_MAX_UPLOAD_BYTES)",
                reason="UPLOAD_TOO_LARGE" if request.size_bytes > 0 else "UPLOAD_EMPTY",
                field="header.size_bytes",
            )
        if not _DIGEST.fullmatch(request.file_digest):
            raise InvalidArgument(
                f"file_digest {request.file_digest[:80]!r} is no SHA-256 of 64 lower-case hexadecimal digits",
                reason="INVALID_DIGEST",
                field="header.file_digest",
            )
        _ensure_same_base(self._bases.get(request.base), request)

    def publish(self, request: PublishRequest, data: bytes, *, op_id: str) -> Version:
        """Make a version of the whole file, once however often this is repeated with one `op_id`.

        Takes seconds and about four times the file's memory: keep it off an event loop. Raises AdapterFileInvalid, or
        OperationConflict when `op_id` published something else.
        """
        base = self._bases.get(request.base)
        file = read_adapter_file(data, self._bases.key_table(base), base_name(base.base))
        kohya, diffusers = file.kohya(base, request.trigger_word), file.diffusers()
        manifest = Manifest(
            base=base.base,
            base_digest=base.digest,
            kohya=StoredFile(self._blobs.put(kohya), len(kohya)),
            diffusers=StoredFile(self._blobs.put(diffusers), len(diffusers)),
            tensor_digest=file.tensor_digest,
            rank=file.rank,
            matched_layers=file.matched_layers,
            ignored=file.ignored,
            trigger_word=request.trigger_word,
            lineage=request.lineage,
            labels=request.labels,
            upload_digest=request.file_digest,
            upload_format=file.upload_format,
        )
        return self._versions.append(request.adapter, manifest, op_id=op_id, request=request.to_body())


def _ensure_same_base(base: Base, request: PublishRequest) -> None:
    if request.base_digest not in ("", base.digest):
        raise BaseMismatch(
            f"the adapter was trained on a base with digest {request.base_digest[:12]}, {base_name(base.base)} has "
            f"{base.digest[:12]}; publish it for the base that it was trained on, or retrain",
            metadata={"base": base_name(base.base), "expected": base.digest, "found": request.base_digest[:64]},
        )


def _ensure_notes(request: PublishRequest) -> None:
    ensure_text(request.trigger_word, "header.trigger_word", MAX_TRIGGER_CHARACTERS)
    for name, value in asdict(request.lineage).items():
        ensure_text(value, f"header.lineage.{name}", MAX_LABEL_CHARACTERS)
    if len(request.labels) > MAX_LABELS:
        raise InvalidArgument(
            f"{len(request.labels)} labels; at most {MAX_LABELS} are allowed: drop some",
            reason="TOO_MANY_LABELS",
            field="header.labels",
        )
    for key, value in request.labels.items():
        ensure_text(key, "header.labels", MAX_LABEL_CHARACTERS)
        ensure_text(value, f"header.labels[{key[:40]}]", MAX_LABEL_CHARACTERS)
