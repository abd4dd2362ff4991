"""Style distance: zero at the set itself, falling on the way to it, deaf to order and size."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from terroir.scoring.style import StyleRuler, statistics
from terroir.tiny.world.look import BASE, Look
from terroir.tiny.world.render import render
from terroir.tiny.world.scene import all_scenes
from terroir.tiny.world.styles import JIANGNAN_INK, SICHUAN_HOTPOT


class MeanColour:
    """Stands in for CLIP: the mean colour as an embedding."""

    def pictures(self, pictures):
        return np.stack([np.asarray(p, dtype=np.float32).reshape(-1, 3).mean(0) / 255 for p in pictures])


def drawn(look: Look, seed: int, count: int = 24) -> list[Image.Image]:
    rng, scenes = np.random.default_rng(seed), all_scenes(held_out=True)
    return [render(scenes[i], rng, look) for i in rng.integers(len(scenes), size=count)]


def blend(style: list[Image.Image], base: list[Image.Image], share: float) -> list[Image.Image]:
    return [Image.blend(b, s, share) for s, b in zip(style, base, strict=True)]


@pytest.mark.parametrize("look", [JIANGNAN_INK, SICHUAN_HOTPOT])
def test_distance_falls_on_the_way_from_base_to_style(look):
    base, style = drawn(BASE, 1), drawn(look, 1)
    ruler = StyleRuler(MeanColour(), drawn(look, 2), base)
    steps = [ruler.distance(blend(style, base, share)) for share in (0.0, 0.5, 1.0)]
    assert steps[0] > steps[1] > steps[2]
    assert steps[2] < 0.5 * steps[0]


def test_the_set_itself_is_at_distance_zero():
    style = drawn(JIANGNAN_INK, 2)
    assert StyleRuler(MeanColour(), style, drawn(BASE, 1)).distance(style[::-1]) == pytest.approx(0, abs=1e-4)


def test_statistics_do_not_depend_on_the_pictures_size():
    picture = drawn(BASE, 3, 1)[0]
    large = picture.resize((128, 128), Image.Resampling.NEAREST)
    np.testing.assert_allclose(statistics(large), statistics(picture), atol=1e-4)


def test_black_and_white_have_finite_statistics():
    for colour in ("black", "white"):
        assert np.isfinite(statistics(Image.new("RGB", (64, 64), colour))).all()
