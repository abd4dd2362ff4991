"""Everything that the VAE does, on a thread of its own: finished pictures in batches, previews, pictures to start from.

Latents come from the device thread, which never waits for a picture: on a GPU this thread has a stream of its own, on a
CPU the two share the cores.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Final, Protocol

import torch
from torch import Tensor

from terroir.common.errors import ErrorCode
from terroir.inference.engine.failures import deadline_passed, failure
from terroir.inference.engine.messages import DrawJob, Drawn, Failed, Finished, JobEvent, Previewed, Raster

MAX_PICTURES: Final = 8
"""Pictures of one VAE call; decoding takes more memory a picture than denoising."""
_SHOWN_CHARACTERS: Final = 200


class Decoder(Protocol):
    """The VAE's side of a model."""

    def decode(self, latents: Tensor) -> Sequence[Raster | None]:
        """Pictures of latents `[pictures, …]`; None for one that is not finite."""
        ...

    def encode_picture(self, raster: Raster, generators: Sequence[torch.Generator]) -> Tensor:
        """Latents of a picture, one draw a generator."""
        ...


@dataclass(frozen=True, eq=False)
class Encoded:
    """The picture that a job starts from."""

    latents: Tensor
    """`[pictures, …]`."""
    generators: Sequence[torch.Generator]
    """One a picture; noise is drawn from them next, as diffusers does."""


@dataclass
class Denoised:
    """A request whose steps are done."""

    job: DrawJob
    latents: Tensor
    """`[pictures, …]`."""
    began: float
    """Reading of the monotonic clock at its first turn."""
    cut_texts: Sequence[str]
    ready: torch.cuda.Event | None = None


@dataclass
class _Work:
    denoised: deque[Denoised] = field(default_factory=deque)
    previews: dict[str, tuple[int, Tensor, torch.cuda.Event | None]] = field(default_factory=dict)
    sources: deque[DrawJob] = field(default_factory=deque)


