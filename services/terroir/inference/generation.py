"""One Generate request from wish to pictures, in domain values."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from terroir.common.clock import Clock
from terroir.inference.admission import Admission
from terroir.inference.engine.messages import DrawJob, Drawn, EngineInfo, Finished, Previewed, Stepped
from terroir.inference.engine_host import EngineHost
from terroir.inference.picture_files import PictureFormat, encode_picture, encode_preview
from terroir.inference.provenance import AppliedAdapter, Provenance
from terroir.inference.styling import Base, Style, Stylist
from terroir.inference.wish import Limits, RawWish, Wish, check_wish


@dataclass(frozen=True)
class Waiting:
    """Accepted; `position` requests are before it."""

    position: int


@dataclass(frozen=True)
class StepMade:
    """`step` of `total` steps are done."""

    step: int
    total: int


@dataclass(frozen=True)
class PreviewMade:
    """A JPEG of an unfinished picture."""

    index: int
    step: int
    jpeg: bytes


@dataclass(frozen=True)
class PictureMade:
    """A finished file."""

    index: int
    seed: int
    data: bytes


@dataclass(frozen=True)
class AllMade:
    """What was applied and how long it took."""

    adapters: tuple[AppliedAdapter, ...]
    queue_seconds: float
    compute_seconds: float
    region_chain: tuple[str, ...]
    warnings: tuple[str, ...]


Progress = Waiting | StepMade | PreviewMade | PictureMade | AllMade


class Generator:
    """Joins admission, styling and the engine."""

    def __init__(
        self, engine: EngineHost, stylist: Stylist, admission: Admission, clock: Clock, *,
        base: str, max_pixels: int, default_guidance_scale: float,
    ) -> None:  # fmt: skip
        self._engine = engine
        self._stylist = stylist
        self._admission = admission
        self._clock = clock
        self._base = base
        self._max_pixels = max_pixels
        self._default_guidance_scale = default_guidance_scale

    def base(self) -> Base:
        """The base that is loaded; raises ModelLoading."""
        info = self._engine.info
        return Base(f"bases/{self._base}", info.base_digest, info.key_table)

    async def generate(
        self, raw: RawWish, picture_format: PictureFormat, remaining_seconds: float | None
    ) -> AsyncGenerator[Progress]:
        """Draw; closing the iterator cancels. Raises a TerroirError for whatever forbids it."""
        deadline = None if remaining_seconds is None else self._clock.monotonic() + remaining_seconds
        wish = check_wish(raw, self._limits(self._engine.info))
        arrived = self._clock.monotonic()
        # Adapters load while the request waits for its turn, so the queue hides the load.
        async with self._admission.enter() as ticket:
            yield Waiting(ticket.position)
            async with self._stylist.dress(wish, self.base()) as style:
                await ticket.turn
                queued = self._clock.monotonic() - arrived
                async with aclosing(self._draw(wish, style, picture_format, deadline, queued)) as events:
                    async for progress in events:
                        yield progress

    def _limits(self, info: EngineInfo) -> Limits:
        return Limits(self._max_pixels, info.native_resolution, self._default_guidance_scale)

    async def _draw(
        self, wish: Wish, style: Style, picture_format: PictureFormat, deadline: float | None, queued: float
    ) -> AsyncGenerator[Progress]:
        job = _job(wish, style, deadline)
        self._engine.put(style.adapters)
        applied, base = _applied(style), self.base()
        async with self._engine.draw(job) as events:
            async for event in events:
                if isinstance(event, Stepped):
                    yield StepMade(event.step, event.total)
                elif isinstance(event, Previewed):
                    jpeg = await asyncio.to_thread(encode_preview, event.raster)
                    yield PreviewMade(event.index, event.step, jpeg)
                elif isinstance(event, Drawn):
                    seed = wish.seeds[event.index]
                    about = _provenance(base, applied, wish, style, seed)
                    data = await asyncio.to_thread(encode_picture, event.raster, picture_format, about)
                    yield PictureMade(event.index, seed, data)
                elif isinstance(event, Finished):
                    self._admission.drawn(event.compute_seconds)
                    warnings = (*style.warnings, *event.warnings)
                    yield AllMade(applied, queued, event.compute_seconds, style.region_chain, warnings)


def _job(wish: Wish, style: Style, deadline: float | None) -> DrawJob:
    return DrawJob(
        id=uuid.uuid4().hex,
        prompt=style.prompt,
        negative_prompt=style.negative_prompt,
        composition=style.composition,
        width=wish.width,
        height=wish.height,
        steps=wish.steps,
        guidance_scale=wish.guidance_scale,
        sampler=wish.sampler,
        seeds=wish.seeds,
        preview_interval_steps=wish.preview_interval_steps,
        deadline=deadline,
    )


def _applied(style: Style) -> tuple[AppliedAdapter, ...]:
    return tuple(
        AppliedAdapter(
            version=style.loaded[part.digest].version,
            file_digest=part.digest,
            weight=part.weight,
            text_encoder_weight=part.text_encoder_weight,
            matched_layers=style.matched_layers(part.digest),
        )
        for part in style.composition.parts
    )


def _provenance(base: Base, adapters: tuple[AppliedAdapter, ...], wish: Wish, style: Style, seed: int) -> Provenance:
    return Provenance(
        base=base.name,
        base_digest=base.digest,
        adapters=adapters,
        prompt=style.prompt,
        negative_prompt=style.negative_prompt,
        seed=seed,
        width=wish.width,
        height=wish.height,
        steps=wish.steps,
        guidance_scale=wish.guidance_scale,
        sampler=wish.sampler,
    )
