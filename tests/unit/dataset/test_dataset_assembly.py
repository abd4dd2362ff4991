from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from terroir.common.errors import InvalidArgument
from terroir.dataset.assembly import PictureParts


@given(st.data(), st.binary(min_size=1, max_size=60))
def test_chunks_in_any_order_twice_and_overlapping_give_the_content(data: st.DataObject, content: bytes) -> None:
    spans = st.tuples(st.integers(0, len(content) - 1), st.integers(1, len(content)))
    extra = data.draw(st.lists(spans, max_size=10))
    cuts = sorted({0, len(content), *data.draw(st.lists(st.integers(0, len(content)), max_size=5))})
    chunks = [(a, content[a:b]) for a, b in pairwise(cuts)]
    chunks += [(start, content[start : start + length]) for start, length in extra]
    parts = PictureParts("d", len(content))
    seen: set[int] = set()
    for offset, chunk in data.draw(st.permutations(chunks)):
        parts.add(offset, chunk)
        seen |= set(range(offset, offset + len(chunk)))
        assert parts.complete == (len(seen) == len(content))
    assert parts.take() == content


@pytest.mark.parametrize(
    ("offset", "data", "reason"),
    [
        (0, b"", "CHUNK_SIZE"),
        (0, bytes(1024 * 1024 + 1), "CHUNK_SIZE"),
        (-1, b"x", "CHUNK_OUT_OF_RANGE"),
        (8, b"xyz", "CHUNK_OUT_OF_RANGE"),
        (2**40, b"x", "CHUNK_OUT_OF_RANGE"),
    ],
)
def test_impossible_chunks_are_refused(offset: int, data: bytes, reason: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        PictureParts("d", 10).add(offset, data)
    assert caught.value.reason == reason


def test_a_shower_of_single_bytes_cannot_eat_the_memory() -> None:
    parts = PictureParts("d", 10_000)
    for offset in range(0, 2048, 2):
        parts.add(offset, b"x")
    with pytest.raises(InvalidArgument) as caught:
        parts.add(4096, b"x")
    assert caught.value.reason == "CHUNKS_FRAGMENTED"
