"""Arrays on their way to the device."""

from __future__ import annotations

import torch
from torch import Tensor

from terroir.lora.adapter import Array


def uploaded(array: Array, device: torch.device | str) -> Tensor:
    """In fp32, to be read only: on a CPU it shares the array's memory, unless that is a file's, which torch refuses."""
    if not array.flags.writeable:
        return torch.tensor(array, dtype=torch.float32, device=device)
    return torch.from_numpy(array).to(device, torch.float32)
