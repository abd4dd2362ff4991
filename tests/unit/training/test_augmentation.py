"""The augmentation recipe: what each key does to a picture, and that variants are the same wherever they are made."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from data_kit import array, as_file, config, gradient, noise_image, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from training_kit import Bench, MemorySinks, flat, pictures

from terroir.training.config import TrainConfig
from terroir.training.engine.cache import MemoryArrayCache
from terroir.training.engine.data.augmentation import Recipe, Variant
from terroir.training.engine.data.buckets import Size
from terroir.training.engine.data.examples import Example, ExampleMaker
from terroir.training.engine.data.pictures import Pixels, pixels_digest
from terroir.training.engine.ports import Picture

DIGESTS = [f"{number:064x}" for number in range(200)]


def examples(keys: TrainConfig, image: Image.Image | None = None) -> list[Example]:
    return ExampleMaker(keys, 4).make(picture(image or gradient((48, 48))), Recipe.of(keys))[1]


def pixels_of(keys: TrainConfig, image: Image.Image | None = None) -> list[Pixels]:
    return [example.pixels for example in examples(keys, image)]


def recipe(**changes: float) -> Recipe:
    return replace(Recipe.nothing(), erase_area=0.1, **changes)


def test_without_augmentation_there_is_one_variant_and_it_is_the_picture() -> None:
    plain = pixels_of(config(resolution=48, augment_variants=8))
    assert len(plain) == 1 and (plain[0] == array(gradient((48, 48)))).all()


def test_with_flip_alone_there_are_the_picture_and_its_mirror_image() -> None:
    plain, mirrored = pixels_of(config(resolution=48, horizontal_flip=True))
    assert (plain[:, ::-1] == mirrored).all() and not (plain == mirrored).all()


@pytest.mark.parametrize("key", ["augment_color_jitter", "augment_erase", "augment_crop"])
def test_augment_variants_says_how_many_there_are(key: str) -> None:
    for count in (1, 3):
        made = pixels_of(config(resolution=48, augment_variants=count, **{key: 0.9}))
        assert len(made) == count
    both = pixels_of(config(resolution=48, augment_variants=3, horizontal_flip=True, **{key: 0.9}))
    assert len(both) == 6 and all((both[2 * i][:, ::-1] == both[2 * i + 1]).all() for i in range(3))


@settings(deadline=None, max_examples=25)
@given(
    jitter=st.floats(0, 1), erase=st.floats(0, 1), area=st.floats(0.01, 0.5), crop=st.floats(0, 1),
    number=st.integers(0, 3), seed=st.integers(0, 5),
)  # fmt: skip
def test_a_variant_depends_on_recipe_picture_and_number_alone(
    jitter: float, erase: float, area: float, crop: float, number: int, seed: int
) -> None:
    keys = {"augment_color_jitter": jitter, "augment_erase": erase, "augment_erase_area": area, "augment_crop": crop}
    image = noise_image(seed)
    made = examples(config(resolution=32, **keys), image)
    again = examples(config(resolution=32, seed=999, batch_size=7, caption_dropout=0.5, **keys), image)
    assert [pixels_digest(one.pixels) for one in made] == [pixels_digest(one.pixels) for one in again]
    # The file that the pixels came in does not matter either.
    other = Picture("b.bmp", as_file(image, "BMP"), "")
    maker = ExampleMaker(config(resolution=32, **keys), 4)
    assert (maker.make(other, Recipe.of(config(**keys)))[1][-1].pixels == made[-1].pixels).all()


def test_variants_of_a_picture_differ_and_so_do_those_of_another() -> None:
    keys = config(resolution=32, augment_color_jitter=0.5, augment_crop=0.5, augment_erase=1, augment_variants=6)
    digests = {pixels_digest(one) for seed in (1, 2) for one in pixels_of(keys, noise_image(seed))}
    assert len(digests) == 12


def test_switching_one_operation_on_leaves_the_draws_of_the_others() -> None:
    size = Size(100, 80)
    alone = Variant(recipe(crop=0.4), DIGESTS[0], 1)
    together = Variant(recipe(crop=0.4, erase=1.0, color_jitter=0.3), DIGESTS[0], 1)
    assert alone.region(size) == together.region(size) is not None


# Colour


def factors(jitter: float, image: Image.Image) -> list[float]:
    """By how much each of many variants is brighter than the picture."""
    before = array(image).mean()
    return [array(Variant(recipe(color_jitter=jitter), digest, 0).jitter(image)).mean() / before for digest in DIGESTS]


def test_colour_jitter_stays_within_its_share_and_uses_all_of_it() -> None:
    grey = Image.new("RGB", (8, 8), (100, 100, 100))  # contrast and saturation leave it, so brightness shows alone
    changes = factors(0.4, grey)
    assert 0.59 < min(changes) < 0.65 and 1.35 < max(changes) < 1.41 and np.mean(changes) == pytest.approx(1, abs=0.05)


def test_colour_jitter_changes_contrast_and_saturation_too() -> None:
    stripes = Image.fromarray(np.tile(np.array([[60], [180]], np.uint8), (8, 16)).repeat(1, 1)).convert("RGB")
    variants = [Variant(recipe(color_jitter=0.4), digest, 0).jitter(stripes) for digest in DIGESTS]
    contrasts = {round(float(array(one).std() / array(one).mean()), 2) for one in variants}
    assert len(contrasts) > 10
    red = Image.new("RGB", (8, 8), (150, 90, 90))
    saturations = [np.ptp(array(Variant(recipe(color_jitter=0.4), d, 0).jitter(red))[0, 0]) for d in DIGESTS]
    assert min(saturations) < 40 and max(saturations) > 75


def test_without_jitter_colours_are_bit_for_bit_the_picture_s() -> None:
    image = noise_image(0)
    assert Variant(recipe(), DIGESTS[0], 0).jitter(image) is image


# Crop


@given(
    width=st.integers(16, 3000), height=st.integers(16, 3000), crop=st.floats(0.01, 1), digest=st.sampled_from(DIGESTS)
)
def test_a_random_crop_keeps_the_aspect_ratio_and_lies_in_the_picture(
    width: int, height: int, crop: float, digest: str
) -> None:
    region = Variant(recipe(crop=crop), digest, 0).region(Size(width, height))
    assert region is not None
    left, top, right, bottom = region
    assert 0 <= left < right <= width * (1 + 1e-9) and 0 <= top < bottom <= height * (1 + 1e-9)
    assert right - left >= width * (1 - crop) - 1e-6 and bottom - top >= height * (1 - crop) - 1e-6
    if right - left > 1 and bottom - top > 1:
        assert (right - left) / (bottom - top) == pytest.approx(width / height)


def test_random_crops_take_every_amount_and_every_place() -> None:
    regions = [Variant(recipe(crop=0.5), digest, 0).region(Size(100, 100)) for digest in DIGESTS]
    widths = [one[2] - one[0] for one in regions if one]
    assert 50 <= min(widths) < 55 and 95 < max(widths) <= 100
    assert {one[0] < 10 for one in regions if one} == {True, False}


def test_a_crop_is_what_is_seen_and_what_the_denoiser_is_told() -> None:
    """Red tells the column: the crop's left edge stands in the pixels and, scaled, in the geometry."""
    keys = config(resolution=64, augment_crop=0.5, augment_variants=8)
    made = examples(keys, gradient((256, 256)))
    assert len({one.geometry for one in made}) == 8
    for one in made:
        height, width, top, left, target_height, target_width = one.geometry
        assert (height, width, target_height, target_width) == (256, 256, 64, 64)
        low, high = float(one.pixels[0, 0, 0]), float(one.pixels[0, -1, 0])
        scale = 64 / ((high - low) / 255 * 256)  # target pixels a pixel of the picture
        assert left / scale == pytest.approx(low / 255 * 256, abs=8)
        assert top / scale == pytest.approx(float(one.pixels[0, 0, 1]) / 255 * 256, abs=8)


