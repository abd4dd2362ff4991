"""Which pictures each forward pass uses, as a function of the seed and the pass's place in the run.

Passes are counted over the whole run: pass `part` of optimiser step `step` is number `step * parts + part`. A pass is
shared out among the workers, `size` is what all of them take together. Regularisation pictures come behind the others
in one numbering, and take their share of samples at evenly spaced positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Protocol

import torch

from terroir.training.config import DEFAULT_EPOCHS, TrainConfig
from terroir.training.engine.randomness import PictureOrder, generator


class Order(Protocol):
    """What a run goes through."""

    def pictures(self, number: int, size: int) -> Sequence[int]:
        """Pictures of pass `number` (from 0); at least one, at most `size`."""
        ...

    def length(self, number: int, size: int) -> int:
        """How many pictures that are."""
        ...

    def passes_per_epoch(self, size: int) -> Fraction:
        """Passes in which every picture is used once, with the regularisation pictures among them."""
        ...


class SampleOrder:
    """For pictures of one size: every pass is full, and goes on into the next epoch where one ends."""

    def __init__(self, seed: int, pictures: int, regularisation: int, share: Fraction) -> None:
        self._share = share if regularisation else Fraction(0)
        self._pictures = pictures
        self._order = PictureOrder(seed, pictures)
        self._prior = PictureOrder(seed, regularisation, "prior-order")

    def pictures(self, number: int, size: int) -> Sequence[int]:
        """As `Order.pictures`."""
        return [self._picture(sample) for sample in range(number * size, (number + 1) * size)]

    def length(self, number: int, size: int) -> int:
        """As `Order.length`."""
        del number  # all are full
        return size

    def passes_per_epoch(self, size: int) -> Fraction:
        """As `Order.passes_per_epoch`."""
        return self._pictures / (1 - self._share) / size

    def _picture(self, sample: int) -> int:
        before, taken = _turns(sample, self._share)
        if taken:
            return self._pictures + self._prior.picture(before)
        return self._order.picture(sample - before)


class BucketOrder:
    """For pictures of several sizes: a pass holds one size, and an epoch is whole passes.

    In every epoch each picture is used exactly once. A size whose count `size` does not divide ends in one shorter
    pass; nothing is dropped, repeated or moved to a size that fits it worse. The passes of all sizes are shuffled.
    Regularisation pictures have passes of their own, so that both kinds keep this.
    """

    def __init__(self, seed: int, sizes: Sequence[Hashable], prior_sizes: Sequence[Hashable], share: Fraction) -> None:
        self._pictures = _Passes(seed, "order", sizes, 0)
        self._prior = _Passes(seed, "prior-order", prior_sizes, len(sizes))
        self._share = share if prior_sizes else Fraction(0)

    def pictures(self, number: int, size: int) -> Sequence[int]:
        """As `Order.pictures`."""
        before, taken = _turns(number, self._pass_share(size))
        return self._prior.pictures(before, size) if taken else self._pictures.pictures(number - before, size)

    def length(self, number: int, size: int) -> int:
        """As `Order.length`."""
        return len(self.pictures(number, size))

    def passes_per_epoch(self, size: int) -> Fraction:
        """As `Order.passes_per_epoch`."""
        return self._pictures.count(size) / (1 - self._pass_share(size))

    def _pass_share(self, size: int) -> Fraction:
        """The share of passes that gives its share of samples: passes of both kinds are not equally full."""
        if not self._share:
            return self._share
        prior, others = self._share * self._pictures.fill(size), (1 - self._share) * self._prior.fill(size)
        return prior / (prior + others)


class _Passes:
    """Epochs of one kind of pictures, numbered from `first`."""

    def __init__(self, seed: int, purpose: str, sizes: Sequence[Hashable], first: int) -> None:
        self._seed = seed
        self._purpose = purpose
        self._first = first
        self._total = len(sizes)
        self._groups: dict[Hashable, list[int]] = {}
        for picture, size in enumerate(sizes):
            self._groups.setdefault(size, []).append(picture)
        self._epoch: Callable[[int, int], Sequence[Sequence[int]]] = lru_cache(maxsize=2)(self._shuffled)

    def count(self, size: int) -> int:
        """Passes an epoch."""
        return sum(-(-len(group) // size) for group in self._groups.values())

    def fill(self, size: int) -> Fraction:
        """Mean pictures a pass."""
        return Fraction(self._total, self.count(size))

    def pictures(self, number: int, size: int) -> Sequence[int]:
        """Pictures of pass `number` of this kind."""
        epoch, position = divmod(number, self.count(size))
        return self._epoch(epoch, size)[position]

    def _shuffled(self, epoch: int, size: int) -> Sequence[Sequence[int]]:
        source = generator(self._seed, self._purpose, epoch)
        passes: list[list[int]] = []
        for group in self._groups.values():
            mixed = [self._first + group[i] for i in torch.randperm(len(group), generator=source).tolist()]
            passes += [mixed[start : start + size] for start in range(0, len(mixed), size)]
        return [passes[i] for i in torch.randperm(len(passes), generator=source).tolist()]


def total_steps(config: TrainConfig, order: Order) -> int:
    """Optimiser steps of a run: `max_train_steps`, or as many as its epochs take."""
    if config.max_train_steps is not None:
        return config.max_train_steps
    # As it is written: the float next to 0.1 is a little more, and would make a step more of a whole number.
    epochs = Fraction(str(DEFAULT_EPOCHS if config.epochs is None else config.epochs))
    passes = order.passes_per_epoch(config.batch_size * config.num_workers)
    return max(1, math.ceil(epochs * passes / config.gradient_accumulation_steps))


def _turns(number: int, share: Fraction) -> tuple[int, bool]:
    """How many of the positions before `number` have the turn that comes to `share` of them, and whether it has."""
    before = math.floor(number * share)
    return before, math.floor((number + 1) * share) > before
