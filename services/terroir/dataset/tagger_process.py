"""Run the CLIP tagger in a process of its own: the gRPC process keeps its memory, its GIL and its start-up time."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

from terroir.common.collector import collector_paused
from terroir.common.errors import FailedPrecondition, Unavailable
from terroir.dataset.tagging import Draft, Thumbnail
from terroir.dataset.vocabulary import Vocabulary, load_vocabulary

if TYPE_CHECKING:
    from terroir.dataset.clip_tagger import ClipTagger

_RETRY_SECONDS = 5.0


class TaggerProcess:
    """Implements `Tagger`. The process starts with the first use and ends after `idle_seconds` without one."""

    def __init__(self, folder: Path, vocabulary_path: Path, *, threads: int, idle_seconds: float) -> None:
        self._folder = folder
        self._vocabulary_path = vocabulary_path
        self._threads = threads
        self._idle_seconds = idle_seconds
        self._pool: ProcessPoolExecutor | None = None
        self._users = 0
        self._ending: asyncio.TimerHandle | None = None

    async def draft(self, pictures: Sequence[Thumbnail]) -> Sequence[Draft]:
        """One draft a picture. Raises TAGGER_MISSING, TAGGER_UNUSABLE, TAGGER_CRASHED or INVALID_VOCABULARY."""
        vocabulary = await asyncio.to_thread(self._ensure_usable)
        pool = self._started()
        self._users += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(pool, _draft, self._folder, vocabulary, tuple(pictures))
        except BrokenProcessPool as error:
            if self._pool is pool:
                self._pool = None
            raise Unavailable(
                "the tagger's process ended unexpectedly (out of memory?); call again, or give the dataset service "
                "more memory",
                reason="TAGGER_CRASHED",
                retry_after_seconds=_RETRY_SECONDS,
            ) from error
        except OSError as error:
            raise FailedPrecondition(
                f"the CLIP model in {self._folder} can't be used: {error}; replace the folder",
                reason="TAGGER_UNUSABLE",
            ) from error
        finally:
            self._users -= 1
            self._end_when_idle()

    async def close(self) -> None:
        """End the process, after the batch that it works on."""
        if self._ending is not None:
            self._ending.cancel()
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(pool.shutdown, cancel_futures=True)

    def _ensure_usable(self) -> str:
        """The vocabulary as JSON, which the process caches its tagger by."""
        if not (self._folder / "config.json").is_file():
            raise FailedPrecondition(
                f"no CLIP model in {self._folder}; set TERROIR_DATASET_TAGGER_DIR to a transformers CLIP folder, or "
                "write captions by hand or as sidecar files",
                reason="TAGGER_MISSING",
            )
        return load_vocabulary(self._vocabulary_path).model_dump_json()

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


@cache
def _tagger(folder: Path, vocabulary: str) -> ClipTagger:
    try:
        with collector_paused():
            from terroir.dataset.clip_tagger import ClipTagger  # deferred: imports torch

            return ClipTagger(folder, Vocabulary.model_validate_json(vocabulary))
    except Exception as error:
        # Loaders raise whatever they like, some of it not picklable; only a built-in reaches the parent for certain.
        raise OSError(f"{type(error).__name__}: {error}") from error


def _draft(folder: Path, vocabulary: str, pictures: tuple[Thumbnail, ...]) -> list[Draft]:
    return _tagger(folder, vocabulary).draft(pictures)
