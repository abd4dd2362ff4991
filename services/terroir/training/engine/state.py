"""The state of a run as bytes: adapter weights, optimiser state and counters, from which it goes on exactly."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from safetensors.torch import load, save
from torch import Tensor, nn, optim

from terroir.training.engine.ports import Checkpoint, TrainRun
from terroir.training.errors import CheckpointMismatch

_FORMAT: Final = 1
_WITHOUT_EFFECT: Final = ("save_steps", "max_bad_batches", "adapter", "output_dir", "dataset", "train_data_dir")


@dataclass
class Counters:
    """What a run counts; all of it survives a restart."""

    step: int = 0
    """Optimiser steps done, skipped ones included."""
    skipped: int = 0
    skipped_in_a_row: int = 0
    losses: list[float] = field(default_factory=list)
    """Losses of the last steps."""

    @property
    def mean_loss(self) -> float:
        """Mean over the last steps; 0 before the first."""
        return sum(self.losses) / len(self.losses) if self.losses else 0.0


def fingerprint(run: TrainRun, data_digest: str, total_steps: int) -> str:
    """Digest of everything that decides the weights; a checkpoint of another fingerprint is refused."""
    config = run.config.model_dump(mode="json")
    facts = {
        "config": {key: value for key, value in config.items() if key not in _WITHOUT_EFFECT},
        "base": dict(run.component_digests),
        "data": data_digest,
        "steps": total_steps,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def environment(run: TrainRun) -> dict[str, str]:
    """What must be equal for a resumed run to be bit-exact."""
    return {
        "torch": torch.__version__,
        "threads": str(run.threads),
        "device": run.device,
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


def pack(
    weights: list[tuple[str, nn.Parameter]],
    optimizer: optim.Optimizer,
    counters: Counters,
    *,
    run_fingerprint: str,
    environment: Mapping[str, str],
) -> Checkpoint:
    """Everything that `unpack` needs, as one safetensors file."""
    tensors = {f"lora.{name}": weight.detach().cpu().contiguous() for name, weight in weights}
    adapter_bytes = sum(tensor.nbytes for tensor in tensors.values())
    for index, (_, weight) in enumerate(weights):
        for key, value in optimizer.state.get(weight, {}).items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{key}"] = value.detach().cpu().clone()
    header = {
        "format": _FORMAT,
        "fingerprint": run_fingerprint,
        "environment": dict(environment),
        "counters": counters.__dict__,
    }
    state = save(tensors, metadata={"terroir": json.dumps(header)})
    return Checkpoint(counters.step, counters.mean_loss, adapter_bytes, state)


def unpack(
    checkpoint: Checkpoint,
    weights: list[tuple[str, nn.Parameter]],
    optimizer: optim.Optimizer,
    *,
    run_fingerprint: str,
) -> tuple[Counters, dict[str, str]]:
    """Restore weights and optimiser in place; returns the counters and the environment that saved them.

    Raises CheckpointMismatch if the checkpoint belongs to another run.
    """
    header = _header(checkpoint.state)
    if header.get("format") != _FORMAT or header.get("fingerprint") != run_fingerprint:
        raise CheckpointMismatch(
            f"the checkpoint of step {checkpoint.step} belongs to another configuration, base or data set; "
            "start a new job for the changed run"
        )
    tensors = load(checkpoint.state)
    for index, (name, weight) in enumerate(weights):
        with torch.no_grad():
            weight.copy_(tensors[f"lora.{name}"])
        start = f"optimizer.{index}."
        kept = {key.removeprefix(start): value for key, value in tensors.items() if key.startswith(start)}
        if kept:
            # The step count stays where the fused kernels want it; all else follows the weight.
            optimizer.state[weight] = {key: value.clone().to(weight.device) for key, value in kept.items()}
    return Counters(**header["counters"]), dict(header["environment"])


def _header(state: bytes) -> dict[str, Any]:
    length = int.from_bytes(state[:8], "little")
    metadata = json.loads(state[8 : 8 + length]).get("__metadata__", {})
    header: dict[str, Any] = json.loads(metadata.get("terroir", "{}"))
    return header
