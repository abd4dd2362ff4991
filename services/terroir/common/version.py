"""Which Terroir this is."""

from __future__ import annotations

from importlib import metadata


def code_version() -> str:
    """Version of the installed package, `source` when it runs from a checkout."""
    try:
        return metadata.version("terroir")
    except metadata.PackageNotFoundError:
        return "source"
