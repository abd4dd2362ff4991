"""A thread's loop that does what is due again and again, outlives every error and ends when told to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import structlog

from terroir.common.errors import TerroirError
from terroir.store.errors import StoreError

_log = structlog.get_logger(__name__)
_TICK_SECONDS: Final = 0.5


class Ticking:
    """Calls `tick` every half second, and at once when woken."""

    def __init__(self, name: str, tick: Callable[[], None]) -> None:
        """`name` begins the names of its log events."""
        self._name = name
        self._tick = tick
        self._wake = threading.Event()
        self._stopping = threading.Event()

    @property
    def stopping(self) -> bool:
        """Whether it was told to end."""
        return self._stopping.is_set()

    def run(self) -> None:
        """Tick until `stop`; an error is logged and the next tick tries again."""
        while not self.stopping:
            try:
                self._tick()
            except (TerroirError, StoreError) as error:
                _log.warning(f"{self._name}_waits", reason=error.reason, error=str(error))
            except Exception:
                # What breaks over one thing must not stop all others for good.
                _log.exception(f"{self._name}_failed")
            self._wake.wait(_TICK_SECONDS)
            self._wake.clear()

    def wake(self) -> None:
        """Tick now."""
        self._wake.set()

    def stop(self) -> None:
        """Let `run` return."""
        self._stopping.set()
        self._wake.set()
