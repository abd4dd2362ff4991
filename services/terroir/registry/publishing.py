"""Publishing: what is uploaded becomes a version only after every check has passed.

Order that must hold: checks, then blobs, then the manifest. Whatever breaks on the way leaves at most blobs that no
manifest names, and those are never listed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from terroir.common.errors import InvalidArgument
from terroir.common.principal import Principal, Role
from terroir.common.signatures import SignedFacts, Signer
from terroir.common.validation import ensure_digest, ensure_range, ensure_text
from terroir.lora.formats import MAX_RANK, kohya_file, to_diffusers
from terroir.lora.formats.headers import Description, describe
from terroir.lora.hashes import site_hashes
from terroir.registry.adapter_file import BASE_DIGEST_KEY, read_adapter_file
from terroir.registry.bases.bases import Base, Bases
from terroir.registry.errors import BaseMismatch, UploadInvalid
from terroir.registry.names import adapter_name, base_name
from terroir.registry.versions import Lineage, Manifest, StoredFile, Version, Versions
from terroir.scoring.training_print import TrainingPrint
from terroir.store.blobs import Blobs

MAX_LABELS: Final = 64
MAX_LABEL_CHARACTERS: Final = 256
MAX_TRIGGER_CHARACTERS: Final = 64
MAX_TAGS: Final = 32
MAX_METRICS: Final = 64
MAX_DESCRIPTION_CHARACTERS: Final = 2000
_TAG: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_METRIC: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_LARGEST_FIGURE: Final = 1e30


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
    tags: tuple[str, ...] = ()
    region: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    description: str = ""
    training_print: bytes = b""

    def to_body(self) -> dict[str, Any]:
        """What a retry must repeat; without a print it is what it was before there were prints."""
        body = asdict(self)
        data = body.pop("training_print")
        return {**body, "training_print": hashlib.sha256(data).hexdigest()} if data else body


class Publisher:
    """Checks uploads and makes versions of them."""

    def __init__(
        self,
        bases: Bases,
        versions: Versions,
        blobs: Blobs,
        max_upload_bytes: int,
        signer: Signer | None = None,
        *,
        max_rank: int = MAX_RANK,
    ) -> None:
        """Without a `signer` versions are not signed."""
        self._bases = bases
        self._versions = versions
        self._blobs = blobs
        self._max_upload_bytes = max_upload_bytes
        self._signer = signer
        self._max_rank = max_rank

    def admit(self, request: PublishRequest, principal: Principal) -> None:
        """Refuse, before the first byte, what no bytes can make right.

        Raises PermissionDenied, InvalidArgument, UploadInvalid (UPLOAD_TOO_LARGE), TrainingPrintInvalid, BaseNotFound
        or BaseMismatch.
        """
        principal.require(Role.PUBLISHER, "publish a version", or_service=True)
        _ensure_notes(request)
        if not 1 <= request.size_bytes <= self._max_upload_bytes:
            raise UploadInvalid(
                f"size_bytes {request.size_bytes} is outside 1 … {self._max_upload_bytes} "
                "(prune the file, retrain with a lower rank, or raise TERROIR_REGISTRY_MAX_UPLOAD_BYTES)",
                reason="UPLOAD_TOO_LARGE" if request.size_bytes > 0 else "UPLOAD_EMPTY",
                field="header.size_bytes",
            )
        ensure_digest(request.file_digest, "header.file_digest")
        if request.training_print:
            TrainingPrint.from_bytes(request.training_print)
        _ensure_same_base(self._bases.get(request.base), request.base_digest)

    def publish(self, request: PublishRequest, data: bytes, principal: Principal, *, op_id: str) -> Version:
        """Make a version of the whole file, once however often this is repeated with one `op_id`.

        Takes seconds and about six times the file's memory: keep it off an event loop. Raises as
        `read_adapter_file` does, BaseMismatch, and OperationConflict when `op_id` published something else.
        """
        base = self._bases.get(request.base)
        parsed = read_adapter_file(data, self._bases.key_table(base), max_rank=self._max_rank)
        _ensure_same_base(base, parsed.metadata.get(BASE_DIGEST_KEY, ""))
        adapter = parsed.adapter
        kohya = kohya_file(adapter, describe(_description(base, request)), sdxl=base.family == "sdxl")
        with ThreadPoolExecutor(1) as pool:  # the rest is computed while the file travels
            keeping = pool.submit(self._blobs.put, kohya.data, likely_new=True)
            tensor_digest = adapter.tensor_digest()
            derived = {"diffusers": hashlib.sha256(to_diffusers(adapter)).hexdigest()} if adapter.is_lora else {}
            stored = StoredFile(keeping.result(), len(kohya.data))
        facts = SignedFacts(adapter_name(request.adapter), base.digest, tensor_digest, request.trigger_word)
        manifest = Manifest(
            base=base.base,
            base_digest=base.digest,
            kohya=stored,
            tensor_digest=tensor_digest,
            rank=adapter.rank,
            matched_layers=parsed.matched,
            ignored=tuple((entry.key, entry.reason) for entry in parsed.ignored),
            trigger_word=request.trigger_word,
            lineage=request.lineage,
            labels=request.labels,
            upload_digest=request.file_digest,
            upload_format=parsed.format,
            actor=principal.name,
            tags=request.tags,
            region=request.region,
            metrics=request.metrics,
            description=request.description,
            hashes={
                **site_hashes(kohya.data, file_digest=stored.digest, body_digest=kohya.body_digest),
                **derived,
            },
            unknown=tuple((entry.key, entry.reason) for entry in parsed.unknown),
            missing_layers=parsed.missing,
            signature=self._signer.sign(kohya.data, facts) if self._signer is not None else None,
            training_print=self._kept_print(request.training_print),
        )
        return self._versions.append(request.adapter, manifest, op_id=op_id, request=request.to_body())

    def _kept_print(self, data: bytes) -> StoredFile | None:
        return StoredFile(self._blobs.put(data), len(data)) if data else None


def _description(base: Base, request: PublishRequest) -> Description:
    """Nothing of the upload's own metadata, which may name the uploader's folders."""
    return Description(
        title=request.adapter,
        family=base.family,
        resolution=base.native_resolution,
        prediction_type=base.prediction_type,
        base_name=base.base,
        base_digest=base.digest,
        trigger_word=request.trigger_word,
        text=request.description,
        tags=request.tags,
    )


def _ensure_same_base(base: Base, trained_on: str) -> None:
    if trained_on not in ("", base.digest):
        raise BaseMismatch(
            f"the adapter was trained on a base with digest {trained_on[:12]}, {base_name(base.base)} has "
            f"{base.digest[:12]}; publish it for the base that it was trained on, or retrain",
            metadata={"base": base_name(base.base), "expected": base.digest, "found": trained_on[:64]},
        )


def _ensure_notes(request: PublishRequest) -> None:
    ensure_text(request.trigger_word, "header.trigger_word", MAX_TRIGGER_CHARACTERS)
    for name, value in asdict(request.lineage).items():
        ensure_text(value, f"header.lineage.{name}", MAX_LABEL_CHARACTERS)
    ensure_text(request.description, "header.description", MAX_DESCRIPTION_CHARACTERS)
    _ensure_few(len(request.labels), MAX_LABELS, "labels")
    _ensure_few(len(request.tags), MAX_TAGS, "tags")
    _ensure_few(len(request.metrics), MAX_METRICS, "metrics")
    for tag in request.tags:
        if not _TAG.fullmatch(tag):
            raise _not_a_name(tag, "header.tags", _TAG)
    for name, figure in request.metrics.items():
        if not _METRIC.fullmatch(name):
            raise _not_a_name(name, "header.metrics", _METRIC)
        ensure_range(figure, f"header.metrics[{name}]", -_LARGEST_FIGURE, _LARGEST_FIGURE)
    for key, value in request.labels.items():
        ensure_text(key, "header.labels", MAX_LABEL_CHARACTERS)
        ensure_text(value, f"header.labels[{key[:40]}]", MAX_LABEL_CHARACTERS)


def _ensure_few(count: int, limit: int, what: str) -> None:
    if count > limit:
        raise InvalidArgument(
            f"{count} {what}; at most {limit} are allowed: drop some",
            reason=f"TOO_MANY_{what.upper()}",
            field=f"header.{what}",
        )


def _not_a_name(value: str, field: str, pattern: re.Pattern[str]) -> InvalidArgument:
    return InvalidArgument(
        f"{field} has {value[:64]!r}, which does not match {pattern.pattern}", reason="INVALID_NAME", field=field
    )
