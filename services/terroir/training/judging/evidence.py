"""Drawn picture and nearest training picture side by side: what a refusal shows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from PIL import Image, ImageOps

from terroir.scoring.copies import Nearest
from terroir.store.blobs import Blobs
from terroir.training.judging.drawing import Sketch
from terroir.training.judging.judgement import Evidence
from terroir.training.judging.kept import png

PAIRS: Final = 6
"""Of a checkpoint, each with another training picture while there are enough."""
_SIDES: Final = (128, 512)
"""Least and largest side of each of the two, in pixels."""
_GAP: Final = 4
_CELL: Final = 192
"""Largest side of a sample in a grid, in pixels."""


def evidence_of(
    sketches: Sequence[Sketch],
    drawn: Sequence[Image.Image],
    nearest: Sequence[Nearest],
    training: Sequence[Image.Image],
    names: Sequence[str],
    blobs: Blobs,
) -> tuple[Evidence, ...]:
    """The closest pairs of pictures, the closest first; their PNGs are kept as blobs."""
    order = sorted(range(len(drawn)), key=lambda number: nearest[number].pixels)
    closest: dict[int, int] = {}
    for number in order:
        closest.setdefault(nearest[number].training_picture, number)
    others = [number for number in order if number not in closest.values()]
    chosen = [*closest.values(), *others][:PAIRS]
    return tuple(
        Evidence(
            prompt=sketches[number].prompt,
            seed=sketches[number].seed,
            training_picture=names[nearest[number].training_picture],
            pixels=round(nearest[number].pixels, 4),
            embedding=round(nearest[number].embedding, 4),
            is_copy=nearest[number].is_copy,
            picture=blobs.put(png(side_by_side(drawn[number], training[nearest[number].training_picture]))),
        )
        for number in sorted(chosen, key=lambda number: nearest[number].pixels)
    )


def side_by_side(drawn: Image.Image, training: Image.Image) -> Image.Image:
    """Both as squares of one size, the drawn one left."""
    side = min(max(drawn.width, _SIDES[0]), _SIDES[1])
    pair = Image.new("RGB", (2 * side + _GAP, side), "white")
    for left, picture in ((0, drawn), (side + _GAP, training)):
        resampling = Image.Resampling.NEAREST if picture.width * 2 <= side else Image.Resampling.LANCZOS
        pair.paste(ImageOps.fit(picture.convert("RGB"), (side, side), resampling), (left, 0))
    return pair


def grid(pictures: Sequence[Image.Image], columns: int, cell: int = _CELL) -> Image.Image:
    """Square pictures row by row without gaps, shrunk to `cell` pixels where they are larger."""
    side = min(pictures[0].width, cell)
    rows = -(-len(pictures) // columns)
    page = Image.new("RGB", (columns * side, rows * side), "white")
    for number, picture in enumerate(pictures):
        fitted = ImageOps.fit(picture.convert("RGB"), (side, side), Image.Resampling.LANCZOS)
        page.paste(fitted, (number % columns * side, number // columns * side))
    return page
