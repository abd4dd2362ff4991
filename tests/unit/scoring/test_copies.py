"""Copies are found through brightness, noise, crops and mirrors; other pictures of the same caption are none."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageOps
from scoring_kit import MeanColour, drawn, scenes, spoilt

from terroir.scoring.clip import ClipScorer
from terroir.scoring.copies import TrainingSet
from terroir.scoring.views import Views, thumbnails_of
from terroir.tiny import CLIP_DIR
from terroir.tiny.world.styles import JIANGNAN_INK, SICHUAN_HOTPOT

MODEL = "c" * 64
"""Digest of the embedder; which one is of no matter here."""
STYLES = [JIANGNAN_INK, SICHUAN_HOTPOT]


@pytest.fixture(scope="module")
def clip() -> ClipScorer:
    return ClipScorer(CLIP_DIR)


def cropped(picture: Image.Image) -> Image.Image:
    return picture.crop((4, 2, 62, 60)).resize((64, 64), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("look", STYLES)
@pytest.mark.parametrize("count", [4, 20])
def test_copies_are_found_however_they_were_spoilt(clip, look, count):
    """A crop once went free: CLIP compared it with the whole picture alone, which it sees as another (0.78 off)."""
    training = drawn(scenes(count, seed=2), seed=2, look=look)
    found = TrainingSet.of(clip, training, MODEL)
    for change in (lambda p: p, cropped, ImageOps.mirror, lambda p: ImageOps.mirror(cropped(p))):
        nearest = found.nearest([spoilt(change(picture), number) for number, picture in enumerate(training)])
        assert [one.training_picture for one in nearest] == list(range(count))
        assert np.mean([one.is_copy for one in nearest]) >= 0.9


@pytest.mark.parametrize("look", STYLES)
@pytest.mark.parametrize("count", [4, 20])
def test_other_pictures_of_the_same_captions_are_no_copies(clip, look, count):
    """A healthy adapter draws just those: the same words in the same style, another picture."""
    of = scenes(count, seed=3)
    found = TrainingSet.of(clip, drawn(of, seed=3, look=look), MODEL)
    others = [picture for seed in range(10, 10 + 80 // count) for picture in drawn(of, seed=seed, look=look)]
    assert np.mean([one.is_copy for one in found.nearest(others)]) <= 0.03


def test_duplicates_in_the_set_do_not_excuse_copies():
    """A set in which every tenth picture comes twice has the same bound, not one of nearly zero."""
    training = drawn(scenes(20, seed=4), seed=4)
    alone, doubled = (
        TrainingSet.of(MeanColour(), training, MODEL),
        TrainingSet.of(MeanColour(), [*training, *training[:2]], MODEL),
    )
    assert doubled.bounds.pixels == pytest.approx(alone.bounds.pixels, rel=0.1)


def test_a_set_of_one_has_a_bound_of_its_own():
    (picture,) = drawn(scenes(1, seed=5), seed=5)
    found = TrainingSet.of(MeanColour(), [picture], MODEL)
    copy, stranger = found.nearest([spoilt(picture, 1), drawn(scenes(9, seed=6), seed=6)[8]])
    assert copy.is_copy
    assert not stranger.is_copy


def test_the_bound_stays_within_limits_for_a_set_of_equals():
    (picture,) = drawn(scenes(1, seed=5), seed=5)
    assert TrainingSet.of(MeanColour(), [picture] * 5, MODEL).bounds.pixels == pytest.approx(0.35)


def test_what_is_further_off_by_embedding_than_two_pictures_of_the_set_is_no_copy():
    """Both must agree: equal pixels alone would be enough for the other half."""
    training = drawn(scenes(4, seed=7), seed=7)

    class Estranged(MeanColour):
        drawn = training[0].copy()

        def pictures(self, pictures):
            signs = [-1 if picture is self.drawn else 1 for picture in pictures]
            return super().pictures(pictures) * np.array(signs, dtype=np.float32)[:, None]

    (nearest,) = TrainingSet.of(Estranged(), training, MODEL).nearest([Estranged.drawn])
    assert nearest.pixels == pytest.approx(0, abs=0.1)
    assert not nearest.is_copy


def test_no_training_pictures_are_refused():
    with pytest.raises(ValueError, match="no training pictures"):
        TrainingSet.of(MeanColour(), [], MODEL)


def test_the_nearest_view_is_the_crop_that_was_taken():
    training = drawn(scenes(8, seed=8), seed=8)
    numbers, distances = Views(thumbnails_of(training)).nearest([picture.crop((6, 0, 64, 58)) for picture in training])
    assert list(numbers) == list(range(8))
    assert (distances < 0.35).all()


def test_a_picture_that_is_held_out_is_not_its_own_nearest():
    training = drawn(scenes(5, seed=9), seed=9)
    numbers, distances = Views(thumbnails_of(training)).nearest(training, held_out=np.arange(5))
    assert not (numbers == np.arange(5)).any()
    assert (distances > 0.3).all()
