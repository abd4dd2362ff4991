"""The frame of every service's `main`: settings, logs, server, signals, exit status."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, TypeVar

from terroir.common.collector import settle
from terroir.common.errors import TerroirError
from terroir.common.server import Server
from terroir.common.settings import ServiceSettings
from terroir.common.telemetry import configure_logging
from terroir.store.errors import StoreError

_CALL_THREADS: Final = 64
"""asyncio's own six on two cores are soon held by calls that wait for a slow store, and then nothing is answered."""

Settings = TypeVar("Settings", bound=ServiceSettings)
Build = Callable[[Settings, Server], AbstractAsyncContextManager[None]]


def run_service(name: str, settings_class: type[Settings], build: Build[Settings]) -> None:
    """Run a service until it is told to stop; a failure to start is one line on standard error and status 1.

    `build` is an asynchronous context manager: it adds servicers before its `yield`, and closes what it opened after.
    """
    try:
        settings = settings_class.load()
        configure_logging(name, settings.log_level)
        asyncio.run(_serve(name, settings, build))
    except (TerroirError, StoreError) as error:
        sys.stderr.write(f"terroir {name}: [{error.reason}] {error}\n")
        sys.exit(1)


async def _serve(name: str, settings: Settings, build: Build[Settings]) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_CALL_THREADS, thread_name_prefix="call"))
    server = Server(settings, service_name=name)
    # Before `build`: what it starts (a Ray, an engine) must be ended by its own `finally`, never orphaned by a signal.
    server.heed_signals()
    async with build(settings, server):
        await server.start()
        settle()
        await server.serve_until_stopped()


@asynccontextmanager
async def nothing_to_close() -> AsyncIterator[None]:
    """For services whose parts need no closing."""
    yield
