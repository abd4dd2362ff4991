"""What a Generate request tells while it goes on."""

from __future__ import annotations

from dataclasses import dataclass

from terroir.inference.adapters.tiers import Tier
from terroir.inference.delivery.provenance import AppliedAdapter


@dataclass(frozen=True)
class Waiting:
    """Accepted; `position` requests are before it."""

    position: int
    predicted_seconds: float
    """Until the pictures, as predicted now; 0 while nothing is known of this base's costs."""


@dataclass(frozen=True)
class StepMade:
    """`step` of `total` steps are done."""

    step: int
    total: int


@dataclass(frozen=True)
class PreviewMade:
    """A JPEG of an unfinished picture."""

    index: int
    step: int
    jpeg: bytes


@dataclass(frozen=True)
class PictureMade:
    """A finished file."""

    index: int
    seed: int
    data: bytes
    picture_id: str
    provenance: str
    """The private profile as JSON, whatever the file says."""


@dataclass(frozen=True)
class AdapterOrigin:
    """What was particular about an adapter in this request, and so is not in the picture's file."""

    found: Tier
    """Where it was when the request asked for it."""
    ignored_keys: int
    """Keys of its file that were left out."""


@dataclass(frozen=True)
class AllMade:
    """What was applied and how long it took."""

    adapters: tuple[AppliedAdapter, ...]
    sources: tuple[AdapterOrigin, ...]
    """Of the adapters, in their order."""
    queue_seconds: float
    compute_seconds: float
    region_chain: tuple[str, ...]
    warnings: tuple[str, ...]
    load_seconds: float
    """From arrival until the adapters were in host memory."""
    hidden_load_seconds: float
    """Of these, what passed while others had the turn anyway."""


Progress = Waiting | StepMade | PreviewMade | PictureMade | AllMade
