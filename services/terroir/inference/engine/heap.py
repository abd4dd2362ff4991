"""The C heap: what it keeps of freed memory, and when that goes back to the system. Nothing happens without glibc."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_MAX: Final = -4
_PAD_BYTES: Final = 64 * 1024 * 1024
_NEVER: Final = 2**31 - 1


def keep() -> None:
    """Let this process reuse freed memory of any size (glibc's mallopt); call it before the first tensor.

    By default glibc maps blocks above 32 MiB anew each time, and the system clears their pages: 12,000 page faults a
    tick of sixteen rows on the tiny base, an eighth of its time on two cores.
    """
    with suppress(OSError, AttributeError):
        heap = ctypes.CDLL(None)
        for option, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, _PAD_BYTES)):
            heap.mallopt(option, value)


def give_back() -> None:
    """Release what the allocator keeps of freed memory (glibc's malloc_trim).

    Tensors of many sizes leave holes: after hundreds of requests in two shapes it keeps tens of megabytes that nobody
    uses. Takes milliseconds, and as long again when the memory is needed next, so it is for when nobody comes.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
