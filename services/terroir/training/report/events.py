"""Points of TensorBoard's event files, read without TensorBoard, whose libraries all load torch.

An event file is a row of records (TFRecord), each a protobuf message `Event`; of it only the fields below are read
(tensorboard/compat/proto/event.proto and summary.proto).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Final

Curves = Mapping[str, Mapping[int, float]]
"""Values by name and step."""
_HEAD: Final = struct.Struct("<QI")
"""Length of a record and its checksum; behind the record stands a checksum of four bytes more."""
_STEP, _SUMMARY = 2, 5
"""Fields of Event."""
_VALUE: Final = 1
"""Field of Summary."""
_TAG, _SIMPLE_VALUE = 1, 2
"""Fields of Summary.Value."""
_VARINT, _EIGHT_BYTES, _BYTES, _FOUR_BYTES = 0, 1, 2, 5
"""Wire types."""


def curves_of(files: list[bytes]) -> Curves:
    """The curves of a run's attempts in their order: what a later one computed again counts.

    A file that a killed attempt left half-written is read as far as it goes.
    """
    curves: dict[str, dict[int, float]] = {}
    for data in files:
        for record in _records(data):
            step, points = 0, list[tuple[str, float]]()
            for field, value in _fields(record):
                if field == _STEP and isinstance(value, int):
                    step = value
                elif field == _SUMMARY and isinstance(value, bytes):
                    points += _points(value)
            for name, point in points:
                curves.setdefault(name, {})[step] = point
    return {name: dict(sorted(points.items())) for name, points in sorted(curves.items())}


def _points(summary: bytes) -> Iterator[tuple[str, float]]:
    for field, value in _fields(summary):
        if field == _VALUE and isinstance(value, bytes):
            told = dict(_fields(value))
            if isinstance(tag := told.get(_TAG), bytes) and isinstance(point := told.get(_SIMPLE_VALUE), bytes):
                yield tag.decode("utf-8", "replace"), struct.unpack("<f", point)[0]


def _records(data: bytes) -> Iterator[bytes]:
    at = 0
    while at + _HEAD.size <= len(data):
        length, _ = _HEAD.unpack_from(data, at)
        start = at + _HEAD.size
        if start + length + 4 > len(data):
            return
        yield data[start : start + length]
        at = start + length + 4


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field; numbers of fixed length stay bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            length, at = _varint(message, at)
        elif kind in (_EIGHT_BYTES, _FOUR_BYTES):
            length = 8 if kind == _EIGHT_BYTES else 4
        else:
            return  # groups, which nobody writes
        yield key >> 3, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(message):
        byte = message[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            break
    return value, at
