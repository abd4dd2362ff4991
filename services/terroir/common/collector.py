"""Python's garbage collector at the start of a process."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Import and load inside; what came into being there is taken for lasting and never walked again.

    The collector would walk the million objects of torch and diffusers again and again: a third of their import.
    """
    gc.disable()
    try:
        yield
        _freeze()
    finally:
        gc.enable()


def settle() -> None:
    """What lives by now lasts: never walk it again. Inference's server is left with a fifth of its 100,000 objects."""
    gc.collect()
    _freeze()


def _freeze() -> None:
    gc.freeze()
    # Python collects at its end, or libraries report what is left as their leaks.
    atexit.register(gc.unfreeze)
