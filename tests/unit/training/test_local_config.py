"""What a run without a server makes of keys that were written for the service."""

from __future__ import annotations

from pathlib import Path

import pytest

from terroir.training.config import TrainConfig
from terroir.training.errors import ConfigInvalid
from terroir.training.local.config import _of_one_worker, _of_the_service, read_local_config


def test_keys_of_the_service_alone_are_told(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("train_data_dir: p\ndataset: datasets/ink\nreg_dataset: datasets/plain\n")
    warnings = read_local_config(tmp_path / "s.yaml", {}).warnings
    for key in ("dataset datasets/ink", "reg_dataset datasets/plain"):
        assert any(warning.startswith(f"{key}: a run without a server takes no notice") for warning in warnings)


def test_several_workers_become_passes_of_one() -> None:
    config = TrainConfig(num_workers=3, gradient_accumulation_steps=2, team="tea")
    assert [told.split(":")[0] for told in _of_the_service(config)] == ["team tea", "num_workers 3"]
    alone = _of_one_worker(config)
    assert (alone.num_workers, alone.gradient_accumulation_steps) == (1, 6)
    assert alone.samples_per_step == config.samples_per_step


def test_more_passes_than_a_step_can_have_are_refused() -> None:
    with pytest.raises(ConfigInvalid, match="2048 passes a step") as refused:
        _of_one_worker(TrainConfig(num_workers=4, gradient_accumulation_steps=512))
    assert refused.value.field == "num_workers"
