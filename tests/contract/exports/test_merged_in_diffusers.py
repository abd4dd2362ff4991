"""A merged folder draws in diffusers what the base with the adapter draws."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from terroir.common.base_digest import base_digest, component_digests
from terroir.exports.merged import export_merged
from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.formats import to_kohya
from terroir.tiny import BASE_DIR
from tests.unit.exports.test_exports import VERSION

pytestmark = pytest.mark.slow  # loads two pipelines


def draw(pipe: StableDiffusionPipeline) -> np.ndarray:
    pipe.set_progress_bar_config(disable=True)
    made = pipe(
        "a red teapot by a river at sunset", width=64, height=64, num_inference_steps=6, guidance_scale=3.0,
        generator=torch.Generator("cpu").manual_seed(7), output_type="np",
    )  # fmt: skip
    return (made.images[0] * 255).round()


def test_diffusers_loads_the_merged_folder_and_draws_the_same_picture(tmp_path: Path) -> None:
    base = StableDiffusionPipeline.from_pretrained(BASE_DIR, safety_checker=None)
    rng = np.random.default_rng(3)
    modules = {
        f"unet.{name}": LoraModule(
            rng.standard_normal((4, layer.in_features), dtype=np.float32) * 0.2,
            rng.standard_normal((layer.out_features, 4), dtype=np.float32) * 0.2,
            4.0,
        )
        for name, layer in base.unet.named_modules()
        if name.endswith(("to_q", "to_v"))
    }
    file = to_kohya(Adapter(modules), {})
    (tmp_path / "adapter.safetensors").write_bytes(file)
    plain = draw(base)
    base.load_lora_weights(tmp_path, weight_name="adapter.safetensors", adapter_name="a")
    base.set_adapters(["a"], [0.7])
    theirs = draw(base)
    version = replace(VERSION, file=file, base_digest=base_digest(component_digests(BASE_DIR)))
    export_merged(version, BASE_DIR, tmp_path / "merged", weight=0.7)
    ours = draw(StableDiffusionPipeline.from_pretrained(tmp_path / "merged", safety_checker=None))
    assert np.abs(plain - theirs).max() > 20, "the adapter changes hardly anything, so agreement would prove nothing"
    assert np.abs(ours - theirs).max() <= 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("magnitude", [False, True], ids=["lora", "dora"])
def test_each_type_is_merged_to_the_very_bits_that_torch_gives(
    tmp_path: Path, dtype: torch.dtype, magnitude: bool
) -> None:
    """PEFT computes W + delta, with a magnitude m * (W + delta) / |W + delta|, and rounds once."""
    base = tmp_path / "base"
    StableDiffusionPipeline.from_pretrained(BASE_DIR, safety_checker=None).to(dtype=dtype).save_pretrained(base)
    layer = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    key = f"{layer}.weight"
    before = load_file(base / "unet" / "diffusion_pytorch_model.safetensors")
    rng = np.random.default_rng(5)
    out, into = before[key].shape
    module = LoraModule(
        rng.standard_normal((4, into), dtype=np.float32),
        rng.standard_normal((out, 4), dtype=np.float32),
        4.0,
        rng.uniform(0.5, 2, out).astype(np.float32) if magnitude else None,
    )
    file = to_kohya(Adapter({f"unet.{layer}": module}), {})
    version = replace(VERSION, file=file, base_digest=base_digest(component_digests(base)))
    export_merged(version, base, tmp_path / "merged")
    after = load_file(tmp_path / "merged" / "unet" / "diffusion_pytorch_model.safetensors")
    expected = before[key].float() + torch.from_numpy(module.delta())
    if module.magnitude is not None:
        expected = expected * (torch.from_numpy(module.magnitude) / expected.norm(dim=1)).unsqueeze(1)
    if magnitude:
        # W + (scaled - W) is summed in another order; half a unit in the last place of fp32 may round either way.
        torch.testing.assert_close(after[key], expected.to(dtype), rtol=2 * torch.finfo(dtype).eps, atol=1e-5)
    else:
        assert torch.equal(after[key], expected.to(dtype))
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in after if name != key)
