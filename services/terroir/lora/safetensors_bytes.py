"""Safetensors files as bytes: bounded reading of any float type, and deterministic writing.

The library's own writer keeps header metadata in a hash map, so equal input can give different bytes; versions are
identified by the digest of the file, so ours writes everything sorted. Format: 8 bytes header length (little endian),
JSON header, tensor data (https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import safetensors

from terroir.lora.adapter import Array
from terroir.lora.errors import NotAnAdapterFile, NotFinite

_MAX_HEADER_BYTES: Final = 16 * 1024 * 1024
_MAX_ENTRIES: Final = 20_000
"""SDXL with both text encoders, convolutions, alphas and magnitudes has about 7,000 tensors."""
_FLOATS: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_NAMES: Final = {"float16": ("F16", "<f2"), "float32": ("F32", "<f4")}


@dataclass(frozen=True)
class TensorFile:
    """Tensors as fp32 and header metadata."""

    tensors: Mapping[str, Array]
    metadata: Mapping[str, str]


def read(data: bytes) -> TensorFile:
    """Parse a file; raises NotAnAdapterFile (with ADAPTER_IS_PICKLE for torch files) or NotFinite."""
    # A header length may begin with these bytes too; a safetensors header then follows with a brace.
    if data[8:9] != b"{" and (data[:4] == b"PK\x03\x04" or data[:1] == b"\x80"):
        raise NotAnAdapterFile(
            "this is a pickled torch file, which can run code when it is opened; convert it to .safetensors first",
            reason="ADAPTER_IS_PICKLE",
        )
    header = _header(data)
    if len(header) > _MAX_ENTRIES:
        raise NotAnAdapterFile(
            f"the header names {len(header)} tensors, adapters have at most {_MAX_ENTRIES}; this is no adapter",
            reason="ADAPTER_TOO_MANY_TENSORS",
        )
    try:
        entries: list[tuple[str, dict[str, Any]]] = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        raise NotAnAdapterFile(f"the safetensors file is damaged ({error}); upload it again") from error
    metadata = header.get("__metadata__", {})
    return TensorFile(
        {name: _array(name, entry) for name, entry in entries},
        {str(key): str(value) for key, value in metadata.items()} if isinstance(metadata, dict) else {},
    )


def write(tensors: Mapping[str, Array], metadata: Mapping[str, str], dtype: str) -> bytes:
    """Serialise with `dtype` float16 or float32; equal input gives equal bytes."""
    header_name, layout = _NAMES[dtype]
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    parts: list[bytes] = []
    offset = 0
    for name, tensor in sorted(tensors.items()):
        # Not ascontiguousarray, which would turn a 0-d alpha into one of shape [1].
        part = np.asarray(tensor, dtype=layout).tobytes()
        header[name] = {"dtype": header_name, "shape": list(tensor.shape), "data_offsets": [offset, offset + len(part)]}
        parts.append(part)
        offset += len(part)
    head = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)
    return struct.pack("<Q", len(head)) + head + b"".join(parts)


def _header(data: bytes) -> dict[str, Any]:
    if len(data) < 8:
        raise NotAnAdapterFile(
            f"the file has {len(data)} bytes; a safetensors file begins with an 8-byte header length"
        )
    (length,) = struct.unpack("<Q", data[:8])
    if length > min(_MAX_HEADER_BYTES, len(data) - 8):
        raise NotAnAdapterFile(
            f"the header claims {length} bytes, the file has {len(data) - 8} behind its first 8 and at most "
            f"{_MAX_HEADER_BYTES} are read; this is no safetensors file, or it was cut short"
        )
    try:
        header = json.loads(data[8 : 8 + length], object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise NotAnAdapterFile(f"the header is no JSON ({error}); this is no safetensors file") from error
    if not isinstance(header, dict):
        raise NotAnAdapterFile("the header is no JSON object; this is no safetensors file")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object without repeated keys, of which readers would silently keep one or the other."""
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        key = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise NotAnAdapterFile(
            f"the header names {key[:80]!r} twice; save the file again", key=key[:256], reason="ADAPTER_DUPLICATE_KEY"
        )
    return found


def _array(name: str, entry: Mapping[str, Any]) -> Array:
    dtype = entry["dtype"]
    if dtype not in _FLOATS:
        raise NotAnAdapterFile(
            f"{name} is of type {dtype}; adapters hold floats of 16 bits or more ({', '.join(_FLOATS)}): "
            "save it in fp16",
            key=name,
            reason="ADAPTER_NOT_FLOAT",
        )
    raw = np.frombuffer(entry["data"], dtype=_FLOATS[dtype]).reshape(entry["shape"])
    if dtype == "BF16":  # numpy has no bfloat16: it is the upper half of a float32
        raw = (raw.astype("<u4") << 16).view("<f4")
    with np.errstate(over="ignore"):
        values = raw.astype(np.float32)
    if not np.isfinite(values).all():
        raise NotFinite(f"{name} holds NaN or infinity; the training diverged: lower its learning rate", key=name)
    return values
