"""Put one picture together from chunks that may come in any order, twice, or overlapping."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from terroir.common.errors import InvalidArgument

MAX_CHUNK_BYTES: Final = 1024 * 1024
_MAX_GAPS: Final = 1024
"""Chunks of a mebibyte leave at most 64 gaps in the largest picture; more is an attempt to exhaust memory."""


class PictureParts:
    """The bytes of one picture that have arrived so far."""

    def __init__(self, digest: str, size_bytes: int) -> None:
        self._digest = digest
        self._data = bytearray(size_bytes)
        self._ranges: list[tuple[int, int]] = []

    @property
    def complete(self) -> bool:
        """Whether every byte has arrived."""
        return self._ranges == [(0, len(self._data))]

    def add(self, offset: int, data: bytes) -> None:
        """Take one chunk. Raises InvalidArgument with CHUNK_SIZE, CHUNK_OUT_OF_RANGE or CHUNKS_FRAGMENTED."""
        end = offset + len(data)
        if not 1 <= len(data) <= MAX_CHUNK_BYTES:
            raise self._refused("CHUNK_SIZE", f"holds {len(data)} bytes; send 1 to {MAX_CHUNK_BYTES}")
        if offset < 0 or end > len(self._data):
            raise self._refused(
                "CHUNK_OUT_OF_RANGE", f"covers bytes {offset} to {end} of {len(self._data)}; offer the size of the file"
            )
        self._data[offset:end] = data
        self._cover(offset, end)
        if len(self._ranges) > _MAX_GAPS:
            raise self._refused("CHUNKS_FRAGMENTED", f"leaves more than {_MAX_GAPS} gaps; send the chunks in order")

    def take(self) -> bytes:
        """The whole content."""
        return bytes(self._data)

    def _cover(self, start: int, end: int) -> None:
        first = bisect_left(self._ranges, start, key=lambda known: known[1])
        last = first
        while last < len(self._ranges) and self._ranges[last][0] <= end:
            start, end = min(start, self._ranges[last][0]), max(end, self._ranges[last][1])
            last += 1
        self._ranges[first:last] = [(start, end)]

    def _refused(self, reason: str, what: str) -> InvalidArgument:
        return InvalidArgument(
            f"chunk of picture {self._digest} {what}", reason=reason, field="chunk", metadata={"digest": self._digest}
        )
