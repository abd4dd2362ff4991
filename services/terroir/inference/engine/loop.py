"""Continuous scheduling: every tick one denoiser call for requests that can share it, then the next ones' turn."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

import torch

from terroir.common.errors import ErrorCode
from terroir.inference.engine.drawing import Drawing
from terroir.inference.engine.merging import Merger
from terroir.inference.engine.messages import DrawJob, Drawn, Failed, Finished, JobEvent, Previewed, Stepped, TickCost
from terroir.inference.engine.model import Model

_SHOWN_CHARACTERS: Final = 200


class DrawingLoop:
    """Owns the device. Requests join, leave and are cancelled between any two ticks.

    Turns are round robin: who stepped longest ago leads the tick, and all requests with an equal batch key go with it
    as far as rows allow. A plan that mixes compositions in one call only needs another `batch_key` and another `worn`.
    """

    def __init__(self, model: Model, merger: Merger, max_batch_rows: int, emit: Callable[[JobEvent], None]) -> None:
        self._model = model
        self._merger = merger
        self._max_batch_rows = max_batch_rows
        self._emit = emit
        self._new: deque[DrawJob] = deque()
        self._running: deque[Drawing] = deque()

    @property
    def busy(self) -> bool:
        """Whether a tick would do anything."""
        return bool(self._new or self._running)

    def submit(self, job: DrawJob) -> None:
        """Let a request join at the next tick."""
        self._new.append(job)

    def cancel(self, job_id: str) -> None:
        """Let a request leave now; unknown and finished ones are ignored."""
        self._new = deque(job for job in self._new if job.id != job_id)
        for drawing in [drawing for drawing in self._running if drawing.job.id == job_id]:
            self._leave(drawing)

    @torch.inference_mode()
    def tick(self) -> None:
        """Let new requests join, then do one step of the requests whose turn it is."""
        while self._new:
            self._join(self._new.popleft())
        self._expire()
        group = self._next_group()
        if not group:
            return
        try:
            self._denoise(group)
        except Exception as error:
            for drawing in group:
                self._fail(drawing, error)
            return
        for drawing in group:
            self._after_step(drawing)

    def _join(self, job: DrawJob) -> None:
        try:
            self._running.append(Drawing(job, self._model, self._merger))
        except Exception as error:
            self._emit(_failure(job.id, error))

    def _expire(self) -> None:
        now = time.monotonic()
        for drawing in [d for d in self._running if d.job.deadline is not None and d.job.deadline <= now]:
            self._leave(drawing)
            message = f"the deadline passed after {drawing.step} of {drawing.job.steps} steps; give the call more time"
            self._emit(Failed(drawing.job.id, ErrorCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", message))

    def _next_group(self) -> list[Drawing]:
        group: list[Drawing] = []
        rows = 0
        for drawing in self._running:
            if group and (drawing.batch_key != group[0].batch_key or rows + drawing.row_count > self._max_batch_rows):
                continue
            group.append(drawing)
            rows += drawing.row_count
        return group

    def _denoise(self, group: list[Drawing]) -> None:
        began = time.monotonic()
        latents, timesteps = zip(*(drawing.rows() for drawing in group), strict=True)
        embeddings = [drawing.embeddings for drawing in group]
        with self._merger.worn(group[0].merged):
            predicted = self._model.predict(torch.cat(latents), torch.cat(timesteps), torch.cat(embeddings))
        parts = predicted.split([drawing.row_count for drawing in group])
        for drawing, part in zip(group, parts, strict=True):
            drawing.advance(part)
        seconds = time.monotonic() - began
        tick = TickCost(group[0].job.width * group[0].job.height, len(predicted), seconds)
        for drawing in group:
            self._emit(Stepped(drawing.job.id, drawing.step, drawing.job.steps, tick, "copy"))

    def _after_step(self, drawing: Drawing) -> None:
        try:
            if drawing.denoised:
                self._finish(drawing)
                return
            interval = drawing.job.preview_interval_steps
            if interval and drawing.step % interval == 0:
                for index, raster in enumerate(drawing.preview()):
                    self._emit(Previewed(drawing.job.id, index, drawing.step, raster))
        except Exception as error:
            self._fail(drawing, error)
            return
        self._running.remove(drawing)
        self._running.append(drawing)

    def _finish(self, drawing: Drawing) -> None:
        job = drawing.job
        self._leave(drawing)
        if not drawing.finite:
            message = (
                f"the picture is not a number after {job.steps} steps with guidance {job.guidance_scale:g}; "
                "lower the guidance scale or the adapters' weights"
            )
            self._emit(Failed(job.id, ErrorCode.FAILED_PRECONDITION, "PICTURE_NOT_FINITE", message))
            return
        for index in range(len(job.seeds)):
            self._emit(Drawn(job.id, index, drawing.picture(index)))
        seconds = time.monotonic() - drawing.began
        warnings = tuple(f"the text encoder reads only the beginning of {_shown(text)}" for text in drawing.cut_texts)
        self._emit(Finished(job.id, seconds, warnings, self._merger.used_bytes))

    def _fail(self, drawing: Drawing, error: Exception) -> None:
        if drawing in self._running:
            self._leave(drawing)
        self._emit(_failure(drawing.job.id, error))

    def _leave(self, drawing: Drawing) -> None:
        self._running.remove(drawing)
        drawing.close()


def _failure(job_id: str, error: Exception) -> Failed:
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        message = "the request does not fit into the device's memory; ask for fewer seeds or a smaller picture"
        return Failed(job_id, ErrorCode.RESOURCE_EXHAUSTED, "DEVICE_MEMORY_FULL", message)
    return Failed(job_id, ErrorCode.INTERNAL, "DRAWING_FAILED", f"{type(error).__name__}: {error}")


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "...")
