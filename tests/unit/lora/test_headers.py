"""Headers say what programs need, and a private one nothing of where the file comes from."""

from __future__ import annotations

import pytest

from terroir.lora import safetensors_bytes
from terroir.lora.formats import parse, to_kohya
from terroir.lora.formats.headers import Description, HeaderProfile, describe, of_profile
from tests.unit.lora.adapters import TABLE, random_adapter

FULL = Description(
    "jiangnan", "sd15", 512, "v_prediction", "sd-1-5", "d" * 64, "jnsty", "Water towns in the rain.", ("ink", "rain")
)
MUST = ("sai_model_spec", "architecture", "implementation", "title", "resolution", "prediction_type")
LINEAGE = {"terroir.base_digest", "ss_sd_model_name", "ss_resolution", "modelspec.description", "modelspec.tags"}


@pytest.mark.parametrize("family", ["sd15", "sdxl"])
def test_the_header_has_what_modelspec_and_sd_scripts_require(family):
    entries = describe(Description("x", family, 512, "epsilon"))
    metadata = safetensors_bytes.read(to_kohya(random_adapter(1), entries)).metadata
    assert all(metadata[f"modelspec.{name}"] for name in MUST)
    minimum = ("v2", "base_model_version", "network_module", "network_dim", "network_alpha", "network_args")
    assert all(metadata[f"ss_{name}"] for name in minimum)
    assert metadata["modelspec.sai_model_spec"] == "1.0.1"


def test_families_and_predictions_have_the_names_of_sd_scripts():
    entries = describe(FULL)
    assert (entries["ss_base_model_version"], entries["modelspec.prediction_type"]) == ("sd_v1", "v")
    assert entries["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert describe(Description("x", "sdxl", 1024, "epsilon"))["ss_base_model_version"] == "sdxl_base_v1-0"


def test_a_private_header_keeps_no_lineage_and_all_that_loaders_need():
    public = safetensors_bytes.read(to_kohya(random_adapter(1), describe(FULL))).metadata
    private = of_profile(public, HeaderProfile.PRIVATE)
    assert set(public) - set(private) == LINEAGE
    assert of_profile(public, HeaderProfile.PUBLIC) == public


def test_a_rewritten_header_keeps_every_tensor():
    data = to_kohya(random_adapter(1), describe(FULL))
    private = of_profile(safetensors_bytes.read(data).metadata, HeaderProfile.PRIVATE)
    rewritten = safetensors_bytes.with_metadata(data, private)
    before, after = parse(data, TABLE), parse(rewritten, TABLE)
    assert after.adapter.tensor_digest() == before.adapter.tensor_digest()
    assert (after.metadata, b"d" * 64 in rewritten) == (private, False)
