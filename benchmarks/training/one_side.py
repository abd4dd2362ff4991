"""One side of a training comparison in a process of its own: `python -m benchmarks.training.one_side ORDER`.

ORDER is JSON: `side` (`ours` or `plain`), `base` (diffusers folder), `pictures` (folder), `config` (keys of a training
configuration), `threads`, `device` and `memory_fraction`. The last line of what it prints is JSON: `step_seconds`
(median of a warm step), `samples_per_second`, `bound` of a loop with encoders, and `device_bytes`, the most that
tensors took of a GPU's memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from benchmarks.memory import PeakMemory, ProcessTree

_CHECKOUT: Final = Path(__file__).resolve().parents[2]
_INTERVAL_SECONDS: Final = 0.1
_MOST_SECONDS: Final = 1800.0
WARM_UP_STEPS: Final = 1
"""Steps after the first that count for nothing; the first begins at no step's end."""


@dataclass(frozen=True)
class Order:
    """As above."""

    side: str
    base: str
    pictures: str
    config: Mapping[str, Any]
    threads: int
    device: str = "cpu"
    memory_fraction: float | None = None


@dataclass(frozen=True)
class Measured:
    """What a side reached."""

    step_seconds: float
    samples_per_second: float
    bound: float | None
    device_bytes: int
    peak_bytes: int = 0
    """Summed PSS of its process tree, torch and the base included."""


class SideFailed(Exception):
    """The process ended otherwise, with the message as its last line, or not in time."""


def measure(order: Order) -> Measured:
    """Run a side and watch its memory. Raises SideFailed."""
    printed, peak_bytes = watched([sys.executable, "-m", "benchmarks.training.one_side", json.dumps(asdict(order))])
    return Measured(**{**json.loads(printed.splitlines()[-1]), "peak_bytes": peak_bytes})


def watched(
    command: Sequence[str],
    environment: Mapping[str, str] = MappingProxyType({}),
    timeout_seconds: float = _MOST_SECONDS,
) -> tuple[str, int]:
    """What a command printed, and the most memory that it and what it started took. Raises SideFailed."""
    tree = ProcessTree()
    told = {**os.environ, **environment, **tree.environment}
    try:
        with PeakMemory(tree, _INTERVAL_SECONDS) as memory:
            done = subprocess.run(
                command, cwd=_CHECKOUT, env=told, capture_output=True, text=True, check=False, timeout=timeout_seconds
            )
    except subprocess.TimeoutExpired as expired:
        raise SideFailed(f"it did not end within {timeout_seconds:g} s") from expired
    if done.returncode:
        raise SideFailed((done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1][:300])
    return done.stdout, memory.peak_bytes


def run(order: Order) -> Measured:
    """Train one side in this process."""
    import torch

    from benchmarks.training.sides import Place, ours, plain
    from terroir.training.config.parser import config_from_mapping
    from terroir.training.engine.cache import MemoryArrayCache

    config, data = config_from_mapping(order.config).config, pictures_of(Path(order.pictures))
    place = Place(Path(order.base), order.threads, order.device, order.memory_fraction)
    cuda = order.device.startswith("cuda")
    if cuda and order.memory_fraction is not None:
        torch.cuda.set_per_process_memory_fraction(order.memory_fraction, order.device)
    if order.side == "ours":
        done = ours(place, config, data, MemoryArrayCache(), WARM_UP_STEPS)
    else:
        done = plain(place, config, data, WARM_UP_STEPS)
    return Measured(
        step_seconds=done.step_seconds,
        samples_per_second=config.samples_per_step / done.step_seconds,
        bound=None if order.side == "ours" else done.components.bound,
        device_bytes=torch.cuda.max_memory_allocated(order.device) if cuda else 0,
    )


def pictures_of(folder: Path) -> list[Any]:
    """A folder of pictures with captions, as the engine takes them."""
    from terroir.client import scan_folder
    from terroir.training.engine.ports import Picture

    return [Picture(found.path.name, found.path.read_bytes(), found.caption) for found in scan_folder(folder)]


if __name__ == "__main__":
    print(json.dumps(asdict(run(Order(**json.loads(sys.argv[1]))))))
