"""The engine's process: one thread owns the device, others read commands and write events, nothing speaks gRPC."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Final

from terroir.common.collector import collector_paused
from terroir.inference.engine.heap import keep
from terroir.inference.engine.messages import EngineConfig, EngineEvent, LoadFailed, Stop
from terroir.inference.engine.pipe import receive

if TYPE_CHECKING:
    from terroir.inference.engine.engine import Engine

_SWITCH_SECONDS: Final = 0.0005


def run_engine(connection: Connection, config: EngineConfig) -> None:
    """Load the model, say so, and draw until told to stop; target of the spawned process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which drains first
    Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()
    # Threads that spin while they wait for each other stall on busy cores: beside a training on two cores one picture
    # took 8 to 60 s instead of 1.2 s. Read once, when torch loads its OpenMP.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep()
    os.nice(config.niceness)
    # Threads that read commands must not hold up the one that draws for Python's usual 5 ms.
    sys.setswitchinterval(_SWITCH_SECONDS)
    events: SimpleQueue[EngineEvent] = SimpleQueue()
    with collector_paused():
        # Deferred: the parent imports this module too and must stay without torch.
        import torch

        from terroir.inference.engine.engine import Engine

        torch.set_num_threads(config.threads)
        try:
            engine = Engine(config, events.put)
        except Exception as error:
            connection.send(LoadFailed(f"{type(error).__name__}: {error}"))
            return
    connection.send(engine.info())
    Thread(target=_write, args=(connection, events), name="events", daemon=True).start()
    Thread(target=_read, args=(connection, engine), name="commands", daemon=True).start()
    engine.run()


def _read(connection: Connection, engine: Engine) -> None:
    """Take commands off the pipe as they come, so that unpickling adapters never delays a step."""
    while True:
        try:
            engine.take(receive(connection))
        except (EOFError, OSError):
            engine.take(Stop())
            return


def _write(connection: Connection, events: SimpleQueue[EngineEvent]) -> None:
    """Send events as they come, so that a full pipe never delays a step."""
    while True:
        try:
            connection.send(events.get())
        except OSError:  # the parent is gone; the reading side ends the process
            return


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
