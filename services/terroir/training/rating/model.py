"""A sheet and its answers as values."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What a picture of a sheet is."""

    REAL = "real"
    GENERATED = "generated"


@dataclass(frozen=True)
class Drawn:
    """A generated picture as it came."""

    data: bytes
    prompt: str
    seed: int


@dataclass(frozen=True)
class Item:
    """A picture of a sheet: what raters see, and what is kept from them."""

    label: str
    """`p01`, `p02`, …: the place in the order, which is random. No number, which a spreadsheet would spell anew."""
    blob: str
    """Digest of the picture as it is shown."""
    kind: Kind
    source: str
    """Digest of the real picture's file, or `prompt#seed` of a generated one."""


@dataclass(frozen=True)
class Answer:
    """What one person said about one picture."""

    taken_for_real: bool
    on_brand: bool


@dataclass(frozen=True)
class Submission:
    """One person's answers by label."""

    rater: str
    submitted_by: str
    """Name of the principal who brought them."""
    time: str
    """RFC 3339, UTC."""
    answers: Mapping[str, Answer]


@dataclass(frozen=True)
class Sheet:
    """A sheet with the answers that count, the newest of each person; `etag` comes from the store."""

    id: str
    subject: str
    """`jobs/{id}` or `adapters/{id}/versions/{number}`."""
    job: str
    """Identifier of the job that trained it; empty if it is not known."""
    dataset_version: str
    side: int
    creator: str
    created_at: str
    """RFC 3339, UTC."""
    items: tuple[Item, ...]
    submissions: tuple[Submission, ...] = ()
    etag: str = ""

    @property
    def name(self) -> str:
        """`ratingSheets/{id}`."""
        return f"ratingSheets/{self.id}"

    @property
    def labels(self) -> Sequence[str]:
        """Of all pictures, in order."""
        return [item.label for item in self.items]


def sheet_id_of(request_id: str) -> str:
    """The identifier of the sheet that a request makes; nothing about the order of its pictures follows from it."""
    return f"sheet-{hashlib.sha256(request_id.encode()).hexdigest()[:16]}"


def sheet_body(sheet: Sheet) -> dict[str, Any]:
    """As the sequence's first document."""
    body = asdict(sheet)
    del body["etag"], body["submissions"]
    return body


def submission_body(submission: Submission) -> dict[str, Any]:
    """As a later document."""
    return asdict(submission)


def sheet_of(first: Mapping[str, Any], later: Sequence[Mapping[str, Any]], etag: str) -> Sheet:
    """From the documents of the sequence."""
    newest: dict[str, Submission] = {}
    for body in later:
        answers = {label: Answer(**answer) for label, answer in body["answers"].items()}
        newest[body["rater"]] = Submission(**{**body, "answers": answers})
    items = tuple(Item(**{**item, "kind": Kind(item["kind"])}) for item in first["items"])
    return Sheet(**{**first, "items": items}, submissions=tuple(newest.values()), etag=etag)