class VaeWorker:
    """Queue of what waits for the VAE. Any thread may hand work in; `work_off` runs on one thread."""

    def __init__(
        self,
        model: Decoder,
        emit: Callable[[JobEvent], None],
        on_encoded: Callable[[DrawJob, Encoded | None], None],
        *,
        preview: Callable[[Tensor], Sequence[Raster | None]],
        used_bytes: Callable[[], int],
        device: str = "cpu",
        on_rest: Callable[[], None] = lambda: None,
    ) -> None:
        """`emit`, `on_encoded`, `on_rest` are called on the working thread; `used_bytes` goes with finished requests.

        `on_encoded` gets None where encoding failed; the request was told then. `on_rest` hears when all is done that
        somebody waits for, and `attended` is False again.
        """
        self._model, self._emit, self._on_encoded = model, emit, on_encoded
        self._preview, self._used_bytes = preview, used_bytes
        self._stream = torch.cuda.Stream() if device == "cuda" else None
        self._on_rest = on_rest
        self._work = _Work()
        self._attending = False
        self._preview_errors: dict[str, str] = {}
        self._changed = Condition()

    @property
    def attended(self) -> bool:
        """Whether it makes, or is about to make, a picture that somebody waits for."""
        with self._changed:
            return self._is_attended()

    def start(self, threads: int) -> None:
        """Work from now on, on a daemon thread with so many CPU threads."""

        def run() -> None:
            torch.set_num_threads(threads)  # OpenMP counts threads by the thread that asks
            while True:
                with self._changed:
                    self._changed.wait_for(self._waiting)
                self.work_off()

        Thread(target=run, name="decoding", daemon=True).start()

    def encode(self, job: DrawJob) -> None:
        """Encode the picture that a job starts from, then hand the job back."""
        self._put(lambda work: work.sources.append(job))

    def preview(self, job: DrawJob, step: int, latents: Tensor) -> None:
        """Show what a job looks like; one that waits is replaced, so that previews are late but never many."""
        ready = self._mark()
        self._put(lambda work: work.previews.__setitem__(job.id, (step, latents, ready)))

    def finish(self, denoised: Denoised) -> None:
        """Decode and send a job's pictures; its waiting preview is useless now."""
        denoised.ready = self._mark()

        def put(work: _Work) -> None:
            work.previews.pop(denoised.job.id, None)
            work.denoised.append(denoised)

        self._put(put)

    def cancel(self, job_id: str) -> None:
        """Forget what waits for a job."""
        with self._changed:
            work = self._work
            work.denoised = deque(denoised for denoised in work.denoised if denoised.job.id != job_id)
            work.sources = deque(job for job in work.sources if job.id != job_id)
            work.previews.pop(job_id, None)
            self._preview_errors.pop(job_id, None)

    @torch.inference_mode()
    def work_off(self) -> None:
        """Do all that waits: pictures first, then pictures to start from, then previews, then what nobody waits for."""
        with self._on_stream():
            while True:
                worked = self._work_off_one(spare=False) or self._work_off_one(spare=True)
                self._rest()
                if not worked:
                    return

    def _work_off_one(self, *, spare: bool) -> bool:
        if batch := self._take_denoised(spare=spare):
            self._send(batch)
        elif (job := self._take_source(spare=spare)) is not None:
            self._encode(job)
        elif (preview := self._take_preview()) is not None:
            self._show(*preview)
        else:
            return False
        return True

    def _is_attended(self) -> bool:
        waiting = (*(denoised.job for denoised in self._work.denoised), *self._work.sources)
        return self._attending or not all(job.spare for job in waiting)

    def _rest(self) -> None:
        """Say so when what was done last was for somebody and nothing of that kind is left."""
        with self._changed:
            attended, self._attending = self._attending, False
            rests = attended and not self._is_attended()
        if rests:
            self._on_rest()

    def _put(self, change: Callable[[_Work], object]) -> None:
        with self._changed:
            change(self._work)
            self._changed.notify()

    def _waiting(self) -> bool:
        return bool(self._work.denoised or self._work.sources or self._work.previews)

    def _mark(self) -> torch.cuda.Event | None:
        if self._stream is None:
            return None
        event = torch.cuda.Event()
        event.record()
        return event

    def _on_stream(self) -> AbstractContextManager[object]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def _await(self, latents: Tensor, ready: torch.cuda.Event | None) -> Tensor:
        if ready is not None and self._stream is not None:
            self._stream.wait_event(ready)
            latents.record_stream(self._stream)
        return latents

    def _take_denoised(self, *, spare: bool) -> list[Denoised]:
        """The longest waiting request and others of its shape, as far as one call allows.

        Of those that nobody waits for one alone: whoever comes waits for the end of a call.
        """
        now = time.monotonic()
        with self._changed:
            waiting = self._work.denoised
            late = [d for d in waiting if d.job.deadline is not None and d.job.deadline <= now]
            for denoised in late:
                waiting.remove(denoised)
            taken: list[Denoised] = []
            pictures = 0
            for denoised in [d for d in waiting if d.job.spare == spare][: 1 if spare else None]:
                count = len(denoised.latents)
                alike = not taken or denoised.latents.shape[1:] == taken[0].latents.shape[1:]
                if taken and not (alike and pictures + count <= MAX_PICTURES):
                    continue
                taken.append(denoised)
                pictures += count
                waiting.remove(denoised)
            self._attending |= any(not denoised.job.spare for denoised in (*taken, *late))
        for denoised in late:
            self._preview_errors.pop(denoised.job.id, None)
            self._emit(deadline_passed(denoised.job, denoised.job.steps))
        return taken

    def _take_source(self, *, spare: bool) -> DrawJob | None:
        with self._changed:
            job = next((job for job in self._work.sources if job.spare == spare), None)
            if job is not None:
                self._work.sources.remove(job)
                self._attending |= not spare
            return job

    def _take_preview(self) -> tuple[str, int, Tensor, torch.cuda.Event | None] | None:
        with self._changed:
            job_id = next(iter(self._work.previews), None)
            return None if job_id is None else (job_id, *self._work.previews.pop(job_id))

    def _send(self, batch: Sequence[Denoised]) -> None:
        """Decode in calls of at most MAX_PICTURES; a call that fails is repeated request by request."""
        try:
            latents = torch.cat([self._await(denoised.latents, denoised.ready) for denoised in batch])
            rasters = [raster for part in latents.split(MAX_PICTURES) for raster in self._model.decode(part)]
        except Exception as error:
            if len(batch) == 1:
                self._emit(failure(batch[0].job.id, error))
                return
            for denoised in batch:
                self._send([denoised])
            return
        at = 0
        for denoised in batch:
            to = at + len(denoised.latents)
            self._deliver(denoised, rasters[at:to])
            at = to

    def _deliver(self, denoised: Denoised, rasters: Sequence[Raster | None]) -> None:
        job = denoised.job
        preview_error = self._preview_errors.pop(job.id, None)
        pictures = [raster for raster in rasters if raster is not None]
        if len(pictures) < len(rasters):
            message = (
                f"the picture is not a number after {job.steps} steps with guidance {job.guidance_scale:g}; "
                "lower the guidance scale or the adapters' weights"
            )
            self._emit(Failed(job.id, ErrorCode.FAILED_PRECONDITION, "PICTURE_NOT_FINITE", message))
            return
        for index, picture in enumerate(pictures):
            self._emit(Drawn(job.id, index, picture))
        warnings = [f"the text encoder reads only the beginning of {_shown(text)}" for text in denoised.cut_texts]
        if preview_error is not None:
            warnings.append(f"previews were left out: {preview_error}")
        self._emit(Finished(job.id, time.monotonic() - denoised.began, tuple(warnings), self._used_bytes()))

    def _encode(self, job: DrawJob) -> None:
        assert job.start.picture is not None
        try:
            generators = [torch.Generator("cpu").manual_seed(seed) for seed in job.seeds]
            latents = self._model.encode_picture(job.start.picture, generators)
            if self._stream is not None:
                self._stream.synchronize()  # the device thread reads it on its own stream
        except Exception as error:
            self._emit(failure(job.id, error))
            self._on_encoded(job, None)
            return
        self._on_encoded(job, Encoded(latents, generators))

    def _show(self, job_id: str, step: int, latents: Tensor, ready: torch.cuda.Event | None) -> None:
        try:
            rasters = self._preview(self._await(latents, ready))
        except Exception as error:  # the picture matters, not how it comes about: said with it, once
            self._preview_errors[job_id] = type(error).__name__
            return
        for index, raster in enumerate(rasters):
            if raster is not None:
                self._emit(Previewed(job_id, index, step, raster))


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "...")
