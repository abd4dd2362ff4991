"""The engine put together: model, stacks, drawing loop and VAE worker, driven by commands."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final

from terroir.inference.engine.decoding import Encoded, VaeWorker
from terroir.inference.engine.heap import give_back
from terroir.inference.engine.loop import DrawingLoop
from terroir.inference.engine.messages import (
    Cancel,
    Command,
    DrawingEvent,
    DrawJob,
    DropAdapter,
    EngineConfig,
    EngineInfo,
    PutAdapter,
    Stop,
)
from terroir.inference.engine.pipeline.model import Model
from terroir.inference.engine.pipeline.projection import LatentProjection
from terroir.inference.engine.profile import measure_ticks
from terroir.inference.engine.wearing.device_adapter import DeviceAdapter
from terroir.inference.engine.wearing.layers import adapt
from terroir.inference.engine.wearing.stacks import Stacks

_IDLE_SECONDS: Final = 60.0
_BURST_GAP_SECONDS: Final = 0.006
_BURST_SECONDS: Final = 0.03
_MOST_ROWS_A_REQUEST: Final = 32
"""Of a compiled denoiser's slots: 16 pictures with guidance."""


@dataclass(frozen=True)
class _Uploaded:
    digest: str
    adapter: DeviceAdapter


@dataclass(frozen=True)
class _SourceEncoded:
    job: DrawJob
    encoded: Encoded | None
    """None where that failed."""


@dataclass(frozen=True)
class _VaeRests:
    """Whether there is something to do is to be looked at again."""


_Input = Command | _Uploaded | _SourceEncoded | _VaeRests


class Engine:
    """Everything that lives on the device. One thread runs it, any other may `take` commands."""

    def __init__(self, config: EngineConfig, emit: Callable[[DrawingEvent], None]) -> None:
        """Load the model; raises what diffusers raises. `emit` is called on two threads."""
        self._config = config
        self._inputs: SimpleQueue[_Input] = SimpleQueue()
        self._model = Model(config.base_model, device=config.device, dtype=config.dtype)
        rows = max(config.max_batch_rows, _MOST_ROWS_A_REQUEST)
        self._stacks = Stacks(
            adapt(self._model.layers()),
            budget_bytes=config.merged_budget_bytes,
            plan=config.plan,
            static_rows=1 << (rows - 1).bit_length() if config.compiled else 0,
        )
        if config.compiled:
            self._model.compile()
        self._vae = VaeWorker(
            self._model,
            emit,
            lambda job, encoded: self._inputs.put(_SourceEncoded(job, encoded)),
            preview=self._model.decode if config.preview_decoder == "vae" else LatentProjection(self._model),
            used_bytes=lambda: self._stacks.used_bytes,
            device=self._model.device,
            on_rest=lambda: self._inputs.put(_VaeRests()),
        )
        self._loop = DrawingLoop(
            self._model, self._stacks, self._vae, config.max_batch_rows, emit,
            spare_tick_seconds=config.spare_tick_seconds,
        )  # fmt: skip

    def info(self) -> EngineInfo:
        """What is served; measures a few ticks, which also warms the device up."""
        model = self._model
        return EngineInfo(
            pid=os.getpid(), device=model.device, base_digest=model.digest, key_table=dict(model.key_table()),
            native_resolution=model.native_resolution, family=model.family, dtype=model.dtype,
            profile=measure_ticks(model, self._stacks),
        )  # fmt: skip

    def take(self, command: Command) -> None:
        """Pass a command on to the device's thread; an adapter is uploaded here, on the caller's."""
        if isinstance(command, PutAdapter):
            self._inputs.put(_Uploaded(command.digest, self._stacks.prepare(command.adapter)))
        else:
            self._inputs.put(command)

    def run(self) -> None:
        """Draw until told to stop."""
        self._vae.start(self._config.threads)
        while True:
            unattended = not self._loop.attended
            # Waits only when idle; while drawing, commands are taken between steps.
            while not self._loop.busy or not self._inputs.empty():
                command = self._next_input()
                if isinstance(command, Stop):
                    return
                self._obey(command)
            if unattended and self._loop.attended and not self._gather():
                return
            self._loop.tick()

    def _gather(self) -> bool:
        """Let a burst of requests begin together; False if told to stop.

        Whoever joins later has a last tick of its own, and the others wait while it joins: eight requests that came
        within 20 ms took a tenth longer when the first began at once. A request alone waits a few milliseconds.
        """
        until = time.monotonic() + _BURST_SECONDS
        while (left := min(_BURST_GAP_SECONDS, until - time.monotonic())) > 0:
            try:
                command = self._inputs.get(timeout=left)
            except Empty:
                return True
            if isinstance(command, Stop):
                return False
            self._obey(command)
        return True

    def _next_input(self) -> _Input:
        """Wait for it; once nothing came for a while, banks that nobody draws with and freed memory are given back."""
        try:
            return self._inputs.get(timeout=_IDLE_SECONDS)
        except Empty:
            self._stacks.free()
            give_back()
            return self._inputs.get()

    def _obey(self, command: _Input) -> None:
        if isinstance(command, _Uploaded):
            self._stacks.put(command.digest, command.adapter)
        elif isinstance(command, DropAdapter):
            self._stacks.drop(command.digest)
        elif isinstance(command, DrawJob):
            self._loop.submit(command)
        elif isinstance(command, _SourceEncoded):
            self._loop.encoded(command.job, command.encoded)
        elif isinstance(command, Cancel):
            self._loop.cancel(command.id)
