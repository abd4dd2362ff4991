"""The chooser that looks: CLIP embeds the candidates and their prompt, in a process of its own."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from terroir.common.collector import collector_paused
from terroir.common.errors import FailedPrecondition, Unavailable
from terroir.common.torch_process import ProcessEnded, TorchProcess
from terroir.inference.covers.choosing import diverse

if TYPE_CHECKING:
    from terroir.scoring.clip import ClipScorer

IDLE_SECONDS = 60.0


class ClipChooser:
    """Implements `Chooser` with a CLIP that knows what the base draws."""

    def __init__(self, model: Path, *, threads: int = 1, idle_seconds: float = IDLE_SECONDS) -> None:
        """`model` is a transformers CLIP folder; it is loaded with the first use."""
        self._model = model
        self._process = TorchProcess(threads=threads, idle_seconds=idle_seconds)

    async def choose(self, prompt: str, pictures: Sequence[bytes], count: int, _versions: Sequence[str]) -> list[int]:
        """Positions of at most `count` pictures, the best first; raises COVER_JUDGE_… errors."""
        try:
            return await self._process.run(_choose, self._model, prompt, tuple(pictures), count)
        except ProcessEnded as error:
            raise Unavailable(
                "the process that chooses covers ended unexpectedly (out of memory?)", reason="COVER_JUDGE_CRASHED"
            ) from error
        except OSError as error:
            raise FailedPrecondition(
                f"the CLIP model in {self._model} can't be used: {error}; set TERROIR_INFERENCE_COVER_JUDGE_MODEL",
                reason="COVER_JUDGE_UNUSABLE",
            ) from error

    async def close(self) -> None:
        """End the process."""
        await self._process.close()


@cache
def _scorer(model: Path) -> ClipScorer:
    try:
        with collector_paused():
            from terroir.scoring.clip import ClipScorer  # deferred: imports torch

            return ClipScorer(model)
    except Exception as error:
        # Loaders raise whatever they like, some of it not picklable; only a built-in reaches the parent for certain.
        raise OSError(f"{type(error).__name__}: {error}") from error


def _choose(model: Path, prompt: str, files: Sequence[bytes], count: int) -> list[int]:
    scorer = _scorer(model)
    pictures = [Image.open(io.BytesIO(data)).convert("RGB") for data in files]
    vectors = scorer.pictures(pictures)
    agreement = np.asarray(vectors @ scorer.texts([prompt])[0], dtype=np.float32)
    return diverse(agreement, vectors, count, range(len(pictures)))
