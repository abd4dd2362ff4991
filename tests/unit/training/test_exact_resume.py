"""Whatever the options, a run killed again and again equals one never killed, bit for bit on a processor."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from training_kit import Bench, Killed, MemorySinks, flat

from terroir.training.engine.data.batches import Batches
from terroir.training.engine.state import adapter_in

RUNS = int(os.environ.get("TERROIR_SOAK_RESUMES", "1"))
STEPS = 6
HARD: dict[str, Any] = {
    "mixed_precision": "fp16", "use_dora": True, "use_rslora": True, "conv_rank": 2, "text_encoder_lr": 1e-2,
    "text_encoder_stop_step": 4, "ema_decay": 0.9, "loraplus_lr_ratio": 4, "lora_dropout": 0.2,
    "gradient_accumulation_steps": 2, "gradient_checkpointing": True, "lr_scheduler": "cosine_with_restarts",
    "block_lr_weights": {"down_blocks": 0.5, "mid_block": 0},
}  # fmt: skip

OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "optimizer": st.sampled_from(["adamw", "adam", "sgd"]),
        "mixed_precision": st.sampled_from(["bf16", "fp16"]),
        "use_dora": st.booleans(),
        "use_rslora": st.booleans(),
        "conv_rank": st.sampled_from([1, 3]),
        "text_encoder_lr": st.just(1e-2),
        "ema_decay": st.sampled_from([0.5, 0.999]),
        "loraplus_lr_ratio": st.just(8),
        "lora_dropout": st.sampled_from([0.1, 0.5]),
        "gradient_accumulation_steps": st.sampled_from([2, 3]),
        "gradient_checkpointing": st.booleans(),
        "lr_scheduler": st.sampled_from(["linear", "cosine", "cosine_with_restarts"]),
        "lr_warmup_steps": st.sampled_from([2, 5]),
        "block_lr_weights": st.just({"down_blocks": 0.5, "mid_block": 0}),
        "horizontal_flip": st.booleans(),
        "augment_color_jitter": st.just(0.2),
        "noise_offset": st.just(0.1),
        "min_snr_gamma": st.just(5),
        "shuffle_caption": st.booleans(),
        "enable_bucket": st.booleans(),
    },
)


def run_with_kills(bench: Bench, kills: list[int], keys: dict[str, Any]) -> tuple[Any, MemorySinks]:
    """Run to the end, dying at the given forward passes, counted anew after each death."""
    sinks = MemorySinks()
    make = Batches.make
    for kill in kills:
        left = kill

        def dying(self: Batches, *place: int) -> Any:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return make(self, *place)

        Batches.make = dying
        try:
            return bench.run(sinks, **keys), sinks  # it was over before its death
        except Killed:
            pass
        finally:
            Batches.make = make
    return bench.run(sinks, **keys), sinks


@settings(max_examples=RUNS, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
@given(options=OPTIONS, kills=st.lists(st.integers(0, STEPS), min_size=3, max_size=4), save_steps=st.integers(1, 3))
@example(options=HARD, kills=[5, 3, 4], save_steps=2)
@pytest.mark.slow
def test_a_run_killed_at_random_passes_equals_one_never_killed(
    small: Bench, options: dict[str, Any], kills: list[int], save_steps: int
) -> None:
    buckets = {"bucket_reso_steps": 8, "min_bucket_reso": 16, "max_bucket_reso": 64}
    keys = {**options, **(buckets if options.get("enable_bucket") else {}), "max_train_steps": STEPS}
    whole_sinks = MemorySinks()
    whole = small.run(whole_sinks, **keys, save_steps=save_steps)
    resumed, sinks = run_with_kills(small, kills, {**keys, "save_steps": save_steps})
    assert (flat(resumed.adapter) == flat(whole.adapter)).all()
    assert (resumed.loss, resumed.skipped_batches) == (whole.loss, whole.skipped_batches)
    assert sinks.checkpoints[-1].state == whole_sinks.checkpoints[-1].state, "optimiser, average and scale too"
    assert adapter_in(sinks.checkpoints[-1]).tensor_digest() == whole.adapter.tensor_digest()


def test_an_adapter_is_read_from_a_checkpoint_without_its_base(small: Bench) -> None:
    sinks = MemorySinks()
    keys: dict[str, Any] = {"use_dora": True, "conv_rank": 2, "use_rslora": True, "text_encoder_lr": 1e-2}
    result = small.run(sinks, **keys, save_steps=2)
    assert adapter_in(sinks.checkpoints[-1]).tensor_digest() == result.adapter.tensor_digest()
    assert adapter_in(sinks.checkpoints[0]).tensor_digest() != result.adapter.tensor_digest()
    assert sinks.checkpoints[-1].adapter_bytes == result.adapter.size_bytes
