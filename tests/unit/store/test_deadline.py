"""Requests on behalf of a call end with its deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from terroir.store.deadline import set_deadline
from terroir.store.errors import StoreUnavailable
from terroir.store.obstore_driver import MemoryStore


def in_a_call(seconds: float | None, body: Callable[[], object]) -> object:
    """Run `body` in a thread as a handler does whose caller waits for so long."""

    async def call() -> object:
        set_deadline(seconds)
        return await asyncio.to_thread(body)

    return asyncio.run(call())


def test_after_the_deadline_nothing_is_asked_and_nothing_written() -> None:
    store = MemoryStore()
    store.create("there", b"body")
    for request in (
        lambda: store.get("there"),
        lambda: store.exists("there"),
        lambda: store.create("new", b"body"),
        lambda: list(store.list("")),
    ):
        with pytest.raises(StoreUnavailable) as caught:
            in_a_call(0, request)
        assert caught.value.reason == "STORE_DEADLINE_PASSED"
        assert caught.value.passes
    assert not store.exists("new")


@pytest.mark.parametrize("seconds", [None, 60.0])
def test_before_it_and_without_one_requests_go_out(seconds: float | None) -> None:
    store = MemoryStore()
    store.create("there", b"body")
    assert in_a_call(seconds, lambda: store.get("there")) == b"body"


def test_a_deadline_is_of_one_call_alone() -> None:
    store = MemoryStore()
    store.create("there", b"body")

    async def calls() -> list[object]:
        async def call(seconds: float | None) -> object:
            set_deadline(seconds)
            await asyncio.sleep(0)
            return await asyncio.to_thread(store.get, "there")

        return await asyncio.gather(*(asyncio.create_task(call(s)) for s in (0, None, 60)), return_exceptions=True)

    first, *others = asyncio.run(calls())
    assert isinstance(first, StoreUnavailable)
    assert others == [b"body", b"body"]
    assert store.get("there") == b"body"
