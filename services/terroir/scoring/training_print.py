"""What of a training set tells copies of its pictures, as one small file that travels with the style.

The file, little endian, without compression and without any choice, so that equal prints are equal bytes:

    offset  bytes                what
    0       8                    "TERRPRNT"
    8       4                    version, unsigned: 1
    12      4                    n, pictures, unsigned: at least 1
    16      4                    w, width of an embedding, unsigned: 1 … 4096
    20      32                   SHA-256 of the CLIP that embedded (see `model_digest`)
    52      8, 8                 bounds by pixels and by embedding, float64
    68      n · 64 · 64 · 3      thumbnails, RGB by row, uint8
    …       n · w · 2            embeddings of the pictures, unit vectors, float16
    …       n · w · 2            embeddings of the mirrored pictures, likewise

So a picture takes 12 KiB and 4 bytes for each of w: 12.4 KiB with the embedded CLIP (w = 96), 15 KiB with ViT-L/14
(768). A file has at most 4 MiB: 330 pictures with the one, 273 with the other.

A thumbnail is what the distance by pixels is measured on, and it is a picture of 64 × 64 pixels that people can look
at: a print is not for whoever must not see the training pictures.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from terroir.common.errors import InvalidArgument
from terroir.scoring.embedding import Vectors
from terroir.scoring.views import KEPT_SIDE, Thumbnails

MAX_PRINT_BYTES: Final = 4 * 1024 * 1024
Halves = npt.NDArray[np.float16]
_MAGIC: Final = b"TERRPRNT"
_VERSION: Final = 1
_HEAD: Final = struct.Struct("<8sIII32sdd")
_MAX_WIDTH: Final = 4096
_THUMBNAIL_BYTES: Final = KEPT_SIDE * KEPT_SIDE * 3
_FARTHEST: Final = 2.0
"""No two unit vectors are further from each other, neither by `1 - cosine` nor by tiles of `structure`."""
_UNIT_ERROR: Final = 0.01
"""Rounding to float16 takes a unit vector's length at most a twentieth of this away from 1."""
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


class TrainingPrintInvalid(InvalidArgument):
    """The bytes are no training print that this code reads, or what was measured does not make one."""

    reason = "TRAINING_PRINT_INVALID"


@dataclass(frozen=True)
class Bounds:
    """What counts as a copy: within both distances."""

    pixels: float
    embedding: float


