"""The chooser that looks: CLIP embeds the candidates and their prompt, in a process of its own."""

from __future__ import annotations

import io
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import structlog
from PIL import Image

from terroir.common.collector import collector_paused
from terroir.common.errors import FailedPrecondition, TerroirError, Unavailable
from terroir.inference.covers.choosing import diverse
from terroir.scoring.model_digest import model_digest
from terroir.scoring.torch_process import ProcessEnded, TorchProcess
from terroir.scoring.training_print import TrainingPrint, TrainingPrintInvalid

if TYPE_CHECKING:
    from terroir.scoring.clip import ClipScorer
    from terroir.scoring.copies import TrainingSet

IDLE_SECONDS: Final = 60.0
_PRINTS: Final = 16
"""Of versions, in memory; at most 4 MiB each."""
_log = structlog.get_logger()


class ClipChooser:
    """Implements `Chooser` with a CLIP that knows what the base draws, and with what versions were trained on."""

    def __init__(
        self, model: Path, print_of: Callable[[str], Awaitable[bytes | None]], *, threads: int = 1,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:  # fmt: skip
        """`model` is a transformers CLIP folder, loaded with the first use; `print_of` a version's training print."""
        self._model = model
        self._print_of = print_of
        self._process = TorchProcess(threads=threads, idle_seconds=idle_seconds)
        self._prints: OrderedDict[str, bytes | None] = OrderedDict()

    async def choose(self, prompt: str, pictures: Sequence[bytes], count: int, versions: Sequence[str], /) -> list[int]:
        """Positions of at most `count` pictures, the best first; none where all repeat training pictures.

        A version without a print, or with one by another CLIP, is compared with nothing. Raises Unavailable where a
        print can't be fetched now, and COVER_JUDGE_… errors.
        """
        prints = [known for version in versions if (known := await self._known_print(version)) is not None]
        try:
            return await self._process.run(_choose, self._model, prompt, tuple(pictures), count, tuple(prints))
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

    async def _known_print(self, version: str) -> bytes | None:
        if version not in self._prints:
            try:
                self._prints[version] = await self._print_of(version)
            except Unavailable:
                raise
            except TerroirError as error:  # it would be the same each time
                _log.warning("training print not read", version=version, reason=error.reason)
                self._prints[version] = None
            while len(self._prints) > _PRINTS:
                self._prints.popitem(last=False)
        return self._prints[version]


@cache
def _scorer(model: Path) -> ClipScorer:
    try:
        with collector_paused():
            from terroir.scoring.clip import ClipScorer  # deferred: imports torch

            return ClipScorer(model)
    except Exception as error:
        # Loaders raise whatever they like, some of it not picklable; only a built-in reaches the parent for certain.
        raise OSError(f"{type(error).__name__}: {error}") from error


@lru_cache(maxsize=_PRINTS)
def _trained_on(model: Path, data: bytes) -> TrainingSet | None:
    """What a print tells, if this CLIP can read it."""
    from terroir.scoring.copies import TrainingSet

    try:
        known = TrainingPrint.from_bytes(data)
    except TrainingPrintInvalid:
        return None
    return TrainingSet(_scorer(model), known) if known.model == model_digest(model) else None


def _choose(model: Path, prompt: str, files: Sequence[bytes], count: int, prints: Sequence[bytes]) -> list[int]:
    scorer = _scorer(model)
    pictures = [Image.open(io.BytesIO(data)).convert("RGB") for data in files]
    copies: set[int] = set()
    for data in prints:
        known = _trained_on(model, data)
        if known is not None:
            copies |= {at for at, nearest in enumerate(known.nearest(pictures)) if nearest.is_copy}
    vectors = scorer.pictures(pictures)
    agreement = np.asarray(vectors @ scorer.texts([prompt])[0], dtype=np.float32)
    return diverse(agreement, vectors, count, [at for at in range(len(pictures)) if at not in copies])
