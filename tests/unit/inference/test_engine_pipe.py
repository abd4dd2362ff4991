"""Messages to the engine arrive as they were sent, and arrays don't go through pickle."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.connection import Connection
from threading import Thread

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from terroir.inference.engine.messages import Cancel, PutAdapter, Stop
from terroir.inference.engine.pipe import receive, send
from terroir.lora.adapter import LoraModule
from tests.unit.inference.tier_kit import LAYER, small_adapter


@pytest.fixture
def ends() -> Iterator[tuple[Connection, Connection]]:
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        yield ours, theirs


def through(ends: tuple[Connection, Connection], *messages: object) -> list[object]:
    """What arrives."""
    ours, theirs = ends

    def write() -> None:
        for message in messages:
            send(ours, message)

    writer = Thread(target=write, daemon=True)
    writer.start()
    received = [receive(theirs) for _ in messages]
    writer.join(10)
    return received


def test_commands_keep_their_order_around_adapters_that_are_larger_than_the_pipe(
    ends: tuple[Connection, Connection],
) -> None:
    adapter = small_adapter(1, rank=100_000)
    first, put, last = through(ends, Cancel("a"), PutAdapter("d", adapter), Stop())
    assert (first, last) == (Cancel("a"), Stop())
    assert isinstance(put, PutAdapter) and put.digest == "d"
    assert put.adapter.tensor_digest() == adapter.tensor_digest()
    module = put.adapter.modules[LAYER]
    assert isinstance(module, LoraModule) and module.down.flags.writeable, (
        "torch would warn of, or write into, what is read-only"
    )


@given(
    arrays=st.lists(
        st_numpy.arrays(
            st.sampled_from([np.float32, np.uint8, np.int64]), st_numpy.array_shapes(min_dims=0, max_dims=4, min_side=0)
        ),
        max_size=5,
    )
)
def test_any_arrays_arrive_as_they_were(arrays: list[np.ndarray]) -> None:
    arrays += [array.T for array in arrays]  # not contiguous
    ours, theirs = multiprocessing.Pipe()
    with ours, theirs:
        (received,) = through((ours, theirs), arrays)
    assert isinstance(received, list) and len(received) == len(arrays)
    for sent, found in zip(arrays, received, strict=True):
        assert (sent.dtype, sent.shape) == (found.dtype, found.shape)
        np.testing.assert_array_equal(sent, found)


def test_only_a_small_frame_is_pickled(ends: tuple[Connection, Connection]) -> None:
    """What is pickled keeps all other threads out meanwhile: health checks here, ticks there."""
    adapter = small_adapter(1, rank=2000)
    ours, theirs = ends
    writer = Thread(target=send, args=(ours, PutAdapter("d", adapter)), daemon=True)
    writer.start()
    frame, sizes = theirs.recv()
    assert len(frame) < 4096 and sum(sizes) == adapter.size_bytes
    while sizes and theirs.poll(0.05):
        os.read(theirs.fileno(), 1 << 20)
    writer.join(10)
    assert not writer.is_alive()


def test_a_reader_that_is_gone_ends_the_writer_and_the_other_way_round() -> None:
    ours, theirs = multiprocessing.Pipe()
    theirs.close()
    with pytest.raises(OSError, match=r"."):
        send(ours, PutAdapter("d", small_adapter(1, rank=1000)))
    ours.close()
    ours, theirs = multiprocessing.Pipe()
    ours.send((b"frame", [10]))
    ours.close()
    with pytest.raises(EOFError):
        receive(theirs)
    theirs.close()
