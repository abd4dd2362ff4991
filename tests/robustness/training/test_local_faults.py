"""Disks that are full or read-only and memory that runs out under a local run: named, with the next step."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from terroir.training.errors import OutputUnwritable
from terroir.training.local.run import run_locally
from tests.robustness.training.limited_run import on_disks, with_memory
from tests.tools.lacking import skip_without
from tests.unit.training.small_bases import small_sd
from tests.unit.training.training_kit import png

pytestmark = pytest.mark.slow

CONFIG = "train_data_dir: pictures\nbase_model: base\nlora_rank: 16\nsave_steps: 1\n"
SMALL = "resolution: 32\nmax_train_steps: 12\n"
_MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    small_sd(folder / "base")
    (folder / "pictures").mkdir()
    for number in range(2):
        (folder / "pictures" / f"{number}.png").write_bytes(png(number))
        (folder / "pictures" / f"{number}.txt").write_text("a red house")
    return folder


def told(folder: Path, name: str, keys: str, run: Callable[..., None], *limits: Any) -> list[dict[str, Any]]:
    """What a run said under limits, in a process that is forked from one that has everything imported."""
    config, answers = folder / f"{name}.yaml", folder / f"{name}.json"
    config.write_text(f"{CONFIG}{keys}output_dir: {name}\n")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([run.__module__, "diffusers", "transformers", "peft"])
    process = context.Process(target=run, args=(config, folder / name, *limits, answers))
    process.start()
    process.join(120)
    assert process.exitcode == 0
    return list(json.loads(answers.read_text()))


def ensure_mounted(request: pytest.FixtureRequest, said: list[dict[str, Any]]) -> None:
    if "refused" in said[0]:
        skip_without(request.config, "mount", str(said[0]["refused"]))


def test_a_full_disk_is_named_and_with_space_again_the_run_goes_on(
    folder: Path, request: pytest.FixtureRequest
) -> None:
    said = told(folder, "full", SMALL, on_disks, ["size=300k", "size=32m"])
    ensure_mounted(request, said)
    full, after = said
    assert full["reason"] in ("STORE_DISK_FULL", "OUTPUT_UNWRITABLE")
    assert "No space left on device" in full["message"] and "free space" in full["message"]
    assert "saved checkpoint of step 1" in full["log"] and "adapter.safetensors" not in full["files"]
    assert not any(name.endswith(".partial") for name in full["files"])
    assert "resumed at step" in after["log"] and "bit-exact" in after["log"]
    whole = folder / "whole.yaml"
    whole.write_text(f"{CONFIG}{SMALL}output_dir: whole\n")
    assert run_locally(whole, threads=1).files[0].read_bytes().hex() == after["adapter"]


def test_an_output_folder_that_may_not_be_written_is_named(folder: Path, request: pytest.FixtureRequest) -> None:
    said = told(folder, "sealed", SMALL, on_disks, ["ro"])
    ensure_mounted(request, said)
    assert said[0]["reason"] in ("STORE_READ_ONLY", "OUTPUT_UNWRITABLE")
    assert str(folder / "sealed") in said[0]["message"] and said[0]["files"] == []


@pytest.mark.parametrize("place", ["taken", "taken/below"])
def test_a_file_in_the_place_of_the_output_folder_is_named(folder: Path, place: str) -> None:
    (folder / "taken").write_text("a file")
    config = folder / "taken.yaml"
    config.write_text(f"{CONFIG}{SMALL}output_dir: {place}\n")
    with pytest.raises(OutputUnwritable, match=r"taken.*another output_dir") as refused:
        run_locally(config, threads=1)
    assert refused.value.field == "output_dir" and (folder / "taken").read_text() == "a file"


def test_memory_that_runs_out_names_keys_and_values_to_try(folder: Path) -> None:
    """torch's allocator says it by a RuntimeError of its own, which was once taken for an unforeseen one."""
    keys = "resolution: 1024\nbatch_size: 8\nmax_train_steps: 1\n"
    said = told(folder, "large", keys, with_memory, 700 * _MEBIBYTE)
    assert said[0]["reason"] == "OUT_OF_MEMORY", said[0]
    assert "batch_size 8 → 4 and gradient_accumulation_steps 1 → 2" in said[0]["message"]
    assert "docs/troubleshooting.md#out-of-memory" in said[0]["message"]
