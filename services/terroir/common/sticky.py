"""Which callers a share takes: the same ones each time, by hashing, with nothing kept of them."""

from __future__ import annotations

import hashlib
from typing import Final

_BUCKETS: Final = 10_000


def takes_canary(alias: str, canary_number: int, percent: float, sticky_key: str) -> bool:
    """Whether a caller is among the `percent` that get a canary of `{adapter}@{alias}`; nobody is without a key.

    A caller falls into one of 10,000 buckets: the first 8 bytes (big-endian) of SHA-256 over
    `{adapter}@{alias}#{canary version}`, a line feed and the sticky key, modulo 10,000. Buckets below `percent * 100`
    get the canary. So a caller stays on a side while the share grows, and canaries of different aliases or versions
    fall independently.
    """
    if not sticky_key:
        return False
    drawn = hashlib.sha256(f"{alias}#{canary_number}\n{sticky_key}".encode()).digest()
    return int.from_bytes(drawn[:8], "big") % _BUCKETS * 100 < percent * _BUCKETS
