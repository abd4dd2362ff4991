"""A run's pictures and captions as the denoiser sees them, encoded once and cached by content."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from terroir.training.config import TrainConfig
from terroir.training.engine.data.augmentation import Recipe
from terroir.training.engine.data.buckets import Size
from terroir.training.engine.data.captions import CaptionTable
from terroir.training.engine.data.latents import EncodedPicture, PictureEncoder
from terroir.training.engine.data.order import BucketOrder, Order, SampleOrder
from terroir.training.engine.data.pictures import check_headers
from terroir.training.engine.data.texts import CaptionEncoder, TextTable
from terroir.training.engine.families.interface import Family
from terroir.training.engine.ports import ArrayCache, Pictures, TrainRun


@dataclass(frozen=True)
class Encoded:
    """Everything that batches are made of, on the host."""

    pictures: tuple[EncodedPicture, ...]
    """The regularisation pictures behind the others."""
    captions: tuple[tuple[int, ...], ...]
    """Rows of `texts` that each picture may use; row 0 is the empty caption."""
    texts: TextTable
    regularisation: int = 0
    """How many of the pictures are there for prior preservation."""

    @property
    def own(self) -> int:
        """How many of the pictures are the data set's own."""
        return len(self.pictures) - self.regularisation

    def order(self, config: TrainConfig) -> Order:
        """What the run goes through."""
        share = Fraction(str(config.reg_share))
        if not config.enable_bucket:
            return SampleOrder(config.seed, self.own, self.regularisation, share)
        sizes = [picture.size for picture in self.pictures]
        return BucketOrder(config.seed, sizes[: self.own], sizes[self.own :], share)

    def description(self) -> str:
        """What there is, for the log: pictures of each size, and those for prior preservation."""
        sizes = Counter(picture.size for picture in self.pictures)
        shown = ", ".join(f"{count} of {_shown(size)}" for size, count in sorted(sizes.items()))
        prior = f", {self.regularisation} of them for prior preservation" if self.regularisation else ""
        examples = sum(len(picture.examples) for picture in self.pictures)
        return f"{len(self.pictures)} pictures ({shown}{prior}) as {examples} examples"


def check(run: TrainRun, data: Pictures, regularisation: Pictures) -> CaptionTable:
    """Find what is wrong before anything is loaded or encoded; raises CaptionMissing and PictureUnreadable."""
    check_headers((*data, *regularisation))
    return CaptionTable.of(run.config, run.config.trigger_word or run.trigger_word, data, regularisation)


def encode(
    run: TrainRun,
    family: Family,
    data: Pictures,
    regularisation: Pictures,
    cache: ArrayCache,
    on_progress: Callable[[int, int], None],
) -> Encoded:
    """Encode everything; `on_progress` hears how many encodings of how many there are.

    Regularisation pictures stand for what must not change, so of the augmentations they only get the flip. Raises what
    `check` raises, and LatentsNotFinite.
    """
    captions = check(run, data, regularisation)
    pictures = PictureEncoder(family.vae, run, cache)
    recipe = Recipe.of(run.config)
    recipes = [recipe] * len(data) + [Recipe.nothing()] * len(regularisation)
    counter = _Counter(len(captions.texts) + sum(pictures.count(recipe) for recipe in recipes), on_progress)
    texts = CaptionEncoder(family, run, cache).encode(captions.texts, counter.one)
    counter.done = len(captions.texts)
    both = zip((*data, *regularisation), recipes, strict=True)
    return Encoded(
        pictures=tuple(pictures.encode(list(both), counter.one)),
        captions=captions.rows,
        texts=texts,
        regularisation=len(regularisation),
    )


def data_digest(run: TrainRun, data: Pictures, regularisation: Pictures) -> str:
    """SHA-256 (hex) of every file, caption and trigger word that a run trains on."""
    digest = hashlib.sha256(run.trigger_word.encode())
    for kind in (data, regularisation):
        digest.update(len(kind).to_bytes(8, "big"))
        for picture in kind:
            for part in (picture.data, picture.caption.encode(), picture.mask or b""):
                digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()


@dataclass
class _Counter:
    total: int
    on_progress: Callable[[int, int], None]
    done: int = 0

    def one(self) -> None:
        self.done += 1
        self.on_progress(self.done, self.total)


def _shown(size: Size) -> str:
    return f"{size.width} × {size.height}"
