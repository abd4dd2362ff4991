"""Covers in the bucket: a small set object a unit, and one object a picture.

* `covers/sets/<aa>/<content>/<look>/<shape>` names the variants of a unit and what drew them.
* `covers/pictures/<aa>/<sha256>` is a picture's file.

Pictures are written first and the set last, so a set names nothing that was never there. All of it can be drawn again:
what is missing, cut or changed is a hole that refills, never an error of a caller.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import structlog

from terroir.inference.covers.units import Unit
from terroir.store.errors import AlreadyExists, NotFound
from terroir.store.interface import ObjectStore

_log = structlog.get_logger()


@dataclass(frozen=True)
class Variant:
    """One picture of a set."""

    digest: str
    """SHA-256 of the file."""
    size_bytes: int
    seed: int
    picture_id: str
    """As in the file's provenance."""


@dataclass(frozen=True)
class CoverSet:
    """The variants of a unit."""

    text_digest: str
    """Of what the content asked for when they were drawn; see `Content.text_digest`."""
    made_at: float
    """Seconds since 1970."""
    variants: tuple[Variant, ...]
    asked: int = 1
    """How many were wanted; fewer are there where candidates repeated training pictures."""
    take: int = 0
    """How often it was drawn anew of the same words because it was said to be wrong: each take has its own seeds."""

    def to_bytes(self) -> bytes:
        """JSON."""
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def from_bytes(data: bytes) -> CoverSet:
        """Inverse of `to_bytes`; raises ValueError for anything else."""
        try:
            body: Mapping[str, Any] = json.loads(data)
            variants = tuple(Variant(**each) for each in body["variants"])
            found = CoverSet(
                str(body["text_digest"]), float(body["made_at"]), variants, int(body["asked"]), int(body["take"])
            )
        except (TypeError, KeyError, UnicodeDecodeError) as error:
            raise ValueError(str(error)) from error
        if not variants or any(type(one.digest) is not str or len(one.digest) != 64 for one in variants):
            raise ValueError("a set without variants, or with one without a digest")
        return found


@dataclass(frozen=True)
class Finished:
    """A picture that was chosen, with its file."""

    data: bytes
    seed: int
    picture_id: str


class Shelf:
    """Reads and writes sets and pictures; safe for threads. Raises StoreUnavailable."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def find(self, unit: Unit) -> CoverSet | None:
        """The set of a unit; None where there is none that can be read."""
        try:
            return CoverSet.from_bytes(self._store.get(unit.key))
        except NotFound:
            return None
        except ValueError as error:
            _log.warning("cover set damaged", key=unit.key, error=str(error))
            return None

    def picture(self, digest: str) -> bytes | None:
        """The file of a picture; None where it is gone or no longer what was written."""
        try:
            data = self._store.get(picture_key(digest))
        except NotFound:
            return None
        if hashlib.sha256(data).hexdigest() != digest:
            _log.warning("cover picture damaged", digest=digest)
            self._store.delete(picture_key(digest))
            return None
        return data

    def write(
        self, unit: Unit, text_digest: str, made_at: float, pictures: Sequence[Finished], asked: int, take: int = 0
    ) -> CoverSet:
        """Replace the set of a unit; `asked` variants were wanted."""
        variants = []
        for picture in pictures:
            digest = hashlib.sha256(picture.data).hexdigest()
            with suppress(AlreadyExists):
                self._store.create(picture_key(digest), picture.data)
            variants.append(Variant(digest, len(picture.data), picture.seed, picture.picture_id))
        written = CoverSet(text_digest, made_at, tuple(variants), asked, take)
        before = self.find(unit)
        self._store.put(unit.key, written.to_bytes())
        for old in before.variants if before is not None else ():
            if old.digest not in {variant.digest for variant in variants}:
                self._store.delete(picture_key(old.digest))
        return written

    def remove(self, unit: Unit) -> None:
        """Take a set away whose pictures are gone."""
        self._store.delete(unit.key)


def picture_key(digest: str) -> str:
    """Where a picture's file lies."""
    return f"covers/pictures/{digest[:2]}/{digest}"
