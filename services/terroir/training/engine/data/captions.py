"""Captions as they are trained on: the trigger word, seeded orders of their parts, and what happens without one."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from terroir.training.config import TrainConfig
from terroir.training.engine.ports import Picture, Pictures
from terroir.training.engine.randomness import derive
from terroir.training.errors import CaptionMissing

_NAMED: Final = 5
"""How many pictures an error names."""


@dataclass(frozen=True)
class CaptionTable:
    """Every text that a run needs, once, and which of them belong to each picture."""

    texts: tuple[str, ...]
    """The first is the empty caption."""
    rows: tuple[tuple[int, ...], ...]
    """Of each picture: rows of `texts`, one a seeded order of its caption's parts."""

    @classmethod
    def of(cls, config: TrainConfig, trigger: str, data: Pictures, regularisation: Pictures) -> CaptionTable:
        """Captions of the pictures, then of the regularisation pictures, which get no trigger word.

        Raises CaptionMissing.
        """
        captions = [with_trigger(picture.caption, trigger) for picture in data]
        captions += [picture.caption.strip() for picture in regularisation]
        if config.caption_dropout < 1:
            _refuse_missing(
                [picture for picture, text in zip((*data, *regularisation), captions, strict=True) if not text]
            )
        count = config.augment_variants if config.shuffle_caption else 1
        orders = [shuffled(text, config.keep_tokens, count) for text in captions]
        numbers = {text: row for row, text in enumerate(dict.fromkeys(["", *itertools.chain(*orders)]))}
        return cls(tuple(numbers), tuple(tuple(numbers[text] for text in texts) for texts in orders))


def with_trigger(caption: str, trigger: str) -> str:
    """The caption, with the trigger word in front unless it is already in it."""
    text = caption.strip()
    if not trigger or trigger.casefold() in text.casefold():
        return text
    return f"{trigger}, {text}" if text else trigger


def shuffled(caption: str, keep: int, count: int) -> tuple[str, ...]:
    """The caption and `count - 1` other orders of its comma-separated parts after the first `keep`.

    They follow from the caption, so that the states of each are cached for every run; a caption with fewer orders
    gives all that there are.
    """
    parts = [part.strip() for part in caption.split(",")]
    kept, free = parts[:keep], parts[keep:]
    if count == 1 or len(free) < 2:
        return (caption,)
    orders = {tuple(free): caption}
    if math.factorial(len(free)) <= count:
        for order in itertools.permutations(free):
            orders.setdefault(order, ", ".join((*kept, *order)))
        return tuple(orders.values())
    source = random.Random(derive(0, "caption", caption, keep))
    while len(orders) < count and len(orders) < _distinct_orders(free):
        order = tuple(source.sample(free, len(free)))
        orders.setdefault(order, ", ".join((*kept, *order)))
    return tuple(orders.values())


def _distinct_orders(parts: Sequence[str]) -> int:
    repeats = (math.factorial(parts.count(part)) for part in set(parts))
    return math.factorial(len(parts)) // math.prod(repeats)


def _refuse_missing(pictures: Sequence[Picture]) -> None:
    if not pictures:
        return
    names = ", ".join(picture.name for picture in pictures[:_NAMED])
    more = f" and {len(pictures) - _NAMED} more" if len(pictures) > _NAMED else ""
    raise CaptionMissing(
        f"{len(pictures)} pictures have no caption: {names}{more}; write them (NAME.txt beside the picture or a row of "
        "metadata.csv), set trigger_word, or train without any by caption_dropout 1",
        metadata={"pictures": str(len(pictures))},
    )
