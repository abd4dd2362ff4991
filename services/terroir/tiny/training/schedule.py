"""What both long runs share: a run is counted in steps, spread over one-thread processes, and resumable.

Steps and not minutes, so that a run is as long on a busy machine as on a quiet one.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing


def start_group(train: Callable[[int, argparse.Namespace], None], options: argparse.Namespace) -> None:
    """Run `train(rank, options)` in `options.processes` processes, which end with this one."""
    # Python ends its daemons on a normal exit only, and a plain SIGTERM is none.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
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


def learning_rate(peak: float, step: int, share: float, flat_until: float) -> float:
    """Linear warm-up over 200 steps, flat until `flat_until` of the run, then a cosine to 2 % of the peak."""
    if share > flat_until:
        progress = (share - flat_until) / (1.0 - flat_until)
        return peak * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * progress)))
    return peak * min(1.0, (step + 1) / 200)


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that a kill leaves the old or the new one, never half of one."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.replace(path)
