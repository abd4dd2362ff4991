"""Run the CLIP tagger in a process of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from terroir.common.collector import collector_paused
from terroir.common.errors import FailedPrecondition, Unavailable
from terroir.dataset.tagging import Draft, Thumbnail
from terroir.dataset.vocabulary import Vocabulary, load_vocabulary
from terroir.scoring.torch_process import ProcessEnded, TorchProcess

if TYPE_CHECKING:
    from terroir.dataset.clip_tagger import ClipTagger

_RETRY_SECONDS = 5.0


class TaggerProcess:
    """Implements `Tagger`. The process starts with the first use and ends after `idle_seconds` without one."""

    def __init__(self, folder: Path, vocabulary_path: Path, *, threads: int, idle_seconds: float) -> None:
        self._folder = folder
        self._vocabulary_path = vocabulary_path
        self._process = TorchProcess(threads=threads, idle_seconds=idle_seconds)

    async def draft(self, pictures: Sequence[Thumbnail]) -> Sequence[Draft]:
        """One draft a picture. Raises TAGGER_MISSING, TAGGER_UNUSABLE, TAGGER_CRASHED or INVALID_VOCABULARY."""
        vocabulary = await asyncio.to_thread(self._ensure_usable)
        try:
            return await self._process.run(_draft, self._folder, vocabulary, tuple(pictures))
        except ProcessEnded as error:
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

    async def close(self) -> None:
        """End the process, after the batch that it works on."""
        await self._process.close()

    def _ensure_usable(self) -> str:
        """The vocabulary as JSON, which the process caches its tagger by."""
        if not (self._folder / "config.json").is_file():
            raise FailedPrecondition(
                f"no CLIP model in {self._folder}; set TERROIR_DATASET_TAGGER_DIR to a transformers CLIP folder, or "
                "write captions by hand or as sidecar files",
                reason="TAGGER_MISSING",
            )
        return load_vocabulary(self._vocabulary_path).model_dump_json()


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
