"""Passing failures of a store are waited out, and nothing else is."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from terroir.common.clock import FixedClock
from terroir.store.errors import AlreadyExists, StoreUnavailable
from terroir.store.obstore_driver import MemoryStore
from terroir.store.patient import PatientStore


@dataclass
class Away(MemoryStore):
    """Fails as often as it is told, before or after it has done what was asked."""

    failures: int = 0
    reason: str = "STORE_UNREACHABLE"
    done_all_the_same: bool = False
    asked: int = 0

    def __post_init__(self) -> None:
        MemoryStore.__init__(self)

    def create(self, key: str, body: bytes) -> None:
        self.asked += 1
        if self.asked <= self.failures:
            if self.done_all_the_same:
                super().create(key, body)
            raise StoreUnavailable("it is away", key, self.reason)
        super().create(key, body)


@dataclass
class House:
    store: Away
    clock: FixedClock = field(default_factory=FixedClock)
    pauses: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.patient = PatientStore(self.store, patience_seconds=60, clock=self.clock, sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.advance(seconds)


def test_a_store_that_comes_back_is_waited_for_with_growing_pauses() -> None:
    house = House(Away(failures=8))
    house.patient.create("a", b"body")
    assert house.store.get("a") == b"body" and house.store.asked == 9
    assert house.pauses == sorted(house.pauses) and house.pauses[-1] == 5.0


def test_patience_ends() -> None:
    house = House(Away(failures=1000))
    with pytest.raises(StoreUnavailable):
        house.patient.create("a", b"body")
    assert 60 <= house.clock.monotonic() <= 66


@pytest.mark.parametrize("reason", ["STORE_DISK_FULL", "STORE_READ_ONLY", "STORE_PERMISSION_DENIED"])
def test_what_somebody_has_to_change_is_raised_at_once(reason: str) -> None:
    house = House(Away(failures=1, reason=reason))
    with pytest.raises(StoreUnavailable):
        house.patient.create("a", b"body")
    assert house.pauses == []


def test_a_create_that_had_happened_all_the_same_is_done() -> None:
    house = House(Away(failures=1, done_all_the_same=True))
    house.patient.create("a", b"body")
    assert house.store.get("a") == b"body"


def test_a_create_that_another_won_meanwhile_is_still_lost() -> None:
    house = House(Away(failures=1))
    house.store._write("a", b"theirs", "create")
    with pytest.raises(AlreadyExists):
        house.patient.create("a", b"ours")
