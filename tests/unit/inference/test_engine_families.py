"""SD 1.5- and SDXL-shaped models draw what diffusers' own pipelines draw: every sampler, from noise and from a picture.

diffusers 0.42 with transformers 5 can't load all text-encoder adapters (those of kohya files for SD 1.5 it can, see
test_engine_oracle.py), so here files change the denoiser; text encoders are compared with weights merged by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLPipeline,
)
from PIL import Image

from terroir.inference.engine.messages import SAMPLERS, Raster, Start
from terroir.inference.engine.pipeline.model import Model
from terroir.inference.engine.pipeline.samplers import build_sampler
from terroir.lora.adapter import Adapter
from terroir.lora.formats import parse, to_diffusers, to_kohya
from terroir.tiny import BASE_DIR
from tests.unit.inference.drawing_kit import Studio, make_job, random_adapter

pytestmark = pytest.mark.slow

TOLERANCE = 2
"""Of 255."""
STACK = {"first": 0.8, "second": -0.6}
JOB: dict[str, Any] = {
    "prompt": "a red cat on a hill", "negative_prompt": "grey", "width": 64, "height": 48, "steps": 4,
    "guidance_scale": 4.0, "seeds": (11, 5),
}  # fmt: skip
Pixels = np.ndarray[Any, np.dtype[np.int16]]


def unet_part(adapter: Adapter) -> Adapter:
    return Adapter({layer: module for layer, module in adapter.modules.items() if layer.startswith("unet.")})


def source_picture(width: int, height: int) -> Image.Image:
    """A smooth picture with a bright spot."""
    y, x = np.mgrid[0:height, 0:width]
    channels = [x * 255 / width, y * 255 / height, 255 * np.exp(-((x - 20) ** 2 + (y - 15) ** 2) / 80)]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


@dataclass
class Family:
    """Our model and diffusers' pipelines over the same folder, with one adapter file of each format."""

    model: Model
    adapters: dict[str, Adapter]
    text: Any
    picture: Any
    schedule: Any
    """The base's own: a pipeline's scheduler is replaced by each sampler tried."""

    def ours(self, weights: dict[str, float], sampler: str, **changes: Any) -> Pixels:
        studio = Studio(self.model)
        worn = {name: (self.adapters[name], weight, 0.0) for name, weight in weights.items()}
        studio.run(make_job("job", worn, sampler=sampler, **{**JOB, **changes}))
        return np.stack(studio.pictures("job"))

    def theirs(self, weights: dict[str, float], sampler: str, **changes: Any) -> Pixels:
        job = {**JOB, **changes}
        start: Start | None = job.get("start")
        pipe = self.text if start is None else self.picture
        pipe.scheduler = build_sampler(sampler, self.schedule)
        if weights:
            self.text.enable_lora()
            self.text.set_adapters(list(weights), list(weights.values()))
        else:
            self.text.disable_lora()
        size = {"width": job["width"], "height": job["height"]}
        if start is not None:
            assert start.picture is not None
            source = Image.frombytes("RGB", (start.picture.width, start.picture.height), start.picture.data)
            size = {"image": source, "strength": start.strength}
        made = pipe(
            job["prompt"], negative_prompt=job["negative_prompt"] or None, num_inference_steps=job["steps"],
            guidance_scale=job["guidance_scale"], num_images_per_prompt=len(job["seeds"]), output_type="np",
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in job["seeds"]], **size,
        )  # fmt: skip
        return np.asarray((made.images * 255).round().astype(np.int16))

    def agree(self, weights: dict[str, float], sampler: str, **changes: Any) -> None:
        ours, theirs = self.ours(weights, sampler, **changes), self.theirs(weights, sampler, **changes)
        assert ours.shape == theirs.shape
        assert theirs.std() > 1, "a flat picture would agree with anything"
        assert np.abs(ours - theirs).max() <= TOLERANCE


def family(folder: Path, text: Any, picture: Any, work: Path) -> Family:
    model = Model(str(folder), dtype="float32")
    text.set_progress_bar_config(disable=True)
    picture.set_progress_bar_config(disable=True)
    adapters = {}
    for seed, name in enumerate(STACK):
        part = unet_part(random_adapter(model, seed + 1, strength=0.12))
        data = to_kohya(part, {}, sdxl=model.family == "sdxl") if name == "first" else to_diffusers(part)
        adapters[name] = parse(data, model.key_table()).adapter
        (work / f"{name}.safetensors").write_bytes(data)
        text.load_lora_weights(work, weight_name=f"{name}.safetensors", adapter_name=name)
    return Family(model, adapters, text, picture, dict(text.scheduler.config))


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def pair(request: pytest.FixtureRequest, base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    work = tmp_path_factory.mktemp(f"{request.param}-files")
    if request.param == "sd15":
        text: Any = StableDiffusionPipeline.from_pretrained(
            base_dir, dtype=torch.float32, safety_checker=None, requires_safety_checker=False
        )
        picture: Any = StableDiffusionImg2ImgPipeline(**text.components, requires_safety_checker=False)
        yield family(base_dir, text, picture, work)
    else:
        folder = request.getfixturevalue("sdxl_dir")
        text = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)
        picture = StableDiffusionXLImg2ImgPipeline(**text.components, add_watermarker=False)
        yield family(folder, text, picture, work)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_draws_what_diffusers_draws_with_a_kohya_and_a_diffusers_file(pair: Family, sampler: str) -> None:
    pair.agree(STACK, sampler)


