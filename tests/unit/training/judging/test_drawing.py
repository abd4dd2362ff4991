"""A checkpoint's picture is the one that the inference service draws for the published file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from judging_kit import drawn_by_inference, random_adapter
from PIL import Image
from torch import nn

from terroir.common.clock import FixedClock
from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.base_folder import read_layers
from terroir.lora.formats import to_kohya
from terroir.lora.formats.parsing import parse
from terroir.store.obstore_driver import MemoryStore
from terroir.tiny import BASE_DIR
from terroir.training.errors import BaseUnreadable
from terroir.training.judging.drawing import Manner, Sketch, Studio
from terroir.training.judging.errors import AdapterUnfit, PictureNotFinite
from terroir.training.judging.kept import KeptJudgements
from terroir.training.judging.merged_weights import worn
from terroir.training.judging.shipped import shipped_recipe

SKETCHES = (Sketch("a red cat", 7), Sketch("a blue teapot by a river", 7), Sketch("a red cat", 123456789))
QUICK = Manner(steps=2, side=32)


@pytest.fixture(scope="module")
def studio(base_dir: Path) -> Studio:
    torch.set_num_threads(1)
    return Studio(base_dir)


def difference(one: list[Image.Image], other: list[Image.Image]) -> int:
    """Largest over all pixels, of 255."""
    pairs = zip(one, other, strict=True)
    return max(int(np.abs(np.asarray(a, dtype=int) - np.asarray(b, dtype=int)).max()) for a, b in pairs)


@pytest.mark.parametrize("kind", ["base", "lora", "dora"])
def test_a_sample_is_what_inference_draws_for_the_published_file(base_dir, studio, kind):
    """Same prompts and seeds, one request each there, one batch here; the file goes through its format and back."""
    adapter = None if kind == "base" else random_adapter(base_dir, seed=5, dora=kind == "dora")
    published = None
    if adapter:
        published = parse(to_kohya(adapter, {}), read_layers(base_dir)).adapter
    ours = studio.draw(adapter, SKETCHES, Manner())
    assert difference(ours, drawn_by_inference(base_dir, published, SKETCHES)) <= 2
    if adapter:
        assert difference(ours, studio.draw(None, SKETCHES, Manner())) > 20


def test_drawing_leaves_the_base_as_it_was(base_dir, studio):
    before = studio.draw(None, SKETCHES[:1], QUICK)
    studio.draw(random_adapter(base_dir, seed=1), SKETCHES[:1], QUICK)
    assert difference(before, studio.draw(None, SKETCHES[:1], QUICK)) == 0


def test_a_picture_does_not_depend_on_its_batch(base_dir, studio):
    adapter = random_adapter(base_dir, seed=2)
    many = [Sketch(f"a house number {number}", number) for number in range(20)]
    assert difference(studio.draw(adapter, many, QUICK)[17:18], studio.draw(adapter, many[17:18], QUICK)) <= 2


def test_every_batch_is_told_and_may_end_the_drawing(base_dir, studio):
    told: list[int] = []
    studio.draw(None, [Sketch("a", seed) for seed in range(20)], Manner(steps=1), told.append)
    assert sum(told) == 20
    assert len(told) > 1

    class Enough(Exception):
        pass

    def stop(count: int) -> None:
        raise Enough(count)

    adapter, before = random_adapter(base_dir, seed=3), studio.draw(None, SKETCHES[:1], QUICK)
    with pytest.raises(Enough):
        studio.draw(adapter, SKETCHES, QUICK, stop)
    assert difference(before, studio.draw(None, SKETCHES[:1], QUICK)) == 0


def test_an_adapter_that_overflows_the_base_is_told_not_drawn(base_dir, studio):
    with pytest.raises(PictureNotFinite, match="overflow"):
        studio.draw(random_adapter(base_dir, seed=4, strength=1e20), SKETCHES[:1], QUICK)


def test_an_adapter_of_another_base_is_refused_and_nothing_is_left_of_it(base_dir, studio):
    before = studio.draw(None, SKETCHES[:1], QUICK)
    modules = dict(random_adapter(base_dir, seed=6).modules)
    modules["unet.zzz.attn1.to_q"] = next(iter(modules.values()))
    with pytest.raises(AdapterUnfit, match=r"no layer unet\.zzz"):
        studio.draw(Adapter(modules), SKETCHES[:1], QUICK)
    assert difference(before, studio.draw(None, SKETCHES[:1], QUICK)) == 0


def test_a_folder_without_a_pipeline_is_told(tmp_path):
    with pytest.raises(BaseUnreadable, match="cannot draw"):
        Studio(tmp_path)


def test_weights_come_back_bit_for_bit_also_when_the_body_raises():
    layer = nn.Linear(4, 3).requires_grad_(False)
    before = layer.weight.clone()
    down, up = np.ones((2, 4), dtype=np.float32), np.ones((3, 2), dtype=np.float32)
    adapter = Adapter({"unet.lin": LoraModule(down, up, alpha=1.0)})
    root = nn.Module()
    root.lin = layer
    with pytest.raises(RuntimeError), worn({"unet": root}, adapter):
        torch.testing.assert_close(layer.weight, before + 1.0)
        raise RuntimeError
    assert torch.equal(layer.weight, before)


def test_a_change_of_another_shape_is_refused():
    root = nn.Module()
    root.lin = nn.Linear(4, 3).requires_grad_(False)
    wrong = LoraModule(np.ones((2, 5), dtype=np.float32), np.ones((3, 2), dtype=np.float32), alpha=1.0)
    with (
        pytest.raises(AdapterUnfit, match=r"\[3, 5\] on a weight of \[3, 4\]"),
        worn({"unet": root}, Adapter({"unet.lin": wrong})),
    ):
        pass


def test_the_pictures_of_the_embedded_base_that_come_with_the_code_are_what_it_draws():
    """After a change of the base, its prompts or how is drawn: `python -m terroir.training.judging.shipped`."""
    recipe = shipped_recipe()
    kept = KeptJudgements(MemoryStore(), "jobs/a", FixedClock())
    shipped = kept.base_pictures(recipe.base_pictures_digest(), len(recipe.of_base))
    assert shipped is not None and len(shipped) == len(recipe.of_base) == 24
    drawn = Studio(BASE_DIR).draw(None, recipe.of_base[:1], recipe.manner)
    assert difference(drawn, shipped[:1]) <= 8, "processors round differently"
