"""Continuous batching: every tick one denoiser call for requests of one shape, whatever each of them wears."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import torch

from terroir.inference.engine.decoding import Denoised, Encoded, VaeWorker
from terroir.inference.engine.drawing import Drawing
from terroir.inference.engine.failures import deadline_passed, failure, is_out_of_memory
from terroir.inference.engine.messages import DrawJob, JobEvent, Stepped, TickCost
from terroir.inference.engine.pace import pace_of
from terroir.inference.engine.pipeline.conditioning import Conditioning
from terroir.inference.engine.pipeline.model import Model
from terroir.inference.engine.turns import Turns
from terroir.inference.engine.wearing.stacks import Stacks
from terroir.lora.composition import Composition

_JOINING_SHARE: Final = 0.5
"""Of a tick, for requests that join while others run: text encoding and merging make their next picture late."""
_SMOOTHING: Final = 0.3
_BARE: Final = Composition()


class DrawingLoop:
    """Owns the device. Requests join, leave and are cancelled between any two ticks."""

    def __init__(
        self,
        model: Model,
        stacks: Stacks,
        vae: VaeWorker,
        max_batch_rows: int,
        emit: Callable[[JobEvent], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model, self._stacks, self._vae = model, stacks, vae
        self._max_batch_rows = max_batch_rows
        self._emit, self._clock = emit, clock
        self._new: deque[tuple[DrawJob, Encoded | None]] = deque()
        self._encoding: set[str] = set()
        self._running: Turns[Drawing] = Turns()
        self._tick_seconds = 0.0
        self._pace = pace_of(model.device, clock)
        if stacks.static:
            stacks.join(_BARE)  # padding rows wear it

    @property
    def busy(self) -> bool:
        """Whether a tick would do anything."""
        return bool(self._new or self._running)

    def submit(self, job: DrawJob) -> None:
        """Let a request join soon: at the next tick, or once the picture that it starts from is encoded."""
        if job.start.picture is None:
            self._new.append((job, None))
        else:
            self._encoding.add(job.id)
            self._vae.encode(job)

    def encoded(self, job: DrawJob, encoded: Encoded | None) -> None:
        """Take a request back whose picture is encoded, unless it was cancelled meanwhile; None: it failed."""
        if job.id in self._encoding:
            self._encoding.remove(job.id)
            if encoded is not None:
                self._new.append((job, encoded))

    def cancel(self, job_id: str) -> None:
        """Let a request leave now; unknown and finished ones are ignored."""
        self._encoding.discard(job_id)
        self._vae.cancel(job_id)
        self._new = deque((job, encoded) for job, encoded in self._new if job.id != job_id)
        for drawing in [drawing for drawing in self._running if drawing.job.id == job_id]:
            self._give_up(drawing)

    @torch.inference_mode()
    def tick(self) -> None:
        """Let requests join and leave, then do one step of those whose turn it is."""
        self._let_join()
        self._expire()
        turn = self._running.next()
        if turn is None:
            return
        shape, members = turn
        group = self._fitting(members)
        self._pace.begin()
        plan, rows = self._denoise(group, shape)
        seconds = self._pace.end((shape, rows))
        self._tick_seconds += (_SMOOTHING if self._tick_seconds else 1.0) * (seconds - self._tick_seconds)
        alive = [drawing for drawing in group if drawing in set(self._running)]
        self._running.spent(shape, seconds, alive)
        for drawing in alive:
            job = drawing.job
            cost = TickCost(job.width * job.height, rows, seconds)
            self._emit(Stepped(job.id, drawing.step, drawing.total_steps, cost, plan))
            self._after_step(drawing)

    def _let_join(self) -> None:
        """All at once when nobody runs; else one, and more only while it costs the others half a tick."""
        disturbed = bool(self._running)
        began = self._clock()
        while self._new:
            self._join(*self._new.popleft())
            if disturbed and self._clock() - began > _JOINING_SHARE * self._tick_seconds:
                return

    def _join(self, job: DrawJob, encoded: Encoded | None) -> None:
        if job.deadline is not None and job.deadline <= self._clock():
            self._emit(deadline_passed(job, 0))
            return
        try:
            drawing = Drawing(job, self._model, self._stacks, encoded)
        except Exception as error:
            if is_out_of_memory(error):
                self._stacks.free()
            self._emit(failure(job.id, error))
            return
        self._running.add(self._shape(drawing), drawing)

    def _shape(self, drawing: Drawing) -> object:
        """Where one plan was forced that can't mix compositions, they count as shapes."""
        return drawing.shape if self._stacks.mixes else (drawing.shape, drawing.job.composition)

    def _expire(self) -> None:
        now = self._clock()
        for drawing in [d for d in self._running if d.job.deadline is not None and d.job.deadline <= now]:
            self._give_up(drawing)
            self._emit(deadline_passed(drawing.job, drawing.step))

    def _fitting(self, members: Sequence[Drawing]) -> list[Drawing]:
        """As many as a call may have rows; one that is larger by itself goes alone."""
        group: list[Drawing] = []
        rows = 0
        for drawing in members:
            if group and rows + drawing.row_count > self._max_batch_rows:
                continue
            group.append(drawing)
            rows += drawing.row_count
        return group

    def _denoise(self, group: Sequence[Drawing], shape: object) -> tuple[str, int]:
        """One step of a group: the plan that it wore and the rows of the call.

        Without memory for all, halves are tried before a single request is given up.
        """
        order = self._stacks.arranged([(drawing.job.composition, drawing.row_count) for drawing in group], shape)
        group = [group[index] for index in order]
        latents, timesteps = zip(*(drawing.rows() for drawing in group), strict=True)
        conditioning = Conditioning.cat([drawing.conditioning for drawing in group])
        worn = [(drawing.job.composition, drawing.row_count) for drawing in group]
        if padding := self._padding(conditioning.rows):
            worn.append((_BARE, padding))
        try:
            with self._stacks.worn(worn, shape) as dressed:
                predicted = self._model.predict(torch.cat(latents), torch.cat(timesteps), conditioning, padding)
        except Exception as error:
            if is_out_of_memory(error):
                self._stacks.free()
                if len(group) > 1:
                    middle = len(group) // 2
                    first, second = self._denoise(group[:middle], shape), self._denoise(group[middle:], shape)
                    return first[0], first[1] + second[1]
            for drawing in group:
                self._fail(drawing, error)
            return "base", conditioning.rows
        for drawing, part in zip(group, predicted.split([d.row_count for d in group]), strict=True):
            try:
                drawing.advance(part)
            except Exception as error:
                self._fail(drawing, error)
        return dressed.plan, conditioning.rows

    def _padding(self, rows: int) -> int:
        """Rows without a request that a compiled denoiser is given, so that it is compiled for few row counts."""
        return (1 << (rows - 1).bit_length()) - rows if self._stacks.static else 0

    def _after_step(self, drawing: Drawing) -> None:
        job = drawing.job
        if drawing.denoised:
            self._leave(drawing)
            self._vae.finish(Denoised(job, drawing.latents, drawing.began, drawing.cut_texts))
        elif job.preview_interval_steps and drawing.step % job.preview_interval_steps == 0:
            self._vae.preview(job, drawing.step, drawing.outlook)

    def _fail(self, drawing: Drawing, error: Exception) -> None:
        self._give_up(drawing)
        self._emit(failure(drawing.job.id, error))

    def _give_up(self, drawing: Drawing) -> None:
        self._leave(drawing)
        self._vae.cancel(drawing.job.id)  # a preview may wait

    def _leave(self, drawing: Drawing) -> None:
        self._running.remove(self._shape(drawing), drawing)
        drawing.close()
