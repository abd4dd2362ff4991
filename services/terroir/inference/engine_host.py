"""Keeps one engine process alive and carries jobs to it and events back."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from threading import Thread
from typing import Final

import structlog

from terroir.common import errors
from terroir.common.errors import TerroirError
from terroir.inference.engine.messages import (
    Cancel,
    Command,
    DrawJob,
    DropAdapter,
    EngineConfig,
    EngineEvent,
    EngineInfo,
    Failed,
    JobEvent,
    LoadFailed,
    PutAdapter,
    SpareTick,
    Stop,
)
from terroir.inference.engine.pipe import send
from terroir.inference.engine.process import run_engine
from terroir.inference.errors import EngineRestarted, ModelLoadFailed, ModelLoading
from terroir.inference.mailbox import Mailbox
from terroir.inference.metrics import InferenceMetrics
from terroir.lora.adapter import Adapter

_MAX_BACKOFF_SECONDS: Final = 30.0
_LOAD_RETRY_SECONDS: Final = 3.0
_STOP_SECONDS: Final = 5.0
_log = structlog.get_logger()
_ERRORS: Final[dict[str, type[TerroirError]]] = {
    kind.code.value: kind
    for kind in (errors.DeadlineExceeded, errors.FailedPrecondition, errors.ResourceExhausted, errors.Internal)
}


class EngineHost:
    """One event loop owns it; threads of its own read and write the pipe, so the loop never waits for it."""

    def __init__(
        self, config: EngineConfig, metrics: InferenceMetrics, on_serving: Callable[[bool], Awaitable[None]]
    ) -> None:
        """`on_serving` hears when the engine becomes ready and when it is lost."""
        self._config = config
        self._metrics = metrics
        self._on_serving = on_serving
        self._info: EngineInfo | None = None
        self._load_error = ""
        self._failures = 0
        self._mailboxes: dict[str, Mailbox] = {}
        self._commands: SimpleQueue[Command] = SimpleQueue()
        self._supervisor: asyncio.Task[None] | None = None
        self._process: BaseProcess | None = None
        self._stopping = False

    @property
    def info(self) -> EngineInfo:
        """What the engine has loaded; raises ModelLoading or ModelLoadFailed."""
        if self._info is not None:
            return self._info
        if self._load_error:
            raise ModelLoadFailed(
                f"the base model {self._config.base_model} can't be loaded: {self._load_error}; "
                "set TERROIR_INFERENCE_BASE_MODEL to a diffusers folder or a hub name",
                retry_after_seconds=_MAX_BACKOFF_SECONDS,
            )
        raise ModelLoading(
            f"the base model {self._config.base_model} is being loaded; try again in {_LOAD_RETRY_SECONDS:g} s",
            retry_after_seconds=_LOAD_RETRY_SECONDS,
        )

    @property
    def jobs(self) -> int:
        """Jobs whose events somebody waits for."""
        return len(self._mailboxes)

    def start(self) -> None:
        """Start the process and keep one running until `close`."""
        self._supervisor = asyncio.create_task(self._supervise())

    async def close(self) -> None:
        """End the process; what it draws is lost."""
        self._stopping = True
        self._commands.put(Stop())
        process = self._process
        if process is not None:
            await asyncio.to_thread(process.join, _STOP_SECONDS)
            process.kill()
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)

    @asynccontextmanager
    async def draw(self, job: DrawJob) -> AsyncIterator[AsyncIterator[JobEvent]]:
        """Events of a job until it is finished; leaving early cancels it at its next step.

        Raises ModelLoading here, and while reading EngineRestarted or what the engine failed with.
        """
        _ = self.info
        mailbox = self._mailboxes[job.id] = Mailbox()
        self._commands.put(job)
        try:
            async with aclosing(mailbox.read()) as events:
                yield events
        finally:
            if self._mailboxes.pop(job.id, None) is not None:
                self._commands.put(Cancel(job.id))

    def put(self, digest: str, adapter: Adapter) -> None:
        """Have the engine keep an adapter until `drop`; raises ModelLoading. Pickled and written on another thread."""
        _ = self.info
        self._commands.put(PutAdapter(digest, adapter))

    def drop(self, digest: str) -> None:
        """Have the engine forget an adapter that no unfinished job names; ignored if there is no engine."""
        if self._info is not None:
            self._commands.put(DropAdapter(digest))

    async def _supervise(self) -> None:
        while not self._stopping:
            await self._run_once()
            self._lose_engine()
            await self._on_serving(False)
            if self._stopping:
                return
            self._metrics.engine_restarted()
            delay = min(0.5 * 2**self._failures, _MAX_BACKOFF_SECONDS)
            self._failures += 1
            _log.error("engine ended", load_error=self._load_error, restart_in_seconds=delay)
            await asyncio.sleep(delay)

    async def _run_once(self) -> None:
        """One life of the process: start it, pass its events on, return when it is gone."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=run_engine, args=(theirs, self._config), name="terroir-engine", daemon=True)
        await asyncio.to_thread(process.start)
        self._process = process
        theirs.close()  # else the pipe would not end with the process
        self._commands = SimpleQueue()
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        Thread(target=_write, args=(ours, self._commands), name="engine-commands", daemon=True).start()
        Thread(target=_read, args=(ours, loop, self._take, ended), name="engine-events", daemon=True).start()
        try:
            await ended.wait()
        finally:
            self._commands.put(Stop())  # ends the writing thread

    def _take(self, event: EngineEvent) -> None:
        if isinstance(event, EngineInfo):
            self._info, self._load_error, self._failures = event, "", 0
            self._metrics.engine_ready(True)
            _log.info("engine ready", pid=event.pid, device=event.device, base_digest=event.base_digest)
            self._announcing = asyncio.ensure_future(self._on_serving(True))
        elif isinstance(event, LoadFailed):
            self._load_error = event.message
        elif isinstance(event, SpareTick):
            self._metrics.spare_tick(event)
        else:
            self._metrics.job_event(event)
            if (mailbox := self._mailboxes.get(event.id)) is not None:
                mailbox.post(_restored(event) if isinstance(event, Failed) else event)

    def _lose_engine(self) -> None:
        self._info = None
        self._metrics.engine_ready(False)
        lost = EngineRestarted(
            "the engine ended while it drew this request and is being restarted; try again",
            retry_after_seconds=_LOAD_RETRY_SECONDS,
        )
        for mailbox in self._mailboxes.values():
            mailbox.post(lost)
        self._mailboxes.clear()


def _restored(event: Failed) -> TerroirError:
    return _ERRORS.get(event.code, errors.Internal)(event.message, reason=event.reason)


def _write(connection: Connection, commands: SimpleQueue[Command]) -> None:
    while True:
        command = commands.get()
        try:
            send(connection, command)
        except OSError:  # the process is gone; the reading side deals with that
            return
        if isinstance(command, Stop):
            return


def _read(
    connection: Connection, loop: asyncio.AbstractEventLoop, take: Callable[[EngineEvent], None], ended: asyncio.Event
) -> None:
    try:
        while True:
            loop.call_soon_threadsafe(take, connection.recv())
    except (EOFError, OSError):
        pass
    try:
        loop.call_soon_threadsafe(ended.set)
    except RuntimeError:  # the loop ended first
        return
