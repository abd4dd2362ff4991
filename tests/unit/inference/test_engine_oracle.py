"""The engine draws the pictures that diffusers draws with `set_adapters`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from terroir.inference.engine.pipeline.model import Model
from terroir.inference.engine.pipeline.samplers import build_sampler
from terroir.lora.adapter import Adapter
from terroir.lora.formats import parse, to_kohya
from tests.unit.inference.drawing_kit import Studio, make_job, random_adapter

TOLERANCE = 2
"""Of 255."""


Weights = dict[str, tuple[float, float]]
Pixels = np.ndarray[Any, np.dtype[np.int16]]


def noise_schedule(config: Mapping[str, Any], prediction: str) -> dict[str, Any]:
    """The base's schedule for a prediction type; epsilon is undefined where the signal is zero."""
    return {**config, "prediction_type": prediction, "rescale_betas_zero_snr": prediction == "v_prediction"}


class Peer:
    """A diffusers pipeline with two adapters loaded from kohya files."""

    def __init__(self, folder: Path, files: dict[str, bytes], work: Path) -> None:
        self.pipe: Any = StableDiffusionPipeline.from_pretrained(
            folder, dtype=torch.float32, safety_checker=None, requires_safety_checker=False
        )
        self.pipe.set_progress_bar_config(disable=True)
        self.config = dict(self.pipe.scheduler.config)
        for name, data in files.items():
            path = work / f"{name}.safetensors"
            path.write_bytes(data)
            self.pipe.load_lora_weights(work, weight_name=path.name, adapter_name=name)

    def draw(self, weights: Weights, sampler: str, prediction: str, **job: Any) -> Pixels:
        """Pictures `[n, height, width, 3]`."""
        self.pipe.scheduler = build_sampler(sampler, noise_schedule(self.config, prediction))
        if weights:
            self.pipe.enable_lora()
            self.pipe.set_adapters(
                list(weights), [{"unet": unet, "text_encoder": text} for unet, text in weights.values()]
            )
        else:
            self.pipe.disable_lora()
        made = self.pipe(
            job["prompt"],
            negative_prompt=job["negative_prompt"],
            width=job["width"],
            height=job["height"],
            num_inference_steps=job["steps"],
            guidance_scale=job["guidance_scale"],
            num_images_per_prompt=len(job["seeds"]),
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in job["seeds"]],
            output_type="np",
        )
        return np.asarray((made.images * 255).round().astype(np.int16))


@dataclass
class Oracle:
    """Both sides, made once."""

    model: Model
    adapters: dict[str, Adapter]
    peer: Peer

    def ours(self, weights: Weights, prediction: str, **job: Any) -> Pixels:
        """Pictures `[n, height, width, 3]`."""
        self.model._scheduler_config = noise_schedule(self.peer.config, prediction)
        studio = Studio(self.model)
        studio.run(make_job("job", {name: (self.adapters[name], *weight) for name, weight in weights.items()}, **job))
        return np.stack(studio.pictures("job"))


@pytest.fixture(scope="module")
def oracle(base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    model = Model(str(base_dir))
    files = {name: to_kohya(random_adapter(model, seed), {}) for name, seed in (("first", 1), ("second", 2))}
    adapters = {name: parse(data, model.key_table()).adapter for name, data in files.items()}
    return Oracle(model, adapters, Peer(base_dir, files, tmp_path_factory.mktemp("files")))


STACK = {"first": (0.8, 0.5), "second": (-0.6, 1.1)}
CASES = [
    ("ddim", "v_prediction", {}, {}),
    ("ddim", "v_prediction", STACK, {"width": 72, "height": 96}),
    ("ddim", "epsilon", STACK, {"seeds": (1, 2, 2**32 - 1)}),
    ("euler", "v_prediction", STACK, {"width": 128, "height": 72}),
    ("euler", "epsilon", {"first": (1.0, 0.0)}, {"guidance_scale": 1.0}),
    ("euler-a", "v_prediction", STACK, {"seeds": (4, 5)}),
    ("euler-a", "epsilon", STACK, {"width": 72, "height": 96}),
    ("dpmpp-2m", "v_prediction", STACK, {"width": 128, "height": 72, "guidance_scale": 1.0}),
    ("dpmpp-2m", "epsilon", STACK, {"negative_prompt": "a blue dog", "steps": 9}),
]


@pytest.mark.parametrize(("sampler", "prediction", "weights", "changes"), CASES)
def test_draws_what_diffusers_draws(
    oracle: Oracle, sampler: str, prediction: str, weights: Weights, changes: dict[str, Any]
) -> None:
    job = {
        "prompt": "a red cat on a hill", "negative_prompt": "grey", "width": 64, "height": 64, "steps": 5,
        "guidance_scale": 4.0, "seeds": (11,), **changes,
    }  # fmt: skip
    ours = oracle.ours(weights, prediction, sampler=sampler, **job)
    theirs = oracle.peer.draw(weights, sampler, prediction, **job)
    assert ours.shape == theirs.shape == (len(job["seeds"]), job["height"], job["width"], 3)
    assert theirs.std() > 1, "the oracle's picture is flat, so agreement would prove nothing"
    assert np.abs(ours - theirs).max() <= TOLERANCE


def test_the_adapters_of_these_cases_change_the_picture(oracle: Oracle) -> None:
    """Without this the oracle could agree on pictures that no adapter touched."""
    plain = oracle.ours({}, "v_prediction")
    for weights in ({"first": (0.8, 0.0)}, {"first": (0.0, 0.8)}):
        assert np.abs(oracle.ours(weights, "v_prediction") - plain).max() > 4 * TOLERANCE
