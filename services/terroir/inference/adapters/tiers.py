"""Where an adapter can be, fastest first."""

from __future__ import annotations

from enum import StrEnum


class Tier(StrEnum):
    """A place that adapters are served from."""

    DEVICE = "device"
    """In the device's memory, and in host memory too."""
    HOST = "host"
    DISK = "disk"
    REGISTRY = "registry"
