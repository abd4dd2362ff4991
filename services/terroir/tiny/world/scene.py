"""What a picture of the drawn world shows: one subject in one colour, in one scene, at one time of day.

The tiny base model learns this world and nothing else, so these lists are also what its prompts may say.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass
from typing import Final

import numpy as np

SUBJECTS: Final = (
    "house", "pagoda", "bridge", "boat", "lantern", "teapot",
    "bowl of noodles", "mountain", "tree", "tower", "fish", "umbrella",
)  # fmt: skip
COLOURS: Final = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
SCENES: Final = ("river", "snow", "desert", "hills", "city")
TIMES: Final = ("day", "sunset", "night")

HELD_OUT_SHARE: Final = 6
"""One combination in this many is never drawn for training; the evaluation prompts are taken from those."""


@dataclass(frozen=True, order=True)
class Scene:
    """One combination of the world's four attributes."""

    subject: str
    colour: str
    scene: str
    time: str

    @property
    def held_out(self) -> bool:
        """Whether no training picture or caption may show this combination (decided by a hash, not by a list)."""
        text = "|".join((self.subject, self.colour, self.scene, self.time))
        return hashlib.sha256(text.encode()).digest()[0] % HELD_OUT_SHARE == 0


def all_scenes(*, held_out: bool) -> list[Scene]:
    """Every combination on one side of the training / evaluation split, in a fixed order."""
    combinations = itertools.starmap(Scene, itertools.product(SUBJECTS, COLOURS, SCENES, TIMES))
    return [scene for scene in combinations if scene.held_out is held_out]


_SCENE_PHRASES: Final = {
    "river": ("by a river", "beside a river", "on the river"),
    "snow": ("in the snow", "in a snowy field", "on a snowy day"),
    "desert": ("in the desert", "on the sand dunes", "in a sandy desert"),
    "hills": ("on green hills", "in the hills", "among the hills"),
    "city": ("in the city", "in front of a city skyline", "in a big city"),
}
_TIME_PHRASES: Final = {
    "day": ("in daylight", "by day", "in the daytime"),
    "sunset": ("at sunset", "in the evening sun", "at dusk"),
    "night": ("at night", "under the moon", "on a starry night"),
}


def caption(scene: Scene, rng: np.random.Generator | None = None) -> str:
    """Describe `scene` in at most 18 words; without `rng`, in the plainest of the phrasings that training uses."""
    thing = f"{scene.colour} {scene.subject}"
    article = "an" if thing[0] == "o" else "a"
    if rng is None:
        return f"{article} {thing} {_SCENE_PHRASES[scene.scene][0]} {_TIME_PHRASES[scene.time][0]}"
    place = str(rng.choice(_SCENE_PHRASES[scene.scene]))
    when = str(rng.choice(_TIME_PHRASES[scene.time]))
    forms = (
        f"{article} {thing} {place} {when}",
        f"a picture of {article} {thing} {place} {when}",
        f"{when}, {article} {thing} {place}",
        f"{thing}, {place}, {when}",
        f"{place}, {article} {thing} {when}",
        f"{article} {thing} {place}",
        f"{article} {thing} {when}",
        f"{article} {thing}",
    )
    weights = np.array([6, 2, 1, 2, 1, 1, 1, 1], dtype=float)
    return forms[int(rng.choice(len(forms), p=weights / weights.sum()))]
