"""What gRPC's C core says on standard error, for the little that it says nowhere else.

A failed TLS handshake, such as that of a certificate of another authority, reaches no Python code: the core writes one
line about it and closes the connection. Those lines are counted, and pass on like all others.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Final

_HANDSHAKE_FAILED: Final = b"Handshake failed with error"
_STANDARD_ERROR: Final = 2


class NativeLog:
    """Stands between the process and its standard error until it is closed."""

    def __init__(self, on_handshake_failure: Callable[[], None]) -> None:
        """`on_handshake_failure` is called on a thread; it must not write to standard error, which waits for it."""
        self._on_failure = on_handshake_failure
        sys.stderr.flush()
        self._real = os.dup(_STANDARD_ERROR)
        reading, writing = os.pipe()
        os.dup2(writing, _STANDARD_ERROR)
        os.close(writing)
        self._lines = os.fdopen(reading, "rb")
        self._thread = threading.Thread(target=self._read, name="native-log", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Give standard error back, once all that was written has passed."""
        sys.stderr.flush()
        os.dup2(self._real, _STANDARD_ERROR)
        # A child that outlives us may still hold the pipe's other end: it is not waited for.
        self._thread.join(1.0)
        if not self._thread.is_alive():
            self._lines.close()
            os.close(self._real)

    def _read(self) -> None:
        for line in self._lines:
            if _HANDSHAKE_FAILED in line:
                self._on_failure()
            os.write(self._real, line)
