"""RatingService over the domain: parse, call, map."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final

import grpc

from terroir._proto.training.v1 import rating_pb2 as pb
from terroir._proto.training.v1 import rating_pb2_grpc
from terroir.common.principal import PrincipalSource
from terroir.common.validation import ensure_name, ensure_text, page
from terroir.training.jobs.documents import Jobs
from terroir.training.rating.errors import SheetStreamInvalid
from terroir.training.rating.forms import sheet_files
from terroir.training.rating.making import SheetMaking, SheetRequest, ensure_drawn
from terroir.training.rating.messages import answers_of, sheet_message
from terroir.training.rating.model import Drawn, Sheet
from terroir.training.rating.people import take_up
from terroir.training.rating.sheets import MOST_PICTURES, Sheets

_CHUNK_BYTES: Final = 512 * 1024
_MOST_BYTES: Final = 128 * 1024 * 1024
"""Of all generated pictures of a request."""
_Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class RatingDomain:
    """What the methods call."""

    sheets: Sheets
    making: SheetMaking
    jobs: Jobs
    job_changed: Callable[[str], None]
    """Tells the queue that a job may have something to do."""


class RatingServicer(rating_pb2_grpc.RatingServiceServicer):
    """Every method of the contract; what blocks runs in threads."""

    def __init__(self, domain: RatingDomain, principals: PrincipalSource) -> None:
        self._domain = domain
        self._principals = principals

    async def CreateRatingSheet(
        self, request_iterator: AsyncIterator[pb.CreateRatingSheetRequest], context: _Context
    ) -> pb.RatingSheet:
        """Take a header and pictures, and make a sheet."""
        requests = aiter(request_iterator)
        first = await anext(requests, pb.CreateRatingSheetRequest())
        if first.WhichOneof("message") != "header":
            raise SheetStreamInvalid("the stream begins with a header, naming what is rated", field="header")
        request = _request(first.header)
        drawn = await _drawn(requests)
        creator = self._principals.of(context).name
        return sheet_message(await asyncio.to_thread(self._domain.making.make, request, drawn, creator))

    async def DownloadRatingSheet(
        self, request: pb.DownloadRatingSheetRequest, _: _Context
    ) -> AsyncIterator[pb.DownloadRatingSheetResponse]:
        """The files of a sheet, one after the other."""
        sheet = await self._get(request.name, "name")
        pictures = {item.label: await asyncio.to_thread(self._domain.sheets.picture, item) for item in sheet.items}
        for path, data in sheet_files(sheet.name, pictures):
            yield pb.DownloadRatingSheetResponse(file=pb.SheetFile(path=path, size_bytes=len(data)))
            for start in range(0, len(data), _CHUNK_BYTES):
                yield pb.DownloadRatingSheetResponse(chunk=data[start : start + _CHUNK_BYTES])

    async def SubmitRatings(self, request: pb.SubmitRatingsRequest, context: _Context) -> pb.RatingSheet:
        """Take one person's answers."""
        sheet_id = ensure_name(request.sheet, "sheet", "ratingSheets/{sheet}")["sheet"]
        answers, by = answers_of(request.ratings), self._principals.of(context).name
        operation = ensure_text(request.request_id, "request_id", 128) or str(uuid.uuid4())
        sheet = await asyncio.to_thread(self._domain.sheets.submit, sheet_id, request.rater, answers, by, operation)
        job = await asyncio.to_thread(take_up, self._domain.jobs, sheet)
        if job is not None:
            self._domain.job_changed(job.id)
        return sheet_message(sheet)

    async def GetRatingSheet(self, request: pb.GetRatingSheetRequest, _: _Context) -> pb.RatingSheet:
        """One sheet with its scores."""
        return sheet_message(await self._get(request.name, "name"))

    async def ListRatingSheets(self, request: pb.ListRatingSheetsRequest, _: _Context) -> pb.ListRatingSheetsResponse:
        """A page of sheets, newest first."""
        subject = ensure_text(request.subject, "subject", 200)
        wanted = page(request.page_size, request.page_token, default=50, limit=200, query=["sheets", subject])
        sheets = [
            sheet
            for sheet in await asyncio.to_thread(self._domain.sheets.listed)
            if subject in ("", sheet.subject) and (wanted.after is None or _key(sheet) < wanted.after)
        ]
        shown = sheets[: wanted.size]
        token = wanted.next_token(_key(shown[-1])) if len(sheets) > wanted.size else ""
        return pb.ListRatingSheetsResponse(sheets=map(sheet_message, shown), next_page_token=token)

    async def _get(self, name: str, field: str) -> Sheet:
        sheet_id = ensure_name(name, field, "ratingSheets/{sheet}")["sheet"]
        return await asyncio.to_thread(self._domain.sheets.get, sheet_id)


def _request(header: pb.RatingSheetHeader) -> SheetRequest:
    return SheetRequest(header.subject, header.real_count, header.generated_count, header.request_id)


async def _drawn(requests: AsyncIterator[pb.CreateRatingSheetRequest]) -> list[Drawn]:
    drawn: list[Drawn] = []
    room = _MOST_BYTES
    async for message in requests:
        if message.WhichOneof("message") != "picture":
            raise SheetStreamInvalid("after the header come pictures alone", field="picture")
        picture = message.picture
        room -= len(picture.data)
        if len(drawn) == MOST_PICTURES or room < 0:
            raise SheetStreamInvalid(
                f"more than {MOST_PICTURES} pictures, or {_MOST_BYTES} bytes; send fewer", field="picture"
            )
        drawn.append(ensure_drawn(picture.data, picture.prompt, picture.seed))
    return drawn


def _key(sheet: Sheet) -> str:
    return f"{sheet.created_at}/{sheet.id}"
