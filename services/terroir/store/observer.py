"""Who hears of a store's requests; services count them, everybody else need not know."""

from __future__ import annotations

from typing import Literal, Protocol

from terroir.store.interface import ObjectStore

Operation = Literal["open", "read", "list", "write", "delete"]


class StoreObserver(Protocol):
    """Told on the thread that asked, right after the answer; must not raise or block."""

    def answered(self, operation: Operation, seconds: float) -> None:
        """The place answered, be it that there is no such object, or that there is one already."""
        ...

    def failed(self, operation: Operation, reason: str, seconds: float) -> None:
        """A request ended in StoreUnavailable of this reason, repeats of the driver included."""
        ...

    def damaged(self) -> None:
        """Something was read whose bytes are not those that were written."""
        ...


class Unobserved:
    """Hears nothing."""

    def answered(self, operation: Operation, seconds: float) -> None:
        """See StoreObserver."""

    def failed(self, operation: Operation, reason: str, seconds: float) -> None:
        """See StoreObserver."""

    def damaged(self) -> None:
        """See StoreObserver."""


class Observable:
    """A store that tells one observer; what wraps a store need not be one."""

    observer: StoreObserver = Unobserved()


def observe(store: ObjectStore, observer: StoreObserver) -> None:
    """Have a store tell `observer` from now on; one that can't be observed stays silent."""
    if isinstance(store, Observable):
        store.observer = observer


def tell_damaged(store: ObjectStore) -> None:
    """Tell a store's observer, if it has one, of an object that is not what was written."""
    if isinstance(store, Observable):
        store.observer.damaged()
