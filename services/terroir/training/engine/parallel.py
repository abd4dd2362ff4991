"""Data parallelism: workers that train one adapter, each on its share of every batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, distributed

from terroir.lora.adapter import Adapter
from terroir.training.engine.ports import Checkpoint, TrainProgress
from terroir.training.errors import WorkerLost


class Solo:
    """A single worker."""

    rank = 0
    world = 1

    def average_(self, tensors: Sequence[Tensor]) -> None:
        """They are their own average."""

    def any(self, value: bool) -> bool:
        """The value itself."""
        return value

    def broadcast(self, value: bytes | None) -> bytes | None:
        """The value itself."""
        return value


class ProcessGroup:
    """The workers of torch.distributed's default group: NCCL on GPUs, gloo on processors.

    Every method raises WorkerLost when another worker is gone.
    """

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self.rank = distributed.get_rank()
        self.world = distributed.get_world_size()

    def average_(self, tensors: Sequence[Tensor]) -> None:
        """In one exchange, for there are hundreds of small ones; every worker gets the same bits."""
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        with _others_there():
            distributed.all_reduce(flat)
        flat /= self.world
        parts = flat.split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def any(self, value: bool) -> bool:
        """Whether it is true of any worker."""
        found = torch.tensor(float(value), device=self._device)
        with _others_there():
            distributed.all_reduce(found, op=distributed.ReduceOp.MAX)
        return bool(found)

    def broadcast(self, value: bytes | None) -> bytes | None:
        """The value of worker 0."""
        box: list[bytes | None] = [value]
        with _others_there():
            distributed.broadcast_object_list(box, src=0, device=self._device)
        return box[0]


@contextmanager
def _others_there() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # gloo's and NCCL's, whatever broke the connection
        raise WorkerLost(f"another worker of the run can no longer be reached: {error}") from error


class Silent:
    """Sinks of the workers that do not report."""

    def progress(self, progress: TrainProgress) -> None:
        """Worker 0 tells it."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Worker 0 draws it."""

    def log(self, line: str) -> None:
        """Worker 0 writes it."""

    def save(self, checkpoint: Checkpoint) -> None:
        """Worker 0 keeps it."""

    def sample(self, step: int, adapter: Adapter) -> None:
        """Worker 0 draws them."""

    def newest(self) -> Checkpoint | None:
        """Worker 0 hands it on."""
        return None

    def stop_requested(self) -> bool:
        """Worker 0 asks."""
        return False