@dataclass(frozen=True, eq=False)
class TrainingPrint:
    """A training set as it is compared with; raises TrainingPrintInvalid where its parts do not fit each other."""

    model: str
    """SHA-256 (hex) of the CLIP that embedded; vectors of another one can't be compared with these."""
    thumbnails: Thumbnails
    plain: Halves
    """Unit vectors `[picture, width]`."""
    mirrored: Halves
    """The same of the mirrored pictures."""
    bounds: Bounds

    def __post_init__(self) -> None:
        _ensure(_DIGEST.fullmatch(self.model) is not None, f"model {self.model[:70]!r} is no SHA-256 in hexadecimal")
        count = len(self.thumbnails)
        _ensure(count > 0, "it has no pictures")
        _ensure_array(self.thumbnails, "thumbnails", (count, KEPT_SIDE, KEPT_SIDE, 3), np.uint8)
        for name, vectors in (("plain", self.plain), ("mirrored", self.mirrored)):
            _ensure(vectors.ndim == 2 and 1 <= vectors.shape[1] <= _MAX_WIDTH, f"{name} has the shape {vectors.shape}")
            _ensure_array(vectors, name, (count, self.plain.shape[1]), np.float16)
            with np.errstate(over="ignore", invalid="ignore"):
                lengths = np.linalg.norm(vectors.astype(np.float32), axis=1)
            # NaN is within nothing, so this finds what is not finite too.
            _ensure(bool((np.abs(lengths - 1) <= _UNIT_ERROR).all()), f"{name} holds vectors that are not of length 1")
        for name, bound in (("pixels", self.bounds.pixels), ("embedding", self.bounds.embedding)):
            _ensure(-_UNIT_ERROR <= bound <= _FARTHEST, f"the bound by {name} is {bound}, outside 0 … {_FARTHEST}")

    def to_bytes(self) -> bytes:
        """The file; raises TrainingPrintInvalid if it has more than MAX_PRINT_BYTES."""
        count, width = self.plain.shape
        head = _HEAD.pack(
            _MAGIC, _VERSION, count, width, bytes.fromhex(self.model), self.bounds.pixels, self.bounds.embedding
        )
        ensure_room(count, width)
        vectors = (np.ascontiguousarray(half, dtype="<f2").tobytes() for half in (self.plain, self.mirrored))
        return b"".join((head, np.ascontiguousarray(self.thumbnails).tobytes(), *vectors))

    @classmethod
    def from_bytes(cls, data: bytes) -> TrainingPrint:
        """Inverse of `to_bytes`; raises TrainingPrintInvalid for anything else.

        Nothing is allocated before the header's numbers agree with the number of bytes.
        """
        _ensure_small(len(data), "")
        _ensure(len(data) >= _HEAD.size, f"{len(data)} bytes are fewer than the {_HEAD.size} of its header")
        magic, version, count, width, model, pixels, embedding = _HEAD.unpack_from(data)
        _ensure(magic == _MAGIC, "it does not begin as one")
        _ensure(
            version == _VERSION, f"it is of version {version}, version {_VERSION} is read here: upgrade this reader"
        )
        _ensure(count >= 1 and 1 <= width <= _MAX_WIDTH, f"it claims {count} pictures and vectors of width {width}")
        expected = _size(count, width)
        _ensure(len(data) == expected, f"it has {len(data)} bytes where its header asks for {expected}")
        at, of_thumbnails, of_vectors = _HEAD.size, count * _THUMBNAIL_BYTES, count * width * 2
        thumbnails = np.frombuffer(data, np.uint8, of_thumbnails, at).reshape(count, KEPT_SIDE, KEPT_SIDE, 3)
        plain, mirrored = (
            np.frombuffer(data, "<f2", count * width, start).astype(np.float16).reshape(count, width)
            for start in (at + of_thumbnails, at + of_thumbnails + of_vectors)
        )
        return cls(model.hex(), thumbnails, plain, mirrored, Bounds(pixels, embedding))


def ensure_room(count: int, width: int = 1) -> None:
    """Raise TrainingPrintInvalid if so many pictures have no print, by vectors of this width; 1 asks beforehand."""
    _ensure_small(_size(count, width), f"of {count} pictures ")


def halves(vectors: Vectors) -> Halves:
    """As a print keeps vectors."""
    return vectors.astype(np.float16)


def units(vectors: Halves) -> Vectors:
    """As kept vectors are compared: of length 1 again, so rounding moves a cosine by about 1e-4."""
    long = vectors.astype(np.float32)
    unit: Vectors = long / np.linalg.norm(long, axis=1, keepdims=True)
    return unit


def _size(count: int, width: int) -> int:
    return _HEAD.size + count * (_THUMBNAIL_BYTES + 2 * 2 * width)


def _ensure(holds: bool, problem: str) -> None:
    if not holds:
        raise TrainingPrintInvalid(
            f"this is no training print: {problem} (it was cut short, damaged, or is another file; publish the version "
            "without one, or train it again)"
        )


def _ensure_small(size: int, what: str) -> None:
    if size > MAX_PRINT_BYTES:
        raise TrainingPrintInvalid(
            f"the training print {what}has {size} bytes, at most {MAX_PRINT_BYTES} are allowed: sets of fewer pictures "
            "have one",
            reason="TRAINING_PRINT_TOO_LARGE",
        )


def _ensure_array(array: npt.NDArray[Any], name: str, shape: tuple[int, ...], kind: type[np.generic]) -> None:
    _ensure(array.shape == shape and array.dtype == kind, f"{name} is {array.dtype} {array.shape}, not {shape}")
