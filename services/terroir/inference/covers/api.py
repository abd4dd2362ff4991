"""Servicer of CoverService: parse, call the domain, map the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import grpc

from terroir._proto.inference.v1 import cover_pb2 as pb
from terroir._proto.inference.v1 import cover_pb2_grpc
from terroir.common.principal import PrincipalSource
from terroir.common.validation import ensure_digest, ensure_name, page
from terroir.inference.covers.domain import Covers
from terroir.inference.covers.errors import CoverNotFound
from terroir.inference.covers.finding import Found
from terroir.inference.covers.ladder import Lack
from terroir.inference.covers.messages import (
    NO_SHAPE,
    contents_of,
    covers_message,
    invalidated,
    preparation_message,
    preparation_of,
    queries_of,
    region_of,
    shape_of,
)
from terroir.inference.covers.preparation import Preparation
from terroir.inference.covers.preparations import preparation_id
from terroir.inference.errors import ModelLoadFailed, ModelLoading

CHUNK_BYTES: Final = 1024 * 1024
_POLL_SECONDS: Final = 0.5
_NAME: Final = "preparations/{preparation}"

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]


class CoverServicer(cover_pb2_grpc.CoverServiceServicer):
    """CoverService on the domain."""

    def __init__(self, covers: Covers, principals: PrincipalSource) -> None:
        self._covers = covers
        self._principals = principals

    async def GetCovers(self, request: pb.GetCoversRequest, _context: Context) -> pb.GetCoversResponse:
        """The best that is there."""
        queries, now = queries_of(request), self._covers.now()
        try:
            shape = shape_of(request.shape, self._covers.limits())
        except (ModelLoading, ModelLoadFailed):
            self._covers.finder.unanswered(sum(len(query.contents) for query in queries))
            bare = [Found(key, query.region, lack=Lack.MODEL_LOADING) for query in queries for key in query.contents]
            return covers_message(bare, NO_SHAPE, request.default_picture, now)
        found = await self._covers.finder.find(
            queries, shape, sticky_key=request.sticky_key, with_data=request.with_data
        )
        return covers_message(found, shape, request.default_picture, now)

    async def ReadCover(self, request: pb.ReadCoverRequest, _context: Context) -> AsyncIterator[pb.ReadCoverResponse]:
        """A file in chunks."""
        digest = ensure_digest(request.name.removeprefix("covers/"), "name")
        data = await self._covers.finder.read(digest)
        if data is None:
            raise CoverNotFound(
                f"covers/{digest} is not there any more: it was replaced or removed; ask GetCovers again",
                metadata={"digest": digest},
            )
        for start in range(0, len(data), CHUNK_BYTES):
            yield pb.ReadCoverResponse(data=data[start : start + CHUNK_BYTES])

    async def PrepareCovers(self, request: pb.PrepareCoversRequest, context: Context) -> pb.CoverPreparation:
        """Begin a preparation."""
        creator = self._principals.of(context).name
        contents = contents_of(request)
        wanted = preparation_of(
            request, shape_of(request.shape, self._covers.limits()), id_=preparation_id(creator, request.request_id),
            creator=creator, now=self._covers.now(), variants=self._covers.variants,
        )  # fmt: skip
        return await self._message(await self._covers.prepare(wanted, contents))

    async def GetPreparation(self, request: pb.GetPreparationRequest, _context: Context) -> pb.CoverPreparation:
        """One preparation."""
        return await self._message(await self._get(request.name))

    async def ListPreparations(
        self, request: pb.ListPreparationsRequest, _context: Context
    ) -> pb.ListPreparationsResponse:
        """A page of preparations, newest first."""
        wanted = page(request.page_size, request.page_token, default=50, limit=200, query="preparations")
        below = int(wanted.after) if wanted.after is not None and wanted.after.isdigit() else None
        found = await asyncio.to_thread(lambda: list(islice(self._covers.preparations.newest(below), wanted.size + 1)))
        shown = found[: wanted.size]
        token = wanted.next_token(str(shown[-1][0])) if len(found) > wanted.size else ""
        messages = [await self._message(preparation) for _, preparation in shown]
        return pb.ListPreparationsResponse(preparations=messages, next_page_token=token)

    async def WatchPreparation(
        self, request: pb.WatchPreparationRequest, _context: Context
    ) -> AsyncIterator[pb.WatchPreparationResponse]:
        """The preparation at every change until it has ended."""
        last = None
        while True:
            preparation = await self._get(request.name)
            message = await self._message(preparation)
            if message != last:
                yield pb.WatchPreparationResponse(preparation=message)
            if preparation.ended:
                return
            last = message
            await asyncio.sleep(_POLL_SECONDS)

    async def CancelPreparation(self, request: pb.CancelPreparationRequest, _context: Context) -> pb.CoverPreparation:
        """End a preparation."""
        return await self._message(await self._covers.cancel(_id(request.name)))

    async def InvalidateCovers(
        self, request: pb.InvalidateCoversRequest, context: Context
    ) -> pb.InvalidateCoversResponse:
        """Tell every server that covers are no longer right."""
        await self._covers.invalidate(
            invalidated(request), region_of(request.region, "region"), withdraw=request.withdraw,
            reason=request.reason, actor=self._principals.of(context).name, request_id=request.request_id,
        )  # fmt: skip
        return pb.InvalidateCoversResponse()

    async def _get(self, name: str) -> Preparation:
        return await asyncio.to_thread(self._covers.preparations.get, _id(name))

    async def _message(self, preparation: Preparation) -> pb.CoverPreparation:
        return preparation_message(preparation, await self._covers.preparer.tally(preparation))


def _id(name: str) -> str:
    return ensure_name(name, "name", _NAME)["preparation"]
