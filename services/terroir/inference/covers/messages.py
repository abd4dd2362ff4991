"""Between the contract of covers and the domain's values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from terroir._proto.inference.v1 import cover_pb2 as pb
from terroir._proto.inference.v1 import inference_pb2
from terroir.common.errors import InvalidArgument
from terroir.common.validation import ensure_name, ensure_range, ensure_text
from terroir.inference.admission.priority import Priority
from terroir.inference.covers.contents import Content
from terroir.inference.covers.errors import TooManyCovers
from terroir.inference.covers.filling import MAX_VARIANTS
from terroir.inference.covers.finding import Found, Query
from terroir.inference.covers.ladder import Lack, RungKind
from terroir.inference.covers.preparation import Preparation, State, Tally
from terroir.inference.covers.shelf import picture_key
from terroir.inference.covers.units import Shape, ensure_content_key
from terroir.inference.delivery.picture_files import PictureFormat
from terroir.inference.request.wish import Limits, cover_pixels
from terroir.inference.wire import ASPECT_RATIOS, PRIORITIES, chosen, picture_format

MAX_COVERS: Final = 1000
"""Of one GetCovers."""
MAX_CONTENTS: Final = 10_000
MAX_REGIONS: Final = 1000
MAX_PREPARED: Final = 1_000_000
MAX_INVALIDATED: Final = 1000
MAX_STICKY_KEY_CHARACTERS: Final = 256
NO_SHAPE: Final = Shape(0, 0, PictureFormat.WEBP)
"""Of answers that hold no cover."""
_MAX_REFERENCE_CHARACTERS: Final = 1024
_LAST_MOMENT: Final = 253_402_300_799
"""Seconds since 1970; the last that a Timestamp can hold."""
_RUNGS: Final = {
    RungKind.REGION: pb.RUNG_REGION, RungKind.PARENT: pb.RUNG_PARENT, RungKind.BASE: pb.RUNG_BASE,
    RungKind.DEFAULT: pb.RUNG_DEFAULT,
}  # fmt: skip
_LACKS: Final = {
    Lack.NONE: pb.LACK_UNSPECIFIED, Lack.NOT_DRAWN: pb.LACK_NOT_DRAWN, Lack.REGION_UNKNOWN: pb.LACK_REGION_UNKNOWN,
    Lack.REGISTRY_UNREACHABLE: pb.LACK_REGISTRY_UNREACHABLE, Lack.STORE_UNREACHABLE: pb.LACK_STORE_UNREACHABLE,
    Lack.MODEL_LOADING: pb.LACK_MODEL_LOADING,
}  # fmt: skip
_STATES: Final = {
    State.RUNNING: pb.PREPARATION_STATE_RUNNING, State.SUCCEEDED: pb.PREPARATION_STATE_SUCCEEDED,
    State.CANCELLED: pb.PREPARATION_STATE_CANCELLED, State.CUT_SHORT: pb.PREPARATION_STATE_CUT_SHORT,
}  # fmt: skip
_FORMATS: Final = {
    PictureFormat.PNG: inference_pb2.PICTURE_FORMAT_PNG, PictureFormat.JPEG: inference_pb2.PICTURE_FORMAT_JPEG,
    PictureFormat.WEBP: inference_pb2.PICTURE_FORMAT_WEBP,
}  # fmt: skip
_PRIORITY_NUMBERS: Final = {
    Priority.HIGH: inference_pb2.PRIORITY_HIGH, Priority.NORMAL: inference_pb2.PRIORITY_NORMAL,
    Priority.BACKGROUND: inference_pb2.PRIORITY_BACKGROUND,
}  # fmt: skip


def queries_of(request: pb.GetCoversRequest) -> list[Query]:
    """What is asked for; raises InvalidArgument."""
    ensure_text(request.sticky_key, "sticky_key", MAX_STICKY_KEY_CHARACTERS)
    ensure_text(request.default_picture, "default_picture", _MAX_REFERENCE_CHARACTERS)
    covers = sum(len(query.contents) * max(1, query.count) for query in request.queries)
    if covers > MAX_COVERS:
        raise TooManyCovers(
            f"{covers} covers, at most {MAX_COVERS} are looked up at once; split the call", field="queries"
        )
    return [_query(query, f"queries[{at}]") for at, query in enumerate(request.queries)]


def _query(query: pb.CoverQuery, field: str) -> Query:
    for at, key in enumerate(query.contents):
        ensure_content_key(key, f"{field}.contents[{at}]")
    count = int(ensure_range(query.count, f"{field}.count", 0, MAX_VARIANTS))
    return Query(tuple(query.contents), region_of(query.region, f"{field}.region"), count or 1)


def region_of(name: str, field: str) -> str:
    """A region's name as it came, or nothing; raises InvalidArgument."""
    if name:
        ensure_name(name, field, "regions/{region}")
    return name


def shape_of(message: pb.CoverShape, limits: Limits) -> Shape:
    """Size and format, defaults filled in; raises InvalidArgument."""
    ratio = chosen(message.aspect_ratio, ASPECT_RATIOS, "aspect_ratio")
    width, height = cover_pixels(message.width, message.height, ratio, limits)
    left_out = message.format == inference_pb2.PICTURE_FORMAT_UNSPECIFIED
    return Shape(width, height, PictureFormat.WEBP if left_out else picture_format(message.format))


