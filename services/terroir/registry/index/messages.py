"""Between the contract's messages of searches and watches and the domain's values."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.common.errors import InvalidArgument
from terroir.registry.index.search import AdapterFilter, MetricBound
from terroir.registry.index.watch_token import WatchPosition
from terroir.registry.index.watching import WatchEvent
from terroir.registry.names import parse_base, parse_region
from terroir.registry.timestamps import timestamp


def adapter_filter(message: pb.AdapterFilter) -> AdapterFilter:
    """The filter of a request; raises InvalidArgument (INVALID_NAME, INVALID_TIME), not for what `ensure` checks."""
    return AdapterFilter(
        query=message.query,
        region=parse_region(message.region, "filter.region") if message.region else "",
        base=parse_base(message.base, "filter.base") if message.base else "",
        tags=tuple(message.tags),
        trigger_word=message.trigger_word,
        alias=message.alias,
        published_after=_time(message.published_after, "filter.published_after")
        if message.HasField("published_after")
        else None,
        published_before=_time(message.published_before, "filter.published_before")
        if message.HasField("published_before")
        else None,
        metrics=tuple(
            MetricBound(
                bound.metric,
                bound.minimum if bound.HasField("minimum") else None,
                bound.maximum if bound.HasField("maximum") else None,
            )
            for bound in message.metrics
        ),
        include_deprecated=message.include_deprecated,
    )


def watch_message(position: WatchPosition, event: WatchEvent | None = None) -> pb.WatchResponse:
    """A message of the watch stream; without an event it tells only where the watch is."""
    if event is None:
        return pb.WatchResponse(resume_token=position.token())
    change = event.change
    return pb.WatchResponse(
        resume_token=position.token(),
        change=pb.Change(
            name=change.name,
            kind=pb.ChangeKind.Value(f"CHANGE_KIND_{change.kind}"),
            time=timestamp(change.time),
        ),
    )


def _time(stamp: Timestamp, field: str) -> datetime:
    try:
        return stamp.ToDatetime(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidArgument(
            f"{field} is no time between the years 1 and 9999; send seconds since 1970, UTC",
            reason="INVALID_TIME",
            field=field,
        ) from error
