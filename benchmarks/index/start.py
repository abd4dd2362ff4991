"""One start of the index in a process of its own: `python -m benchmarks.index.start`; the store is in the environment.

Prints a JSON object. With `--snapshot` it also leaves a snapshot behind, and then `--tail N` changes that it lacks.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.index.many_adapters import adapter_id
from terroir.common.clock import SystemClock
from terroir.registry.index.live import IndexPolicy, LiveIndex
from terroir.registry.moving.state import AdapterState, StateChange, States
from terroir.registry.settings import RegistrySettings
from terroir.store.documents import Collection
from terroir.store.journal import Journal
from terroir.store.opening import location_of, open_store


def main() -> None:
    """Fill an index and say what that took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--snapshot", action="store_true")
    parser.add_argument("--tail", type=int, default=0)
    arguments = parser.parse_args()
    settings, clock = RegistrySettings.load(), SystemClock()
    store = open_store(location_of(settings))
    journal = Journal(store, "journal", clock)
    policy = IndexPolicy(60, 10**7, 10**7, settings.index_rebuild_parallel_reads)
    before = _peak_bytes()
    began = time.perf_counter()
    live = LiveIndex(store, journal, clock, policy)
    live.fill()
    seconds = time.perf_counter() - began
    adapters, versions = live.index.counts()
    found = {"seconds": seconds, "adapters": adapters, "versions": versions}
    found |= {"peak_bytes": _peak_bytes(), "before_bytes": before}
    if arguments.snapshot:
        journal.announce("nothing", "a place for the snapshot")
        live.follower.catch_up()
        began = time.perf_counter()
        live.write_snapshot()
        found["snapshot_seconds"] = time.perf_counter() - began
    states = States(Collection(store, "aliases", clock, log=journal))
    for number in range(arguments.tail):
        _change(states, adapter_id(number % adapters))
    sys.stdout.write(json.dumps(found) + "\n")


def _change(states: States, adapter: str) -> None:
    told = StateChange("set_alias", f"adapters/{adapter}@staging", "local:bench", datetime.now(UTC).isoformat())

    def update(state: AdapterState) -> tuple[AdapterState, StateChange]:
        return state, told

    states.change(adapter, update, op_id=str(uuid.uuid4()), request={})


def _peak_bytes() -> int:
    """Largest resident size of this program; ru_maxrss would inherit that of the process that forked it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    if found is None:
        raise RuntimeError("this system tells no peak memory in /proc/self/status")
    return int(found[1]) * 1024


if __name__ == "__main__":
    main()
