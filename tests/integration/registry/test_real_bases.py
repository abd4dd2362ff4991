"""Bases of the real classes, SD 1.5's and SDXL's, with random weights: read without torch, registered as they are."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from terroir.common.base_digest import base_digest, component_digests
from terroir.lora.base_folder import BaseContent, BaseFolderInvalid, read_base_folder
from tests.command_line import TERROIR, environment
from tests.contract.registry.running import Running, running_registry

pytestmark = pytest.mark.slow  # writing the pipelines takes torch and some seconds

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def sdxl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small SDXL pipeline, written by diffusers itself."""
    import torch
    from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    from terroir.tiny.architecture import build_vae
    from terroir.tiny.tokenizer import build_tokenizer

    tokenizer = build_tokenizer()

    def text_config(width: int) -> CLIPTextConfig:
        return CLIPTextConfig(
            vocab_size=len(tokenizer), hidden_size=width, intermediate_size=2 * width, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=32, projection_dim=48, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip

    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=32, in_channels=12, out_channels=12, layers_per_block=1, block_out_channels=(32, 64),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2), cross_attention_dim=32 + 48, attention_head_dim=(2, 4),
            use_linear_projection=True, addition_embed_type="text_time", addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=48 + 6 * 8, norm_num_groups=8,
        )  # fmt: skip
        pipeline = StableDiffusionXLPipeline(
            vae=build_vae(), unet=unet, text_encoder=CLIPTextModel(text_config(32)),
            text_encoder_2=CLIPTextModelWithProjection(text_config(48)), tokenizer=tokenizer, tokenizer_2=tokenizer,
            scheduler=EulerDiscreteScheduler(), add_watermarker=False,
        )  # fmt: skip
    folder = tmp_path_factory.mktemp("sdxl") / "base"
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="module")
def registry(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A registry that has the SD 1.5 base from its settings."""
    from terroir.registry.settings import RegistrySettings

    settings = RegistrySettings(
        data_dir=tmp_path_factory.mktemp("data") / "data", port=0, base_sources={"tiny": base_folder}
    )
    with running_registry(settings) as running:
        yield running


def layers_of(folder: Path, **classes: type[Any]) -> dict[str, tuple[int, ...]]:
    """Linear and convolution layers of the loaded modules: the truth that headers must tell."""
    from torch import nn

    table = {}
    for component, kind in classes.items():
        module = kind.from_pretrained(folder / component)
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                full = name
                if component.startswith("text") and name != "text_projection" and not name.startswith("text_model."):
                    full = f"text_model.{name}"  # transformers 5 dropped it from CLIPTextModel alone
                table[f"{component}.{full}"] = tuple(layer.weight.shape)
    return table


def command(registry: Running, *arguments: str, cache: Path | None = None) -> tuple[int, dict[str, Any]]:
    """Status and JSON of a `terroir base` command, in a process of its own and without any network."""
    services = ("dataset", "training", "registry", "inference")
    extra = {
        "TERROIR_ENDPOINTS": ",".join(f"{name}=127.0.0.1:{registry.port}" for name in services),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_CACHE": str(cache or "/nonexistent"),
    }
    done = subprocess.run(
        [*TERROIR, "--json", "base", *arguments], env=environment(extra), capture_output=True, text=True, check=False
    )
    return done.returncode, json.loads(done.stdout)


def test_sdxl_is_read_with_both_text_encoders_and_every_layer_of_the_loaded_modules(sdxl_folder: Path) -> None:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    content = read_base_folder(sdxl_folder)
    assert (content.family, content.prediction_type, content.native_resolution) == ("sdxl", "epsilon", 128)
    assert set(content.component_digests) == {"unet", "text_encoder", "text_encoder_2", "vae"}
    truth = layers_of(
        sdxl_folder,
        unet=UNet2DConditionModel,
        text_encoder=CLIPTextModel,
        text_encoder_2=CLIPTextModelWithProjection,
    )
    assert dict(content.layers) == truth
    assert "text_encoder_2.text_projection" in truth
    assert "unet.add_embedding.linear_1" in truth
    assert content.digest == base_digest(component_digests(sdxl_folder))


def test_sd15_is_read_with_every_layer_of_the_loaded_modules(base_folder: Path) -> None:
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextModel

    content = read_base_folder(base_folder)
    assert content.family == "sd15"
    assert dict(content.layers) == layers_of(base_folder, unet=UNet2DConditionModel, text_encoder=CLIPTextModel)


def test_reading_a_base_needs_neither_torch_nor_numpy_nor_safetensors(sdxl_folder: Path) -> None:
    """So it runs in the plain client's environment."""
    code = (
        "import sys; from pathlib import Path; from terroir.lora.base_folder import read_base_folder; "
        "read_base_folder(Path(sys.argv[1])); print({'torch', 'numpy', 'safetensors'} & set(sys.modules))"
    )
    run = [sys.executable, "-c", code, str(sdxl_folder)]
    done = subprocess.run(run, env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_the_second_text_encoders_weights_are_part_of_the_digest(sdxl_folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(sdxl_folder, tmp_path / "other")
    path = other / "text_encoder_2" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert read_base_folder(other).digest != read_base_folder(sdxl_folder).digest


def test_a_download_that_was_cut_short_is_refused(sdxl_folder: Path, tmp_path: Path) -> None:
    cut = shutil.copytree(sdxl_folder, tmp_path / "cut")
    path = cut / "unet" / "diffusion_pytorch_model.safetensors"
    os.truncate(path, path.stat().st_size - 100)
    with pytest.raises(BaseFolderInvalid, match="copy it again"):
        read_base_folder(cut)
    shutil.rmtree(cut / "text_encoder_2")
    with pytest.raises(BaseFolderInvalid, match="text_encoder_2"):
        read_base_folder(cut)


def test_both_families_are_registered_from_the_command_line(
    registry: Running, base_folder: Path, sdxl_folder: Path
) -> None:
    for folder, family in ((base_folder, "sd15"), (sdxl_folder, "sdxl")):
        status, base = command(registry, "register", f"my-{family}", str(folder))
        content: BaseContent = read_base_folder(folder)
        assert (status, base["family"], base["digest"]) == (0, family, content.digest)
        assert base["adaptable_layers"] == len(content.layers)
    status, told = command(registry, "register", "my-sd15", str(sdxl_folder))
    assert (status, told["error"]["reason"]) == (1, "BASE_CONTENT_CHANGED")


def test_a_pinned_hub_revision_comes_from_the_local_cache_without_network(
    registry: Running, base_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(base_folder, tmp_path / "models--owner--tiny" / "snapshots" / REVISION)
    status, base = command(registry, "register", "cached", f"hub:owner/tiny@{REVISION}", cache=tmp_path)
    assert (status, base["source"]) == (0, f"owner/tiny@{REVISION}")
    assert base["digest"] == read_base_folder(base_folder).digest
    for source, reason in (
        (f"hub:owner/tiny@{'f' * 40}", "HUB_UNAVAILABLE"),
        ("hub:owner/tiny@main", "BASE_NOT_PINNED"),
    ):
        status, told = command(registry, "register", "cached", source, cache=tmp_path)
        assert (status, told["error"]["reason"]) == (1, reason)
