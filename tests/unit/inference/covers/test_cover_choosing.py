"""The chooser with the embedded CLIP: what agrees and differs is kept, what repeats a training picture is not."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from terroir.common.errors import NotFound, Unavailable
from terroir.inference.covers import clip_choosing
from terroir.inference.covers.clip_choosing import ClipChooser
from terroir.scoring.clip import ClipScorer
from terroir.scoring.copies import print_of
from terroir.scoring.model_digest import model_digest
from terroir.tiny import CLIP_DIR
from tests.command_line import ROOT
from tests.unit.inference.covers.cover_kit import run

pytestmark = pytest.mark.slow
EXAMPLES = sorted((ROOT / "examples" / "styles" / "jiangnan-ink").glob("*.png"))


def picture(path: Path) -> Image.Image:
    return Image.open(path).convert("RGB").resize((64, 64))


def file(image: Image.Image) -> bytes:
    written = io.BytesIO()
    image.save(written, "PNG")
    return written.getvalue()


def chosen(
    prompt: str, pictures: Sequence[Image.Image], count: int, prints: Callable[[str], bytes | None] = lambda _: None
) -> list[int]:
    async def scenario() -> list[int]:
        async def print_of_version(version: str) -> bytes | None:
            return prints(version)

        chooser = ClipChooser(CLIP_DIR, print_of_version)

        async def here(work: Callable[..., list[int]], *arguments: object) -> list[int]:
            return work(*arguments)

        chooser._process.run = here  # type: ignore[method-assign,assignment]
        return await chooser.choose(prompt, [file(one) for one in pictures], count, ["adapters/ink/versions/1"])

    return run(scenario())


@pytest.fixture(scope="module")
def training_print() -> bytes:
    scorer = ClipScorer(CLIP_DIR)
    return print_of(scorer, [picture(path) for path in EXAMPLES[:8]], model_digest(CLIP_DIR)).to_bytes()


def test_the_first_is_what_agrees_with_the_words() -> None:
    with (EXAMPLES[0].parent / "metadata.csv").open(encoding="utf-8", newline="") as told:
        texts = {row["file_name"]: row["text"] for row in csv.DictReader(told)}
    captions = {path: texts[path.name] for path in EXAMPLES[:12]}
    right = 0
    for at, path in enumerate(list(captions)[:6]):
        others = [picture(other) for other in captions]
        right += chosen(captions[path], others, 1) == [at]
    assert right >= 4


def test_of_pictures_alike_one_is_kept_beside_one_that_differs() -> None:
    first, other = picture(EXAMPLES[0]), picture(EXAMPLES[5])
    nearly = Image.fromarray(np.clip(np.asarray(first).astype(int) + 1, 0, 255).astype(np.uint8))
    assert sorted(chosen("a picture", [first, nearly, other], 2)) in ([0, 2], [1, 2])


def test_what_repeats_a_training_picture_is_never_chosen(training_print: bytes) -> None:
    copy = picture(EXAMPLES[3]).filter(ImageFilter.GaussianBlur(0.4))
    fresh = picture(EXAMPLES[20])
    assert chosen("a picture", [copy, fresh], 2, lambda _: training_print) == [1]
    assert chosen("a picture", [copy], 1, lambda _: training_print) == []
    assert sorted(chosen("a picture", [copy, fresh], 2)) == [0, 1]


def test_a_print_by_another_clip_or_a_broken_one_is_passed_over(training_print: bytes) -> None:
    copy = picture(EXAMPLES[3])
    for data in (b"garbage", training_print[:-7]):
        assert chosen("a picture", [copy], 1, lambda _, data=data: data) == [0]  # type: ignore[misc]
    scorer = ClipScorer(CLIP_DIR)
    foreign = print_of(scorer, [picture(path) for path in EXAMPLES[:8]], "f" * 64).to_bytes()
    assert chosen("a picture", [copy], 1, lambda _: foreign) == [0]


def test_a_registry_that_is_away_is_waited_for_and_one_that_denies_is_not() -> None:
    def away(_version: str) -> bytes | None:
        raise Unavailable("gone", reason="REGISTRY_UNREACHABLE")

    def denies(_version: str) -> bytes | None:
        raise NotFound("none", reason="VERSION_NOT_FOUND")

    with pytest.raises(Unavailable):
        chosen("a picture", [picture(EXAMPLES[0])], 1, away)
    assert chosen("a picture", [picture(EXAMPLES[0])], 1, denies) == [0]


def test_the_process_runs_it_and_a_folder_without_a_clip_is_named(tmp_path: Path) -> None:
    async def scenario() -> None:
        async def none(_version: str) -> bytes | None:
            return None

        chooser = ClipChooser(CLIP_DIR, none)
        try:
            files = [file(picture(path)) for path in EXAMPLES[:3]]
            assert len(await chooser.choose("a boat", files, 2, [])) == 2
        finally:
            await chooser.close()
        broken = ClipChooser(tmp_path, none)
        try:
            with pytest.raises(clip_choosing.FailedPrecondition, match="COVER_JUDGE_MODEL"):
                await broken.choose("a boat", files, 1, [])
        finally:
            await broken.close()

    run(scenario())
