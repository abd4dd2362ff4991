"""Draws the sets that are missing, one unit after the other, in rows that nobody else uses."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

import structlog

from terroir.common.clock import Clock
from terroir.common.errors import NotFound, ResourceExhausted, TerroirError, Unavailable
from terroir.inference.covers.choosing import Chooser
from terroir.inference.covers.claims import claimed
from terroir.inference.covers.contents import Content, Contents
from terroir.inference.covers.looks import Look
from terroir.inference.covers.shelf import CoverSet, Finished, Shelf
from terroir.inference.covers.units import Unit
from terroir.inference.delivery.picture_files import PictureFormat
from terroir.inference.delivery.progress import PictureMade
from terroir.inference.request.wish import RawWish
from terroir.store.errors import StoreError
from terroir.store.leases import Leases

MAX_VARIANTS: Final = 16
_SPARE_SHARE: Final = 1.5
"""Candidates for each variant that is kept."""
_log = structlog.get_logger()


class Draws(Protocol):
    """See `Generator.prepare`."""

    def __call__(self, raw: RawWish, picture_format: PictureFormat) -> AsyncIterator[object]:
        """Progress of a request in spare rows; raises a TerroirError."""
        ...


class Present(Protocol):
    """See `Finder`."""

    async def present(self, unit: Unit) -> CoverSet | None:
        """The set of a unit, if it is right."""
        ...

    def is_wrong(self, unit: Unit, found: CoverSet) -> bool:
        """Whether somebody said that a set is."""
        ...

    def learn(self, unit: Unit, found: CoverSet) -> None:
        """A set was drawn here."""
        ...


class Outcome(StrEnum):
    """What became of a unit."""

    DRAWN = "drawn"
    KEPT = "kept"
    """It is there, or another server draws it."""
    FAILED = "failed"


@dataclass(frozen=True)
class Filled:
    """What became of a unit, and what it cost."""

    outcome: Outcome
    pictures: int = 0
    reason: str = ""
    message: str = ""
    passes: bool = False
    """Whether the same may well work a little later."""


@dataclass(frozen=True)
class Order:
    """A unit to draw."""

    unit: Unit
    look: Look
    variants: int
    redraw_before: float = -math.inf
    """Sets drawn before this moment, in seconds since 1970, are drawn anew."""


class Filler:
    """Draws, chooses and shelves one unit at a time per call; several calls may run at once."""

    def __init__(
        self, contents: Contents, shelf: Shelf, present: Present, draw: Draws, chooser: Chooser, leases: Leases,
        clock: Clock,
    ) -> None:  # fmt: skip
        self._contents = contents
        self._shelf = shelf
        self._present = present
        self._draw = draw
        self._chooser = chooser
        self._leases = leases
        self._clock = clock

    async def fill(self, order: Order) -> Filled:
        """See to it that a unit's set is there; errors are its outcome."""
        try:
            content = await asyncio.to_thread(self._contents.find, order.unit.content)
            if content is None:
                raise NotFound(
                    "nobody has said what to draw for this content (PrepareCovers does)", reason="CONTENT_UNKNOWN"
                )
            if await self._is_there(order, content):
                return Filled(Outcome.KEPT)
            async with self._claimed(order.unit) as mine:
                # Looked at again: whoever had the claim before may just have drawn it.
                if not mine or await self._is_there(order, content):
                    return Filled(Outcome.KEPT)
                return await self._drawn(order, content)
        except StoreError as error:
            return Filled(Outcome.FAILED, 0, error.reason, str(error), passes=True)
        except TerroirError as error:
            passes = isinstance(error, Unavailable | ResourceExhausted)
            return Filled(Outcome.FAILED, 0, error.reason, str(error), passes=passes)
        except Exception as error:  # one unit must not end the work on all others
            _log.exception("cover not drawn", key=order.unit.key)
            return Filled(Outcome.FAILED, 0, "COVER_FAILED", type(error).__name__)

    async def _is_there(self, order: Order, content: Content) -> bool:
        found = await self._present.present(order.unit)
        if found is None or found.made_at < order.redraw_before:
            return False
        return found.text_digest == content.text_digest and found.asked >= order.variants

    @asynccontextmanager
    async def _claimed(self, unit: Unit) -> AsyncIterator[bool]:
        """Whether this process is the one that draws a unit."""
        key = unit.key.replace("covers/sets/", "covers/claims/", 1)
        mine = False
        try:
            async with claimed(self._leases, key) as mine:
                yield mine
        finally:
            if mine:
                await asyncio.to_thread(self._leases.forget, key)

    async def _drawn(self, order: Order, content: Content) -> Filled:
        count = candidates(order.variants)
        made_at = self._clock.now().timestamp()  # what is said meanwhile to be wrong is wrong of this set too
        take = await self._take(order, content)
        wishes = [_wish(order, content, order.unit.seed(take * MAX_VARIANTS + number)) for number in range(count)]
        try:
            # One request a picture: a small one finds room in more ticks.
            async with asyncio.TaskGroup() as drawing:
                tasks = [drawing.create_task(self._one(wish, order.unit.shape.format)) for wish in wishes]
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from group
        pictures = [task.result() for task in tasks]
        versions = tuple(worn.version for worn in order.look.adapters)
        chosen = await self._chooser.choose(content.prompt, [one.data for one in pictures], order.variants, versions)
        if not chosen:
            return Filled(
                Outcome.FAILED, count, "COVERS_COPY_TRAINING",
                f"all {count} candidates repeat a picture that a version was trained on ({', '.join(versions)})",
            )  # fmt: skip
        kept = [pictures[at] for at in chosen]
        found = await asyncio.to_thread(
            self._shelf.write, order.unit, content.text_digest, made_at, kept, order.variants, take
        )
        self._present.learn(order.unit, found)
        return Filled(Outcome.DRAWN, count)

    async def _take(self, order: Order, content: Content) -> int:
        """Another one than that which was said to be wrong, or shall be redrawn, of the same words."""
        before = await asyncio.to_thread(self._shelf.find, order.unit)
        if before is None or before.text_digest != content.text_digest:
            return 0
        wrong = before.made_at < order.redraw_before or self._present.is_wrong(order.unit, before)
        return before.take + wrong

    async def _one(self, wish: RawWish, picture_format: PictureFormat) -> Finished:
        async for progress in self._draw(wish, picture_format):
            if isinstance(progress, PictureMade):
                return Finished(progress.data, progress.seed, progress.picture_id)
        raise Unavailable("the engine ended without a picture", reason="ENGINE_RESTARTED")


def candidates(variants: int) -> int:
    """Pictures drawn for so many variants: a few more, so that there is something to choose from."""
    return variants if variants == MAX_VARIANTS else min(MAX_VARIANTS, math.ceil(variants * _SPARE_SHARE))


def _wish(order: Order, content: Content, seed: int) -> RawWish:
    look, shape = order.look, order.unit.shape
    return RawWish(
        prompt=f"{look.prompt_prefix} {content.prompt}".strip(),
        negative_prompt=content.negative_prompt or look.negative_prompt,
        adapters=tuple((worn.version, worn.weight, None) for worn in look.adapters),
        region="",
        width=shape.width,
        height=shape.height,
        steps=0,
        guidance_scale=None,
        sampler="",
        seeds=(seed,),
        preview_interval_steps=0,
    )
