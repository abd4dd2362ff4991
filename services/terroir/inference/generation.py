"""One Generate request from wish to pictures, in domain values."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from typing import Final, Protocol

import structlog

from terroir.common.clock import Clock
from terroir.common.tracing import span
from terroir.inference.adapters.styling import Base, Style
from terroir.inference.admission.admission import Admission, Demand
from terroir.inference.admission.cost_model import Work
from terroir.inference.admission.waits import Waits
from terroir.inference.delivery.picture_files import PictureFormat, encode_picture, encode_preview
from terroir.inference.delivery.picture_pool import PicturePool
from terroir.inference.delivery.progress import (
    AdapterOrigin,
    AllMade,
    PictureMade,
    PreviewMade,
    Progress,
    StepMade,
    Waiting,
)
from terroir.inference.delivery.provenance import AppliedAdapter, Provenance, ProvenanceProfile
from terroir.inference.drawing_spans import DrawingSpans
from terroir.inference.engine.messages import DrawJob, Drawn, EngineInfo, Finished, JobEvent, Previewed, Start, Stepped
from terroir.inference.request.init_picture import read_init_picture
from terroir.inference.request.safety import Safety
from terroir.inference.request.wish import Limits, RawWish, Wish, check_wish
from terroir.lora.adapter import Adapter

GUIDANCE_OFF: Final = 1.0
"""At this scale a picture takes one row of a tick instead of two."""
_log = structlog.get_logger()


class Engine(Protocol):
    """What draws; see `EngineHost`."""

    @property
    def info(self) -> EngineInfo:
        """What it has loaded; raises ModelLoading or ModelLoadFailed."""
        ...

    def draw(self, job: DrawJob) -> AbstractAsyncContextManager[AsyncIterator[JobEvent]]:
        """Events of a job until it is finished; leaving early cancels it at its next step."""
        ...


class OnDevice(Protocol):
    """What keeps adapters in device memory; see `DeviceTier`."""

    def hold(self, adapters: Mapping[str, Adapter]) -> AbstractAsyncContextManager[None]:
        """Have adapters, by digest, on the device until the end, which comes after the job's."""
        ...


class Wardrobe(Protocol):
    """What finds and holds adapters; see `Stylist`."""

    def dress(self, wish: Wish, base: Base) -> AbstractAsyncContextManager[Style]:
        """Resolve and hold the request's adapters; raises a TerroirError."""
        ...


