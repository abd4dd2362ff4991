"""Draws the embedded base's own pictures once for all: `python -m terroir.training.judging.shipped`.

A judgement compares with what the base draws without an adapter. For the embedded base and its own prompts these
pictures are always the same, so they come with the code; run this again after either has changed.
"""

from __future__ import annotations

from pathlib import Path

from terroir.tiny import BASE_DIR, CLIP_DIR
from terroir.training.config import TrainConfig
from terroir.training.judging.drawing import Studio
from terroir.training.judging.kept import SHIPPED, strip_of
from terroir.training.judging.models import tiny_digest
from terroir.training.judging.prompts import Base
from terroir.training.judging.recipe import Recipe
from terroir.training.judging.run import JudgedRun, recipe_of


def shipped_recipe() -> Recipe:
    """With every default, and captions of which none is held out."""
    run = JudgedRun(TrainConfig.model_validate({}), Base(BASE_DIR, tiny_digest()), "", ())
    return recipe_of(run, CLIP_DIR)


def draw() -> Path:
    """Draw them and write their file; returns it."""
    recipe = shipped_recipe()
    pictures = Studio(BASE_DIR).draw(None, recipe.of_base, recipe.manner)
    SHIPPED.mkdir(exist_ok=True)
    for old in SHIPPED.glob("*.png"):
        old.unlink()
    path = SHIPPED / f"{recipe.base_pictures_digest()}.png"
    path.write_bytes(strip_of(pictures))
    return path


if __name__ == "__main__":
    print(draw())  # noqa: T201  # run by hand: says what it wrote
