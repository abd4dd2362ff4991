"""Between the contract's messages and the domain's values; no rules beyond the shape of names."""

from __future__ import annotations

from typing import Final

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.common.signatures import Signature
from terroir.registry.adapters import Adapter
from terroir.registry.moving.alias_messages import alias_message, deprecation_message
from terroir.registry.names import (
    adapter_name,
    base_name,
    parse_adapter,
    parse_base,
    parse_region,
    parse_version,
    region_name,
)
from terroir.registry.publishing import PublishRequest
from terroir.registry.timestamps import timestamp
from terroir.registry.versions import Lineage, Version

_LINEAGE_FIELDS: Final = (
    "job",
    "dataset_version",
    "dataset_digest",
    "config_digest",
    "code_version",
    "parent",
    "checkpoint",
)


def adapter_message(adapter: Adapter) -> pb.Adapter:
    """An adapter as the contract shows it."""
    return pb.Adapter(
        name=adapter_name(adapter.adapter),
        newest_version=adapter.newest_version,
        aliases=[alias_message(alias) for alias in adapter.aliases],
        create_time=timestamp(adapter.created_at),
    )


def version_message(version: Version) -> pb.AdapterVersion:
    """A version as the contract shows it."""
    manifest = version.manifest
    return pb.AdapterVersion(
        name=version.name,
        base=base_name(manifest.base),
        base_digest=manifest.base_digest,
        file_digest=manifest.kohya.digest,
        tensor_digest=manifest.tensor_digest,
        size_bytes=manifest.kohya.size_bytes,
        rank=manifest.rank,
        coverage=pb.Coverage(
            matched_layers=manifest.matched_layers,
            ignored=[pb.IgnoredKey(key=key, reason=reason) for key, reason in manifest.ignored],
            missing_layers=manifest.missing_layers,
            unknown=[pb.IgnoredKey(key=key, reason=reason) for key, reason in manifest.unknown],
        ),
        trigger_word=manifest.trigger_word,
        lineage=pb.Lineage(**{field: getattr(manifest.lineage, field) for field in _LINEAGE_FIELDS}),
        labels=version.visible_labels(),
        create_time=timestamp(version.created_at),
        tags=manifest.tags,
        region=region_name(manifest.region) if manifest.region else "",
        metrics=manifest.metrics,
        description=manifest.description,
        deprecation=deprecation_message(version.deprecation),
        actor=manifest.actor,
        upload_digest=manifest.upload_digest,
        upload_format=manifest.upload_format,
        hashes=manifest.hashes,
        signature=_signature_message(manifest.signature),
        training_print_digest=manifest.training_print.digest if manifest.training_print else "",
    )


def publish_request(header: pb.PublishHeader) -> PublishRequest:
    """The wish in a publish header; raises InvalidArgument (INVALID_NAME)."""
    if header.lineage.parent:  # by which its descendants are found, so it must be spelled as names are
        parse_version(header.lineage.parent, "header.lineage.parent")
    return PublishRequest(
        adapter=parse_adapter(header.adapter, "header.adapter"),
        base=parse_base(header.base, "header.base"),
        base_digest=header.base_digest,
        size_bytes=header.size_bytes,
        file_digest=header.file_digest,
        trigger_word=header.trigger_word,
        lineage=Lineage(**{field: getattr(header.lineage, field) for field in _LINEAGE_FIELDS}),
        labels=dict(header.labels),
        tags=tuple(header.tags),
        region=parse_region(header.region, "header.region") if header.region else "",
        metrics=dict(header.metrics),
        description=header.description,
        training_print=header.training_print,
    )


def _signature_message(signature: Signature | None) -> pb.Signature | None:
    return None if signature is None else pb.Signature(key_id=signature.key_id, bundle=signature.bundle.encode())
