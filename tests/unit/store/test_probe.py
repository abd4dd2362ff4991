"""A store that does not keep conditional creates is found out before anything is entrusted to it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from terroir.store.errors import AlreadyExists, StoreUnavailable
from terroir.store.interface import ObjectStore
from terroir.store.obstore_driver import MemoryStore
from terroir.store.probe import ensure_conditional


class Ignores(MemoryStore):
    """Silently drops the condition, as SeaweedFS, RustFS and early MinIO did."""

    def create(self, key: str, body: bytes) -> None:
        self.put(key, body)


class Races(MemoryStore):
    """Checks, then writes: right alone, wrong when two come at once (SeaweedFS#8800)."""

    def create(self, key: str, body: bytes) -> None:
        if self.exists(key) and key.endswith("-alone"):
            raise AlreadyExists("there", key)
        self.put(key, body)


class Forgets(MemoryStore):
    """Answers reads with something else than was written."""

    def get(self, key: str) -> bytes:
        return super().get(key) + b"?"


class LosesTheWinner(MemoryStore):
    """The winner's answer is lost and its repeat meets its own object: nobody says that it won, and all is well."""

    def create(self, key: str, body: bytes) -> None:
        super().create(key, body)
        if not key.endswith("-alone"):
            raise AlreadyExists("there", key)


@pytest.mark.parametrize("store", [MemoryStore, LosesTheWinner])
def test_a_store_that_keeps_the_promise_passes_and_stays_empty(store: Callable[[], ObjectStore]) -> None:
    opened = store()
    ensure_conditional(opened, "a place")
    assert list(opened.list("")) == []


@pytest.mark.parametrize("store", [Ignores, Races, Forgets])
def test_a_store_that_does_not_is_refused(store: Callable[[], ObjectStore]) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        ensure_conditional(store(), "a place")
    assert caught.value.reason == "STORE_NOT_CONDITIONAL"
    assert "a place" in str(caught.value)
    assert "If-None-Match" in str(caught.value)
