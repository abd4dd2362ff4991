"""How a request fails in the engine, as the event that says so."""

from __future__ import annotations

import torch

from terroir.common.errors import ErrorCode
from terroir.inference.engine.messages import DrawJob, Failed


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation failed, on the device or on the host."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError)


def failure(job_id: str, error: Exception) -> Failed:
    """What the caller is told of an exception."""
    if is_out_of_memory(error):
        message = "the request does not fit into the device's memory; ask for fewer seeds or a smaller picture"
        return Failed(job_id, ErrorCode.RESOURCE_EXHAUSTED, "DEVICE_MEMORY_FULL", message)
    return Failed(job_id, ErrorCode.INTERNAL, "DRAWING_FAILED", f"{type(error).__name__}: {error}")


def deadline_passed(job: DrawJob, steps_made: int) -> Failed:
    """The caller's deadline ended the request."""
    message = f"the deadline passed after {steps_made} of {job.steps} steps; give the call more time"
    return Failed(job.id, ErrorCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", message)
