"""Families of bases: captions and noise go through them as through diffusers' pipelines, and others are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from engine_kit import CAPTIONS, config, forward, load, texts

from terroir.training.engine.families.loading import family_of
from terroir.training.engine.families.placing import make_room, ready_to_train
from terroir.training.errors import BaseUnreadable


@pytest.fixture(scope="module")
def sd(sd_dir: Path) -> Any:
    return StableDiffusionPipeline.from_pretrained(sd_dir, safety_checker=None, requires_safety_checker=False)


@pytest.fixture(scope="module")
def sdxl(sdxl_dir: Path) -> Any:
    return StableDiffusionXLPipeline.from_pretrained(sdxl_dir, add_watermarker=False)


@pytest.mark.parametrize("clip_skip", [None, 1, 2])
def test_captions_of_sd_are_encoded_as_diffusers_does(sd_dir: Path, sd: Any, clip_skip: int | None) -> None:
    """diffusers counts the layers that are skipped, we the layer that is read: 1 is the last."""
    skipped = None if clip_skip in (None, 1) else clip_skip - 1
    # With clip_skip diffusers 0.42 asks for a level that transformers 5 dropped from the model.
    sd.text_encoder.__dict__["text_model"] = sd.text_encoder
    with torch.no_grad():
        theirs, _ = sd.encode_prompt(CAPTIONS, "cpu", 1, False, clip_skip=skipped)
        ours = texts(load(sd_dir, clip_skip=clip_skip))
    assert torch.allclose(ours.states, theirs, atol=1e-6) and ours.pooled is None


def test_an_earlier_layer_is_another_state(sd_dir: Path) -> None:
    with torch.no_grad():
        assert not torch.allclose(texts(load(sd_dir)).states, texts(load(sd_dir, clip_skip=2)).states, atol=1e-3)


@pytest.mark.parametrize("clip_skip", [None, 1, 2])
def test_captions_of_sdxl_are_encoded_as_diffusers_does(sdxl_dir: Path, sdxl: Any, clip_skip: int | None) -> None:
    """Both encoders' states side by side, the layer before the last unless another is asked for, and a pooled state."""
    skipped = {None: None, 1: -1, 2: 0}[clip_skip]
    with torch.no_grad():
        theirs, _, pooled, _ = sdxl.encode_prompt(
            CAPTIONS, device="cpu", do_classifier_free_guidance=False, clip_skip=skipped
        )
        ours = texts(load(sdxl_dir, clip_skip=clip_skip))
    assert ours.pooled is not None
    assert torch.allclose(ours.states, theirs, atol=1e-6) and torch.allclose(ours.pooled, pooled, atol=1e-6)


def test_a_clip_skip_that_leaves_no_layer_is_an_error(sd_dir: Path) -> None:
    with pytest.raises(BaseUnreadable, match="clip_skip 3 leaves none of the text encoder's 2 layers") as error:
        texts(load(sd_dir, clip_skip=3))
    assert error.value.field == "clip_skip"


def test_sdxl_is_told_the_geometry_and_the_pooled_state_of_every_picture(sdxl_dir: Path, sdxl: Any) -> None:
    """As the pipeline tells it: original size, crop, target size, in this order."""
    family = load(sdxl_dir)
    noisy, times = torch.randn(2, 4, 8, 8), torch.tensor([5, 600])
    ids = torch.cat([
        sdxl._get_add_time_ids(original, crop, target, torch.float32, 16)
        for original, crop, target in (((64, 48), (0, 8), (32, 24)), ((32, 32), (4, 0), (32, 32)))
    ])  # fmt: skip
    with torch.no_grad():
        states = texts(family)
        added = {"text_embeds": states.pooled, "time_ids": ids}
        theirs = sdxl.unet(noisy, times, encoder_hidden_states=states.states, added_cond_kwargs=added).sample
        ours = family.denoise(noisy, times, states, torch.tensor([[64.0, 48, 0, 8, 32, 24], [32, 32, 4, 0, 32, 32]]))
        other = family.denoise(noisy, times, states, torch.zeros(2, 6))
    assert torch.allclose(ours, theirs, atol=1e-6) and not torch.allclose(ours, other, atol=1e-4)
    with pytest.raises(ValueError, match="geometry"):
        family.denoise(noisy, times, states, None)


