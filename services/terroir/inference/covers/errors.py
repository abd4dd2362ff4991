"""Errors about covers, each with its stable reason."""

from __future__ import annotations

from terroir.common.errors import InvalidArgument, NotFound


class PreparationNotFound(NotFound):
    """No preparation has this name."""

    reason = "PREPARATION_NOT_FOUND"


class CoverNotFound(NotFound):
    """A cover's file was replaced, removed or damaged."""

    reason = "COVER_NOT_FOUND"


class TooManyCovers(InvalidArgument):
    """More covers than one call may ask for."""

    reason = "TOO_MANY_COVERS"


class RegionWithoutStyle(NotFound):
    """A region whose covers are named has no style that can be drawn."""

    reason = "REGION_WITHOUT_STYLE"
