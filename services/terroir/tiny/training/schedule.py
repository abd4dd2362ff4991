"""What both long runs share: a run is measured in minutes, spread over one-thread processes, and resumable."""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing


def start_group(train: Callable[[int, argparse.Namespace], None], options: argparse.Namespace) -> None:
    """Run `train(rank, options)` in `options.processes` processes, which end with this one."""
    # No types are published for this. Daemons, because orphans would train on and overwrite checkpoints.
    start: Callable[..., None] = vars(torch.multiprocessing)["start_processes"]
    start(train, args=(options,), nprocs=options.processes, daemon=True, start_method="spawn")


def join_group(rank: int, world: int, port: int) -> None:
    """Meet the other processes on loopback and take one thread each (two one-thread processes beat one of two)."""
    torch.set_num_threads(1)
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ["MASTER_PORT"] = str(port)
    dist.init_process_group("gloo", rank=rank, world_size=world)


def average_gradients(parameters: list[torch.nn.Parameter]) -> None:
    """Replace each gradient by its mean over the group, in one message."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    offset = 0
    for gradient in gradients:
        count = gradient.numel()
        gradient.copy_(flat[offset : offset + count].view_as(gradient))
        offset += count


class Budget:
    """Minutes of training that are used up across restarts; all processes see the same share."""

    def __init__(self, minutes: float, used_seconds: float) -> None:
        self._total = minutes * 60.0
        self._used = used_seconds
        self._since = time.monotonic()

    def share(self) -> float:
        """Used share of the budget, 0 … 1, agreed by the group."""
        value = torch.tensor(min(1.0, self.used_seconds() / self._total))
        dist.broadcast(value, 0)
        return float(value)

    def used_seconds(self) -> float:
        """Seconds of training so far, restarts included."""
        return self._used + time.monotonic() - self._since


def learning_rate(peak: float, step: int, share: float, flat_until: float) -> float:
    """Linear warm-up over 200 steps, flat until `flat_until` of the budget, then a cosine to 2 % of the peak."""
    if share > flat_until:
        progress = (share - flat_until) / (1.0 - flat_until)
        return peak * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * progress)))
    return peak * min(1.0, (step + 1) / 200)


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that a kill leaves the old or the new one, never half of one."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)
