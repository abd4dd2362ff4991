"""What a run sets in its process while it lasts, and what it makes of memory that runs out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

import torch

from terroir.training import advice
from terroir.training.config import TrainConfig
from terroir.training.engine.ports import TrainRun
from terroir.training.errors import OutOfMemory

_ALLOCATOR_SAYS: Final = ("can't allocate memory", "not enough memory", "bad_alloc")
"""What torch's allocator for processors says, on Linux and elsewhere, and C++ below it."""


@contextlib.contextmanager
def own_torch(run: TrainRun) -> Iterator[None]:
    """Fix threads, kernels and share of the GPU for the run, and leave torch as it was.

    On a processor every kernel is deterministic, so that equal runs are equal bit for bit; a GPU would lose too much
    speed by it.
    """
    cuda = run.device.startswith("cuda")
    before, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    if cuda and run.memory_fraction is not None:
        # By number, or None for the current one: the name "cuda" is refused, and a share of a GPU never ran.
        torch.cuda.set_per_process_memory_fraction(run.memory_fraction, torch.device(run.device).index)
    with torch.random.fork_rng([run.device] if cuda else []):
        torch.set_num_threads(run.threads)
        torch.use_deterministic_algorithms(not cuda, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic)
            torch.set_num_threads(before)


@contextlib.contextmanager
def memory_advice(config: TrainConfig) -> Iterator[None]:
    """Raise OutOfMemory, which says what to lower in this run, for whatever torch raises when memory runs out."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(error, config) from error
    except RuntimeError as error:
        if not any(words in str(error) for words in _ALLOCATOR_SAYS):
            raise
        raise _out_of_memory(error, config) from error


def _out_of_memory(error: Exception, config: TrainConfig) -> OutOfMemory:
    told = advice.for_symptom(advice.Symptom.OUT_OF_MEMORY, config)
    first = str(error).partition("\n")[0][:200] or "no details"
    return OutOfMemory(f"memory ran out ({first}); {told.sentence()} ({told.page})")
