"""Bases are registered once, from headers and digests, and never change under their id."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from terroir.lora.base_folder import BaseFolderInvalid
from terroir.registry.errors import BaseChanged, BaseNotFound
from tests.unit.registry.base_kit import write_base_folder
from tests.unit.registry.domain_kit import Domain


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A good base folder."""
    return write_base_folder(tmp_path / "base")


def test_a_folder_is_read_into_family_digests_and_key_table(domain: Domain, folder: Path) -> None:
    base = domain.bases.register_folder("tiny", folder)
    unet = folder / "unet" / "diffusion_pytorch_model.safetensors"
    assert (base.family, base.prediction_type, base.native_resolution) == ("sd15", "v_prediction", 64)
    assert base.component_digests["unet"] == hashlib.sha256(unet.read_bytes()).hexdigest()
    assert set(base.component_digests) == {"unet", "text_encoder", "vae"}
    table = domain.bases.key_table(base)
    assert table["unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"] == (8, 6)
    assert not any("norm1" in path for path in table)
    assert base.adaptable_layers == len(table)


def test_registering_equal_content_again_changes_nothing(domain: Domain, replica: Domain, folder: Path) -> None:
    first = domain.bases.register_folder("tiny", folder)
    domain.clock.advance(3600)
    assert domain.bases.register_folder("tiny", folder) == replica.bases.register_folder("tiny", folder) == first
    assert domain.bases.all() == [first]


def test_the_digest_does_not_depend_on_where_the_folder_lies(domain: Domain, folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "elsewhere")
    assert domain.bases.register_folder("one", folder).digest == domain.bases.register_folder("two", copy).digest


@pytest.mark.parametrize(("seed", "prediction_type"), [(1, "v_prediction"), (0, "epsilon")])
def test_other_content_under_a_known_id_is_refused_with_a_next_step(
    domain: Domain, folder: Path, tmp_path: Path, seed: int, prediction_type: str
) -> None:
    first = domain.bases.register_folder("tiny", folder)
    other = write_base_folder(tmp_path / "other", seed, prediction_type)
    with pytest.raises(BaseChanged, match="under another id"):
        domain.bases.register_folder("tiny", other)
    assert domain.bases.all() == [first]


def test_a_missing_folder_is_an_error_for_a_new_base(domain: Domain, tmp_path: Path) -> None:
    with pytest.raises(BaseFolderInvalid, match="TERROIR_REGISTRY_BASE_SOURCES") as refused:
        domain.bases.register_folder("tiny", tmp_path / "none")
    assert refused.value.reason == "BASE_FOLDER_MISSING"
    assert domain.bases.all() == []


def test_a_missing_folder_is_a_warning_for_a_registered_base(
    domain: Domain, replica: Domain, folder: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    first = domain.bases.register_folder("tiny", folder)
    shutil.rmtree(folder)
    assert replica.bases.register_folder("tiny", folder) == first
    said = caplog.text + "".join(capsys.readouterr())
    assert "base_folder_missing" in said


def test_an_unknown_base_is_named_beside_the_known(domain: Domain, folder: Path) -> None:
    domain.bases.register_folder("tiny", folder)
    with pytest.raises(BaseNotFound, match="bases/tiny"):
        domain.bases.get("sdxl")


def _break_index(folder: Path) -> None:
    (folder / "model_index.json").write_text("{not json")


def _break_class(folder: Path) -> None:
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))


def _break_weights(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"\x00" * 40)


def _leave_pickle(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(folder / "unet" / "diffusion_pytorch_model.bin")


def _break_prediction(folder: Path) -> None:
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"prediction_type": "sample"}))


def _break_size(folder: Path) -> None:
    (folder / "unet" / "config.json").write_text("{}")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_break_index, "model_index.json"),
        (_break_class, "FluxPipeline"),
        (_break_weights, "copy it again"),
        (_leave_pickle, "safe_serialization"),
        (_break_prediction, "sample"),
        (_break_size, "sample_size"),
    ],
)
def test_a_folder_that_is_no_pipeline_is_refused_by_the_name_of_what_is_wrong(
    domain: Domain, folder: Path, damage: object, says: str
) -> None:
    assert callable(damage)
    damage(folder)
    with pytest.raises(BaseFolderInvalid, match=says):
        domain.bases.register_folder("tiny", folder)


def test_the_registry_imports_no_torch() -> None:
    code = "import sys, terroir.registry.main; print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
