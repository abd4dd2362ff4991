"""The processes that people wait for start without the libraries that take seconds to load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SERVICES = Path(__file__).resolve().parents[3] / "services"
HEAVY = {"torch", "diffusers", "transformers", "peft", "ray"}


@pytest.mark.parametrize("process", ["dataset", "training", "registry", "inference", "cli"])
def test_a_process_starts_without_heavy_libraries(process):
    program = f"import json, sys, terroir.{process}.main; print(json.dumps(sorted(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(SERVICES)}
    command = [sys.executable, "-c", program]
    loaded = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert HEAVY & set(json.loads(loaded)) == set()
