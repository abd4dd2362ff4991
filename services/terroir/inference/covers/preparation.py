"""A preparation as a value: what is to be drawn, and how far it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Final

from terroir.inference.admission.priority import Priority
from terroir.inference.covers.units import Shape
from terroir.inference.delivery.picture_files import PictureFormat

MAX_FAILURES: Final = 20
"""That are told of; all are counted."""
_LEAST_CHUNK: Final = 8
_MOST_CHUNKS: Final = 4096


class State(StrEnum):
    """Where a preparation stands."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    CANCELLED = "cancelled"
    CUT_SHORT = "cut_short"


@dataclass(frozen=True)
class Preparation:
    """What somebody wants prepared. Its sets are counted content by content, and region by region within."""

    id: str
    contents: int
    """Their number; they lie beside it, as there may be many."""
    regions: tuple[str, ...]
    variants: int
    shape: Shape
    priority: Priority
    deadline: float | None
    """Seconds since 1970."""
    max_pictures: int
    """0: no bound."""
    redraw: bool
    creator: str
    created_at: float
    state: State = State.RUNNING
    cut_short: str = ""
    ended_at: float | None = None

    @property
    def name(self) -> str:
        """Resource name."""
        return f"preparations/{self.id}"

    @property
    def ended(self) -> bool:
        """Whether nothing more is drawn."""
        return self.state is not State.RUNNING

    @property
    def total(self) -> int:
        """Sets."""
        return self.contents * len(self.regions)

    @property
    def chunk_size(self) -> int:
        """Sets that one server takes at once; so many that there are never more than some thousand chunks."""
        return max(_LEAST_CHUNK, -(-self.total // _MOST_CHUNKS))

    @property
    def chunks(self) -> int:
        """Their number."""
        return -(-self.total // self.chunk_size)

    def of_chunk(self, number: int) -> Iterable[tuple[int, str]]:
        """Content, by position, and region of each set of a chunk."""
        first = number * self.chunk_size
        for at in range(first, min(first + self.chunk_size, self.total)):
            yield at // len(self.regions), self.regions[at % len(self.regions)]

    def ending(self, state: State, at: float, why: str = "") -> Preparation:
        """As it ends; one that has ended stays as it is."""
        return self if self.ended else replace(self, state=state, ended_at=at, cut_short=why)

    def to_body(self) -> dict[str, Any]:
        """As a JSON-able value."""
        return asdict(self)

    @staticmethod
    def from_body(body: Mapping[str, Any]) -> Preparation:
        """Inverse of `to_body`."""
        width, height, picture_format = body["shape"]
        return Preparation(
            **{
                **body,
                "regions": tuple(body["regions"]),
                "shape": Shape(width, height, PictureFormat(picture_format)),
                "priority": Priority(body["priority"]),
                "state": State(body["state"]),
            }
        )


@dataclass(frozen=True)
class SetFailure:
    """A set that could not be drawn."""

    content: str
    """Key."""
    region: str
    reason: str
    message: str


@dataclass(frozen=True)
class Tally:
    """How far a preparation, or a chunk of one, is."""

    drawn: int = 0
    kept: int = 0
    failed: int = 0
    pictures: int = 0
    failures: tuple[SetFailure, ...] = ()

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.drawn + other.drawn, self.kept + other.kept, self.failed + other.failed,
            self.pictures + other.pictures, (*self.failures, *other.failures)[:MAX_FAILURES],
        )  # fmt: skip

    def to_body(self) -> dict[str, Any]:
        """As a JSON-able value."""
        return asdict(self)

    @staticmethod
    def from_body(body: Mapping[str, Any]) -> Tally:
        """Inverse of `to_body`."""
        return Tally(**{**body, "failures": tuple(SetFailure(**each) for each in body["failures"])})
