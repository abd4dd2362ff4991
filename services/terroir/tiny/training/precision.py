"""Which precision this processor trains faster in."""

from __future__ import annotations

import time
from typing import Final

import torch

_GAIN: Final = 1.2
"""bfloat16 costs accuracy, so it has to be faster by this factor."""


def probe_autocast() -> torch.autocast:
    """Autocast to bfloat16 where the processor is faster in it, else one that changes nothing.

    A CPU without bfloat16 instructions emulates them: the tiny denoiser then trains more than ten times slower than in
    single precision. Times are processor time, so that other work on the machine does not decide. Enter the result
    as often as needed.
    """
    faster = _seconds(torch.bfloat16) * _GAIN < _seconds(torch.float32)
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=faster)


def _seconds(dtype: torch.dtype) -> float:
    """Processor time of the fastest of three passes through the convolution that such a model is made of."""
    convolution = torch.nn.Conv2d(64, 64, 3, padding=1).to(dtype)
    pictures = torch.randn(8, 64, 16, 16).to(dtype)
    passes = []
    for _ in range(3):
        start = time.process_time()
        convolution(pictures).sum().backward()
        passes.append(time.process_time() - start)
    return min(passes)
