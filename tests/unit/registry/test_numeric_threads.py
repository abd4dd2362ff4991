"""The registry computes with one numeric thread a call, whatever the machine offers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SERVICES = Path(__file__).resolve().parents[3] / "services"
COUNT = "import terroir.registry.main, os, numpy; print(os.environ['OPENBLAS_NUM_THREADS'])"


@pytest.mark.parametrize(("set_by_operator", "expected"), [(None, "1"), ("3", "3")])
def test_numpy_gets_one_thread_unless_the_operator_says_otherwise(set_by_operator, expected):
    """Two threads on one core once took 40 seconds for a comparison that takes a tenth of one."""
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    environment |= {"PYTHONPATH": str(SERVICES)} | (
        {"OPENBLAS_NUM_THREADS": set_by_operator} if set_by_operator else {}
    )
    done = subprocess.run([sys.executable, "-c", COUNT], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected


def test_numpy_is_not_imported_before_the_setting():
    code = "import sys, terroir.registry; assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(SERVICES)}, check=True)
