"""Threads that make picture files, so that neither the event loop nor the calls' own threads do."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

_MOST_THREADS: Final = 4
_P = ParamSpec("_P")
_T = TypeVar("_T")


class PicturePool:
    """Few threads: encoders let go of the interpreter's lock only now and then, and the event loop needs it too."""

    def __init__(self, threads: int | None = None) -> None:
        """One thread a core, at most four, unless told otherwise."""
        self._threads = ThreadPoolExecutor(threads or min(_MOST_THREADS, os.cpu_count() or 1), "pictures")

    async def run(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Do `work` in the pool; a caller who gives up lets it end unheard, or never begin."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(*args, **kwargs))

    def close(self) -> None:
        """Begin nothing new; what runs is left to end."""
        self._threads.shutdown(wait=False, cancel_futures=True)
