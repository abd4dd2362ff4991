"""Between the contract's messages and the domain's values; no rules beyond the shape of names."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.registry.adapters import Adapter
from terroir.registry.aliases import Alias
from terroir.registry.bases import Base
from terroir.registry.names import (
    adapter_name,
    base_name,
    parse_adapter,
    parse_base,
    version_name,
)
from terroir.registry.publishing import PublishRequest
from terroir.registry.versions import Lineage, Version

_LINEAGE_FIELDS: Final = ("job", "dataset_version", "dataset_digest", "config_digest", "code_version")


def base_message(base: Base) -> pb.Base:
    """A base as the contract shows it."""
    return pb.Base(
        name=base_name(base.base),
        family=base.family,
        digest=base.digest,
        prediction_type=base.prediction_type,
        component_digests=base.component_digests,
        adaptable_layers=base.adaptable_layers,
        native_resolution=base.native_resolution,
        create_time=_timestamp(base.created_at),
    )


def alias_message(alias: Alias) -> pb.Alias:
    """An alias as the contract shows it."""
    return pb.Alias(
        adapter=adapter_name(alias.adapter),
        alias=alias.alias,
        version=version_name(alias.adapter, alias.number),
        actor=alias.actor,
        reason=alias.reason,
        update_time=_timestamp(alias.updated_at),
        etag=alias.etag,
    )


def adapter_message(adapter: Adapter) -> pb.Adapter:
    """An adapter as the contract shows it."""
    return pb.Adapter(
        name=adapter_name(adapter.adapter),
        newest_version=adapter.newest_version,
        aliases=[alias_message(alias) for alias in adapter.aliases],
        create_time=_timestamp(adapter.created_at),
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
        ),
        trigger_word=manifest.trigger_word,
        lineage=pb.Lineage(**{field: getattr(manifest.lineage, field) for field in _LINEAGE_FIELDS}),
        labels=version.visible_labels(),
        create_time=_timestamp(version.created_at),
    )


def publish_request(header: pb.PublishHeader) -> PublishRequest:
    """The wish in a publish header; raises InvalidArgument (INVALID_NAME)."""
    return PublishRequest(
        adapter=parse_adapter(header.adapter, "header.adapter"),
        base=parse_base(header.base, "header.base"),
        base_digest=header.base_digest,
        size_bytes=header.size_bytes,
        file_digest=header.file_digest,
        trigger_word=header.trigger_word,
        lineage=Lineage(**{field: getattr(header.lineage, field) for field in _LINEAGE_FIELDS}),
        labels=dict(header.labels),
    )


def _timestamp(text: str) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(datetime.fromisoformat(text))
    return stamp
