"""Covers as a whole: what its calls do beyond looking up, and the loops that keep it going."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import structlog

from terroir.common.clock import Clock
from terroir.common.validation import ensure_text
from terroir.inference.covers.contents import Content, Contents
from terroir.inference.covers.errors import RegionWithoutStyle
from terroir.inference.covers.fills import FillLoop
from terroir.inference.covers.finding import Finder
from terroir.inference.covers.invalidations import Invalidation, Invalidations, digests
from terroir.inference.covers.ladders import Ladders
from terroir.inference.covers.preparation import Preparation, State
from terroir.inference.covers.preparations import Preparations
from terroir.inference.covers.preparing import Preparer
from terroir.inference.covers.units import content_digest
from terroir.inference.request.wish import Limits

MAX_REQUEST_ID_CHARACTERS: Final = 128
_WRITERS: Final = 16
"""Contents that are remembered at once."""
_log = structlog.get_logger()


@dataclass(frozen=True)
class Covers:
    """The parts, put together by `assembly`."""

    finder: Finder
    ladders: Ladders
    contents: Contents
    invalidations: Invalidations
    fill_loop: FillLoop
    preparations: Preparations
    preparer: Preparer
    limits: Callable[[], Limits]
    """Raises ModelLoading."""
    clock: Clock
    variants: int
    """Of preparations that name no number."""

    def now(self) -> float:
        """Seconds since 1970."""
        return self.clock.now().timestamp()

    async def prepare(self, wanted: Preparation, contents: Sequence[Content]) -> Preparation:
        """Remember the contents and begin; contents whose words changed have stale covers from now on."""

        def remember() -> list[str]:
            with ThreadPoolExecutor(_WRITERS, thread_name_prefix="contents") as writers:
                changed = writers.map(self.contents.put, contents)
                return [content_digest(content.key) for content, new in zip(contents, changed, strict=True) if new]

        changed = await asyncio.to_thread(remember)
        if changed:
            rule = Invalidation(tuple(changed), (), self.now(), withdraw=False, actor=wanted.creator, reason="reworded")
            await self.invalidations.add(rule, f"reworded/{wanted.id}")
        begun = await asyncio.to_thread(self.preparations.begin, wanted, contents)
        self.preparer.added()
        return begun

    async def cancel(self, preparation_id: str) -> Preparation:
        """End a preparation; one that has ended stays as it is."""
        await asyncio.to_thread(self.preparations.get, preparation_id)
        ended = await asyncio.to_thread(self.preparations.end, preparation_id, State.CANCELLED)
        self.preparer.added()
        return ended

    async def invalidate(
        self, contents: Sequence[str], region: str, *, withdraw: bool, reason: str, actor: str, request_id: str
    ) -> None:
        """Say that covers are no longer right, on every server."""
        ensure_text(request_id, "request_id", MAX_REQUEST_ID_CHARACTERS)
        looks: tuple[str, ...] = ()
        if region:
            own = (await self.ladders.of(region)).own
            if own is None:
                raise RegionWithoutStyle(
                    f"{region} has no style of which covers could be wrong; name contents, or a region that has one "
                    "(terroir region resolve)",
                    field="region",
                )
            looks = digests(
                [*(look.digest for look in own.dress.looks()), *(each.look.digest for each in own.previous)]
            )
        rule = Invalidation(tuple(map(content_digest, contents)), looks, self.now(), withdraw, actor, reason)
        await self.invalidations.add(rule, request_id or uuid.uuid4().hex)
        _log.info("covers invalidated", contents=len(contents), region=region, withdraw=withdraw)

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Run the loops until the end."""
        parts = (self.ladders, self.invalidations, self.fill_loop, self.preparer)
        tasks = [asyncio.create_task(part.run(), name=f"covers {type(part).__name__}") for part in parts]
        for task in tasks:
            task.add_done_callback(_report)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.finder.close()


def _report(task: asyncio.Task[None]) -> None:
    """A part that ended by itself is a defect: covers still come, but something of them does not go on."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("covers ended", part=task.get_name(), exc_info=error)