def contents_of(request: pb.PrepareCoversRequest) -> list[Content]:
    """What is to be drawn; raises InvalidArgument."""
    if not request.contents:
        raise InvalidArgument("contents is empty; say what to draw", reason="NO_CONTENTS", field="contents")
    if len(request.contents) > MAX_CONTENTS:
        raise TooManyCovers(
            f"{len(request.contents)} contents, at most {MAX_CONTENTS} are prepared by one call; split it",
            field="contents",
        )
    contents = [
        Content(each.key, each.prompt, each.negative_prompt).ensure(f"contents[{at}]")
        for at, each in enumerate(request.contents)
    ]
    keys = [content.key for content in contents]
    twice, times = Counter(keys).most_common(1)[0]
    if times > 1:
        raise InvalidArgument(f"contents has {twice[:64]!r} twice", reason="CONTENT_TWICE", field="contents")
    return contents


def preparation_of(
    request: pb.PrepareCoversRequest, shape: Shape, *, id_: str, creator: str, now: float, variants: int
) -> Preparation:
    """The preparation that is asked for; `variants` is the default. Raises InvalidArgument."""
    if not request.regions or len(request.regions) > MAX_REGIONS:
        raise InvalidArgument(
            f"{len(request.regions)} regions; give 1 to {MAX_REGIONS}, an empty one for the base's own look",
            reason="WRONG_NUMBER_OF_REGIONS",
            field="regions",
        )
    regions = tuple(dict.fromkeys(region_of(name, f"regions[{at}]") for at, name in enumerate(request.regions)))
    count = int(ensure_range(request.variants, "variants", 0, MAX_VARIANTS)) or variants
    covers = len(request.contents) * len(regions) * count
    if covers > MAX_PREPARED:
        raise TooManyCovers(
            f"{len(request.contents)} contents × {len(regions)} regions × {count} variants are {covers} covers, at "
            f"most {MAX_PREPARED} are prepared by one call; split it",
            field="contents",
        )
    if request.max_pictures < 0:
        raise InvalidArgument("max_pictures is negative", reason="OUT_OF_RANGE", field="max_pictures")
    deadline = request.deadline.seconds + request.deadline.nanos / 1e9 if request.HasField("deadline") else None
    if deadline is not None and deadline > _LAST_MOMENT:
        raise InvalidArgument("deadline is beyond the year 9999", reason="OUT_OF_RANGE", field="deadline")
    if deadline is not None and deadline <= now:
        raise InvalidArgument("deadline has passed; name a later one", reason="DEADLINE_PASSED", field="deadline")
    return Preparation(
        id_, len(request.contents), regions, count, shape, chosen(request.priority, PRIORITIES, "priority"),
        deadline, request.max_pictures, request.redraw, creator, now,
    )  # fmt: skip


def covers_message(found: Sequence[Found], shape: Shape, default_picture: str, now: float) -> pb.GetCoversResponse:
    """Covers, and the default where it stands in for one."""
    response = pb.GetCoversResponse()
    for each in found:
        _fill(response.covers.add(), each, shape, default_picture, now)
    return response


def _fill(message: pb.Cover, found: Found, shape: Shape, default_picture: str, now: float) -> None:
    """In place: hundreds of thousands are made in a minute."""
    message.content, message.region, message.variant = found.content, found.region, found.variant
    message.rung, message.lack, message.filling = _RUNGS[found.kind], _LACKS[found.lack], found.filling
    picture = found.picture
    if picture is None:
        message.picture = default_picture
        return
    message.source = found.source
    if found.stale_since is not None:
        message.stale, message.stale_seconds = True, max(0.0, now - found.stale_since)
    message.picture, message.object_key = f"covers/{picture.digest}", picture_key(picture.digest)
    message.digest, message.size_bytes, message.format = picture.digest, picture.size_bytes, _FORMATS[shape.format]
    message.width, message.height = shape.width, shape.height
    message.picture_id, message.seed, message.data = picture.picture_id, picture.seed, found.data


def preparation_message(preparation: Preparation, tally: Tally) -> pb.CoverPreparation:
    """A preparation with how far it is."""
    message = pb.CoverPreparation(
        name=preparation.name,
        state=_STATES[preparation.state],
        total=preparation.total,
        drawn=tally.drawn,
        kept=tally.kept,
        failed=tally.failed,
        pictures=tally.pictures,
        failures=[
            pb.CoverFailure(content=each.content, region=each.region, reason=each.reason, message=each.message)
            for each in tally.failures
        ],
        cut_short=preparation.cut_short,
        variants=preparation.variants,
        contents=preparation.contents,
        regions=preparation.regions,
        priority=_PRIORITY_NUMBERS[preparation.priority],
        max_pictures=preparation.max_pictures,
        create_time=_timestamp(preparation.created_at),
        creator=preparation.creator,
    )
    if preparation.deadline is not None:
        message.deadline.CopyFrom(_timestamp(preparation.deadline))
    if preparation.ended_at is not None:
        message.end_time.CopyFrom(_timestamp(preparation.ended_at))
    return message


def invalidated(request: pb.InvalidateCoversRequest) -> Sequence[str]:
    """Keys of contents; raises InvalidArgument."""
    region_of(request.region, "region")
    ensure_text(request.reason, "reason", 500)
    if not request.contents and not request.region:
        raise InvalidArgument(
            "neither contents nor region is given; say what is no longer right", reason="NOTHING_NAMED",
            field="contents",
        )  # fmt: skip
    if len(request.contents) > MAX_INVALIDATED:
        raise TooManyCovers(
            f"{len(request.contents)} contents, at most {MAX_INVALIDATED} are invalidated at once; split the call",
            field="contents",
        )
    return [ensure_content_key(key, f"contents[{at}]") for at, key in enumerate(request.contents)]


def _timestamp(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(datetime.fromtimestamp(seconds, UTC))
    return stamp