@pytest.mark.parametrize(("sampler", "strength"), [*((sampler, 0.5) for sampler in SAMPLERS), ("euler", 1.0)])
def test_a_picture_to_start_from_gives_what_diffusers_img2img_gives(
    pair: Family, sampler: str, strength: float
) -> None:
    source = source_picture(64, 48)
    start = Start(picture=Raster(64, 48, source.tobytes()), strength=strength)
    pair.agree({"first": 1.0}, sampler, start=start, steps=5)


@pytest.mark.parametrize(
    "changes",
    [{"guidance_scale": 1.0}, {"negative_prompt": ""}, {"width": 96, "height": 56}, {"prompt": "a cat " * 60}],
)
def test_other_wishes_give_what_diffusers_gives(pair: Family, changes: dict[str, Any]) -> None:
    pair.agree(STACK, "ddim", **changes)


def test_the_adapters_change_the_picture(pair: Family) -> None:
    plain = pair.ours({}, "ddim")
    for name in STACK:
        assert np.abs(pair.ours({name: STACK[name]}, "ddim") - plain).max() > 4 * TOLERANCE


@pytest.mark.parametrize("sampler", ["ddim", "euler-a"])
def test_a_variation_lies_between_the_picture_that_it_varies_and_its_own(pair: Family, sampler: str) -> None:
    def varied(strength: float) -> Pixels:
        start = Start(variation_of=3, variation_strength=strength)
        return pair.ours({}, sampler, seeds=(11,), start=start)

    origin, own = pair.ours({}, sampler, seeds=(3,)), pair.ours({}, sampler, seeds=(11,))
    assert np.array_equal(varied(0.0), origin)
    assert np.array_equal(varied(1.0), own)
    near, far = (np.abs(varied(share) - origin).mean() for share in (0.1, 0.6))
    assert 0 < near < far


def test_a_text_encoders_adapter_draws_what_merged_text_encoders_draw(pair: Family) -> None:
    """In SDXL both text encoders have layers that it changes."""
    whole = random_adapter(pair.model, 7, strength=0.5)
    text_only = Adapter({layer: m for layer, m in whole.modules.items() if layer.startswith("text_encoder")})
    assert {layer.split(".")[0] for layer in text_only.modules} == set(pair.model.text_encoders)
    studio = Studio(pair.model)
    studio.run(make_job("job", {"text": (text_only, 0.0, 0.9)}, **JOB))
    layers = pair.model.layers()
    before = {layer: layers[layer].get_parameter("weight").clone() for layer in text_only.modules}
    changed: Any = pair.text
    changed.disable_lora()
    originals = {}
    try:
        for component, ours in pair.model.text_encoders.items():
            theirs = getattr(changed, component)
            originals[component] = {name: tensor.clone() for name, tensor in theirs.state_dict().items()}
            merged = dict(originals[component])
            names = {id(parameter): name for name, parameter in ours.named_parameters()}
            for layer, module in text_only.modules.items():
                if layer.startswith(f"{component}."):
                    name = names[id(layers[layer].weight)]
                    merged[name] = merged[name] + 0.9 * torch.from_numpy(module.delta())
            theirs.load_state_dict(merged)
        theirs_drawn = pair.theirs({}, "ddim")
    finally:
        for component, state in originals.items():
            getattr(changed, component).load_state_dict(state)
    assert np.abs(np.stack(studio.pictures("job")) - theirs_drawn).max() <= TOLERANCE
    assert np.abs(theirs_drawn - pair.theirs({}, "ddim")).max() > 2 * TOLERANCE, "it changes the picture"
    assert all(torch.equal(layers[layer].get_parameter("weight"), weight) for layer, weight in before.items())


def psnr(exact: Pixels, found: Pixels) -> float:
    """Peak signal-to-noise ratio in dB."""
    return float(10 * np.log10(255**2 / (np.mean((exact.astype(float) - found) ** 2) + 1e-9)))


def draw_in(dtype: Any, folder: Path, adapters: dict[str, Adapter]) -> Pixels:
    studio = Studio(Model(str(folder), dtype=dtype))
    worn = {name: (adapters[name], weight, 0.0) for name, weight in STACK.items()}
    studio.run(make_job("job", worn, **{**JOB, "width": 64, "height": 64, "steps": 12}))
    return np.stack(studio.pictures("job"))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_near_single_precision(dtype: Any) -> None:
    """Of the trained base: 60 dB in float16, 48 dB in bfloat16 were seen."""
    model = Model(str(BASE_DIR), dtype="float32")
    adapters = {name: unet_part(random_adapter(model, seed, strength=0.04)) for seed, name in enumerate(STACK)}
    assert psnr(draw_in("float32", BASE_DIR, adapters), draw_in(dtype, BASE_DIR, adapters)) >= 35


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_that_of_diffusers(pair: Family, dtype: Any) -> None:
    """Random models exaggerate: 31 dB against single precision for the SDXL-shaped one, diffusers' own as much.

    So much that both must have one memory format: another order of summing is another picture (30 dB).
    """
    pipe = type(pair.text).from_pretrained(pair.model.folder, dtype=getattr(torch, dtype))
    for component, ours in (("unet", pair.model.unet), ("vae", pair.model._pipe.vae)):
        last = next(p for p in ours.parameters() if p.dim() == 4 and p.shape[2] > 1 and p.shape[1] > 1)
        if last.is_contiguous(memory_format=torch.channels_last):
            getattr(pipe, component).to(memory_format=torch.channels_last)
    pipe.set_progress_bar_config(disable=True)
    theirs = Family(pair.model, {}, pipe, pair.picture, pair.schedule).theirs
    pipe.disable_lora = lambda: None  # it has none to disable
    studio = Studio(Model(str(pair.model.folder), dtype=dtype))
    studio.run(make_job("job", {}, **JOB))
    assert psnr(theirs({}, "ddim"), np.stack(studio.pictures("job"))) >= 35
