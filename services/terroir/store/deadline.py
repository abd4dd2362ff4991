"""The time until which a request to the store is still of use: that of the call on whose behalf it is made."""

from __future__ import annotations

import time
from contextvars import ContextVar

from terroir.store.errors import StoreUnavailable

_until: ContextVar[float | None] = ContextVar("terroir_store_deadline", default=None)


def set_deadline(seconds: float | None) -> None:
    """From now on requests of this task, and of the threads that it starts with its context, end `seconds` from now.

    None: whenever they end. A request that is under way is not ended: the driver's own limits bound it.
    """
    _until.set(None if seconds is None else time.monotonic() + seconds)


def ensure_time_left(key: str) -> None:
    """Raise StoreUnavailable (STORE_DEADLINE_PASSED) when nobody waits any more, so that no thread works in vain."""
    until = _until.get()
    if until is not None and time.monotonic() >= until:
        raise StoreUnavailable(
            f"{key or 'the store'}: the deadline of the call passed before this request (give it more time and repeat)",
            key,
            "STORE_DEADLINE_PASSED",
        )
