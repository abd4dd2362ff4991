"""Advice as values: symptoms, what to try, and which key goes from which value to which."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from terroir.training.config import TrainConfig


class Symptom(StrEnum):
    """What people see; the value is the anchor of its section in docs/troubleshooting.md."""

    OUT_OF_MEMORY = "out-of-memory"
    NON_FINITE = "loss-is-nan"
    DIVERGING = "loss-rises"
    NOISY_LOSS = "noisy-loss"
    FLAT_LOSS = "loss-does-not-fall"
    TOO_WEAK = "style-too-weak"
    OVER_FITTED = "over-fitted"
    LITTLE_VARIETY = "pictures-all-alike"
    CAPTIONS_IGNORED = "prompts-ignored"
    STYLE_LEAKS = "style-leaks-into-everything"
    TEXT_ENCODER_SPOILT = "text-encoder-spoilt"
    BLACK_PICTURES = "black-pictures"
    TOO_SLOW = "training-is-slow"


@dataclass(frozen=True)
class Change:
    """One key's new value."""

    key: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.key} {self.before} → {self.after}"


@dataclass(frozen=True)
class Try:
    """One thing to try: keys to change, or where no key helps what to do instead."""

    changes: tuple[Change, ...]
    words: str
    """The same in general, for people who have no configuration at hand."""
    why: str

    def __str__(self) -> str:
        told = " and ".join(str(change) for change in self.changes) or self.words
        return f"{told} ({self.why})"


@dataclass(frozen=True)
class Advice:
    """What to try about one symptom, most promising first."""

    symptom: Symptom
    title: str
    tries: tuple[Try, ...]

    @property
    def page(self) -> str:
        """Where it is explained."""
        return f"docs/troubleshooting.md#{self.symptom}"

    def sentence(self, most: int = 3) -> str:
        """`try batch_size 4 → 2 and … (why); else …`, with the first `most` things."""
        return f"try {'; else '.join(str(one) for one in self.tries[:most])}"


@dataclass(frozen=True)
class Remedy:
    """One thing to try, for any configuration."""

    words: str
    why: str
    changed: Callable[[TrainConfig], Mapping[str, Any]] | None = None
    """New values for a run's keys, empty where this run has nothing to gain by it; None: no key does it."""

    def of(self, config: TrainConfig) -> Try | None:
        """What it means for this run, if anything."""
        if self.changed is None:
            return Try((), self.words, self.why)
        changes = tuple(
            Change(key, spelt(getattr(config, key)), spelt(after)) for key, after in self.changed(config).items()
        )
        return Try(changes, self.words, self.why) if changes else None


@dataclass(frozen=True)
class Row:
    """One symptom: how it is recognised and what helps, most promising first."""

    symptom: Symptom
    title: str
    seen: str
    remedies: tuple[Remedy, ...]


def spelt(value: Any) -> str:
    """A value as YAML and people write it."""
    if value is None or value == ():
        return "unset"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(value)}]"
    return f"{value:g}" if isinstance(value, float) else str(value)
