"""The file of a trained adapter: its headers by profile, and diffusers draws with it what was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from engine_kit import adapted, config, filled, forward, load, merge

from terroir.lora import safetensors_bytes
from terroir.lora.adapter import Adapter
from terroir.lora.base_folder import read_base_folder
from terroir.lora.formats import parse, to_diffusers
from terroir.lora.formats.headers import HeaderProfile
from terroir.training.artifacts.adapter_file import kohya_file
from terroir.training.engine.ports import TrainResult

KINDS: dict[str, dict[str, Any]] = {
    "LoRA": {"lora_alpha": 3, "target_modules": "attention-ff"},
    "LoCon": {"conv_rank": 3, "conv_alpha": 2, "lora_rank": 2},
    "rsLoRA": {"use_rslora": True, "lora_rank": 3, "lora_alpha": 2},
    "DoRA": {"use_dora": True},
    "text encoders": {"text_encoder_lr": 1e-4, "lora_alpha": 1},
}
SECRETS = {
    "seed": 190871, "dataset": "datasets/secret-customer", "train_data_dir": "/home/anna/pictures",
    "output_dir": "/out",
    "base_model": "/models/sd15-of-anna", "metadata_path": "anna.csv", "sample_prompts": ["anna at the sea"],
}  # fmt: skip


def result_of(adapter: Adapter, family: str = "sd15") -> TrainResult:
    return TrainResult(adapter, 100, 0.1, 0, 12, family, "epsilon")


def exported(folder: Path, family: str, **keys: Any) -> tuple[bytes, Adapter]:
    adapter = filled(adapted(folder, **keys)[1]).extract()
    file = kohya_file(
        result_of(adapter, family), config(**keys), title="ink", base_digest="d" * 64, trigger_word="inkstyle"
    )
    return file, adapter


@pytest.mark.parametrize("base", ["sd_dir", "sdxl_dir"])
@pytest.mark.parametrize("keys", KINDS.values(), ids=KINDS)
def test_both_files_read_back_as_the_adapter_that_was_trained(
    base: str, keys: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(base)
    kohya, adapter = exported(folder, "sdxl" if base == "sdxl_dir" else "sd15", **keys)
    table = read_base_folder(folder).layers
    read = parse(kohya, table)
    assert read.adapter.tensor_digest() == adapter.tensor_digest() and not read.ignored and not read.unknown
    folded = parse(to_diffusers(adapter), table).adapter
    for layer, module in adapter.modules.items():
        assert abs(folded.modules[layer].delta() - module.delta()).max() < 1e-6, layer


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["LoRA", "LoCon", "rsLoRA", "DoRA", "text encoders"])
@pytest.mark.parametrize("base", ["sd_dir", "sdxl_dir"])
def test_diffusers_draws_with_the_files_what_was_trained(
    base: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """DoRA in its own format only: it drops the scales of kohya's. Text encoders in kohya's of SD only: transformers 5
    renamed their layers, and diffusers 0.42 does not find the others."""
    folder: Path = request.getfixturevalue(base)
    sdxl = base == "sdxl_dir"
    kohya, adapter = exported(folder, "sdxl" if sdxl else "sd15", **KINDS[kind])
    files = {"kohya": kohya, "diffusers": to_diffusers(adapter)}
    if kind == "DoRA":
        del files["kohya"]
    if kind == "text encoders":
        del files["diffusers"]
        if sdxl:
            pytest.skip("diffusers 0.42 with transformers 5 loads no adapters of SDXL's text encoders")
    pipeline: Any = StableDiffusionXLPipeline if sdxl else StableDiffusionPipeline
    options = {"add_watermarker": False} if sdxl else {"safety_checker": None, "requires_safety_checker": False}
    expected = forward(merge(load(folder), adapter)).detach()
    for name, data in files.items():
        (tmp_path / f"{name}.safetensors").write_bytes(data)
        pipe = pipeline.from_pretrained(folder, **options)
        pipe.load_lora_weights(tmp_path, weight_name=f"{name}.safetensors")
        family = load(folder)
        object.__setattr__(family, "unet", pipe.unet)
        if not sdxl:
            object.__setattr__(family.text, "encoder", pipe.text_encoder)
        with torch.no_grad():
            assert torch.allclose(forward(family), expected, atol=1e-4), name


@pytest.mark.parametrize(
    ("base", "family", "version", "architecture"),
    [
        ("sd_dir", "sd15", "sd_v1", "stable-diffusion-v1/lora"),
        ("sdxl_dir", "sdxl", "sdxl_base_v1-0", "stable-diffusion-xl-v1-base/lora"),
    ],
)
def test_the_header_names_the_family_and_the_networks_real_strength(
    base: str, family: str, version: str, architecture: str, request: pytest.FixtureRequest
) -> None:
    keys: dict[str, Any] = {
        "use_rslora": True, "lora_rank": 4, "lora_alpha": 3, "conv_rank": 9, "conv_alpha": 2, "use_dora": True,
        "loraplus_lr_ratio": 16, "text_encoder_lr": 5e-5, "mixed_precision": "fp16", "min_snr_gamma": 5,
    }  # fmt: skip
    file, _ = exported(request.getfixturevalue(base), family, **keys)
    header = safetensors_bytes.read(file).metadata
    assert (header["ss_base_model_version"], header["modelspec.architecture"]) == (version, architecture)
    assert (header["ss_network_dim"], header["ss_network_alpha"]) == ("4", "6")
    assert json.loads(header["ss_network_args"]) == {
        "use_dora": "True", "conv_dim": "9", "conv_alpha": "6", "loraplus_lr_ratio": "16",
    }  # fmt: skip
    assert (header["ss_text_encoder_lr"], header["ss_mixed_precision"]) == ("5e-05", "fp16")
    assert (header["ss_min_snr_gamma"], header["ss_num_train_images"]) == ("5", "12")
    assert header["modelspec.trigger_phrase"] == "inkstyle" and len(header["sshs_model_hash"]) == 64


def test_a_public_header_tells_no_caption_folder_dataset_or_seed_and_a_private_one_no_training(sd_dir: Path) -> None:
    adapter = adapted(sd_dir)[1].extract()
    headers = {}
    for profile in HeaderProfile:
        file = kohya_file(
            result_of(adapter), config(**SECRETS), title="ink", base_digest="d" * 64, trigger_word="t", profile=profile
        )
        headers[profile] = safetensors_bytes.read(file).metadata
        for secret in ("190871", "secret-customer", "anna", "/out"):
            assert secret not in json.dumps(headers[profile]), secret
    public, private = headers[HeaderProfile.PUBLIC], headers[HeaderProfile.PRIVATE]
    assert "ss_steps" in public and "terroir.base_digest" in public
    assert not {"ss_steps", "ss_learning_rate", "terroir.base_digest", "ss_sd_model_name"} & private.keys()
    assert private["ss_network_dim"] == "2" and private["modelspec.architecture"] == "stable-diffusion-v1/lora"


def test_a_registered_base_is_named_and_equal_runs_give_equal_files(sd_dir: Path) -> None:
    def file(name: str) -> bytes:
        adapter = filled(adapted(sd_dir)[1]).extract()
        return kohya_file(
            result_of(adapter), config(base_model=name), title="ink", base_digest="d" * 64, trigger_word=""
        )

    assert safetensors_bytes.read(file("bases/sd-1-5")).metadata["ss_sd_model_name"] == "sd-1-5"
    assert file("sd-1-5") == file("sd-1-5")
