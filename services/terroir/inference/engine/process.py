"""The engine's process: one thread owns the device, another reads commands, nothing here speaks gRPC."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread

from terroir.inference.engine.messages import (
    Cancel,
    Command,
    DrawJob,
    DropAdapter,
    EngineConfig,
    EngineInfo,
    LoadFailed,
    PutAdapter,
    Stop,
)


def run_engine(connection: Connection, config: EngineConfig) -> None:
    """Load the model, say so, and draw until told to stop; target of the spawned process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which drains first
    Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()
    # Threads that spin while they wait for each other stall on busy cores: beside a training on two cores one picture
    # took 8 to 60 s instead of 1.2 s. Read once, when torch loads its OpenMP.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # The collector would walk the imports' million lasting objects again and again: more than a second of the start.
    gc.disable()
    # Deferred: the parent imports this module too and must stay without torch.
    import torch

    from terroir.inference.engine.loop import DrawingLoop
    from terroir.inference.engine.merging import Merger
    from terroir.inference.engine.model import Model

    torch.set_num_threads(config.threads)
    try:
        model = Model(config.base_model)
    except Exception as error:
        connection.send(LoadFailed(f"{type(error).__name__}: {error}"))
        return
    gc.freeze()
    gc.enable()
    merger = Merger(model.layers(), config.merged_budget_bytes)
    loop = DrawingLoop(model, merger, config.max_batch_rows, connection.send)
    commands: SimpleQueue[Command] = SimpleQueue()
    Thread(target=_read, args=(connection, commands), name="commands", daemon=True).start()
    connection.send(
        EngineInfo(
            pid=os.getpid(), device=model.device, base_digest=model.digest, key_table=dict(model.key_table()),
            native_resolution=model.native_resolution, family="sd15", dtype="float32", profile=(),
        )
    )  # fmt: skip
    while True:
        # Waits only when idle; while drawing, commands are taken between steps.
        while not loop.busy or not commands.empty():
            command = commands.get()
            if isinstance(command, DrawJob):
                loop.submit(command)
            elif isinstance(command, PutAdapter):
                merger.put(command.digest, command.adapter)
            elif isinstance(command, DropAdapter):
                merger.drop(command.digest)
            elif isinstance(command, Cancel):
                loop.cancel(command.id)
            else:
                return
        loop.tick()


def _read(connection: Connection, commands: SimpleQueue[Command]) -> None:
    """Take commands off the pipe as they come, so that unpickling adapters never delays a step."""
    while True:
        try:
            commands.put(connection.recv())
        except (EOFError, OSError):
            commands.put(Stop())
            return


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
