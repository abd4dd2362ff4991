"""Rows of the keys of how pictures and captions become batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from data_kit import BUCKETS, alike, array, batches_of, config, encoded, gradient, latents, picture
from engine_kit import load, texts
from key_table import Ground, shown_by, shows
from PIL import Image
from training_kit import png

from terroir.training.engine.data.augmentation import Recipe
from terroir.training.engine.data.buckets import Buckets, Size, bucket_sizes
from terroir.training.engine.data.captions import CaptionTable
from terroir.training.engine.data.examples import Example, ExampleMaker
from terroir.training.engine.ports import Picture
from terroir.training.local.data import read_pictures

shown_by(
    "reg_dataset", "unit/training/test_worker_attempt.py::test_regularisation_pictures_of_the_service_are_trained_on"
)
CAPTION = "first, second, third, fourth"


def examples(image: Image.Image | None = None, **keys: Any) -> list[Example]:
    settings = config(**{"resolution": 48, **keys})
    return ExampleMaker(settings, 4).make(picture(image or gradient((48, 48))), Recipe.of(settings))[1]


def orders(**keys: Any) -> list[str]:
    settings = config(**keys)
    table = CaptionTable.of(settings, "", [Picture("a.png", png(1), CAPTION)], [])
    return [table.texts[row] for row in table.rows[0]]


@shows("resolution")
def the_side_of_what_is_trained_on(_: Ground) -> None:
    assert [examples(resolution=side)[0].pixels.shape for side in (32, 64)] == [(32, 32, 3), (64, 64, 3)]


@shows("enable_bucket")
def aspect_ratios_that_are_kept(_: Ground) -> None:
    wide = Size(96, 48)
    assert Buckets(config(**BUCKETS)).size_of(wide) == Size(88, 40)
    assert Buckets(config(**{**BUCKETS, "enable_bucket": False})).size_of(wide) == Size(64, 64)


@shows("bucket_reso_steps")
def the_steps_of_bucket_sides(_: Ground) -> None:
    sides = [
        {side for size in bucket_sizes(config(**{**BUCKETS, "bucket_reso_steps": step})) for side in size}
        for step in (8, 16)
    ]
    assert any(side % 16 for side in sides[0]) and not any(side % 16 for side in sides[1])


@shows("min_bucket_reso")
def the_shortest_side_of_a_bucket(_: Ground) -> None:
    for shortest in (32, 48):
        assert min(min(size) for size in bucket_sizes(config(**{**BUCKETS, "min_bucket_reso": shortest}))) == shortest


@shows("max_bucket_reso")
def the_longest_side_of_a_bucket(_: Ground) -> None:
    for longest in (80, 128):
        assert max(max(size) for size in bucket_sizes(config(**{**BUCKETS, "max_bucket_reso": longest}))) == longest


@shows("bucket_no_upscale")
def small_pictures_that_stay_small(_: Ground) -> None:
    small = Size(40, 40)
    assert Buckets(config(**BUCKETS)).size_of(small) == Size(64, 64)
    assert Buckets(config(**BUCKETS, bucket_no_upscale=True)).size_of(small) == small


@shows("horizontal_flip")
def mirror_images(_: Ground) -> None:
    plain, mirrored = (one.pixels for one in examples(horizontal_flip=True))
    assert len(examples()) == 1 and (plain[:, ::-1] == mirrored).all()


@shows("augment_variants")
def how_many_variants_there_are(_: Ground) -> None:
    assert [len(examples(augment_crop=0.2, augment_variants=count)) for count in (1, 3)] == [1, 3]
    assert [len(orders(shuffle_caption=True, augment_variants=count)) for count in (1, 3)] == [1, 3]


@shows("augment_color_jitter")
def colours_that_change_by_at_most_a_share(_: Ground) -> None:
    grey = Image.new("RGB", (48, 48), (100, 100, 100))
    levels = [float(one.pixels.mean()) for one in examples(grey, augment_color_jitter=0.2, augment_variants=16)]
    assert max(levels) - min(levels) > 5 and all(79 <= level <= 121 for level in levels)


@shows("augment_erase")
def rectangles_that_are_erased(_: Ground) -> None:
    whole = array(gradient((48, 48)))
    changed = [
        sum((one.pixels != whole).any() for one in examples(augment_erase=share, augment_variants=32))
        for share in (0, 0.5, 1)
    ]
    assert changed[0] == 0 and 8 <= changed[1] <= 24 and changed[2] == 32


@shows("augment_erase_area")
def the_largest_that_is_erased(_: Ground) -> None:
    whole = array(gradient((48, 48)))

    def most(area: float) -> float:
        made = examples(augment_erase=1, augment_erase_area=area, augment_variants=32)
        return max(float((one.pixels != whole).any(axis=2).mean()) for one in made)

    assert most(0.05) <= 0.05 < 0.2 < most(0.5) <= 0.5


@shows("augment_crop")
def edges_that_are_cut_off(_: Ground) -> None:
    def span(share: float) -> int:
        return min(int(np.ptp(one.pixels[..., 0])) for one in examples(augment_crop=share, augment_variants=16))

    assert span(0.4) < 200 < span(0.0)  # red tells the column


@shows("caption_dropout")
def captions_that_are_left_out(_: Ground) -> None:
    def left_out(share: float) -> int:
        batches = batches_of(alike(4), config(caption_dropout=share, batch_size=4))
        rows = [batches.make(step, 0).texts for step in range(32)]
        return sum(int((row.states[:, 0, 0] == 0).sum()) for row in rows if row)

    assert left_out(0) == 0 and 32 < left_out(0.5) < 96 and left_out(1) == 128


@shows("shuffle_caption")
def other_orders_of_a_caption(_: Ground) -> None:
    assert orders() == [CAPTION]
    assert len(set(orders(shuffle_caption=True))) == 4


@shows("keep_tokens")
def parts_that_stay_where_they_are(_: Ground) -> None:
    every = {"shuffle_caption": True, "augment_variants": 24}
    assert {order.split(", ")[0] for order in orders(**every, keep_tokens=1)} == {"first"}
    assert {order.split(", ")[0] for order in orders(**every, keep_tokens=0)} > {"first"}
    assert {order.split(", ")[1] for order in orders(**every, keep_tokens=2)} == {"second"}


@shows("clip_skip")
def the_layer_that_texts_are_read_at(at: Ground) -> None:
    last, named, before = (texts(load(at.base, clip_skip=skip)).states for skip in (None, 1, 2))
    assert torch.equal(last, named) and not torch.allclose(last, before, atol=1e-3)


@shows("reg_data_dir")
def a_folder_of_ordinary_pictures(at: Ground) -> None:
    for name in ("p", "plain"):
        (at.folder / name).mkdir()
        (at.folder / name / f"{name}.png").write_bytes(png(1))
    read = read_pictures(config(train_data_dir="p", reg_data_dir="plain"), at.folder)
    assert [picture.name for picture in read.regularisation] == ["plain.png"]
    assert not read_pictures(config(train_data_dir="p"), at.folder).regularisation


@shows("reg_share")
def the_share_of_ordinary_pictures(_: Ground) -> None:
    data = encoded([(Size(16, 16), [latents(float(i))]) for i in range(8)], regularisation=4)
    for share, expected in ((0.25, 16), (0.5, 32)):
        order = data.order(config(reg_share=share))
        assert sum(number >= 4 for number in order.pictures(0, 64)) == expected