class Generator:
    """Joins admission, styling and the engine."""

    def __init__(
        self, engine: Engine, stylist: Wardrobe, admission: Admission, pictures: PicturePool, clock: Clock, *,
        device: OnDevice, safety: Safety, base: str, max_pixels: int, default_guidance_scale: float,
        profile: ProvenanceProfile,
    ) -> None:  # fmt: skip
        """`profile` is what files say where a request does not choose."""
        self._engine = engine
        self._stylist = stylist
        self._admission = admission
        self._pictures = pictures
        self._clock = clock
        self._device = device
        self._safety = safety
        self._profile = profile
        self._base = base
        self._max_pixels = max_pixels
        self._default_guidance_scale = default_guidance_scale
        self._profiled: EngineInfo | None = None

    def base(self) -> Base:
        """The base that is loaded; raises ModelLoading."""
        info = self._engine.info
        return Base(f"bases/{self._base}", info.base_digest, info.key_table)

    async def generate(
        self, raw: RawWish, picture_format: PictureFormat, remaining_seconds: float | None
    ) -> AsyncGenerator[Progress]:
        """Draw; closing the iterator cancels. Raises a TerroirError for whatever forbids it."""
        deadline = self._deadline(remaining_seconds)
        wish, start = await self._understand(raw)
        demand = Demand(_work(wish), wish.priority, deadline)
        async with self._admission.enter(demand) as place, AsyncExitStack() as held:
            yield Waiting(place.position, place.predicted_seconds)
            with span("wait for turn", position=place.position, priority=wish.priority.name) as waiting:
                # Adapters load while the request waits for its turn, so the queue hides the load.
                style = await place.while_waiting(held.enter_async_context(self._stylist.dress(wish, self.base())))
                waits = Waits(place.arrived, loaded=self._clock.monotonic(), place=place)
                await self._safety.allow_prompt(style.prompt, style.negative_prompt)
                await place.turn()
                waits.turn = self._clock.monotonic()
                waiting.set(load_seconds=waits.load_seconds, hidden_load_seconds=waits.hidden_load_seconds)
            self._admission.loaded(waits.load_seconds, waits.hidden_load_seconds)
            async with aclosing(self._draw(wish, start, style, picture_format, deadline, waits)) as events:
                async for progress in events:
                    yield progress

    async def prepare(
        self, raw: RawWish, picture_format: PictureFormat, remaining_seconds: float | None = None
    ) -> AsyncGenerator[Progress]:
        """Draw what nobody waits for, in rows that others leave, so whatever priority it names; closing cancels.

        It takes no place of those who wait, and nothing is predicted for it: it may rest for as long as they draw. How
        many are prepared at once is the caller's affair. Raises a TerroirError for whatever forbids it.
        """
        arrived, deadline = self._clock.monotonic(), self._deadline(remaining_seconds)
        wish, start = await self._understand(raw)
        async with self._stylist.dress(wish, self.base()) as style:
            waits = Waits(arrived, loaded=self._clock.monotonic())
            await self._safety.allow_prompt(style.prompt, style.negative_prompt)
            waits.turn = self._clock.monotonic()
            async with aclosing(self._draw(wish, start, style, picture_format, deadline, waits)) as events:
                async for progress in events:
                    yield progress

    def _deadline(self, remaining_seconds: float | None) -> float | None:
        return None if remaining_seconds is None else self._clock.monotonic() + remaining_seconds

    async def _understand(self, raw: RawWish) -> tuple[Wish, Start]:
        """What is asked for, checked, and where its drawing begins."""
        info = self._engine.info
        wish = check_wish(raw, self._limits(info))
        self._learn_profile(info)
        return wish, await self._start(wish)

    def _learn_profile(self, info: EngineInfo) -> None:
        if info is not self._profiled:
            self._profiled = info
            for cost in info.profile:
                self._admission.learn(cost)

    def limits(self) -> Limits:
        """What the operator and the base allow; raises ModelLoading."""
        return self._limits(self._engine.info)

    def _limits(self, info: EngineInfo) -> Limits:
        return Limits(self._max_pixels, info.native_resolution, self._default_guidance_scale, self._profile)

    async def _start(self, wish: Wish) -> Start:
        """Where the drawing begins; a caller's picture is decoded before it takes a place in the queue."""
        if wish.variation is not None:
            return Start(variation_of=wish.variation.seed, variation_strength=wish.variation.strength)
        if wish.init_picture is None:
            return Start()
        source = wish.init_picture
        picture = await self._pictures.run(read_init_picture, source.data, wish.width, wish.height)
        return Start(picture=picture, strength=source.strength)

    async def _draw(
        self, wish: Wish, start: Start, style: Style, picture_format: PictureFormat, deadline: float | None,
        waits: Waits,
    ) -> AsyncGenerator[Progress]:  # fmt: skip
        job = _job(wish, start, style, deadline, spare=waits.place is None)
        applied, base = _applied(style), self.base()
        async with (
            self._device.hold(style.adapters),
            self._engine.draw(job) as events,
            DrawingSpans(job, waits.turn, self._clock) as spans,
        ):
            async for event in events:
                spans.take(event)
                if isinstance(event, Stepped):
                    waits.stepped(event, self._clock.monotonic())
                    self._admission.learn(event.tick)
                    yield StepMade(event.step, event.total)
                elif isinstance(event, Previewed):
                    jpeg = await self._pictures.run(encode_preview, event.raster)
                    yield PreviewMade(event.index, event.step, jpeg)
                elif isinstance(event, Drawn):
                    waits.drawn(self._clock.monotonic())
                    await self._safety.allow_picture(event.raster)
                    seed = wish.seeds[event.index]
                    about = _provenance(base, applied, wish, style, seed)
                    with span("encode picture", picture_id=about.picture_id, format=picture_format.value):
                        data = await self._pictures.run(
                            encode_picture, event.raster, picture_format, about, wish.provenance_profile
                        )
                    # Leads from a file, which holds this identifier, to the call and its trace.
                    _log.info("picture made", picture_id=about.picture_id, index=event.index, size_bytes=len(data))
                    yield PictureMade(event.index, seed, data, about.picture_id, about.to_json())
                elif isinstance(event, Finished):
                    if waits.place is not None:
                        self._admission.drawn(waits.place, waits.before_ticks, waits.after_ticks)
                    yield AllMade(
                        adapters=applied,
                        sources=_origins(style),
                        queue_seconds=waits.queue_seconds,
                        compute_seconds=event.compute_seconds,
                        region_chain=style.region_chain,
                        warnings=(*style.warnings, *event.warnings),
                        load_seconds=waits.load_seconds,
                        hidden_load_seconds=waits.hidden_load_seconds,
                    )


def _work(wish: Wish) -> Work:
    rows = len(wish.seeds) * (2 if wish.guidance_scale > GUIDANCE_OFF else 1)
    return Work(wish.width, wish.height, rows, wish.made_steps, len(wish.seeds))


def _job(wish: Wish, start: Start, style: Style, deadline: float | None, *, spare: bool) -> DrawJob:
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
        start=start,
        preview_interval_steps=wish.preview_interval_steps,
        deadline=deadline,
        spare=spare,
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


def _origins(style: Style) -> tuple[AdapterOrigin, ...]:
    loaded = [style.loaded[part.digest] for part in style.composition.parts]
    return tuple(AdapterOrigin(adapter.found, adapter.ignored_keys) for adapter in loaded)


def _provenance(base: Base, adapters: tuple[AppliedAdapter, ...], wish: Wish, style: Style, seed: int) -> Provenance:
    source, variation = wish.init_picture, wish.variation
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
        picture_id=str(uuid.uuid4()),
        init_picture_digest="" if source is None else hashlib.sha256(source.data).hexdigest(),
        strength=None if source is None else source.strength,
        variation_of=None if variation is None else variation.seed,
        variation_strength=None if variation is None else variation.strength,
    )
