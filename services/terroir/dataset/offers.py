"""What the client and the server say to each other during an import, and which offers are acceptable."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Final

from terroir.common.errors import InvalidArgument
from terroir.common.validation import ensure_digest, ensure_text
from terroir.dataset.model import JudgedPicture

MAX_PICTURE_BYTES: Final = 64 * 1024 * 1024
MAX_CAPTION_CHARACTERS: Final = 2000
_MAX_NAME_CHARACTERS: Final = 255


@dataclass(frozen=True)
class Offer:
    """A picture that the client has. `caption` is the sidecar's text, empty if there is none."""

    digest: str
    file_name: str
    size_bytes: int
    caption: str


@dataclass(frozen=True)
class Chunk:
    """Bytes of a wanted picture from `offset` on."""

    digest: str
    offset: int
    data: bytes


@dataclass(frozen=True)
class OffersDone:
    """No more offers follow."""


@dataclass(frozen=True)
class Wanted:
    """The server lacks this content."""

    digest: str


@dataclass(frozen=True)
class Judged:
    """The picture is recorded and judged; `already_present` if the dataset held it before."""

    picture: JudgedPicture
    already_present: bool


ToServer = Offer | Chunk | OffersDone
ToClient = Wanted | Judged


def ensure_offer(offer: Offer) -> Offer:
    """Return the offer with its caption stripped, or raise InvalidArgument."""
    ensure_digest(offer.digest, "offer.digest")
    ensure_file_name(offer.file_name)
    if not 0 <= offer.size_bytes <= MAX_PICTURE_BYTES:
        raise InvalidArgument(
            f"picture {offer.file_name!r} has {offer.size_bytes} bytes, the limit is {MAX_PICTURE_BYTES}; "
            "export it smaller",
            reason="PICTURE_TOO_LARGE",
            field="offer.size_bytes",
            metadata={"digest": offer.digest, "limit_bytes": str(MAX_PICTURE_BYTES)},
        )
    caption = ensure_text(offer.caption, "offer.caption", MAX_CAPTION_CHARACTERS).strip()
    return Offer(offer.digest, offer.file_name, offer.size_bytes, caption)


def ensure_file_name(name: str) -> str:
    """Return `name`, or raise InvalidArgument with INVALID_FILE_NAME: it must name a file on any system, not a path."""
    hidden = any(unicodedata.category(character) in ("Cc", "Cs") for character in name)
    if not 1 <= len(name) <= _MAX_NAME_CHARACTERS or name in (".", "..") or hidden or "/" in name or "\\" in name:
        raise InvalidArgument(
            f"file name {name[:80]!r} is refused; send 1 to {_MAX_NAME_CHARACTERS} characters without folders, "
            "'..' or control characters",
            reason="INVALID_FILE_NAME",
            field="offer.file_name",
        )
    return name
