"""Work that needs torch, in a process of its own: the gRPC process keeps its memory, its GIL and its start-up time."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from threading import Thread
from typing import Any, TypeVar

from terroir.common.collector import collector_paused

_T = TypeVar("_T")


class ProcessEnded(Exception):
    """The process ended while it worked."""


class TorchProcess:
    """Starts with the first use, ends after `idle_seconds` without one, and with its parent. For one event loop."""

    def __init__(self, *, threads: int, idle_seconds: float) -> None:
        self._threads = threads
        self._idle_seconds = idle_seconds
        self._pool: ProcessPoolExecutor | None = None
        self._users = 0
        self._ending: asyncio.TimerHandle | None = None

    async def run(self, work: Callable[..., _T], *arguments: Any) -> _T:
        """Call a function of a module there, one call after the other; raises what it raises, or ProcessEnded."""
        pool = self._started()
        self._users += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, work, *arguments)
        except BrokenProcessPool as error:
            if self._pool is pool:
                self._pool = None
            raise ProcessEnded from error
        finally:
            self._users -= 1
            self._end_when_idle()

    async def close(self) -> None:
        """End the process, after the call that it works on."""
        if self._ending is not None:
            self._ending.cancel()
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)

    def _started(self) -> ProcessPoolExecutor:
        if self._ending is not None:
            self._ending.cancel()
            self._ending = None
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=_prepare, initargs=(self._threads,))
        return self._pool

    def _end_when_idle(self) -> None:
        if self._users == 0 and self._pool is not None:
            self._ending = asyncio.get_running_loop().call_later(self._idle_seconds, self._end)

    def _end(self) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(wait=False)


def _prepare(threads: int) -> None:
    """First thing in the process: leave Ctrl-C to the parent, and never outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()
    with collector_paused():
        import torch  # deferred: the parent imports this module too

    torch.set_num_threads(threads)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