# Erasing


def rectangles(erase: float, area: float, shape: tuple[int, int] = (60, 80)) -> list[tuple[slice, slice] | None]:
    pixels = np.zeros((*shape, 3), np.uint8)
    made = replace(Recipe.nothing(), erase=erase, erase_area=area)
    return [Variant(made, digest, 0).erase(pixels)[1] for digest in DIGESTS]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_variants_is_erased(share: float) -> None:
    erased = sum(one is not None for one in rectangles(share, 0.1)) / len(DIGESTS)
    assert erased == pytest.approx(share, abs=0.1) and (share not in (0, 1) or erased == share)


@pytest.mark.parametrize("most", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("shape", [(60, 80), (24, 200), (200, 16)])
def test_an_erased_rectangle_is_no_larger_than_its_share_and_lies_in_the_picture(
    most: float, shape: tuple[int, int]
) -> None:
    found = [one for one in rectangles(1.0, most, shape) if one]
    areas = []
    for rows, columns in found:
        assert 0 <= rows.start < rows.stop <= shape[0] and 0 <= columns.start < columns.stop <= shape[1]
        areas.append((rows.stop - rows.start) * (columns.stop - columns.start) / (shape[0] * shape[1]))
    assert len(found) == len(DIGESTS) and max(areas) <= most + 1 / (shape[0] * shape[1])
    assert max(areas) > 0.7 * most and len({(rows.start, columns.start) for rows, columns in found}) > 20


def test_an_erased_rectangle_has_the_picture_s_mean_colour_and_the_rest_is_untouched() -> None:
    image = array(gradient((48, 48)))
    erased, place = Variant(replace(Recipe.nothing(), erase=1.0, erase_area=0.3), DIGESTS[4], 0).erase(image)
    assert place is not None
    assert (erased[place] == image.mean(axis=(0, 1)).round()).all()
    rest = np.ones(image.shape[:2], bool)
    rest[place] = False
    assert (erased[rest] == image[rest]).all() and not (erased == image).all()
    assert (image == array(gradient((48, 48)))).all()


# In a run


def test_every_variant_is_encoded_once_and_the_next_run_finds_it(small: Bench) -> None:
    class Counting(MemoryArrayCache):
        puts = 0

        def put(self, key: str, arrays: object) -> None:
            self.puts += 1
            super().put(key, arrays)  # type: ignore[arg-type]  # handed through

    cache = Counting()
    bench = replace(small, cache=cache)
    recipe_keys = {"augment_color_jitter": 0.3, "augment_variants": 3, "horizontal_flip": True, "max_train_steps": 1}
    data = pictures(2)
    sinks = MemorySinks()
    bench.run(sinks, data=data, **recipe_keys)
    assert cache.puts == 2 * 3 * 2 + 3  # the captions and the empty one
    assert any("2 pictures (2 of 32 × 32) as 12 examples" in line for line in sinks.lines)
    bench.run(data=data, **{**recipe_keys, "seed": 8, "lora_rank": 3, "augment_variants": 2})
    assert cache.puts == 15  # another run with less variants of the same recipe


@pytest.mark.parametrize(
    "change",
    [
        {"augment_color_jitter": 0.4}, {"augment_erase": 1.0}, {"augment_erase": 1.0, "augment_erase_area": 0.4},
        {"augment_crop": 0.4}, {"augment_crop": 0.4, "augment_variants": 1}, {"horizontal_flip": True},
    ],
    ids=str,
)  # fmt: skip
def test_each_operation_changes_what_is_learned(small: Bench, change: dict[str, float]) -> None:
    usual = {key: 4 if key == "augment_variants" else 0.1 if key == "augment_erase_area" else 0.0 for key in change}
    usual |= {key: value for key, value in change.items() if len(change) > 1 and key != list(change)[-1]}
    plain = flat(small.run(max_train_steps=2, **usual).adapter)
    assert not np.allclose(plain, flat(small.run(max_train_steps=2, **change).adapter), atol=1e-7)
