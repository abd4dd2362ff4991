"""Runs fuzzed files through the readers and writers in a process of limited memory, one JSON line as the result.

`python -m tests.robustness.lora.fuzzing FIRST COUNT` runs some cases, so `… 1234 1` repeats number 1234.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Final

import numpy as np

from terroir.lora.errors import LoraError
from terroir.lora.formats import parse, to_diffusers, to_kohya
from tests.robustness.lora.mutations import TABLE, case

MEMORY_BYTES: Final = 512 * 1024**2
"""Address space beyond what the process has once everything is imported."""
SECONDS_A_CASE: Final = 5


class Hang(BaseException):
    """A case took longer than SECONDS_A_CASE; no Exception, so that nothing swallows it."""


def run(data: bytes) -> str:
    """`read`, or the reason of the LoraError; whatever else is raised is a defect.

    What is read must also be writable and both files readable again, or be refused on the way out by a LoraError; for
    LoHa and LoKr there is a kohya file only.
    """
    try:
        adapter = parse(data, TABLE).adapter
        written = [to_kohya(adapter, {}), *([to_diffusers(adapter)] if adapter.is_lora else [])]
    except LoraError as error:
        # Services put both into messages, which must be Unicode.
        f"{error}{error.key}{error.reason}".encode()
        return error.reason
    for file in written:
        again = parse(file, TABLE)
        if set(again.adapter.modules) != set(adapter.modules):
            raise AssertionError(f"wrote {len(adapter.modules)} layers and read {again.matched}")
        if again.format == "kohya" and again.adapter.tensor_digest() != adapter.tensor_digest():
            raise AssertionError("what was written is not what was read")
    if not adapter.is_lora and not all(np.isfinite(module.delta()).all() for module in adapter.modules.values()):
        raise AssertionError("a change is not finite")
    return "read" if adapter.is_lora else "read a LoHa or LoKr"


def main(first: int, count: int) -> None:
    """Run the cases and print how they ended and what the slowest took; raises at the first defect."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
    signal.signal(signal.SIGALRM, _hang)
    endings: Counter[str] = Counter()
    slowest = 0.0
    for number in range(first, first + count):
        data = case(number)
        began = time.perf_counter()
        signal.alarm(SECONDS_A_CASE)
        try:
            endings[run(data)] += 1
        except BaseException as error:
            error.add_note(f"case {number}: python -m tests.robustness.lora.fuzzing {number} 1")
            raise
        finally:
            signal.alarm(0)
        slowest = max(slowest, time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"endings": dict(endings), "slowest_seconds": round(slowest, 3), "peak_bytes": peak}))


def _hang(number: int, frame: FrameType | None) -> None:
    raise Hang(f"longer than {SECONDS_A_CASE} s")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
