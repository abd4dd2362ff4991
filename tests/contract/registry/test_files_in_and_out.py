"""Files on the command line: PEFT folders, every format, headers that tell all or only what programs need."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.numpy import save_file
from structlog.testing import capture_logs

from terroir.common.errors import InvalidArgument
from terroir.lora.formats import parse
from terroir.lora.hashes import site_hashes
from terroir.lora.key_table import key_table_of
from terroir.lora.safetensors_bytes import read
from tests.contract.registry.running import BASE, Running
from tests.contract.registry.test_region_commands import Shell
from tests.unit.registry.adapter_kit import adapter_bytes, make_adapter
from tests.unit.registry.base_kit import TEXT_SHAPES, UNET_SHAPES

TABLE = key_table_of(UNET_SHAPES, TEXT_SHAPES)


@pytest.fixture
def shell(registry: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Shell]:
    """A command line that finds a registry with one adapter, in an empty folder."""
    services = ("dataset", "training", "registry", "inference")
    monkeypatch.setenv("TERROIR_ENDPOINTS", ",".join(f"{name}=127.0.0.1:{registry.port}" for name in services))
    monkeypatch.chdir(tmp_path)
    shell = Shell(registry)
    Path("upload.safetensors").write_bytes(adapter_bytes(rank=1))
    base = BASE.removeprefix("bases/")
    with capture_logs():  # the server logs to the standard output that the commands have here
        shell.said("adapter", "publish", "ink", "upload.safetensors", "--base", base, "--description", "Secret.")
        yield shell


def downloaded(shell: Shell, *options: str) -> bytes:
    shell.said("adapter", "download", "ink", "--out", "out.safetensors", *options)
    return Path("out.safetensors").read_bytes()


def test_a_download_tells_all_unless_it_shall_not(shell: Shell) -> None:
    version = json.loads(shell.said("--json", "adapter", "show", "ink"))
    public, private = downloaded(shell), downloaded(shell, "--private-header")
    assert hashlib.sha256(public).hexdigest() == version["file_digest"]
    assert version["base_digest"] in read(public).metadata.values()
    assert version["base_digest"].encode() not in private
    assert b"Secret." in public
    assert b"Secret." not in private
    assert site_hashes(private)["kohya"] == version["hashes"]["kohya"]
    assert read(private).metadata["ss_base_model_version"] == "sd_v1"


def test_a_diffusers_file_keeps_the_config_that_its_loader_reads(shell: Shell) -> None:
    private = downloaded(shell, "--private-header", "--format", "diffusers")
    assert set(read(private).metadata) == {"format", "lora_adapter_metadata"}


def test_a_peft_folder_is_published_with_the_strength_in_its_config(shell: Shell) -> None:
    """As `PeftModel.save_pretrained` writes it: lora_alpha is not in the weights' file."""
    folder = Path("peft")
    folder.mkdir()
    modules = make_adapter(rank=2).modules
    tensors = {}
    for layer, module in modules.items():
        path = layer.replace("unet.", "base_model.model.")
        tensors |= {f"{path}.lora_A.weight": module.down, f"{path}.lora_B.weight": module.up}
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"r": 2, "lora_alpha": 6, "peft_type": "LORA"}))
    base = BASE.removeprefix("bases/")
    shell.said("adapter", "publish", "peft", str(folder), "--base", base)
    assert json.loads(shell.said("--json", "adapter", "show", "peft"))["upload_format"] == "peft"
    shell.said("adapter", "download", "peft", "--out", "out.safetensors")
    kept = parse(Path("out.safetensors").read_bytes(), TABLE).adapter
    assert {module.scale for module in kept.modules.values()} == {3.0}
    (folder / "adapter_config.json").unlink()
    with pytest.raises(InvalidArgument) as refused:
        shell.said("adapter", "publish", "peft", str(folder), "--base", base)
    assert refused.value.reason == "ADAPTER_STRENGTH_UNKNOWN"
