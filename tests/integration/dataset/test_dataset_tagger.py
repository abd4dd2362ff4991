from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from tiny_clip import build_clip_folder
from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

from terroir.common.errors import FailedPrecondition, TerroirError, Unavailable
from terroir.dataset.clip_tagger import ClipTagger
from terroir.dataset.tagger_process import TaggerProcess
from terroir.dataset.tagging import Draft, Thumbnail
from terroir.dataset.vocabulary import DRAWN_WORLD, load_vocabulary
from terroir.tiny.world.render import render
from terroir.tiny.world.scene import all_scenes

SCENES = all_scenes(held_out=False)[::200]
PICTURES = [render(scene, np.random.default_rng(1)) for scene in SCENES]
THUMBNAILS = [Thumbnail(picture.width, picture.height, picture.tobytes()) for picture in PICTURES]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_clip_folder(tmp_path_factory.mktemp("clip"))


class _Judge:
    """Cosines by the whole model's forward pass, text by text, without padding."""

    def __init__(self, clip: Path) -> None:
        self._model = CLIPModel.from_pretrained(clip).eval()
        self._tokenizer = CLIPTokenizer.from_pretrained(clip)
        self._processor = CLIPImageProcessor.from_pretrained(clip)

    @torch.inference_mode()
    def cosines(self, picture: Image.Image, texts: list[str]) -> NDArray[np.float64]:
        pixels = self._processor(picture, return_tensors="pt")["pixel_values"]
        outputs = [self._model(pixel_values=pixels, **self._tokenizer(text, return_tensors="pt")) for text in texts]
        return np.array([float(output.image_embeds[0] @ output.text_embeds[0]) for output in outputs])


def process(clip: Path, idle_seconds: float = 60.0) -> TaggerProcess:
    return TaggerProcess(clip, DRAWN_WORLD, threads=1, idle_seconds=idle_seconds)


def children() -> set[int]:
    """Worker processes; multiprocessing's resource tracker lives as long as the tests."""
    return {child.pid for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())}


def test_each_part_is_the_label_whose_texts_agree_best_and_agreement_is_the_cosine(clip: Path) -> None:
    vocabulary = load_vocabulary(DRAWN_WORLD)
    drafts = ClipTagger(clip, vocabulary).draft(THUMBNAILS[:2])
    judge = _Judge(clip)
    for picture, draft in zip(PICTURES[:2], drafts, strict=True):
        said: dict[str, str] = {}
        for slot in vocabulary.slots:
            scores = sum(
                judge.cosines(picture, [template.format(**said, **{slot.name: label}) for label in slot.labels()])
                for template in slot.templates
            )
            said[slot.name] = slot.labels()[int(np.argmax(scores))]
        assert draft.text == vocabulary.caption.format(**said)
        assert draft.agreement == pytest.approx(judge.cosines(picture, [draft.text])[0], abs=1e-5)


def test_the_process_says_the_same_and_ends_when_it_is_idle(clip: Path) -> None:
    expected = ClipTagger(clip, load_vocabulary(DRAWN_WORLD)).draft(THUMBNAILS)

    async def use() -> set[int]:
        before = children()
        tagger = process(clip, idle_seconds=0.05)
        drafts = await tagger.draft(THUMBNAILS)
        assert [draft.text for draft in drafts] == [draft.text for draft in expected]
        workers = children() - before
        assert len(workers) == 1
        await asyncio.to_thread(psutil.wait_procs, [psutil.Process(pid) for pid in workers], 30)
        return children() - before

    assert asyncio.run(use()) == set()


def test_a_killed_process_is_an_error_and_the_next_call_starts_another(clip: Path) -> None:
    async def use() -> None:
        before = children()
        tagger = process(clip)
        await tagger.draft(THUMBNAILS[:1])
        (worker,) = children() - before
        running = asyncio.create_task(tagger.draft(THUMBNAILS))
        await asyncio.to_thread(os.kill, worker, signal.SIGKILL)
        with pytest.raises(Unavailable) as caught:
            await _until_it_fails(tagger, running)
        assert caught.value.reason == "TAGGER_CRASHED"
        assert len(await tagger.draft(THUMBNAILS[:1])) == 1
        await tagger.close()
        assert children() - before == set()

    asyncio.run(use())


async def _until_it_fails(tagger: TaggerProcess, running: asyncio.Task[Sequence[Draft]]) -> None:
    while True:  # the batch may have ended before the kill; then the next one meets the dead process
        await running
        running = asyncio.create_task(tagger.draft(THUMBNAILS))


def test_a_missing_model_is_an_error_that_starts_no_process(tmp_path: Path) -> None:
    before = children()
    with pytest.raises(FailedPrecondition, match="TERROIR_DATASET_TAGGER_DIR") as caught:
        asyncio.run(process(tmp_path).draft(THUMBNAILS))
    assert caught.value.reason == "TAGGER_MISSING"
    assert children() == before


def test_damaged_weights_are_an_error_with_a_reason(clip: Path, tmp_path: Path) -> None:
    for file in clip.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"not weights")

    async def use() -> TerroirError:
        tagger = process(tmp_path)
        with pytest.raises(TerroirError) as caught:
            await tagger.draft(THUMBNAILS)
        await tagger.close()
        return caught.value

    assert asyncio.run(use()).reason == "TAGGER_UNUSABLE"
