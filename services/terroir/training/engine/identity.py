"""What decides a run's weights, fact by fact: a checkpoint goes on only in the run that it belongs to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import torch

from terroir.training.config import TrainConfig
from terroir.training.config.judging_keys import JudgingKeys
from terroir.training.config.scheduling_keys import SchedulingKeys
from terroir.training.engine.ports import TrainRun

_WITHOUT_EFFECT: Final = frozenset({
    "save_steps", "max_bad_batches", "profile",
    # Names of what the digests below tell.
    "adapter", "output_dir", "dataset", "train_data_dir", "metadata_path", "reg_dataset", "reg_data_dir",
    "base_model", "pretrained_lora",
    *JudgingKeys.model_fields, *(SchedulingKeys.model_fields.keys() - {"num_workers"}),
})  # fmt: skip
_ABSENT: Final = "none"
_DIGITS: Final = 12
"""Of a digest in a message."""


def facts(run: TrainRun, data_digest: str, total_steps: int) -> dict[str, Any]:
    """Every fact by name: keys of the configuration, digests of base and data, the start; plain JSON values."""
    config = run.config.model_dump(mode="json")
    return {
        **{key: value for key, value in config.items() if key not in _WITHOUT_EFFECT},
        **{f"base {component}": digest for component, digest in run.component_digests.items()},
        "data": data_digest,
        "start": _ABSENT if run.start is None else run.start.tensor_digest(),
        "steps in all": total_steps,
    }


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """`<before> -> <now>` by name of the fact.

    A key that an earlier release did not have is taken for its default, with which nothing has changed.
    """
    changed = {}
    for name in sorted(before.keys() | now.keys()):
        sides = [side[name] if name in side else _usual(name, side) for side in (before, now)]
        if json.dumps(sides[0], default=str) != json.dumps(sides[1], default=str):
            changed[name] = " -> ".join(map(_shown, sides))
    return changed


def environment(run: TrainRun) -> dict[str, str]:
    """What must be equal for a resumed run to be bit-exact."""
    return {
        "torch": torch.__version__,
        "threads": str(run.threads),
        "device": _device_name(run.device),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


def _device_name(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _usual(name: str, known: Mapping[str, Any]) -> Any:
    """A key's default, which may depend on other keys."""
    key = TrainConfig.model_fields.get(name)
    return _ABSENT if key is None else key.get_default(call_default_factory=True, validated_data=dict(known))


def _shown(value: Any) -> str:
    if value is None:
        return "unset"
    text = value if isinstance(value, str) else json.dumps(value)
    digest = len(text) == 64 and all(digit in "0123456789abcdef" for digit in text)
    return text[:_DIGITS] if digest else text[:80]
