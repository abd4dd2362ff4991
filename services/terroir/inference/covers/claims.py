"""Claims on what is drawn, for an event loop: leases that wait for the store in threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from terroir.store.leases import Leases


@asynccontextmanager
async def claimed(leases: Leases, key: str) -> AsyncIterator[bool]:
    """Whether this process has the lease of `key` for the block; raises StoreUnavailable."""
    lease = leases.held(key)
    mine = await asyncio.to_thread(lease.__enter__)
    try:
        yield mine
    finally:
        await asyncio.to_thread(lease.__exit__, None, None, None)
