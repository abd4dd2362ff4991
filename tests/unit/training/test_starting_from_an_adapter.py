"""Going on from an adapter: the run begins with its values, and only with those of its own form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_kit import adapted, config, filled, forward, load
from training_kit import Bench, MemorySinks, flat

from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.base_folder import read_base_folder
from terroir.lora.formats import parse, to_kohya
from terroir.training.engine.adapters.layers import plan
from terroir.training.errors import CheckpointMismatch, PretrainedMismatch

FORMS: dict[str, dict[str, Any]] = {
    "LoRA": {"lora_alpha": 3},
    "everything": {
        "use_dora": True, "use_rslora": True, "conv_rank": 2, "lora_rank": 3, "lora_alpha": 5, "text_encoder_lr": 1e-4,
    },
}  # fmt: skip


def trained(folder: Path, **keys: Any) -> Adapter:
    return filled(adapted(folder, **keys)[1]).extract()


@pytest.mark.parametrize("base", ["sd_dir", "sdxl_dir"])
@pytest.mark.parametrize("keys", FORMS.values(), ids=FORMS)
def test_a_run_begins_with_the_adapter_that_a_file_holds(
    base: str, keys: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(base)
    file = to_kohya(trained(folder, **keys), {}, sdxl=base == "sdxl_dir")
    start = parse(file, read_base_folder(folder).layers).adapter
    family, layers = adapted(folder, start, **keys)
    assert layers.extract().tensor_digest() == start.tensor_digest()
    original = adapted(folder, **keys)
    filled(original[1])
    with torch.no_grad():
        assert torch.allclose(forward(family), forward(original[0]), atol=1e-5)


@pytest.mark.parametrize(
    ("theirs", "ours", "told"),
    [
        ({"lora_rank": 8}, {"lora_rank": 4}, {"lora_rank": "8 -> 4"}),
        ({"lora_alpha": 2}, {"lora_alpha": 1}, {"lora_alpha": "2 -> 1"}),
        ({"use_rslora": True}, {}, {"lora_alpha": "2.82843 -> 2"}),
        ({"use_dora": True}, {}, {"use_dora": "true -> false"}),
        ({}, {"use_dora": True}, {"use_dora": "false -> true"}),
        ({"conv_rank": 2}, {"conv_rank": 3}, {"conv_rank": "2 -> 3"}),
        ({"conv_rank": 2}, {"conv_rank": 2, "conv_alpha": 1}, {"conv_alpha": "2 -> 1"}),
        ({"lora_rank": 8, "use_dora": True}, {}, {"lora_rank": "8 -> 2", "use_dora": "true -> false"}),
    ],
    ids=str,
)
def test_an_adapter_of_another_form_is_refused_field_by_field(
    sd_dir: Path, theirs: dict[str, Any], ours: dict[str, Any], told: dict[str, str]
) -> None:
    start = trained(sd_dir, **{"lora_rank": 2, **theirs})
    with pytest.raises(PretrainedMismatch) as error:
        plan(load(sd_dir), config(**{"lora_rank": 2, **ours}), start)
    assert error.value.metadata == told
    assert all(f"{name}: {change}" in str(error.value) for name, change in told.items())
    assert (error.value.reason, error.value.field) == ("PRETRAINED_MISMATCH", "pretrained_lora")


def test_layers_that_only_one_of_them_has_are_counted_and_named(sd_dir: Path) -> None:
    start = trained(sd_dir, target_modules=["to_q", "to_k"])
    with pytest.raises(PretrainedMismatch) as error:
        plan(load(sd_dir), config(target_modules=["to_q", "to_v"]), start)
    told = error.value.metadata
    assert "attn1.to_k" in told["layers of the adapter alone"] and "attn1.to_v" in told["layers of the run alone"]
    assert told["layers of the run alone"].startswith("8 (") and told["layers of the run alone"].endswith(", …)")


def test_an_adapter_of_text_encoders_too_needs_a_run_that_trains_them(sd_dir: Path) -> None:
    start = trained(sd_dir, text_encoder_lr=1e-4)
    with pytest.raises(PretrainedMismatch, match=r"layers of the adapter alone: 8 \(text_encoder\.text_model"):
        plan(load(sd_dir), config(), start)


def test_a_loha_is_refused(sd_dir: Path) -> None:
    class Loha(LoraModule):
        kind = "loha"

    start = trained(sd_dir)
    other = Adapter({layer: Loha(m.down, m.up, m.alpha) for layer, m in start.modules.items()})
    with pytest.raises(PretrainedMismatch, match="kind: loha -> lora"):
        plan(load(sd_dir), config(), other)


def test_a_frozen_block_keeps_the_values_that_the_run_starts_with(small: Bench, sd_dir: Path) -> None:
    start = trained(sd_dir)
    result = small.run(start=start, block_lr_weights={"mid_block": 0, "down_blocks": 0.5})
    for layer, module in result.adapter.modules.items():
        before = start.modules[layer]
        same = np.array_equal(flat(Adapter({layer: module})), flat(Adapter({layer: before})))
        assert same == layer.startswith("unet.mid_block"), layer
    assert result.adapter.modules.keys() == start.modules.keys()


def test_a_run_from_an_adapter_trains_on_and_resumes_only_with_it(small: Bench, sd_dir: Path) -> None:
    start = trained(sd_dir)
    sinks = MemorySinks()
    whole = small.run(start=start)
    assert not np.allclose(flat(whole.adapter), flat(start)) and not np.allclose(
        flat(whole.adapter), flat(small.run().adapter)
    )
    small.run(sinks, start=start, max_train_steps=4, save_steps=2)
    sinks.checkpoints = sinks.checkpoints[:1]
    assert (flat(small.run(sinks, start=start).adapter) == flat(whole.adapter)).all()
    other = Adapter({layer: replace(m, up=m.up * 2) for layer, m in start.modules.items()})
    with pytest.raises(CheckpointMismatch, match=r"start [0-9a-f]{12} -> [0-9a-f]{12}"):
        small.run(sinks, start=other)
