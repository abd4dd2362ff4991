"""A merged checkpoint: the base plus the change, whole or not at all."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from terroir.common.base_digest import base_digest, component_digests
from terroir.common.errors import FailedPrecondition
from terroir.exports.errors import ExportFailed
from terroir.exports.merged import export_merged
from terroir.exports.oci import export_oci
from terroir.exports.version import ExportedVersion
from terroir.exports.webui import export_webui
from terroir.lora.adapter import Adapter
from terroir.lora.formats import to_kohya
from tests.unit.exports.test_exports import ADAPTER, LAYER, RNG, VERSION
from tests.unit.lora.lycoris_adapters import FORMS, random_module


def base_folder(folder: Path, dtype: str) -> Path:
    """The files of a base that merging reads, with random weights."""
    tensors: Mapping[str, Mapping[str, tuple[int, ...]]] = {
        "unet": {"mid_block.attentions.0.proj_in.weight": (6, 4), "conv_in.weight": (3, 2, 3, 3)},
        "text_encoder": {"encoder.layers.0.mlp.fc1.weight": (5, 3)},
        "vae": {"decoder.conv.weight": (2, 2, 1, 1)},
    }
    for component, shapes in tensors.items():
        (folder / component).mkdir(parents=True)
        name = "model.safetensors" if component == "text_encoder" else "diffusion_pytorch_model.safetensors"
        drawn = {key: RNG.standard_normal(shape).astype(dtype) for key, shape in shapes.items()}
        save_file(drawn, folder / component / name, {"format": "pt"})
    configs: dict[str, dict[str, object]] = {
        "model_index.json": {"_class_name": "StableDiffusionPipeline"},
        "scheduler/scheduler_config.json": {"prediction_type": "epsilon"},
        "unet/config.json": {"sample_size": 8},
        "vae/config.json": {"block_out_channels": [4]},
    }
    for name, config in configs.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(config))
    return folder


def bound(folder: Path) -> ExportedVersion:
    return replace(VERSION, base_digest=base_digest(component_digests(folder)))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float16", 2e-3)])
def test_a_merged_base_is_the_base_plus_the_change_and_nothing_else(
    tmp_path: Path, dtype: str, tolerance: float
) -> None:
    base = base_folder(tmp_path / "base", dtype)
    heard: list[tuple[str, int, int]] = []
    export_merged(bound(base), base, tmp_path / "out", weight=0.5, on_progress=lambda *step: heard.append(step))
    assert list(dict.fromkeys(step for step, _, _ in heard)) == ["check the base", "copy", "merge"]
    assert [step for step in heard if step[0] == "merge"] == [("merge", 1, 2), ("merge", 2, 2)]
    assert all(done == every for done, every in {step: rest for step, *rest in heard}.values())
    before = load_file(base / "unet" / "diffusion_pytorch_model.safetensors")
    after = load_file(tmp_path / "out" / "unet" / "diffusion_pytorch_model.safetensors")
    key = "mid_block.attentions.0.proj_in.weight"
    expected = before[key].astype(np.float32) + 0.5 * ADAPTER.modules[LAYER].delta()
    np.testing.assert_allclose(after[key].astype(np.float32), expected, atol=tolerance, rtol=tolerance)
    assert after[key].dtype == dtype
    np.testing.assert_array_equal(after["conv_in.weight"], before["conv_in.weight"])
    text = load_file(tmp_path / "out" / "text_encoder" / "model.safetensors")["encoder.layers.0.mlp.fc1.weight"]
    assert not np.array_equal(
        text, load_file(base / "text_encoder" / "model.safetensors")["encoder.layers.0.mlp.fc1.weight"]
    )
    vae = "vae/diffusion_pytorch_model.safetensors"
    assert (tmp_path / "out" / vae).read_bytes() == (base / vae).read_bytes()


@pytest.mark.parametrize("form", FORMS)
def test_a_loha_or_lokr_is_merged_like_any_other(tmp_path: Path, form: str) -> None:
    """It is how they come into diffusers, whose own adapter format has no words for them."""
    base = base_folder(tmp_path / "base", "float32")
    change = random_module(np.random.default_rng(1), form, (6, 4), 2, 1.0)
    file = to_kohya(Adapter({LAYER: change}), {})
    export_merged(replace(bound(base), file=file), base, tmp_path / "out", weight=0.5)
    name, key = "unet/diffusion_pytorch_model.safetensors", "mid_block.attentions.0.proj_in.weight"
    before, after = load_file(base / name), load_file(tmp_path / "out" / name)
    np.testing.assert_allclose(after[key] - before[key], 0.5 * change.delta(), rtol=1e-4, atol=1e-5)
    assert np.abs(change.delta()).max() > 0.01


def test_weight_zero_merges_to_the_very_same_bytes(tmp_path: Path) -> None:
    base = base_folder(tmp_path / "base", "float16")
    export_merged(bound(base), base, tmp_path / "out", weight=0)
    for path in base.rglob("*.safetensors"):
        assert (tmp_path / "out" / path.relative_to(base)).read_bytes() == path.read_bytes()


def test_what_cannot_be_exported_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    base = base_folder(tmp_path / "base", "float32")
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "file").write_text("mine")
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: export_merged(VERSION, base, tmp_path / "out"), "EXPORT_BASE_MISMATCH"),
        (lambda: export_merged(VERSION, tmp_path / "none", tmp_path / "out"), "BASE_FOLDER_MISSING"),
        (
            lambda: export_merged(replace(bound(base), file=b"no file"), base, tmp_path / "out"),
            "ADAPTER_FILE_UNREADABLE",
        ),
        (lambda: export_merged(bound(base), base, tmp_path / "out", weight=float("nan")), "EXPORT_NOT_FINITE"),
        (lambda: export_merged(bound(base), base, tmp_path / "out", weight=1e39), "EXPORT_NOT_FINITE"),
        (lambda: export_merged(bound(base), base, taken), "EXPORT_TARGET_EXISTS"),
        (lambda: export_webui(VERSION, taken), "EXPORT_TARGET_EXISTS"),
        (lambda: export_oci(VERSION, taken), "EXPORT_TARGET_EXISTS"),
        (lambda: export_oci(VERSION, taken / "file", tar=True), "EXPORT_TARGET_EXISTS"),
        (lambda: export_oci(VERSION, taken / "file" / "x.tar", tar=True), "EXPORT_TARGET_UNUSABLE"),
    ]
    for call, reason in cases:
        with pytest.raises(FailedPrecondition) as caught:
            call()
        assert caught.value.reason == reason
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "taken"]
    assert (taken / "file").read_text() == "mine"


def test_a_merge_that_breaks_off_leaves_no_folder(tmp_path: Path) -> None:
    base = base_folder(tmp_path / "base", "float32")

    for step in ("check the base", "copy", "merge"):

        def stop(heard: str, done: int, every: int, at: str = step) -> None:
            if heard == at:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            export_merged(bound(base), base, tmp_path / "out", on_progress=stop)
        assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_no_copy_of_the_base_alone_stays_beside_the_merged_weights(tmp_path: Path) -> None:
    """`variant="fp16"`, or a WebUI that finds a single-file checkpoint, would load the base without the adapter."""
    base = base_folder(tmp_path / "base", "float32")
    left_out = (
        "v1-5-pruned.safetensors", "v1-5-pruned.ckpt", "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.safetensors.index.json", "text_encoder/pytorch_model.bin", ".git/config",
        "text_encoder/nested/model.safetensors",
    )  # fmt: skip
    kept = ("safety_checker/model.safetensors", "tokenizer/vocab.json", "README.md", "vae/variant.fp16.safetensors")
    for name in (*left_out, *kept):
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        (base / name).write_bytes(b"x")
    export_merged(bound(base), base, tmp_path / "out")
    assert [name for name in (*left_out, *kept) if (tmp_path / "out" / name).exists()] == list(kept)


def test_a_read_only_base_made_of_links_is_merged_and_stays_as_it_was(tmp_path: Path) -> None:
    """So lies a base in the hub's cache: links into a folder of blobs."""
    real = base_folder(tmp_path / "real", "float32")
    digest = base_digest(component_digests(real))
    linked = tmp_path / "linked"
    (linked / "unet").mkdir(parents=True)
    for path in real.iterdir():
        if path.name != "unet":
            (linked / path.name).symlink_to(path)
    for path in (real / "unet").iterdir():
        path.chmod(0o444)
        (linked / "unet" / path.name).symlink_to(path)
    export_merged(bound(real), linked, tmp_path / "out")
    assert base_digest(component_digests(real)) == digest != base_digest(component_digests(tmp_path / "out"))
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_symlink()]
    (tmp_path / "out" / "unet" / "config.json").write_text("{}")


def test_a_sum_beyond_half_precision_is_refused(tmp_path: Path) -> None:
    """65504 is its largest number; infinity would draw black pictures."""
    base = base_folder(tmp_path / "base", "float16")
    with pytest.raises(ExportFailed, match=r"F16.*smaller --weight") as caught:
        export_merged(bound(base), base, tmp_path / "out", weight=1e6)
    assert caught.value.reason == "EXPORT_NOT_FINITE"
    assert not (tmp_path / "out").exists()


def test_memory_stays_at_a_few_tensors_however_large_the_base_is(tmp_path: Path) -> None:
    """The base here is 96 MB in tensors of 1 MB; digests are read in blocks of 8 MB, and kept blocks may be two."""
    base = base_folder(tmp_path / "base", "float32")
    large = {f"up_blocks.{number}.conv.weight": np.zeros((512, 512), np.float32) for number in range(96)}
    path = base / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({**load_file(path), **large}, path)
    version = bound(base)
    tracemalloc.start()
    export_merged(version, base, tmp_path / "out")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6
