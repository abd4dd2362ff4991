"""A random pipeline, made once a session."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder of the tiny base's classes with random weights."""
    import torch  # deferred: most tests here do without

    from terroir.tiny.random_pipeline import build

    torch.set_num_threads(1)  # threads that wait for busy cores are slower than none

    return build(tmp_path_factory.mktemp("base") / "random", seed=3)


@pytest.fixture(scope="session")
def sdxl_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder of SDXL's classes with few channels and random weights."""
    import torch

    from tests.contract.lora.full_width import tiny_sdxl

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("sdxl") / "base"
    tiny_sdxl().save_pretrained(folder)
    return folder
