"""What the engine takes and gives: plain values, and the seams through which it speaks to the world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from terroir.lora.adapter import Adapter
from terroir.training.config import TrainConfig

if TYPE_CHECKING:
    from torch import Tensor  # the service reads these values without having torch

Arrays = Mapping[str, npt.NDArray[np.float32]]
"""Named arrays, as the caches keep them."""


@dataclass(frozen=True)
class Picture:
    """One training picture: the file's bytes and its caption."""

    name: str
    """For error messages."""
    data: bytes
    caption: str
    mask: bytes | None = None
    """Picture file of where the loss counts, white where it does; None: the alpha channel says it, if there is one."""


@dataclass(frozen=True)
class TrainRun:
    """What to train, on which base, with how many threads."""

    config: TrainConfig
    base_dir: Path
    """diffusers folder."""
    component_digests: Mapping[str, str]
    """SHA-256 (hex) of each component's weight file; part of the caches' keys."""
    trigger_word: str = ""
    """The dataset's own; the configuration's replaces it."""
    device: str = "cpu"
    threads: int = 1
    start: Adapter | None = None
    """The adapter to go on from; None: a fresh one."""
    memory_fraction: float | None = None
    """Share of the GPU's memory that the run may take, where it has a share of the GPU; None: all of it."""


@dataclass(frozen=True)
class TrainProgress:
    """How far a run is."""

    phase: str
    """`preparing`, `caching`, `training`, `judging`, `publishing` or `done`."""
    step: int = 0
    total_steps: int = 0
    loss: float = 0.0
    """Mean over the last steps."""
    learning_rate: float = 0.0
    steps_per_second: float = 0.0
    eta_seconds: float = 0.0
    skipped_batches: int = 0
    encoded: int = 0
    """Pictures and captions that are encoded, of `to_encode`, in phase `caching`."""
    to_encode: int = 0
    drawn: int = 0
    """Pictures that are drawn, of `to_draw` at most, in phase `judging`."""
    to_draw: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """A state of training from which it goes on exactly."""

    step: int
    loss: float
    adapter_bytes: int
    """Size of the adapter weights within `state`."""
    state: bytes
    """safetensors with everything that resuming needs."""


@dataclass(frozen=True)
class TrainResult:
    """The trained adapter."""

    adapter: Adapter
    steps: int
    loss: float
    skipped_batches: int
    pictures: int
    family: str
    """Of the base, as the registry calls it."""
    prediction_type: str
    """What the denoiser was taught to predict: `epsilon` or `v_prediction`."""
    hint: str = ""
    """What the losses suggest to try; empty if they look as they should."""


class ArrayCache(Protocol):
    """Keeps arrays by the digest of what they were computed from; losing any of them costs only time."""

    def get(self, key: str) -> Arrays | None:
        """The arrays under `key`, if they are still there."""

    def put(self, key: str, arrays: Arrays) -> None:
        """Keep arrays under `key`."""


class Sinks(Protocol):
    """Where a run reports to. Calls come from the training thread, so they must be quick."""

    def progress(self, progress: TrainProgress) -> None:
        """At most about twice a second, and at every change of phase."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Curves, at every optimiser step."""

    def log(self, line: str) -> None:
        """One line for people."""

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint, all of it or nothing."""

    def sample(self, step: int, adapter: Adapter) -> None:
        """Draw sample pictures with the adapter as it is, where the run's `sample_prompts` ask for them."""

    def newest(self) -> Checkpoint | None:
        """The checkpoint to go on from."""

    def stop_requested(self) -> bool:
        """Whether to end before the next step."""


class Collective(Protocol):
    """The workers of one run, who all make the same calls in the same order."""

    @property
    def rank(self) -> int:
        """This worker's number, from 0; number 0 alone saves and reports."""

    @property
    def world(self) -> int:
        """How many workers there are."""

    def average_(self, tensors: Sequence[Tensor]) -> None:
        """Replace fp32 tensors by their mean over the workers, with the same bits on each."""

    def any(self, value: bool) -> bool:
        """Whether it is true of any worker."""

    def broadcast(self, value: bytes | None) -> bytes | None:
        """What worker 0 gave; the others' is ignored."""


class Stopped(Exception):
    """The run ended on request, at an optimiser step."""

    def __init__(self, step: int) -> None:
        super().__init__(step)  # alone, so that it survives pickling
        self.step = step

    def __str__(self) -> str:
        return f"stopped at step {self.step}"


Pictures = Sequence[Picture]
