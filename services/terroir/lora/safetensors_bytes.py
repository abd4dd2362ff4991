"""Safetensors files as bytes: bounded reading of any float type, and deterministic writing.

The library's own writer keeps header metadata in a hash map, so equal input can give different bytes; versions are
identified by the digest of the file, so ours writes everything sorted.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from terroir.lora.adapter import Array
from terroir.lora.errors import NotFinite
from terroir.lora.safetensors_header import Entry, read_header

_LAYOUTS: Final = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_NAMES: Final = {"float16": "F16", "float32": "F32"}


@dataclass(frozen=True)
class TensorFile:
    """Tensors as fp32 and header metadata."""

    tensors: Mapping[str, Array]
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class Body:
    """Tensors as they lie in a file: entries of the header, and all bytes behind it."""

    entries: Mapping[str, Mapping[str, Any]]
    data: bytes


def read(data: bytes) -> TensorFile:
    """Parse a file; raises NotAnAdapterFile (with ADAPTER_IS_PICKLE for torch files) or NotFinite."""
    header = read_header(data)
    return TensorFile({name: _array(name, data, entry) for name, entry in header.entries.items()}, header.metadata)


def encode(tensors: Mapping[str, Array], dtype: str | None = None, *, tolerance: float = 0.0) -> Body:
    """Serialise tensors as `dtype` float16 or float32; None takes the smallest of the two and bfloat16 that is exact.

    Exact, or with errors of at most `tolerance` in float16. Scalars (alphas) are judged by themselves: one that needs
    32 bits does not double the file.
    """
    scalars = {name: tensor for name, tensor in tensors.items() if tensor.ndim == 0}
    factors = {name: tensor for name, tensor in tensors.items() if tensor.ndim > 0}
    chosen, parts = _coded(factors, dtype, tolerance)
    coded = {name: (chosen, part) for name, part in parts.items()}
    for name, scalar in scalars.items():
        kind, part = _coded({name: scalar}, dtype, 0.0)
        coded[name] = (kind, part[name])
    entries: dict[str, Any] = {}
    pieces: list[Any] = []
    offset = 0
    # Wide types first, so that every tensor is aligned to its own width.
    for name, (kind, array) in sorted(coded.items(), key=lambda item: (-item[1][1].itemsize, item[0])):
        stop = offset + array.nbytes
        entries[name] = {"dtype": kind, "shape": list(tensors[name].shape), "data_offsets": [offset, stop]}
        pieces.append(np.ascontiguousarray(array).data)
        offset = stop
    return Body(entries, b"".join(pieces))


def assemble(body: Body, metadata: Mapping[str, str]) -> bytes:
    """The file of a body under a header; equal input gives equal bytes."""
    header = {"__metadata__": dict(sorted(metadata.items())), **body.entries}
    head = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    head += b" " * (-len(head) % 8)
    return b"".join((struct.pack("<Q", len(head)), head, body.data))


def write(tensors: Mapping[str, Array], metadata: Mapping[str, str], dtype: str | None = None) -> bytes:
    """`encode` exactly and `assemble`."""
    return assemble(encode(tensors, dtype), metadata)


def with_metadata(data: bytes, metadata: Mapping[str, str]) -> bytes:
    """The same tensors, byte by byte, under another header; raises NotAnAdapterFile."""
    header = read_header(data)
    entries = {
        name: {
            "dtype": entry.dtype,
            "shape": list(entry.shape),
            "data_offsets": [entry.start - header.body_start, entry.stop - header.body_start],
        }
        for name, entry in header.entries.items()
    }
    return assemble(Body(entries, data[header.body_start :]), metadata)


def _array(name: str, data: bytes, entry: Entry) -> Array:
    layout = np.dtype(_LAYOUTS[entry.dtype])
    count = (entry.stop - entry.start) // layout.itemsize
    raw: npt.NDArray[Any] = np.frombuffer(data, layout, count, entry.start)
    if entry.dtype == "BF16":  # numpy has no bfloat16: it is the upper half of a float32
        raw = (raw.astype("<u4") << 16).view("<f4")
    with np.errstate(all="ignore"):
        values = raw.astype(np.float32, copy=False)
        # One fast pass: a sum of squares is finite only if all values are; a large sum may overflow by itself.
        finite = np.isfinite(np.dot(values, values)) or np.isfinite(values).all()
    if not finite:
        raise NotFinite(f"{name} holds NaN or infinity; the training diverged: lower its learning rate", key=name)
    return values.reshape(entry.shape)


def _coded(
    tensors: Mapping[str, Array], dtype: str | None, tolerance: float
) -> tuple[str, Mapping[str, npt.NDArray[Any]]]:
    if dtype is None and (found := _halves(tensors, tolerance) or _brains(tensors)) is not None:
        return found
    name = _NAMES[dtype or "float32"]
    return name, {key: np.asarray(tensor, dtype=_LAYOUTS[name]) for key, tensor in tensors.items()}


def _halves(tensors: Mapping[str, Array], tolerance: float) -> tuple[str, Mapping[str, npt.NDArray[Any]]] | None:
    halves: dict[str, npt.NDArray[Any]] = {}
    with np.errstate(over="ignore"):
        for name, tensor in tensors.items():
            half = tensor.astype("<f2")
            back = half.astype(np.float32)
            if not np.array_equal(back, tensor) and not (tolerance and np.abs(back - tensor).max() <= tolerance):
                return None
            halves[name] = half
    return "F16", halves


def _brains(tensors: Mapping[str, Array]) -> tuple[str, Mapping[str, npt.NDArray[Any]]] | None:
    brains: dict[str, npt.NDArray[Any]] = {}
    for name, tensor in tensors.items():
        bits = np.ascontiguousarray(tensor, dtype="<f4").view("<u4")
        if (bits & 0xFFFF).any():
            return None
        brains[name] = (bits >> 16).astype("<u2")
    return "BF16", brains
