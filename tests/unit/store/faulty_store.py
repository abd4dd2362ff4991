"""A store that fails on purpose: the faults that a network or a killed process puts around any real one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from terroir.store.errors import StoreUnavailable
from terroir.store.interface import ObjectStore


class Fault(StrEnum):
    """Where the failure strikes."""

    LOST_REQUEST = "lost_request"  # nothing happened
    LOST_RESPONSE = "lost_response"  # it happened, the caller is told otherwise
    REPEATED = "repeated"  # a client below us lost the response and sent the request again


@dataclass(frozen=True)
class Plan:
    """Strike the operation when its count (from 1, among keys that contain `key_part`) is `at`."""

    operation: str
    at: int
    fault: Fault
    key_part: str = ""


class FaultyStore:
    """Any store, with the planned faults; counts operations, so that equal runs fail equally."""

    def __init__(self, inner: ObjectStore, *plans: Plan) -> None:
        self._inner = inner
        self._pending: dict[Plan, int] = {}
        self.struck: list[Plan] = []
        for plan in plans:
            self.plan(plan)

    def plan(self, plan: Plan) -> None:
        """Add a fault, counted from now."""
        self._pending[plan] = 0

    def heal(self) -> None:
        """Forget the faults that have not struck."""
        self._pending.clear()

    def get(self, key: str) -> bytes:
        with self._fault("get", key):
            return self._inner.get(key)

    def get_range(self, key: str, start: int, length: int) -> bytes:
        with self._fault("get_range", key):
            return self._inner.get_range(key, start, length)

    def size(self, key: str) -> int:
        with self._fault("size", key):
            return self._inner.size(key)

    def exists(self, key: str) -> bool:
        with self._fault("exists", key):
            return self._inner.exists(key)

    def create(self, key: str, body: bytes) -> None:
        with self._fault("create", key) as fault:
            self._inner.create(key, body)
            if fault is Fault.REPEATED:
                self._inner.create(key, body)

    def put(self, key: str, body: bytes) -> None:
        with self._fault("put", key) as fault:
            self._inner.put(key, body)
            if fault is Fault.REPEATED:
                self._inner.put(key, body)

    def delete(self, key: str) -> None:
        with self._fault("delete", key):
            self._inner.delete(key)

    def list(self, prefix: str) -> Iterator[str]:
        with self._fault("list", prefix):
            return self._inner.list(prefix)

    @contextmanager
    def _fault(self, operation: str, key: str) -> Iterator[Fault | None]:
        fault = self._due(operation, key)
        if fault is Fault.LOST_REQUEST:
            raise StoreUnavailable(f"{operation} {key}: planned lost request (repeat it)", key)
        yield fault
        if fault is Fault.LOST_RESPONSE:
            raise StoreUnavailable(f"{operation} {key}: planned lost response (repeat it)", key)

    def _due(self, operation: str, key: str) -> Fault | None:
        due = None
        for plan in list(self._pending):
            if plan.operation == operation and plan.key_part in key:
                self._pending[plan] += 1
                if self._pending[plan] == plan.at:
                    del self._pending[plan]
                    self.struck.append(plan)
                    due = plan.fault
        return due
