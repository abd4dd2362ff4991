"""Exports: what A1111, container registries and checkpoint loaders find in the files."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from terroir.exports.errors import ExportFailed
from terroir.exports.oci import export_oci
from terroir.exports.version import ExportedPreset, ExportedVersion
from terroir.exports.webui import export_webui, sidecar
from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.formats import to_kohya

LAYER = "unet.mid_block.attentions.0.proj_in"
TEXT_LAYER = "text_encoder.text_model.encoder.layers.0.mlp.fc1"
RNG = np.random.default_rng(0)


def module(out: int, into: int) -> LoraModule:
    def draw(*shape: int) -> np.ndarray:
        return np.asarray(RNG.standard_normal(shape)).astype(np.float16).astype(np.float32)

    return LoraModule(draw(2, into), draw(out, 2), 1.0)


ADAPTER = Adapter({LAYER: module(6, 4), TEXT_LAYER: module(5, 3)})
FILE = to_kohya(ADAPTER, {})
VERSION = ExportedVersion(
    name="adapters/jiangnan/versions/3", file=FILE, file_digest=hashlib.sha256(FILE).hexdigest(),
    tensor_digest=ADAPTER.tensor_digest(), base="bases/tiny", base_digest="", family="sd15",
    created_at="2026-11-23T10:00:00Z", rank=2, trigger_word="ink style", description="Ink on rice paper: 江南",
    region="regions/CN-ZJ", tags=("ink",), lineage={"job": "jobs/1"},
    presets=(
        ExportedPreset("soft", ("ink style", "mist"), "{prompt}, ink style, mist", "photo", 0.8),
        ExportedPreset("bold", ("ink style",), "", "", 1.2),
    ),
)  # fmt: skip


def png(size: tuple[int, int] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, "JPEG")
    return buffer.getvalue()


def test_the_sidecar_has_exactly_the_keys_that_a1111_reads(tmp_path: Path) -> None:
    """extensions-builtin/Lora/ui_edit_user_metadata.py: a key too few or too many is dropped there in silence."""
    files = export_webui(VERSION, tmp_path / "out", png())
    assert [path.name for path in files] == ["jiangnan-v3.json", "jiangnan-v3.preview.png", "jiangnan-v3.safetensors"]
    read = json.loads(files[0].read_text(encoding="utf-8"))
    assert read == {
        "description": "Ink on rice paper: 江南",
        "sd version": "SD1",
        "activation text": "ink style, mist",
        "preferred weight": 0.8,
        "negative text": "photo",
        "notes": "Terroir adapters/jiangnan/versions/3\nbold: ink style (weight 1.2)",
    }
    with Image.open(files[1]) as preview:
        assert preview.format == "PNG"
    assert files[2].read_bytes() == FILE


def test_without_presets_the_trigger_word_activates_and_without_a_sample_there_is_no_preview(tmp_path: Path) -> None:
    plain = replace(VERSION, presets=(), family="sdxl")
    assert (sidecar(plain)["activation text"], sidecar(plain)["sd version"]) == ("ink style", "SDXL")
    assert len(export_webui(plain, tmp_path / "out")) == 2


def test_an_image_layout_is_whole_and_the_same_each_time(tmp_path: Path) -> None:
    digest = export_oci(VERSION, tmp_path / "a")
    assert export_oci(VERSION, tmp_path / "b") == digest
    assert json.loads((tmp_path / "a" / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((tmp_path / "a" / "index.json").read_text())
    (described,) = index["manifests"]
    assert (described["digest"], described["annotations"]) == (
        digest, {"org.opencontainers.image.ref.name": "v3"},
    )  # fmt: skip

    def blob(descriptor: dict[str, object]) -> bytes:
        algorithm, _, hexadecimal = str(descriptor["digest"]).partition(":")
        data = (tmp_path / "a" / "blobs" / algorithm / hexadecimal).read_bytes()
        assert len(data) == descriptor["size"]
        assert hashlib.sha256(data).hexdigest() == hexadecimal
        return data

    manifest = json.loads(blob(described))
    assert manifest["schemaVersion"] == 2
    assert manifest["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    config = json.loads(blob(manifest["config"]))
    assert config["modelfs"]["diffIds"] == [layer["digest"] for layer in manifest["layers"]]
    assert blob(manifest["layers"][0]) == FILE
    assert json.loads(blob(manifest["layers"][1]))["tensor_digest"] == ADAPTER.tensor_digest()
    stored = {path.name for path in (tmp_path / "a" / "blobs" / "sha256").iterdir()}
    named = [described, manifest["config"], *manifest["layers"]]
    assert stored == {each["digest"].removeprefix("sha256:") for each in named}


DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
MEDIA_TYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}")
REFERENCE = re.compile(r"[A-Za-z0-9]+(?:[-._:@/+][A-Za-z0-9]+)*")
ABOUT = {"createdAt", "family", "name", "version", "title", "description", "licenses"}
"""Those of the model format's ModelDescriptor that we write; its schema allows no other than its own."""


