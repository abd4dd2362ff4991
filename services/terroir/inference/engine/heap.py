"""The C heap's free memory, given back to the system."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def give_back() -> None:
    """Release what the allocator keeps of freed memory (glibc's malloc_trim); nothing where there is no such function.

    Tensors of many sizes leave holes: after hundreds of requests in two shapes it keeps tens of megabytes that nobody
    uses. Takes milliseconds, so it is for moments when nobody waits.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
