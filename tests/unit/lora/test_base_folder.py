"""A base folder from anywhere is read, or refused with BaseFolderInvalid; nothing else ever comes out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from terroir.lora.base_folder import BaseFolderInvalid, read_base_folder, weight_bytes
from tests.unit.registry.base_kit import TEXT_SHAPES, UNET_SHAPES, write_base_folder

UNET = Path("unet") / "diffusion_pytorch_model.safetensors"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good folder; whoever damages it writes back what was there."""
    return write_base_folder(tmp_path_factory.mktemp("base") / "base")


def read_damaged(folder: Path, path: Path, content: bytes) -> str:
    """Why the folder is refused with other content in a file; empty if it is not."""
    kept = (folder / path).read_bytes()
    (folder / path).write_bytes(content)
    try:
        read_base_folder(folder)
    except BaseFolderInvalid as error:
        return str(error)
    finally:
        (folder / path).write_bytes(kept)
    return ""


def safetensors(header: Any, data: int = 0) -> bytes:
    """A file with a header as given and that many bytes behind it."""
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(data)


def test_shapes_come_from_the_header_and_progress_counts_every_byte(folder: Path) -> None:
    heard: list[int] = []
    content = read_base_folder(folder, heard.append)
    layers = {name.removesuffix(".weight") for name, shape in UNET_SHAPES.items() if len(shape) > 1}
    assert {name for name in content.layers if name.startswith("unet.")} == {f"unet.{layer}" for layer in layers}
    assert len(content.layers) == len(layers) + len(TEXT_SHAPES)
    assert sum(heard) == weight_bytes(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x02\x00\x00\x00\x00\x00\x00",
        (1 << 62).to_bytes(8, "little") + b"{}",
        safetensors([]),
        safetensors({"a": 1}),
        safetensors({"a": {"shape": [1]}}),
        safetensors({"a": {"shape": [1], "data_offsets": [0]}}),
        safetensors({"a": {"shape": 3, "data_offsets": [0, 0]}}),
        safetensors({"a": {"shape": [float("inf")], "data_offsets": [0, 0]}}),
        safetensors({"a": {"shape": [1], "data_offsets": [0, float("inf")]}}),
        safetensors({"a": {"shape": [1], "data_offsets": [0, 4]}}, data=3),
        safetensors({"a": {"shape": [1], "data_offsets": [0, 4]}}, data=5),
        (100_002).to_bytes(8, "little") + b"[" * 100_002,
    ],
    ids=["empty", "short", "endless", "list", "number", "no offsets", "one offset", "no shape", "infinite side",
         "infinite end", "cut", "longer", "nested"],
)  # fmt: skip
def test_a_damaged_weight_file_is_refused_by_its_name(folder: Path, content: bytes) -> None:
    assert str(UNET) in read_damaged(folder, UNET, content)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_whatever_a_weight_file_holds_is_read_or_refused(folder: Path, data: st.DataObject) -> None:
    kept = bytearray((folder / UNET).read_bytes())
    if data.draw(st.booleans()):
        for _ in range(data.draw(st.integers(min_value=1, max_value=4))):
            kept[data.draw(st.integers(0, 600))] = data.draw(st.integers(0, 255))
        read_damaged(folder, UNET, bytes(kept))
    else:
        entry = st.fixed_dictionaries({"shape": JSON, "data_offsets": JSON}) | JSON
        header = data.draw(st.dictionaries(st.text(max_size=8), entry, max_size=3))
        read_damaged(folder, UNET, safetensors(header, data.draw(st.integers(0, 8))))


@settings(deadline=None, max_examples=200)
@given(
    name=st.sampled_from(
        ["model_index.json", "unet/config.json", "vae/config.json", "scheduler/scheduler_config.json"]
    ),
    body=JSON | st.dictionaries(
        st.sampled_from(["_class_name", "sample_size", "block_out_channels", "prediction_type"]), JSON
    ),
)  # fmt: skip
def test_whatever_a_configuration_holds_is_read_or_refused(folder: Path, name: str, body: Any) -> None:
    read_damaged(folder, Path(name), json.dumps(body).encode())
