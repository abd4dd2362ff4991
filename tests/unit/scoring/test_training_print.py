"""A training print tells copies as the pictures themselves do, and nothing but a training print is taken for one."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from scoring_kit import MeanColour, drawn, scenes, spoilt

from terroir.scoring.clip import ClipScorer
from terroir.scoring.copies import TrainingSet, print_of
from terroir.scoring.training_print import MAX_PRINT_BYTES, TrainingPrint, TrainingPrintInvalid
from terroir.tiny import CLIP_DIR
from tests.unit.scoring.print_kit import MODEL, made_up

HEAD_BYTES = 68
SLOW = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def clip() -> ClipScorer:
    return ClipScorer(CLIP_DIR)


SMALL = made_up(2, 3).to_bytes()


@given(count=st.integers(1, 6), width=st.integers(1, 200), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=50)
def test_a_print_is_read_back_as_it_was_and_equal_prints_are_equal_bytes(count, width, seed):
    known = made_up(count, width, seed)
    data = known.to_bytes()
    read = TrainingPrint.from_bytes(data)
    assert (read.model, read.bounds) == (known.model, known.bounds)
    for name in ("thumbnails", "plain", "mirrored"):
        ours, theirs = getattr(read, name), getattr(known, name)
        assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs)
    assert read.to_bytes() == data
    assert len(data) == HEAD_BYTES + count * (64 * 64 * 3 + 4 * width)


CHANGES = {
    "as it is": lambda picture: picture,
    "cropped": lambda picture: picture.crop((4, 2, 62, 60)).resize((64, 64), Image.Resampling.BICUBIC),
    "mirrored": ImageOps.mirror,
    "small": lambda picture: picture.resize((40, 40)),
    "large": lambda picture: picture.resize((64, 96)),
}


@given(
    count=st.integers(1, 8), seed=st.integers(0, 1000), change=st.sampled_from(sorted(CHANGES)),
    noise=st.integers(0, 1000), strangers=st.integers(0, 4),
)  # fmt: skip
@SLOW
def test_what_was_read_back_gives_the_verdicts_of_the_pictures(clip, count, seed, change, noise, strangers):
    """Not nearly but exactly, each distance to the last bit: a style and its covers are judged by one ruler."""
    known = scenes(count + strangers, seed=seed)
    training = drawn(known[:count], seed=seed)
    ours = TrainingSet.of(clip, training, MODEL)
    theirs = TrainingSet(clip, TrainingPrint.from_bytes(ours.known.to_bytes()))
    suspects = [spoilt(CHANGES[change](picture), noise) for picture in training]
    suspects += drawn(known[count:], seed=noise)
    assert theirs.bounds == ours.bounds
    assert theirs.nearest(suspects) == ours.nearest(suspects)


@pytest.mark.parametrize("change", ["as it is", "cropped", "mirrored"])
def test_copies_of_large_pictures_are_found_by_thumbnails_alone(clip, change):
    """Crops are then cut out of 64 pixels, and compared with a suspect that was shrunk as far."""
    training = drawn(scenes(12, seed=2), seed=2, side=128)
    found = TrainingSet(clip, TrainingPrint.from_bytes(print_of(clip, training, MODEL).to_bytes()))
    changed = [CHANGES[change](p) if change != "cropped" else p.crop((8, 4, 124, 120)) for p in training]
    nearest = found.nearest([spoilt(picture, number) for number, picture in enumerate(changed)])
    assert [one.training_picture for one in nearest] == list(range(12))
    assert np.mean([one.is_copy for one in nearest]) >= 0.9


def test_other_large_pictures_of_the_same_captions_are_no_more_often_copies_by_thumbnails(clip):
    of = scenes(12, seed=3)
    ours = TrainingSet.of(clip, drawn(of, seed=3, side=128), MODEL)
    theirs = TrainingSet(clip, ours.known)
    others = [picture for seed in range(10, 13) for picture in drawn(of, seed=seed, side=128)]
    found = [sum(one.is_copy for one in known.nearest(others)) for known in (ours, theirs)]
    assert found[1] <= found[0] <= 2


@pytest.mark.parametrize(("count", "width", "most"), [(40, 768, 1 << 20), (200, 1280, MAX_PRINT_BYTES)])
def test_a_print_stays_small(count, width, most):
    assert len(made_up(count, width).to_bytes()) < most * 0.9


def test_a_set_too_large_for_a_print_is_told_with_the_limit():
    with pytest.raises(TrainingPrintInvalid, match=r"of 274 pictures has 42\d+ bytes, at most 4194304") as refused:
        made_up(274, 768).to_bytes()
    assert refused.value.reason == "TRAINING_PRINT_TOO_LARGE"
    with pytest.raises(TrainingPrintInvalid, match="at most 4194304"):
        TrainingPrint.from_bytes(bytes(MAX_PRINT_BYTES + 1))


def altered(at: int, layout: str, *values: object) -> bytes:
    """The small print with other bytes at a place."""
    part = struct.pack(layout, *values)
    return SMALL[:at] + part + SMALL[at + len(part) :]


VECTORS_AT = HEAD_BYTES + 2 * 64 * 64 * 3
DAMAGED = {
    "nothing": (b"", "fewer than"),
    "a header alone": (SMALL[:HEAD_BYTES], "asks for"),
    "cut short": (SMALL[:-1], "asks for"),
    "more behind it": (SMALL + b"x", "asks for"),
    "another file": (altered(0, "<8s", b"\x89PNG\r\n\x1a\n"), "does not begin as one"),
    "a later version": (altered(8, "<I", 2), "version 2"),
    "no pictures": (altered(12, "<I", 0), "0 pictures"),
    "more pictures than bytes": (altered(12, "<I", 2**32 - 1), "asks for"),
    "vectors without width": (altered(16, "<I", 0), "width 0"),
    "a bound that is not finite": (altered(52, "<d", float("nan")), "bound by pixels"),
    "a bound out of reach": (altered(60, "<d", 3.0), "bound by embedding"),
    "a vector that is not finite": (altered(VECTORS_AT, "<e", float("inf")), "plain holds"),
    "a vector with NaN": (altered(VECTORS_AT + 12, "<e", float("nan")), "mirrored holds"),
    "a vector of no length": (altered(VECTORS_AT, "<3e", 0, 0, 0), "length 1"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_whatever_is_no_print_is_refused_saying_what_is_wrong(name):
    data, why = DAMAGED[name]
    with pytest.raises(TrainingPrintInvalid, match=why) as refused:
        TrainingPrint.from_bytes(data)
    assert refused.value.reason == "TRAINING_PRINT_INVALID"


@given(st.integers(0, len(SMALL) - 1), st.binary(min_size=1, max_size=16), st.integers(0, len(SMALL)))
@settings(deadline=None, max_examples=300)
def test_however_a_print_is_damaged_it_is_read_or_refused(at, noise, length):
    damaged = (SMALL[:at] + noise + SMALL[at + len(noise) :])[: max(length, at)]
    try:
        read = TrainingPrint.from_bytes(damaged)
    except TrainingPrintInvalid:
        return
    assert len(read.to_bytes()) == len(damaged) == len(SMALL), "only what fits to the last byte is read"


@given(st.binary(max_size=400))
@settings(deadline=None, max_examples=200)
def test_noise_is_no_print(data):
    with pytest.raises(TrainingPrintInvalid):
        TrainingPrint.from_bytes(data)
    with pytest.raises(TrainingPrintInvalid):
        TrainingPrint.from_bytes(SMALL[:8] + data)


@pytest.mark.parametrize(
    "parts",
    [
        {"model": "openai/clip"}, {"thumbnails": np.zeros((2, 32, 32, 3), np.uint8)},
        {"thumbnails": np.zeros((2, 64, 64, 3), np.float32)}, {"thumbnails": np.zeros((3, 64, 64, 3), np.uint8)},
        {"plain": np.ones((2, 1), np.float32)}, {"mirrored": np.ones((2, 1), np.float16)},
        {"plain": np.ones(2, np.float16)},
    ],
    ids=["model", "small", "float", "three of two", "float32", "another width", "flat"],
)  # fmt: skip
def test_parts_that_do_not_fit_make_no_print(parts):
    with pytest.raises(TrainingPrintInvalid):
        replace(made_up(2, 3), **parts)


def test_reading_and_comparing_need_no_torch():
    """The inference service compares in its gRPC process, which must not load it."""
    program = (
        "import sys, terroir.scoring.copies, terroir.scoring.training_print, terroir.scoring.model_digest; "
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], env=os.environ, check=True)


def test_a_print_of_one_picture_finds_it_by_any_embedder():
    (picture,) = drawn(scenes(1, seed=5), seed=5)
    found = TrainingSet(MeanColour(), TrainingPrint.from_bytes(print_of(MeanColour(), [picture], MODEL).to_bytes()))
    copy, stranger = found.nearest([spoilt(picture, 1), drawn(scenes(9, seed=6), seed=6)[8]])
    assert copy.is_copy and not stranger.is_copy
