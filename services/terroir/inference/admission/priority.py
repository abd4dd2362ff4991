"""Who goes first when requests wait."""

from __future__ import annotations

from enum import IntEnum


class Priority(IntEnum):
    """Smaller goes first; within one, first come, first served."""

    HIGH = 0
    """Somebody waits for the picture and it matters more than others'."""
    NORMAL = 1
    """Somebody waits for the picture."""
    BACKGROUND = 2
    """Nobody waits; takes what is left."""
