"""`terroir adapter export` and `verify` against a running registry."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from structlog.testing import capture_logs
from typer.testing import CliRunner

from terroir._proto.registry.v1 import recipe_pb2
from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.cli.main import app
from terroir.common.errors import InvalidArgument, TerroirError
from terroir.common.signatures import Signer
from terroir.registry.settings import RegistrySettings
from tests.contract.registry.running import Running, running_registry
from tests.unit.common.signing_keys import write_key
from tests.unit.registry.adapter_kit import adapter_bytes
from tests.unit.registry.base_kit import write_base_folder
from tests.unit.registry.test_samples import encoded

ADAPTER = "adapters/jiangnan"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    """A registry that signs, with one adapter, which the command line finds."""
    key, base = write_key(tmp_path / "key.pem"), write_base_folder(tmp_path / "base")
    settings = RegistrySettings(data_dir=tmp_path / "data", port=0, base_sources={"tiny": base}, signing_key=key)
    with running_registry(settings) as running, capture_logs():
        services = ("dataset", "training", "registry", "inference")
        monkeypatch.setenv("TERROIR_ENDPOINTS", ",".join(f"{name}=127.0.0.1:{running.port}" for name in services))
        running.publish(ADAPTER, adapter_bytes(2), trigger_word="jnsty", description="Wet ink")
        yield running


def said(*arguments: str | Path) -> str:
    """Output of a command; raises what the command line would print as an error."""
    result = CliRunner().invoke(app, ["adapter", *map(str, arguments)], env={"COLUMNS": "300"})
    if isinstance(result.exception, TerroirError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def reason(*arguments: str | Path) -> str:
    """The reason with which a command is refused."""
    with pytest.raises(TerroirError) as caught:
        said(*arguments)
    return caught.value.reason


def test_a_webui_gets_the_first_preset_the_newest_sample_and_what_else_is_known(
    registry: Running, tmp_path: Path
) -> None:
    preset = pb.Preset(display_name="Ink", prompt_template="jnsty, mist, {prompt}", negative_prompt="photo", weight=0.8)
    registry.api.SetPresets(pb.SetPresetsRequest(presets=pb.AdapterPresets(adapter=ADAPTER, presets=[preset])))
    for number, kind in enumerate(("PNG", "WEBP")):
        picture = encoded(kind, Image.new("RGB", (8 + number, 8)))
        registry.api.AddSample(pb.AddSampleRequest(adapter=ADAPTER, picture=picture, version=f"{ADAPTER}/versions/1"))
    registry.publish("adapters/tea", adapter_bytes(1))
    registry.set_alias("production", 1)
    for recipe, adapters in {"spring": ("jiangnan@production", "tea"), "tea": ("tea",)}.items():
        style = recipe_pb2.StyleRecipe(
            adapters=[recipe_pb2.RecipeAdapter(adapter=f"adapters/{each}", weight=0.5) for each in adapters],
            prompt_prefix="mist, ",
        )
        registry.api.PutRecipe(pb.PutRecipeRequest(recipe=recipe_pb2.Recipe(name=f"recipes/{recipe}", style=style)))
    said("export", "jiangnan", tmp_path / "out")
    sidecar = json.loads((tmp_path / "out" / "jiangnan-v1.json").read_text())
    wanted = {"activation text": "jnsty, mist", "preferred weight": 0.8, "negative text": "photo"}
    assert sidecar.items() >= {**wanted, "description": "Wet ink"}.items()
    assert sidecar["notes"].splitlines()[1:] == ["Recipe spring: jiangnan@production at 0.5 + tea at 0.5; prompt: mist"]
    with Image.open(tmp_path / "out" / "jiangnan-v1.preview.png") as preview:
        assert (preview.format, preview.size) == ("PNG", (9, 8))


def test_without_presets_and_samples_a_webui_gets_the_trigger_word(registry: Running, tmp_path: Path) -> None:
    said("export", "jiangnan/versions/1", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "jiangnan-v1.json").read_text())["activation text"] == "jnsty"
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".json", ".safetensors"]


def test_a_merged_folder_needs_the_right_base(registry: Running, tmp_path: Path) -> None:
    out, merged = tmp_path / "out", ("export", "jiangnan", tmp_path / "out", "--to", "merged", "--base-folder")
    assert reason(*merged[:-1]) == "BASE_FOLDER_MISSING"
    assert reason(*merged, tmp_path / "none") == "BASE_FOLDER_MISSING"
    assert reason(*merged, write_base_folder(tmp_path / "other", seed=5)) == "EXPORT_BASE_MISMATCH"
    assert not out.exists()
    assert "at 0.5" in said(*merged, tmp_path / "base", "--weight", "0.5")
    assert (out / "unet" / "diffusion_pytorch_model.safetensors").is_file()


def test_an_image_layout_is_told_with_its_digest(registry: Running, tmp_path: Path) -> None:
    told = said("export", "jiangnan", tmp_path / "out.tar", "--to", "oci", "--tar")
    assert "sha256:" in told
    assert (tmp_path / "out.tar").stat().st_size > 0
    assert reason("export", "jiangnan", tmp_path / "out.tar", "--to", "oci", "--tar") == "EXPORT_TARGET_EXISTS"


def test_a_signed_version_is_proved_and_kept_for_the_command_of_model_signing(
    registry: Running, tmp_path: Path
) -> None:
    """What OpenSSF's own tool says does not depend on our code."""
    kept, public = tmp_path / "kept", tmp_path / "key.pub"
    told = said("verify", "jiangnan", "--trusted-key", public, "--keep", kept)
    assert Signer(tmp_path / "key.pem").key_id[:16] in told
    command: list[str | Path] = [
        sys.executable, "-m", "model_signing", "verify", "key", kept / "adapter", "--signature", kept / "bundle.json",
        "--public_key", public,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (kept / "adapter" / "facts.json").write_text("{}")
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0
    assert reason("verify", "jiangnan", "--trusted-key", public, "--keep", kept) == "FOLDER_EXISTS"


def test_what_is_not_proved_is_refused_and_kept_nowhere(registry: Running, tmp_path: Path) -> None:
    stranger = write_key(tmp_path / "stranger.pem").with_suffix(".pub")
    command = ("verify", "jiangnan", "--keep", tmp_path / "kept", "--trusted-key")
    assert reason(*command, stranger) == "SIGNATURE_KEY_UNKNOWN"
    assert reason(*command, tmp_path / "none.pub") == "SIGNING_KEY_INVALID"
    assert not (tmp_path / "kept").exists()
    assert "is as it was signed" in said(*command, stranger, "--trusted-key", tmp_path / "key.pub")


def test_merging_asks_for_the_base_before_it_downloads() -> None:
    with pytest.raises(InvalidArgument, match="--base-folder"):
        said("export", "jiangnan", "out", "--to", "merged")


@pytest.mark.parametrize(
    ("form", "option"),
    [
        ("webui", ("--tar",)),
        ("merged", ("--base-folder", "base", "--tar")),
        ("oci", ("--base-folder", "base")),
        ("webui", ("--weight", "0.5")),
    ],
)
def test_an_option_of_another_form_is_refused_not_ignored(form: str, option: tuple[str, ...]) -> None:
    assert reason("export", "jiangnan", "out", "--to", form, *option) == "OPTION_OF_ANOTHER_FORM"
