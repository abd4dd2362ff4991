"""Digests by which model sites name a file are those that their tools compute."""

from __future__ import annotations

import hashlib

import numpy as np

from terroir.lora import safetensors_bytes
from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.formats import kohya_file
from terroir.lora.hashes import site_hashes
from tests.unit.lora.adapters import random_adapter


def test_all_hashes_follow_their_definitions():
    """A1111 `modules/hashes.py`, sd-scripts `library/train_util.py` (addnet_hash_safetensors), Civitai's names."""
    rng = np.random.default_rng(0)
    down, up = rng.standard_normal((200, 900), np.float32), rng.standard_normal((900, 200), np.float32)
    data = kohya_file(Adapter({"unet.mid_block.x": LoraModule(down, up, 1.0)}), {}).data
    behind = data[8 + int.from_bytes(data[:8], "little") :]
    assert site_hashes(data) == {
        "autov1": hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8],
        "autov2": hashlib.sha256(data).hexdigest()[:10],
        "autov3": hashlib.sha256(behind).hexdigest()[:12],
        "kohya": hashlib.sha256(behind).hexdigest(),
    }


def test_what_is_known_already_is_not_computed_again():
    file = kohya_file(random_adapter(1), {})
    digest = hashlib.sha256(file.data).hexdigest()
    assert site_hashes(file.data) == site_hashes(file.data, file_digest=digest, body_digest=file.body_digest)


def test_short_files_have_no_autov1():
    assert "autov1" not in site_hashes(kohya_file(random_adapter(1), {}).data)


def test_another_header_changes_only_the_digest_of_the_whole_file():
    data = kohya_file(random_adapter(1), {"note": "a"}).data
    other = safetensors_bytes.with_metadata(data, {"note": "b"})
    first, second = site_hashes(data), site_hashes(other)
    assert first["autov2"] != second["autov2"]
    assert (first["kohya"], first["autov3"]) == (second["kohya"], second["autov3"])


def test_the_header_names_the_hash_of_its_own_file():
    data = kohya_file(random_adapter(1), {"modelspec.sai_model_spec": "1.0.1"}).data
    metadata = safetensors_bytes.read(data).metadata
    assert metadata["sshs_model_hash"] == site_hashes(data)["kohya"]
    assert metadata["modelspec.hash_sha256"] == f"0x{site_hashes(data)['kohya']}"