def layout_of(version: ExportedVersion, folder: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Index, manifest and config of an export."""
    export_oci(version, folder)
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    blobs = folder / "blobs" / "sha256"
    manifest = json.loads((blobs / index["manifests"][0]["digest"].removeprefix("sha256:")).read_text(encoding="utf-8"))
    config = json.loads((blobs / manifest["config"]["digest"].removeprefix("sha256:")).read_text(encoding="utf-8"))
    return index, manifest, config


texts = st.text(st.characters(blacklist_categories=["Cs"]), max_size=40)


@given(description=texts, trigger=texts, licence=st.sampled_from(["", "CC-BY-4.0"]), number=st.integers(1, 10**12))
@settings(max_examples=25)
def test_whatever_a_version_says_the_layout_keeps_the_rules(
    tmp_path_factory: pytest.TempPathFactory, description: str, trigger: str, licence: str, number: int
) -> None:
    """image-spec: descriptor.md, manifest.md, image-layout.md; model-spec: config-schema.json."""
    name = f"adapters/jiangnan/versions/{number}"
    version = replace(VERSION, name=name, description=description, trigger_word=trigger, licence=licence)
    index, manifest, config = layout_of(version, tmp_path_factory.mktemp("oci") / "out")
    (described,) = index["manifests"]
    assert (index["schemaVersion"], manifest["schemaVersion"]) == (2, 2)
    for each in (described, manifest["config"], *manifest["layers"]):
        assert each.keys() <= {"mediaType", "digest", "size", "annotations", "artifactType"}
        assert DIGEST.fullmatch(each["digest"])
        assert MEDIA_TYPE.fullmatch(each["mediaType"])
        assert all(isinstance(value, str) for value in each.get("annotations", {}).values())
    assert REFERENCE.fullmatch(described["annotations"]["org.opencontainers.image.ref.name"])
    assert described["mediaType"] == manifest["mediaType"]
    assert all(value and isinstance(value, str) for value in manifest["annotations"].values())
    assert manifest["annotations"].get("org.opencontainers.image.licenses", "") == licence
    assert config.keys() == {"descriptor", "modelfs", "config"}
    assert config["descriptor"].keys() == ABOUT
    assert config["descriptor"]["licenses"] == ([licence] if licence else [])
    assert config["config"] == {"architecture": "lora", "format": "safetensors", "precision": "fp16"}
    assert config["modelfs"].keys() == {"type", "diffIds"}


def test_a_tar_holds_the_same_layout_and_is_the_same_each_time(tmp_path: Path) -> None:
    digests = {export_oci(VERSION, tmp_path / f"{turn}.tar", tar=True) for turn in (1, 2)}
    assert len(digests) == 1
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()
    with tarfile.open(tmp_path / "1.tar") as archive:
        assert {"index.json", "oci-layout"} <= set(archive.getnames())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.tar", "2.tar"]


def test_an_export_goes_into_new_folders_and_into_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not into the working folder: whoever stands in it would be left in a folder that is gone."""
    export_oci(VERSION, tmp_path / "a" / "b" / "layout")
    export_oci(VERSION, tmp_path / "c" / "d" / "layout.tar", tar=True)
    (tmp_path / "empty").mkdir()
    assert len(export_webui(VERSION, tmp_path / "empty")) == 2
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for target in (Path(), tmp_path / "a" / ".." / "here"):
        with pytest.raises(ExportFailed, match="working folder"):
            export_webui(VERSION, target)
    assert len(export_webui(VERSION, Path("new"))) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "c", "empty", "here"]


@pytest.mark.parametrize("step", ["write_bytes", "mkdir", "replace"])
def test_a_disk_that_is_full_is_named_and_nothing_half_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, step, full)
    exports: tuple[Callable[[ExportedVersion, Path], object], ...] = (export_webui, export_oci)
    for number, call in enumerate(exports):
        with pytest.raises(ExportFailed, match="No space left") as caught:
            call(VERSION, tmp_path / str(number))
        assert caught.value.reason == "EXPORT_TARGET_UNUSABLE"
    assert not list(tmp_path.iterdir())
