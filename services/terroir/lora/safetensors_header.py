"""The header of a safetensors file, believed only after every number in it has been checked against the bytes.

Format (https://huggingface.co/docs/safetensors): 8 bytes header length (little endian), a JSON object of tensor name →
dtype, shape and offsets, and `__metadata__` of strings; then the tensors' bytes without gap or overlap. The library's
own reader copies every tensor and keeps the last of two equal names; here both would be defects.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from terroir.lora.errors import NotAnAdapterFile

MAX_HEADER_BYTES: Final = 8 * 1024 * 1024
"""SDXL with everything takes about 1 MB; the rest is room for trainers' notes. Hostile JSON unpacks to 40 times it."""
MAX_TENSORS: Final = 20_000
"""SDXL with both text encoders, convolutions, alphas and magnitudes has about 7,000."""
_MAX_NAME_CHARACTERS: Final = 512
_MAX_DIMENSIONS: Final = 8
_METADATA: Final = "__metadata__"
_WIDTHS: Final = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True)
class Entry:
    """One tensor: its bytes are `data[start:stop]` of the whole file."""

    dtype: str
    """`F64`, `F32`, `F16` or `BF16`."""
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Header:
    """A checked header."""

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    body_start: int
    """Offset of the first byte behind the header."""


def read_header(data: bytes) -> Header:
    """Check and return the header; raises NotAnAdapterFile, for pickles with ADAPTER_IS_PICKLE."""
    # A header length may begin with these bytes too; a safetensors header then follows with a brace.
    if data[8:9] != b"{" and (data[:4] == b"PK\x03\x04" or data[:1] == b"\x80"):
        raise NotAnAdapterFile(
            "this is a pickled torch file, which can run code when it is opened; convert it to .safetensors first",
            reason="ADAPTER_IS_PICKLE",
        )
    if len(data) < 8:
        raise NotAnAdapterFile(
            f"the file has {len(data)} bytes; a safetensors file begins with an 8-byte header length"
        )
    length = int.from_bytes(data[:8], "little")
    if length > min(MAX_HEADER_BYTES, len(data) - 8):
        raise NotAnAdapterFile(
            f"the header claims {length} bytes, the file has {len(data) - 8} behind its first 8 and at most "
            f"{MAX_HEADER_BYTES} are read; this is no safetensors file, or it was cut short"
        )
    fields = _json_object(data[8 : 8 + length])
    metadata = _metadata(fields.pop(_METADATA, {}))
    if len(fields) > MAX_TENSORS:
        raise NotAnAdapterFile(
            f"the header names {len(fields)} tensors, adapters have at most {MAX_TENSORS}; this is no adapter",
            reason="ADAPTER_TOO_MANY_TENSORS",
        )
    body_start = 8 + length
    entries = {_name(name): _entry(name, raw, body_start) for name, raw in fields.items()}
    _ensure_seamless(entries, body_start, len(data))
    return Header(entries, metadata, body_start)


class _Repeated(Exception):
    """A name occurs twice in one JSON object; no ValueError, which would read as bad JSON."""


def _json_object(head: bytes) -> dict[str, Any]:
    try:
        # Not loads(bytes), which would also take UTF-16.
        fields = json.loads(head.decode(), object_pairs_hook=_unique)
    except _Repeated as error:
        name = str(error)[:256].encode(errors="replace").decode()
        raise NotAnAdapterFile(
            f"the header names {name[:80]!r} twice, and readers differ in which they take; save the file again",
            key=name,
            reason="ADAPTER_DUPLICATE_KEY",
        ) from error
    except (ValueError, RecursionError) as error:
        raise NotAnAdapterFile(f"the header is no JSON ({error}); this is no safetensors file") from error
    if not isinstance(fields, dict):
        raise NotAnAdapterFile("the header is no JSON object; this is no safetensors file")
    return fields


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Repeated(key)
            seen.add(key)
    return found


def _metadata(raw: object) -> dict[str, str]:
    if not isinstance(raw, dict) or not all(isinstance(value, str) for value in raw.values()):
        raise NotAnAdapterFile("the header's __metadata__ is no object of strings; save the file again")
    try:
        "".join((*raw.keys(), *raw.values())).encode()
    except UnicodeEncodeError as error:
        raise NotAnAdapterFile(
            "the header's __metadata__ holds half a character (a lone surrogate); save the file again"
        ) from error
    return raw


def _name(name: str) -> str:
    # Names come back in messages and terminals; no tool writes line breaks or lone surrogates into them.
    if len(name) > _MAX_NAME_CHARACTERS or not name.isprintable():
        shown = name[:60].encode("ascii", "backslashreplace").decode()
        raise NotAnAdapterFile(
            f"the header names a tensor {shown!r} of {len(name)} characters; at most {_MAX_NAME_CHARACTERS} printable "
            "ones are read"
        )
    return name


def _entry(name: str, raw: object, body_start: int) -> Entry:
    if not isinstance(raw, dict) or set(raw) != {"dtype", "shape", "data_offsets"}:
        raise _damaged(name, "has no dtype, shape and data_offsets, or more than these")
    dtype, shape, offsets = raw["dtype"], raw["shape"], raw["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _WIDTHS:
        raise NotAnAdapterFile(
            f"{name} is of type {str(dtype)[:20]!a}; adapters hold floats of 16 bits or more ({', '.join(_WIDTHS)}), "
            "8-bit ones are too coarse to be merged: save it in fp16",
            key=name,
            reason="ADAPTER_NOT_FLOAT",
        )
    if not _naturals(shape) or len(shape) > _MAX_DIMENSIONS:
        raise _damaged(name, f"has no shape of at most {_MAX_DIMENSIONS} whole numbers")
    if not _naturals(offsets) or len(offsets) != 2:
        raise _damaged(name, "has no two whole numbers as offsets")
    start, stop = offsets
    # Multiplied exactly: a shape such as [2^62, 4] must not wrap around to something that fits.
    if stop - start != math.prod(shape) * _WIDTHS[dtype]:
        raise _damaged(name, f"is {dtype} of shape {str(shape)[:80]}, but its offsets span another number of bytes")
    return Entry(dtype, tuple(shape), body_start + start, body_start + stop)


def _naturals(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _ensure_seamless(entries: Mapping[str, Entry], body_start: int, file_bytes: int) -> None:
    """Offsets must cover all bytes once: a gap could hide something, an overlap aliases tensors."""
    expected = body_start
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start != expected:
            what = "overlaps the tensor before it" if entry.start < expected else "leaves a gap before it"
            raise _damaged(name, what)
        expected = entry.stop
    if expected != file_bytes:
        what = "more than the file has" if expected > file_bytes else "not all that the file has"
        raise NotAnAdapterFile(
            f"the tensors take {expected - body_start} bytes behind the header, {what} ({file_bytes - body_start}); "
            "the file was cut short or damaged: upload it again"
        )


def _damaged(name: str, why: str) -> NotAnAdapterFile:
    return NotAnAdapterFile(f"{name} {why}; the safetensors file is damaged: save it again", key=name)
