"""A machine that never was."""

from __future__ import annotations

from benchmarks.machine import Machine

MACHINE = Machine("a processor", 2, 8.0, "3.11.9", "2.15.0", "abc", "2026-01-01T00:00:00Z", 0.1)
