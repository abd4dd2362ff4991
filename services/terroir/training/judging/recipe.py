"""Everything beside the checkpoint that decides its scores, and a digest of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from terroir.training.engine.ports import Pictures
from terroir.training.judging.drawing import Manner, Sketch
from terroir.training.judging.prompts import Texts

_MEASURES: Final = 2
"""Raise it when a score is measured in another way: kept scores are not used then."""
STEPS: Final = 10
"""Half of what people are served, for half of the cost; nobody has measured what that does to the figures."""
RECALL_SEEDS: Final = 10
"""At least: copies come with some seeds only (YuxinWenRick/diffusion_memorization issue 5 advises the most of ten)."""
_FIRST_TEXTS: Final = 2
"""Texts of the first round of recall; the others are drawn only where it leaves a doubt."""
_FIRST_SEED, _FIRST_RECALL_SEED = 1000, 2000


@dataclass(frozen=True)
class Recipe:
    """What is drawn and what it is compared with."""

    base: str
    """Digest of the base's weights."""
    model: str
    """Digest of the CLIP that judges."""
    pictures: str
    """Digest of the training pictures and captions."""
    texts: Texts
    seeds: int
    """Of each held-out prompt."""
    max_memorisation: float
    """Largest share of copies that passes; it decides after which pictures there is no doubt left."""
    manner: Manner = field(default_factory=lambda: Manner(steps=STEPS))

    @property
    def held_out(self) -> tuple[Sketch, ...]:
        """Held-out prompts as the adapter draws them, all seeds of a prompt together."""
        return self._sketches([self.texts.worn(prompt) for prompt in self.texts.held_out])

    @property
    def of_base(self) -> tuple[Sketch, ...]:
        """The same as the base draws them: it does not know the trigger word."""
        return self._sketches(self.texts.held_out)

    @property
    def recall_rounds(self) -> tuple[tuple[Sketch, ...], ...]:
        """What may bring training pictures back, in two rounds of whole texts, each text with all its seeds."""
        seeds = max(RECALL_SEEDS, self.seeds)
        parts = self.texts.recalled[:_FIRST_TEXTS], self.texts.recalled[_FIRST_TEXTS:]
        rounds = (
            tuple(Sketch(text, _FIRST_RECALL_SEED + seed) for text in part for seed in range(seeds)) for part in parts
        )
        return tuple(one for one in rounds if one)

    def recall_decided(self, copies: int) -> bool:
        """Whether a round with so many copies so far leaves no doubt, so that the next can be left out.

        Copies that are too many of all pictures stay too many: that is exact. A first round without any is taken for
        enough; docs/judging.md says what that overlooks.
        """
        return copies == 0 or copies > self.max_memorisation * sum(map(len, self.recall_rounds))

    @property
    def pictures_a_checkpoint(self) -> int:
        """The most that are drawn to judge one."""
        return len(self.held_out) + sum(map(len, self.recall_rounds))

    def digest(self) -> str:
        """SHA-256 (hex) of all of it."""
        return _digest({"measures": _MEASURES, **asdict(self)})

    def base_pictures_digest(self) -> str:
        """SHA-256 (hex) of what decides the base's own pictures, so that other runs on it use them too."""
        sketches = [asdict(sketch) for sketch in self.of_base]
        return _digest({"base": self.base, "manner": asdict(self.manner), "sketches": sketches})

    def _sketches(self, prompts: Sequence[str]) -> tuple[Sketch, ...]:
        return tuple(Sketch(prompt, _FIRST_SEED + seed) for prompt in prompts for seed in range(self.seeds))


def pictures_digest(data: Pictures) -> str:
    """SHA-256 (hex) of a training set's files and captions, in their order."""
    digest = hashlib.sha256()
    for picture in data:
        digest.update(hashlib.sha256(picture.data).digest() + hashlib.sha256(picture.caption.encode()).digest())
    return digest.hexdigest()


def _digest(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
