"""Values of the dataset domain, as they are kept in documents and handed to the servicer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum


class Verdict(IntEnum):
    """Outcome of a gate; larger is worse. The numbers are those of the contract."""

    PASS = 1
    WARN = 2
    QUARANTINE = 3
    REJECT = 4


class Gate(StrEnum):
    """Stable names of the quality gates."""

    NOT_AN_IMAGE = "NOT_AN_IMAGE"
    PIXEL_LIMIT = "PIXEL_LIMIT"
    TRUNCATED = "TRUNCATED"
    DAMAGED = "DAMAGED"
    ANIMATED = "ANIMATED"
    MINIMUM_SIDE = "MINIMUM_SIDE"
    BLUR = "BLUR"
    TOO_DARK = "TOO_DARK"
    TOO_LIGHT = "TOO_LIGHT"
    LOW_INFORMATION = "LOW_INFORMATION"
    ODD_ASPECT = "ODD_ASPECT"
    EXACT_DUPLICATE = "EXACT_DUPLICATE"
    NEAR_DUPLICATE = "NEAR_DUPLICATE"
    TOO_FEW = "TOO_FEW"
    TOO_MANY = "TOO_MANY"


@dataclass(frozen=True)
class Finding:
    """What one gate measured, against which threshold, and what to do about it."""

    gate: Gate
    verdict: Verdict
    value: float
    threshold: float
    message: str


@dataclass(frozen=True)
class Unreadable:
    """Why a file is not a picture that can be used; such a file is always rejected."""

    gate: Gate
    value: float
    threshold: float
    message: str


@dataclass(frozen=True)
class Measurement:
    """Facts about a decoded picture, independent of any threshold; `measure.py` says how each is taken."""

    width: int
    height: int
    animated: bool
    pixel_digest: str
    perceptual_hash: str
    sharpness: float
    highlights: float
    shadows: float
    entropy_bits: float


@dataclass(frozen=True)
class Picture:
    """One imported file: its identity and what reading it found. Exactly one of the last two fields is set."""

    digest: str
    file_name: str
    size_bytes: int
    measured: Measurement | None = None
    unreadable: Unreadable | None = None

    def replaces(self, known: Picture | None) -> bool:
        """Whether this record says more than the one before it: the first counts, and a readable one for ever."""
        return known is None or (known.measured is None and self.measured is not None)


class CaptionKind(StrEnum):
    """Who wrote a caption; values are those of the contract's `Caption.source`."""

    SIDECAR = "sidecar"
    TAGGER = "tagger"
    HUMAN = "human"


@dataclass(frozen=True)
class CaptionEdit:
    """One text written for one picture. `agreement` is a cosine, -1 … 1; 0 means not measured."""

    digest: str
    kind: CaptionKind
    text: str
    agreement: float = 0.0


@dataclass(frozen=True)
class Caption:
    """The text in use, where it came from, and the machine's draft beside it."""

    text: str
    draft: str
    source: CaptionKind
    agreement: float


@dataclass(frozen=True)
class JudgedPicture:
    """A picture with the findings of the gates in force and its caption."""

    picture: Picture
    verdict: Verdict
    findings: tuple[Finding, ...]
    caption: Caption | None

    @property
    def usable(self) -> bool:
        """Whether a freeze takes it."""
        return self.verdict in (Verdict.PASS, Verdict.WARN)


@dataclass(frozen=True)
class DatasetFields:
    """A dataset's own fields, as a person writes them."""

    display_name: str
    region: str
    description: str
    trigger_word: str
    license: str
    rights_statement: str


@dataclass(frozen=True)
class Dataset:
    """A dataset with what the server knows of it."""

    dataset_id: str
    fields: DatasetFields
    image_count: int
    created_at: datetime
    etag: str


@dataclass(frozen=True)
class FrozenVersion:
    """An immutable version. `images` is empty in lists."""

    dataset_id: str
    number: int
    digest: str
    image_count: int
    images: tuple[JudgedPicture, ...]
    trigger_word: str
    rights_statement: str
    gates_version: str
    created_at: datetime
