"""Whatever bytes come in: an adapter, or a LoraError that says why; never a crash, a hang, or memory without bound."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.robustness.lora.mutations import case

CASES = int(os.environ.get("TERROIR_SOAK_FUZZ", "500"))


def test_damaged_files_end_in_an_adapter_or_a_reason():
    """In a process of its own whose memory is limited to 512 MiB beyond its imports, 5 s a file."""
    command = [sys.executable, "-m", "tests.robustness.lora.fuzzing", "0", str(CASES)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60 + CASES)
    assert done.returncode == 0, done.stderr[-4000:]
    report = json.loads(done.stdout)
    endings = report["endings"]
    assert sum(endings.values()) == CASES
    # A fuzzer that never gets past the first check proves little.
    assert endings["read"] >= CASES // 50
    assert endings["read a LoHa or LoKr"] >= CASES // 100
    assert len(endings) >= 8
    print(f"{CASES} files: {json.dumps(report)}")


def test_a_case_number_names_the_same_bytes_everywhere():
    for number in range(50):
        assert case(number) == case(number) != case(number + 1)
