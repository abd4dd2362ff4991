"""Every field of every call about covers can be wrong: each refusal has its reason, and names the field."""

from __future__ import annotations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from terroir._proto.inference.v1 import cover_pb2 as pb
from terroir._proto.inference.v1 import inference_pb2
from terroir.common.errors import InvalidArgument
from terroir.inference.covers import messages
from terroir.inference.covers.preparation import Preparation
from terroir.inference.delivery.picture_files import PictureFormat
from terroir.inference.request.wish import Limits
from tests.unit.inference.covers.cover_kit import SHAPE

LIMITS = Limits(max_pixels=1 << 18, native_resolution=64, default_guidance_scale=3.0)
LONG = "k" * 257


def query(*keys: str, region: str = "regions/CN", count: int = 1) -> pb.CoverQuery:
    return pb.CoverQuery(contents=keys, region=region, count=count)


def preparation(request: pb.PrepareCoversRequest) -> Preparation:
    messages.contents_of(request)
    return messages.preparation_of(request, SHAPE, id_="p1", creator="ana", now=100.0, variants=2)


def content(key: str = "a", prompt: str = "a hill", negative_prompt: str = "") -> pb.CoverContent:
    return pb.CoverContent(key=key, prompt=prompt, negative_prompt=negative_prompt)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.GetCoversRequest(queries=[query("a", region="CN")]), "queries[0].region"),
        (pb.GetCoversRequest(queries=[query("a"), query("a", region="regions/C N")]), "queries[1].region"),
        (pb.GetCoversRequest(queries=[query("")]), "queries[0].contents[0]"),
        (pb.GetCoversRequest(queries=[query("a", LONG)]), "queries[0].contents[1]"),
        (pb.GetCoversRequest(queries=[query("a", count=17)]), "queries[0].count"),
        (pb.GetCoversRequest(queries=[query("a", count=-1)]), "queries[0].count"),
        (pb.GetCoversRequest(queries=[query(*map(str, range(10_000)))]), "queries"),
        (pb.GetCoversRequest(queries=[query(*map(str, range(100)), count=11)]), "queries"),
        (pb.GetCoversRequest(sticky_key=LONG), "sticky_key"),
        (pb.GetCoversRequest(default_picture="x" * 1025), "default_picture"),
    ],
)
def test_wrong_queries_are_refused(request_: pb.GetCoversRequest, field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        messages.queries_of(request_)
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        (pb.CoverShape(width=63), "INVALID_SIZE"),
        (pb.CoverShape(width=-8, height=8), "INVALID_SIZE"),
        (pb.CoverShape(width=8192, height=8192), "TOO_MANY_PIXELS"),
        (pb.CoverShape(width=64, aspect_ratio=inference_pb2.ASPECT_RATIO_SQUARE), "CONFLICTING_SIZE"),
        (pb.CoverShape(aspect_ratio=9), "UNKNOWN_ASPECT_RATIO"),  # type: ignore[arg-type]
        (pb.CoverShape(format=9), "UNKNOWN_FORMAT"),  # type: ignore[arg-type]
    ],
)
def test_wrong_shapes_are_refused(shape: pb.CoverShape, reason: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        messages.shape_of(shape, LIMITS)
    assert refused.value.reason == reason


def test_a_shape_left_out_is_the_bases_own_in_webp() -> None:
    shape = messages.shape_of(pb.CoverShape(), LIMITS)
    assert (shape.width, shape.height, shape.format) == (64, 64, PictureFormat.WEBP)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (pb.PrepareCoversRequest(regions=["regions/CN"]), "NO_CONTENTS"),
        (pb.PrepareCoversRequest(contents=[content()]), "WRONG_NUMBER_OF_REGIONS"),
        (pb.PrepareCoversRequest(contents=[content()], regions=["CN"]), "INVALID_NAME"),
        (pb.PrepareCoversRequest(contents=[content(key="")], regions=[""]), "TEXT_MISSING"),
        (pb.PrepareCoversRequest(contents=[content(prompt="")], regions=[""]), "TEXT_MISSING"),
        (pb.PrepareCoversRequest(contents=[content(prompt="x" * 2001)], regions=[""]), "TEXT_TOO_LONG"),
        (pb.PrepareCoversRequest(contents=[content(negative_prompt="x" * 2001)], regions=[""]), "TEXT_TOO_LONG"),
        (pb.PrepareCoversRequest(contents=[content(), content()], regions=[""]), "CONTENT_TWICE"),
        (pb.PrepareCoversRequest(contents=[content()], regions=[""], variants=17), "OUT_OF_RANGE"),
        (pb.PrepareCoversRequest(contents=[content()], regions=[""], max_pictures=-1), "OUT_OF_RANGE"),
        (pb.PrepareCoversRequest(contents=[content()], regions=[""], priority=9), "UNKNOWN_PRIORITY"),  # type: ignore[arg-type]
        (
            pb.PrepareCoversRequest(contents=[content()], regions=[""], deadline=Timestamp(seconds=99)),
            "DEADLINE_PASSED",
        ),
        (
            pb.PrepareCoversRequest(contents=[content()], regions=[""], deadline=Timestamp(seconds=2**40)),
            "OUT_OF_RANGE",
        ),
        (
            pb.PrepareCoversRequest(contents=[content(key=str(n)) for n in range(10_001)], regions=[""]),
            "TOO_MANY_COVERS",
        ),
        (
            pb.PrepareCoversRequest(contents=[content()], regions=[f"regions/R-{n}" for n in range(1001)]),
            "WRONG_NUMBER_OF_REGIONS",
        ),
        (
            pb.PrepareCoversRequest(
                contents=[content(key=str(n)) for n in range(5000)], regions=[f"regions/R-{n}" for n in range(101)]
            ),
            "TOO_MANY_COVERS",
        ),
    ],
)
def test_wrong_preparations_are_refused(request_: pb.PrepareCoversRequest, reason: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        preparation(request_)
    assert refused.value.reason == reason


def test_a_preparation_of_a_million_covers_is_taken_and_one_more_is_not() -> None:
    contents = [content(key=str(n)) for n in range(5000)]
    regions = [f"regions/R-{n}" for n in range(100)]
    assert preparation(pb.PrepareCoversRequest(contents=contents, regions=regions)).total == 500_000


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (pb.InvalidateCoversRequest(), "NOTHING_NAMED"),
        (pb.InvalidateCoversRequest(region="CN"), "INVALID_NAME"),
        (pb.InvalidateCoversRequest(contents=[""]), "TEXT_MISSING"),
        (pb.InvalidateCoversRequest(contents=["a"], reason="x" * 501), "TEXT_TOO_LONG"),
        (pb.InvalidateCoversRequest(contents=[str(n) for n in range(1001)]), "TOO_MANY_COVERS"),
    ],
)
def test_wrong_invalidations_are_refused(request_: pb.InvalidateCoversRequest, reason: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        messages.invalidated(request_)
    assert refused.value.reason == reason
