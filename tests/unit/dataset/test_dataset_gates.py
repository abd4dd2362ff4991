from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from dataset_files import digest_of, drawn, encoded
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from pydantic import ValidationError

from terroir.dataset.album import Album, Change
from terroir.dataset.gates import gates_version, judge_count
from terroir.dataset.judging import judge_all
from terroir.dataset.measure import measure, perceptual_hash
from terroir.dataset.model import Finding, Gate, Picture, Verdict
from terroir.dataset.thresholds import Thresholds
from terroir.tiny.world.look import BASE, random_look
from terroir.tiny.world.render import render
from terroir.tiny.world.scene import Scene
from terroir.tiny.world.styles import JIANGNAN_INK, NEON, SICHUAN_HOTPOT

TINY = Thresholds(minimum_side=64)
LIMIT = 10_000_000


def picture(image: Image.Image, name: str = "a.png") -> Picture:
    data = encoded(image)
    return Picture(digest_of(data), name, len(data), measured=measure(data, LIMIT))


def findings(*images: Image.Image, thresholds: Thresholds = TINY) -> list[tuple[Finding, ...]]:
    pictures = tuple(picture(image, f"{index}.png") for index, image in enumerate(images))
    album = Album().advanced(1, [Change(pictures=pictures)])
    return [judged.findings for judged in judge_all(album, thresholds)]


def gates_of(image: Image.Image) -> dict[Gate, Verdict]:
    return {finding.gate: finding.verdict for finding in findings(image)[0]}


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("image", "gate", "verdict"),
    [
        (drawn(width=63, height=96), Gate.MINIMUM_SIDE, Verdict.REJECT),
        (drawn().filter(ImageFilter.GaussianBlur(2)), Gate.BLUR, Verdict.WARN),
        (drawn(width=256, height=256).filter(ImageFilter.GaussianBlur(4)), Gate.BLUR, Verdict.QUARANTINE),
        (drawn().point(lambda value: value // 4), Gate.TOO_DARK, Verdict.WARN),
        (drawn().point(lambda value: value // 16), Gate.TOO_DARK, Verdict.QUARANTINE),
        (drawn().point(lambda value: 238 + value // 16), Gate.TOO_LIGHT, Verdict.WARN),
        (drawn().point(lambda value: 251 + value // 64), Gate.TOO_LIGHT, Verdict.QUARANTINE),
        (Image.new("RGB", (64, 64), "teal"), Gate.LOW_INFORMATION, Verdict.QUARANTINE),
        (NOISE.convert("1").convert("RGB"), Gate.LOW_INFORMATION, Verdict.WARN),
        (drawn(width=192, height=64), Gate.ODD_ASPECT, Verdict.WARN),
        (drawn(width=64, height=320), Gate.ODD_ASPECT, Verdict.QUARANTINE),
    ],
)
def test_each_gate_finds_what_it_is_for(image: Image.Image, gate: Gate, verdict: Verdict) -> None:
    assert gates_of(image).get(gate) is verdict


@pytest.mark.parametrize("look", [BASE, JIANGNAN_INK, SICHUAN_HOTPOT, NEON, random_look(np.random.default_rng(5))])
@pytest.mark.parametrize("time", ["day", "night"])
@pytest.mark.parametrize("size", [(64, 64), (128, 72), (72, 96), (256, 256)])
def test_sharp_drawn_pictures_pass_at_any_size(look: object, time: str, size: tuple[int, int]) -> None:
    scene = Scene("pagoda", "red", "river", time)
    image = render(scene, np.random.default_rng(1), look, width=size[0], height=size[1])  # type: ignore[arg-type]  # parametrize erases Look
    assert findings(image) == [()]


def test_a_finding_has_value_threshold_and_next_step() -> None:
    (finding,) = [f for f in findings(drawn(width=40, height=96))[0] if f.gate is Gate.MINIMUM_SIDE]
    assert (finding.value, finding.threshold) == (40.0, 64.0)
    assert "TERROIR_DATASET_GATES__MINIMUM_SIDE" in finding.message


def test_the_default_minimum_side_is_that_of_real_bases() -> None:
    (found,) = findings(drawn(width=511, height=600), thresholds=Thresholds())
    assert [finding.gate for finding in found] == [Gate.MINIMUM_SIDE]


def test_the_same_pixels_in_another_file_are_rejected_and_name_the_one_kept() -> None:
    image = drawn()
    other = Picture("f" * 64, "again.webp", 9, measured=measure(encoded(image, "WEBP", lossless=True), LIMIT))
    album = Album().advanced(1, [Change(pictures=(picture(image, "first.png"), other))])
    first, second = judge_all(album, TINY)
    assert first.findings == ()
    assert [(f.gate, f.verdict) for f in second.findings] == [(Gate.EXACT_DUPLICATE, Verdict.REJECT)]
    assert "first.png" in second.findings[0].message


def test_a_re_encoded_and_resized_copy_is_a_near_duplicate_and_another_scene_is_not() -> None:
    image = drawn(0, 128, 128)
    data = encoded(image.resize((96, 96)), "JPEG", quality=70)
    copy = Picture(digest_of(data), "copy.jpg", len(data), measured=measure(data, LIMIT))
    album = Album().advanced(1, [Change(pictures=(picture(drawn(1), "other.png"), picture(image, "first.png"), copy))])
    other, first, second = judge_all(album, TINY)
    assert (other.verdict, first.verdict, second.verdict) == (Verdict.PASS, Verdict.PASS, Verdict.WARN)
    assert [f.gate for f in second.findings] == [Gate.NEAR_DUPLICATE]
    assert "first.png" in second.findings[0].message


def test_the_perceptual_hash_ignores_brightness() -> None:
    image = drawn()
    darker = image.point(lambda value: value // 2)
    assert bin(int(perceptual_hash(image), 16) ^ int(perceptual_hash(darker), 16)).count("1") <= 4


@given(st.integers(0, 10_000))
def test_a_set_is_judged_by_its_size(usable: int) -> None:
    found = [finding.gate for finding in judge_count(usable, Thresholds(few_pictures=20, many_pictures=1000))]
    assert found == ([Gate.TOO_FEW] if usable < 20 else [Gate.TOO_MANY] if usable > 1000 else [])


def test_equal_thresholds_have_one_identifier_and_any_change_another() -> None:
    assert gates_version(Thresholds()) == gates_version(Thresholds())
    assert gates_version(Thresholds()) != gates_version(replace(Thresholds(), near_duplicate_bits=5))


def test_a_misspelt_threshold_is_an_error() -> None:
    with pytest.raises(ValidationError):
        Thresholds(minimum_sides=64)  # type: ignore[call-arg]  # the mistake that is tested


def test_tiny_and_extreme_pictures_are_measured_without_error() -> None:
    for size in [(1, 1), (2, 64), (1, 5000)]:
        measured = measure(encoded(Image.new("RGB", size, "red")), LIMIT)
        assert (measured.width, measured.height, measured.sharpness) == (*size, 0.0)
