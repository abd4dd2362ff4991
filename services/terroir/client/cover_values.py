"""What covers are to a caller, and the caller's own pictures in their place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from terroir._proto.inference.v1 import cover_pb2 as pb
from terroir._proto.inference.v1 import inference_pb2
from terroir.client.pictures import ASPECT_RATIOS

FORMATS: Final = {
    "": inference_pb2.PICTURE_FORMAT_UNSPECIFIED, "webp": inference_pb2.PICTURE_FORMAT_WEBP,
    "png": inference_pb2.PICTURE_FORMAT_PNG, "jpeg": inference_pb2.PICTURE_FORMAT_JPEG,
}  # fmt: skip
Default = str | bytes | Callable[[str], str | bytes]
"""What stands in for a cover: a reference, a file, or what makes either for a content's key."""


class Rung(StrEnum):
    """Which cover answered; the first that is there does."""

    REGION = "region"
    """In the style that the region gets."""
    PARENT = "parent"
    """In the style of a region that it lies in."""
    BASE = "base"
    """In no style."""
    DEFAULT = "default"
    """The caller's own picture."""


_RUNGS: Final = {
    pb.RUNG_REGION: Rung.REGION, pb.RUNG_PARENT: Rung.PARENT, pb.RUNG_BASE: Rung.BASE, pb.RUNG_DEFAULT: Rung.DEFAULT,
}  # fmt: skip
_LACKS: Final = {number: name.removeprefix("LACK_").lower() for name, number in pb.Lack.items() if number}
_FORMAT_NAMES: Final = {number: name for name, number in FORMATS.items() if name}


@dataclass(frozen=True)
class Cover:
    """A picture to show for a content."""

    content: str
    region: str
    """`regions/{code}` as it was asked for; empty for the base's own look."""
    variant: int = 0
    rung: Rung = Rung.DEFAULT
    source: str = ""
    """Region whose recipe it wears."""
    stale: bool = False
    """Whether a newer one is wanted: another style, other words, or somebody said that it is wrong."""
    stale_seconds: float = 0.0
    lack: str = ""
    """Why no better rung answered, such as `not_drawn`."""
    filling: bool = False
    """Whether a better one is going to be drawn."""
    picture: str = ""
    """`covers/{digest}` for `read`; on the rung default the caller's own reference."""
    object_key: str = ""
    """Where the file lies in the bucket."""
    digest: str = ""
    size_bytes: int = 0
    format: str = ""
    """`webp`, `png` or `jpeg`."""
    width: int = 0
    height: int = 0
    picture_id: str = ""
    seed: int = 0
    data: bytes = field(default=b"", repr=False)
    """The file, if it was asked for and fitted into the answer, or the caller's own."""
    unanswered: str = ""
    """Reason code for which no server answered in time; empty: one did."""

    def save(self, path: str | Path) -> Path:
        """Write the file as it came."""
        target = Path(path)
        target.write_bytes(self.data)
        return target


@dataclass(frozen=True)
class CoverQuery:
    """Contents asked for in one region."""

    contents: Sequence[str]
    """Keys."""
    region: str = ""
    """Code, such as CN-ZJ; empty asks for the base's own look."""
    count: int = 1
    """Variants of each content, 1 … 16."""


@dataclass(frozen=True)
class CoverContent:
    """Something that has covers drawn."""

    key: str
    prompt: str
    negative_prompt: str = ""
    """Empty takes the one of the region's recipe."""


def region_name(region: str) -> str:
    """`regions/{code}` of what people write; empty stays empty."""
    return f"regions/{region}" if region and not region.startswith("regions/") else region


def shape_message(width: int, height: int, aspect: str, file_format: str) -> pb.CoverShape:
    """Raises KeyError for an aspect or a format that is none."""
    return pb.CoverShape(width=width, height=height, aspect_ratio=ASPECT_RATIOS[aspect], format=FORMATS[file_format])


def standing_in(cover: Cover, default: Default) -> Cover:
    """With the caller's own picture."""
    own = default(cover.content) if callable(default) else default
    told = {"data": own, "size_bytes": len(own)} if isinstance(own, bytes) else {"picture": own}
    return replace(cover, **told)


def cover_of(message: pb.Cover, default: Default) -> Cover:
    """A cover of an answer; on the rung default the caller's own picture."""
    rung = _RUNGS.get(message.rung, Rung.BASE if message.digest else Rung.DEFAULT)
    cover = Cover(
        message.content, message.region, message.variant, rung, message.source, message.stale, message.stale_seconds,
        _LACKS.get(message.lack, ""), message.filling, message.picture, message.object_key, message.digest,
        message.size_bytes, _FORMAT_NAMES.get(message.format, ""), message.width, message.height, message.picture_id,
        message.seed, message.data,
    )  # fmt: skip
    return standing_in(cover, default) if rung is Rung.DEFAULT else cover
