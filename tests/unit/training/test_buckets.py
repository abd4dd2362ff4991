"""Aspect ratios are kept: which size a picture goes to, what is cut of it, and which passes it is used in."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

import pytest
from data_kit import BUCKETS, config, gradient
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from training_kit import Bench, MemorySinks, pictures, png

from terroir.training.engine.data.buckets import Buckets, Size, bucket_sizes
from terroir.training.engine.data.framing import Frame
from terroir.training.engine.data.order import BucketOrder, SampleOrder, total_steps
from terroir.training.engine.ports import Picture
from terroir.training.errors import ConfigInvalid

SIDES = st.integers(16, 4000)


def test_without_buckets_every_picture_goes_to_one_square() -> None:
    buckets = Buckets(config(resolution=48, bucket_reso_steps=64))
    assert buckets.sizes == (Size(48, 48),)
    assert buckets.size_of(Size(4000, 30)) == Size(48, 48)


def test_the_sizes_of_512_are_those_of_other_trainers() -> None:
    sizes = bucket_sizes(config(enable_bucket=True, resolution=512))
    upright = [
        (256, 1024), (256, 960), (256, 896), (256, 832), (320, 768), (320, 704), (384, 640), (448, 576),
    ]  # fmt: skip
    assert sizes == (*upright, (512, 512), *[(height, width) for width, height in reversed(upright)])


@settings(deadline=None)  # the machine may be busy
@given(
    resolution=st.integers(2, 128).map(lambda n: 8 * n),
    step=st.sampled_from([8, 16, 32, 64]),
    shortest=st.integers(2, 64).map(lambda n: 8 * n),
    longest=st.integers(2, 256).map(lambda n: 8 * n),
)
def test_sizes_have_about_the_area_and_keep_the_bounds(resolution: int, step: int, shortest: int, longest: int) -> None:
    if step > resolution or not shortest <= resolution <= longest:
        return
    keys = {"bucket_reso_steps": step, "min_bucket_reso": shortest, "max_bucket_reso": longest}
    sizes = bucket_sizes(config(enable_bucket=True, resolution=resolution, **keys))
    square = resolution // step * step
    assert Size(square, square) in sizes and len(set(sizes)) == len(sizes)
    for width, height in sizes:
        assert width % step == height % step == 0 and width * height <= resolution**2
        assert Size(height, width) in sizes
        if width == height == square:
            continue
        longer, shorter = max(width, height), min(width, height)
        assert shortest <= shorter and longer <= longest
        # There is no row or column more of it, or max_bucket_reso forbids it.
        most = min(longest, resolution**2 // shorter)
        assert longer + step > most or longer * (shorter + step) > resolution**2


@settings(deadline=None)  # the machine may be busy
@given(width=SIDES, height=SIDES)
def test_a_picture_goes_to_the_aspect_ratio_that_is_nearest_by_its_logarithm(width: int, height: int) -> None:
    buckets = Buckets(config(**BUCKETS))
    chosen = buckets.size_of(Size(width, height))
    wanted = math.log(width / height)
    nearest = min(abs(math.log(size.width / size.height) - wanted) for size in buckets.sizes)
    assert abs(math.log(chosen.width / chosen.height) - wanted) == pytest.approx(nearest, abs=1e-9)
    turned = buckets.size_of(Size(height, width))
    assert abs(math.log(turned.height / turned.width) - wanted) == pytest.approx(nearest, abs=1e-9)


@settings(deadline=None)  # the machine may be busy
@given(width=SIDES, height=SIDES)
def test_small_pictures_are_not_enlarged_when_that_is_asked_for(width: int, height: int) -> None:
    size = Buckets(config(**BUCKETS, bucket_no_upscale=True)).size_of(Size(width, height))
    usual = Buckets(config(**BUCKETS)).size_of(Size(width, height))
    assert size.width % 8 == size.height % 8 == 0
    assert size.width <= min(width, usual.width) and size.height <= min(height, usual.height)
    if width >= usual.width and height >= usual.height:
        assert size == usual


def test_a_picture_smaller_than_a_step_is_the_one_that_is_enlarged() -> None:
    keys = {**BUCKETS, "bucket_reso_steps": 64, "min_bucket_reso": 64}
    assert Buckets(config(**keys, bucket_no_upscale=True)).size_of(Size(20, 20)) == Size(64, 64)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"min_bucket_reso": 128}, "min_bucket_reso 128"),
        ({"max_bucket_reso": 56}, "max_bucket_reso 56"),
        ({"bucket_reso_steps": 72}, "bucket_reso_steps 72"),
    ],
)
def test_bounds_that_leave_out_the_resolution_are_refused(change: dict[str, int], words: str) -> None:
    from terroir.training.config.parser import config_from_mapping

    with pytest.raises(ConfigInvalid, match=words):
        config_from_mapping({**BUCKETS, **change})
    config_from_mapping({**BUCKETS, **change, "enable_bucket": False})


@settings(deadline=None)  # the machine may be busy
@given(width=SIDES, height=SIDES, target=st.sampled_from(bucket_sizes(config(**BUCKETS))))
def test_a_frame_covers_the_target_and_is_cut_from_the_middle(width: int, height: int, target: Size) -> None:
    frame = Frame.centred(Size(width, height), target)
    left, top, right, bottom = frame.box
    assert (right - left) / (bottom - top) == pytest.approx(target.width / target.height)
    assert left == pytest.approx(width - right, abs=1e-6) and top == pytest.approx(height - bottom, abs=1e-6)
    assert min(left, top) == pytest.approx(0, abs=1e-6)


def test_a_cut_picture_is_bit_for_bit_that_of_pil() -> None:
    image = gradient((173, 91))
    for target in [(64, 64), (32, 120), (128, 24)]:
        ours = Frame.centred(Size(*image.size), Size(*target)).cut(image, Image.Resampling.LANCZOS)
        assert ours.tobytes() == ImageOps.fit(image, target, Image.Resampling.LANCZOS).tobytes()


def test_the_geometry_tells_original_crop_and_target() -> None:
    """Height first, as SDXL has it; of 400 × 200, a 64 × 64 square is a third of 128 × 64 less 32 at each side."""
    frame = Frame.centred(Size(400, 200), Size(64, 64))
    assert frame.geometry(False) == (200, 400, 0, 32, 64, 64) == frame.geometry(True)
    aside = Frame.centred(Size(400, 200), Size(64, 64), (0.0, 0.0, 200.0, 200.0))
    assert aside.geometry(False) == (200, 400, 0, 0, 64, 64)
    assert aside.geometry(True) == (200, 400, 0, 64, 64, 64)  # in the mirrored picture it is the right half


GROUPS = st.lists(st.integers(0, 4), min_size=1, max_size=40)


@settings(deadline=None)  # the machine may be busy
@given(sizes=GROUPS, size=st.integers(1, 9), seed=st.integers(0, 99))
def test_every_picture_is_used_once_an_epoch_in_passes_of_one_size(sizes: list[int], size: int, seed: int) -> None:
    order = BucketOrder(seed, sizes, [], Fraction(0))
    passes = int(order.passes_per_epoch(size))
    counts = Counter(sizes)
    assert passes == sum(math.ceil(count / size) for count in counts.values())
    for epoch in range(3):
        used = [order.pictures(epoch * passes + number, size) for number in range(passes)]
        assert sorted(picture for one in used for picture in one) == list(range(len(sizes)))
        assert all(len({sizes[picture] for picture in one}) == 1 for one in used)
        assert all(0 < len(one) <= size for one in used)
        # Only the last pass of each size is short.
        assert sum(len(one) < size for one in used) <= sum(count % size > 0 for count in counts.values())


@settings(deadline=None)  # the machine may be busy
@given(sizes=GROUPS, size=st.integers(1, 9), numbers=st.lists(st.integers(0, 60), min_size=1, max_size=5))
def test_any_pass_can_be_told_without_those_before(sizes: list[int], size: int, numbers: list[int]) -> None:
    walked = BucketOrder(5, sizes, sizes, Fraction(1, 7))
    in_turn = {number: walked.pictures(number, size) for number in range(max(numbers) + 1)}
    for number in numbers:
        assert BucketOrder(5, sizes, sizes, Fraction(1, 7)).pictures(number, size) == in_turn[number]
        assert walked.length(number, size) == len(in_turn[number])


@settings(deadline=None, max_examples=40)
@given(
    own=GROUPS,
    prior=GROUPS,
    size=st.integers(1, 6),
    share=st.fractions(Fraction(1, 20), Fraction(3, 4), max_denominator=20),
)
def test_with_regularisation_both_kinds_are_used_once_an_epoch_of_theirs_at_the_asked_share(
    own: list[int], prior: list[int], size: int, share: Fraction
) -> None:
    order = BucketOrder(1, own, prior, share)
    used = [order.pictures(number, size) for number in range(400)]
    mine = [picture for one in used for picture in one if picture < len(own)]
    theirs = [picture - len(own) for one in used for picture in one if picture >= len(own)]
    assert all((one[0] < len(own)) == all(picture < len(own) for picture in one) for one in used)
    for taken, total in ((mine, len(own)), (theirs, len(prior))):
        for epoch in range(len(taken) // total):
            assert sorted(taken[epoch * total : (epoch + 1) * total]) == list(range(total))
    assert len(theirs) / (len(mine) + len(theirs)) == pytest.approx(float(share), abs=0.05)


def test_epochs_are_shuffled_each_in_its_own_way() -> None:
    order = BucketOrder(0, [0] * 6 + [1] * 6, [], Fraction(0))
    epochs = [[order.pictures(epoch * 6 + number, 2) for number in range(6)] for epoch in range(2)]
    assert epochs[0] != epochs[1]
    assert BucketOrder(1, [0] * 6 + [1] * 6, [], Fraction(0)).pictures(0, 2) != epochs[0][0]


@pytest.mark.parametrize(("epochs", "steps"), [(1, 3), (2, 5), (0.1, 1)])
def test_an_epoch_takes_its_passes_whether_full_or_not(epochs: float, steps: int) -> None:
    """Seven pictures of two sizes at batch 2: two passes of the first three, two of the other four, and one short."""
    order = BucketOrder(0, [0, 0, 0, 1, 1, 1, 1, 1], [], Fraction(0))
    assert order.passes_per_epoch(2) == 5
    assert total_steps(config(batch_size=2, gradient_accumulation_steps=2, epochs=epochs), order) == steps


def test_without_buckets_steps_are_what_the_configuration_says() -> None:
    for pictures_, keys in [(10, {"epochs": 0.1}), (7, {"batch_size": 4}), (3, {"epochs": 2.5, "num_workers": 2})]:
        keys_ = config(**keys)
        order = SampleOrder(0, pictures_, 0, Fraction(0))
        epochs = 10 if keys_.epochs is None else keys_.epochs
        samples = keys_.batch_size * keys_.gradient_accumulation_steps * keys_.num_workers
        assert total_steps(keys_, order) == max(1, math.ceil(round(epochs * pictures_ / samples, 9)))


def test_pictures_of_several_sizes_train_together(bench: Bench) -> None:
    data = [
        *pictures(3),
        Picture("wide.png", png(7, (120, 30)), "a long wall"),
        Picture("tall.png", png(8, (30, 70)), "a tower"),
    ]
    sinks = MemorySinks()
    result = bench.run(sinks, data=data, **{**BUCKETS, "resolution": 32, "min_bucket_reso": 16}, max_train_steps=6)
    assert result.skipped_batches == 0 and len(sinks.curves) == 6
    assert any("1 of 16 × 48, 3 of 32 × 32, 1 of 64 × 16" in line for line in sinks.lines), sinks.lines
