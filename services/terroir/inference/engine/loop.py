"""Continuous batching: every tick one denoiser call for requests of one shape, whatever each of them wears."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Final

import torch

from terroir.inference.engine.calls import Calls, mixed
from terroir.inference.engine.decoding import Denoised, Encoded, VaeWorker
from terroir.inference.engine.drawing import Drawing
from terroir.inference.engine.failures import deadline_passed, failure, is_out_of_memory
from terroir.inference.engine.messages import DrawingEvent, DrawJob, SpareTick, Stepped, TickCost
from terroir.inference.engine.pace import pace_of
from terroir.inference.engine.pipeline.model import Model
from terroir.inference.engine.spare_room import SpareRoom
from terroir.inference.engine.spare_rows import Filling, SpareRows
from terroir.inference.engine.turns import Turns
from terroir.inference.engine.wearing.stacks import Stacks

_JOINING_SHARE: Final = 0.5
"""Of a tick, for requests that join while others run: text encoding and merging make their next picture late."""
_SMOOTHING: Final = 0.3
_SPARE: Final = "spare"


class DrawingLoop:
    """Owns the device. Requests join, leave and are cancelled between any two ticks."""

    def __init__(
        self,
        model: Model,
        stacks: Stacks,
        vae: VaeWorker,
        max_batch_rows: int,
        emit: Callable[[DrawingEvent], None],
        clock: Callable[[], float] = time.monotonic,
        *,
        spare_tick_seconds: float,
    ) -> None:
        """`spare_tick_seconds` bounds ticks that are made only for jobs that nobody waits for."""
        self._model, self._stacks, self._vae = model, stacks, vae
        self._max_batch_rows = max_batch_rows
        self._emit, self._clock = emit, clock
        self._new: deque[tuple[DrawJob, Encoded | None]] = deque()
        self._encoding: set[str] = set()
        self._running: Turns[Drawing] = Turns()
        self._tick_seconds = 0.0
        self._calls = Calls(model, stacks, pace_of(model.device, clock), self._fail)
        self._room = SpareRoom(max_batch_rows, spare_tick_seconds, self._calls.padding if stacks.static else None)
        self._spare = SpareRows(self._room, self._begun, self._shape, clock)

    @property
    def busy(self) -> bool:
        """Whether a tick would do anything.

        Spare drawings rest while the VAE works for somebody: on a CPU the two share the cores, and nothing ends a tick.
        """
        return self.attended or (bool(self._spare) and not self._vae.attended)

    @property
    def attended(self) -> bool:
        """Whether a tick would be for somebody who waits."""
        return bool(self._new or self._running)

    def submit(self, job: DrawJob) -> None:
        """Let a request join soon: at the next tick, or once the picture that it starts from is encoded."""
        if job.start.picture is None:
            self._queue(job, None)
        else:
            self._encoding.add(job.id)
            self._vae.encode(job)

    def encoded(self, job: DrawJob, encoded: Encoded | None) -> None:
        """Take a request back whose picture is encoded, unless it was cancelled meanwhile; None: it failed."""
        if job.id in self._encoding:
            self._encoding.remove(job.id)
            if encoded is not None:
                self._queue(job, encoded)

    def cancel(self, job_id: str) -> None:
        """Let a request leave now; unknown and finished ones are ignored."""
        self._encoding.discard(job_id)
        self._vae.cancel(job_id)
        self._new = deque((job, encoded) for job, encoded in self._new if job.id != job_id)
        self._spare.cancel(job_id)
        for drawing in [drawing for drawing in self._drawings() if drawing.job.id == job_id]:
            self._give_up(drawing)

    @torch.inference_mode()
    def tick(self) -> None:
        """Let requests join and leave, then do one step of those whose turn it is and of spare drawings beside them.

        Without anybody who waits spare drawings step alone, or one of them joins: whoever comes waits for one of both.
        """
        crowded = bool(self._new)
        self._let_join()
        self._expire()
        turn = self._running.next()
        if turn is not None:
            shape, members = turn
            group = self._fitting(members)
            filling = self._spare.beside(shape, group, may_join=not crowded)
            seconds = self._step(shape, group, filling)
            self._spare.passed(seconds)
            self._tick_seconds += (_SMOOTHING if self._tick_seconds else 1.0) * (seconds - self._tick_seconds)
        elif self.busy and (alone := self._spare.alone()) is not None:
            self._step(alone[0], [], alone[1])

    def _step(self, shape: Hashable, group: Sequence[Drawing], filling: Filling) -> float:
        """Make a call for those who wait and for spare drawings, and tell what came of it; its seconds."""
        together = [*group, *filling.drawings]
        # Where the two never share a call, spare drawings get banks of their own: they would take those of styles that
        # are asked for again and again, and each request would wait until its weights are merged anew.
        call = self._calls.step(together, shape if group or self._room.shared else (_SPARE, shape))
        if call.lacked:
            self._room.refuse(shape, call.lacked, mixed=mixed(together))
        else:
            beside = bool(group and filling.drawings)
            self._room.learn(shape, call.rows, call.seconds, mixed=mixed(together), beside=beside)
        self._running.spent(shape, call.seconds, [drawing for drawing in call.went if not drawing.job.spare])
        if filling.offered:
            filled = sum(drawing.row_count for drawing in call.went if drawing.job.spare)
            self._emit(SpareTick(filling.offered, filled))
        for drawing in call.went:
            job = drawing.job
            cost = TickCost(job.width * job.height, call.rows, call.seconds)
            self._emit(Stepped(job.id, drawing.step, drawing.total_steps, cost, call.plan))
            self._after_step(drawing)
        return call.seconds

    def _queue(self, job: DrawJob, encoded: Encoded | None) -> None:
        if job.spare:
            self._spare.put(job, encoded)
        else:
            self._new.append((job, encoded))

    def _drawings(self) -> list[Drawing]:
        return [*self._running, *self._spare]

    def _let_join(self) -> None:
        """All at once when nobody runs; else one, and more only while it costs the others half a tick."""
        disturbed = bool(self._running)
        began = self._clock()
        while self._new:
            self._join(*self._new.popleft())
            if disturbed and self._clock() - began > _JOINING_SHARE * self._tick_seconds:
                return

    def _join(self, job: DrawJob, encoded: Encoded | None) -> None:
        if (drawing := self._begun(job, encoded)) is not None:
            self._running.add(self._shape(drawing), drawing)

    def _begun(self, job: DrawJob, encoded: Encoded | None) -> Drawing | None:
        """A job's drawing; None where it failed, which it was told."""
        if job.deadline is not None and job.deadline <= self._clock():
            self._emit(deadline_passed(job, 0))
            return None
        try:
            return Drawing(job, self._model, self._stacks, encoded)
        except Exception as error:
            if is_out_of_memory(error):
                self._stacks.free()
            self._emit(failure(job.id, error))
            return None

    def _shape(self, drawing: Drawing) -> Hashable:
        """Where one plan was forced that can't mix compositions, they count as shapes."""
        return drawing.shape if self._stacks.mixes else (drawing.shape, drawing.job.composition)

    def _expire(self) -> None:
        now = self._clock()
        for drawing in [d for d in self._drawings() if d.job.deadline is not None and d.job.deadline <= now]:
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
        if drawing.job.spare:
            self._spare.remove(drawing)
        else:
            self._running.remove(self._shape(drawing), drawing)
        drawing.close()
