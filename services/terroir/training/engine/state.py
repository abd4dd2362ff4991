"""The state of a run as bytes: weights, their average, optimiser, loss scale and counters, to go on from exactly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import torch
from safetensors.torch import load, save
from torch import Tensor, optim

from terroir.lora.adapter import Adapter
from terroir.training.engine.adapters.canonical import adapter_of
from terroir.training.engine.adapters.layers import AdapterLayers
from terroir.training.engine.ema import Average
from terroir.training.engine.identity import differences
from terroir.training.engine.ports import Checkpoint
from terroir.training.engine.precision import Precision
from terroir.training.errors import CheckpointMismatch

_FORMAT: Final = 2
_WEIGHT, _AVERAGE, _OPTIMIZER = "weight.", "average.", "optimizer."


@dataclass
class Counters:
    """What a run counts; all of it survives a restart."""

    step: int = 0
    """Optimiser steps done, those that changed nothing included."""
    skipped: int = 0
    """Bad batches."""
    skipped_in_a_row: int = 0
    overflows: int = 0
    """Steps that lowered the loss scale."""
    losses: list[float] = field(default_factory=list)
    """Losses of the last steps."""

    @property
    def mean_loss(self) -> float:
        """Mean over the last steps; 0 before the first."""
        return sum(self.losses) / len(self.losses) if self.losses else 0.0

    @property
    def updates(self) -> int:
        """Steps that changed the weights."""
        return self.step - self.skipped - self.overflows


@dataclass(frozen=True)
class RunState:
    """All that a run changes."""

    layers: AdapterLayers
    optimizer: optim.Optimizer
    precision: Precision
    average: Average | None

    def pack(self, counters: Counters, *, facts: Mapping[str, Any], environment: Mapping[str, str]) -> Checkpoint:
        """Everything that `unpack` needs, as one safetensors file."""
        tensors = {_WEIGHT + weight.name: _stored(weight.parameter) for weight in self.layers.weights}
        adapter_bytes = sum(tensor.nbytes for tensor in tensors.values())
        if self.average is not None:
            tensors |= {_AVERAGE + name: _stored(value) for name, value in self.average.values.items()}
        for weight in self.layers.weights:
            for key, value in self.optimizer.state.get(weight.parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"{_OPTIMIZER}{weight.name}.{key}"] = _stored(value)
        header = {
            "format": _FORMAT,
            "facts": dict(facts),
            "environment": dict(environment),
            "counters": asdict(counters),
            "loss_scale": dict(self.precision.state()),
            "alphas": dict(self.layers.alphas),
        }
        state = save(tensors, metadata={"terroir": json.dumps(header)})
        return Checkpoint(counters.step, counters.mean_loss, adapter_bytes, state)

    def unpack(self, state: bytes, facts: Mapping[str, Any]) -> tuple[Counters, dict[str, str]]:
        """Restore everything in place; returns the counters and the environment that saved them.

        Raises CheckpointMismatch with every difference if the checkpoint belongs to another run.
        """
        header = _header(state)
        counters = Counters(**header["counters"])
        _ensure_same_run(counters.step, header["facts"], facts)
        tensors = load(state)
        with torch.no_grad():
            for weight in self.layers.weights:
                weight.parameter.copy_(tensors[_WEIGHT + weight.name])
            if self.average is not None:
                for name, value in self.average.values.items():
                    value.copy_(tensors[_AVERAGE + name])
        self._restore_optimizer(tensors)
        self.precision.restore(header["loss_scale"])
        return counters, dict(header["environment"])

    def _restore_optimizer(self, tensors: Mapping[str, Tensor]) -> None:
        parameters = {weight.name: weight.parameter for weight in self.layers.weights}
        for name, value in tensors.items():
            if name.startswith(_OPTIMIZER):
                of, _, key = name.removeprefix(_OPTIMIZER).rpartition(".")
                parameter = parameters[of]
                self.optimizer.state.setdefault(parameter, {})[key] = value.clone().to(parameter.device)

    def adapter(self) -> Adapter:
        """What would be published now: the average, if there is one."""
        if self.average is None:
            return self.layers.extract()
        return adapter_of(self.average.values, self.layers.alphas)


def adapter_in(checkpoint: Checkpoint) -> Adapter:
    """What would have been published at a checkpoint, read without the base; raises CheckpointMismatch."""
    header, tensors = _header(checkpoint.state), load(checkpoint.state)
    prefix = _AVERAGE if any(key.startswith(_AVERAGE) for key in tensors) else _WEIGHT
    return adapter_of({k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}, header["alphas"])


def _ensure_same_run(step: int, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = differences(before, now)
    if changed:
        told = ", ".join(f"{name} {change}" for name, change in changed.items())
        raise CheckpointMismatch(
            f"the checkpoint of step {step} belongs to another run ({told}); undo the change, or start a new job for "
            "the changed run",
            metadata=changed,
        )


def _stored(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def _header(state: bytes) -> dict[str, Any]:
    length = int.from_bytes(state[:8], "little")
    metadata = json.loads(state[8 : 8 + length]).get("__metadata__", {})
    header: dict[str, Any] = json.loads(metadata.get("terroir", "{}"))
    if header.get("format") != _FORMAT:
        raise CheckpointMismatch(
            f"the checkpoint has format {header.get('format')}, this release reads {_FORMAT}; start a new job"
        )
    return header