def test_the_families_are_told_apart(sd_dir: Path, sdxl_dir: Path) -> None:
    assert [family_of(folder) for folder in (sd_dir, sdxl_dir)] == ["sd15", "sdxl"]
    assert list(load(sd_dir).text_encoders) == ["text_encoder"]
    assert list(load(sdxl_dir).text_encoders) == ["text_encoder", "text_encoder_2"]


@pytest.mark.parametrize(
    ("pipeline", "width", "named"),
    [
        ("StableDiffusion3Pipeline", 16, "SD3"),
        ("FluxPipeline", 16, "FLUX"),
        ("WanPipeline", 16, "WanPipeline"),
        ("StableDiffusionPipeline", 1024, r"Stable Diffusion 2\.x"),
    ],
)
def test_a_base_of_another_family_is_refused_by_name(
    sd_dir: Path, tmp_path: Path, pipeline: str, width: int, named: str
) -> None:
    folder = shutil.copytree(sd_dir, tmp_path / "base")
    _edit(folder / "model_index.json", _class_name=pipeline)
    _edit(folder / "unet" / "config.json", cross_attention_dim=width)
    with pytest.raises(BaseUnreadable, match=named) as error:
        load(folder)
    assert (error.value.reason, error.value.field) == ("BASE_FAMILY_UNSUPPORTED", "base_model")


def test_every_missing_component_is_named(sdxl_dir: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(sdxl_dir, tmp_path / "base")
    shutil.rmtree(folder / "text_encoder_2")
    shutil.rmtree(folder / "tokenizer_2")
    with pytest.raises(BaseUnreadable, match=r"lacks text_encoder_2, tokenizer_2") as error:
        load(folder)
    assert error.value.reason == "BASE_INCOMPLETE"


@pytest.mark.parametrize("damaged", ["model_index.json", "unet/diffusion_pytorch_model.safetensors", "vae/config.json"])
def test_a_component_that_cannot_be_read_is_named(sd_dir: Path, tmp_path: Path, damaged: str) -> None:
    folder = shutil.copytree(sd_dir, tmp_path / "base")
    (folder / damaged).write_bytes(b"no such thing")
    with pytest.raises(BaseUnreadable, match=damaged.partition("/")[0]):
        load(folder)


def test_a_folder_without_a_base_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BaseUnreadable, match="model_index"):
        load(tmp_path)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_what_is_frozen_in_the_loop_is_held_in_half_and_what_encodes_once_is_not(
    sdxl_dir: Path, precision: str
) -> None:
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    frozen = load(sdxl_dir, mixed_precision=precision)
    trained = load(sdxl_dir, mixed_precision=precision, text_encoder_lr=1e-4)
    assert {p.dtype for p in frozen.unet.parameters()} == {half}
    assert {p.dtype for p in frozen.vae.parameters()} == {torch.float32}
    assert {p.dtype for e in frozen.text_encoders.values() for p in e.parameters()} == {torch.float32}
    assert {p.dtype for e in trained.text_encoders.values() for p in e.parameters()} == {half}


def test_gradient_checkpointing_reaches_every_model_that_trains(sdxl_dir: Path) -> None:
    for keys, expected in (({"text_encoder_lr": 1e-4}, [True] * 3), ({}, [True, False, False])):
        settings = config(gradient_checkpointing=True, **keys)
        family = load(sdxl_dir, gradient_checkpointing=True, **keys)
        make_room(family, settings, "cpu")
        ready_to_train(family, settings)
        models: list[Any] = [family.unet, *family.text_encoders.values()]
        checkpointing = [any(getattr(m, "gradient_checkpointing", False) for m in model.modules()) for model in models]
        assert checkpointing == expected
        assert [model.training for model in models] == expected


def test_checkpointed_activations_give_the_same_gradients(sd_dir: Path) -> None:
    def gradients(checkpointing: bool) -> list[torch.Tensor]:
        settings = config(gradient_checkpointing=checkpointing, text_encoder_lr=1e-4)
        family = load(sd_dir, text_encoder_lr=1e-4)
        ready_to_train(family, settings)
        weights = [family.unet.conv_in.weight, next(family.text_encoders["text_encoder"].parameters())]
        for weight in weights:
            weight.requires_grad_(True)
        return list(torch.autograd.grad(forward(family).square().mean(), weights))

    for kept, twice in zip(gradients(False), gradients(True), strict=True):
        assert torch.allclose(kept, twice, atol=1e-7) and kept.abs().max() > 0


def _edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
