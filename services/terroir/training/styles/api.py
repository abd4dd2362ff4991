"""StyleService over the domain: parse, call, map."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import grpc

from terroir._proto.training.v1 import style_pb2 as pb
from terroir._proto.training.v1 import style_pb2_grpc
from terroir.common.errors import InvalidArgument
from terroir.common.principal import PrincipalSource
from terroir.common.validation import PageRequest, ensure_name, page
from terroir.store.interface import ObjectStore
from terroir.training.errors import JobNotFound
from terroir.training.jobs.documents import Jobs
from terroir.training.messages import job_message
from terroir.training.styles.admission import Admission
from terroir.training.styles.errors import RegistrationNotFound
from terroir.training.styles.live import Live, read_live
from terroir.training.styles.messages import registration_message, style_request, wish_message
from terroir.training.styles.model import Registration
from terroir.training.styles.registrations import Registrations

_POLL_SECONDS: Final = 0.3
_NAME: Final = "styles/{style}/registrations/{registration}"
_Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True)
class StyleDomain:
    """What the methods call."""

    store: ObjectStore
    registrations: Registrations
    admission: Admission
    jobs: Jobs
    changed: Callable[[Registration], None]
    """Tells the registrar that a registration may have something to do."""


class StyleServicer(style_pb2_grpc.StyleServiceServicer):
    """Every method of the contract; what blocks runs in threads."""

    def __init__(self, domain: StyleDomain, principals: PrincipalSource) -> None:
        self._domain = domain
        self._principals = principals

    async def RegisterStyle(self, request: pb.RegisterStyleRequest, context: _Context) -> pb.StyleRegistration:
        """Begin a registration, or only check it."""
        admission, asked, principal = self._domain.admission, style_request(request), self._principals.of(context)
        if request.validate_only:
            return wish_message(await asyncio.to_thread(admission.checked, asked, principal, pictures_later=True))
        begun = await asyncio.to_thread(admission.register, asked, request.request_id, principal)
        self._domain.changed(begun)
        return await self._message(begun)

    async def GetStyleRegistration(self, request: pb.GetStyleRegistrationRequest, _: _Context) -> pb.StyleRegistration:
        """One registration, or a style's newest."""
        if request.name.count("/") == 1:
            style = ensure_name(request.name, "name", "styles/{style}")["style"]
            return await self._message(await asyncio.to_thread(self._domain.registrations.newest, style))
        return await self._message(await self._get(request.name))

    async def ListStyleRegistrations(
        self, request: pb.ListStyleRegistrationsRequest, _: _Context
    ) -> pb.ListStyleRegistrationsResponse:
        """A page of registrations, newest first."""
        style = ensure_name(request.parent, "parent", "styles/{style}")["style"] if request.parent else ""
        wanted = page(request.page_size, request.page_token, default=50, limit=200, query=["styles", style])
        found, more = await asyncio.to_thread(self._page, style, wanted)
        token = wanted.next_token(str(found[-1][0])) if more else ""
        messages = [await self._message(registration) for _, registration in found]
        return pb.ListStyleRegistrationsResponse(registrations=messages, next_page_token=token)

    async def WatchStyleRegistration(
        self, request: pb.WatchStyleRegistrationRequest, _: _Context
    ) -> AsyncIterator[pb.WatchStyleRegistrationResponse]:
        """The registration at every change until it has ended."""
        last = None
        while True:
            registration = await self._get(request.name)
            message = await self._message(registration)
            if message != last:
                yield pb.WatchStyleRegistrationResponse(registration=message)
            if registration.ended:
                return
            last = message
            await asyncio.sleep(_POLL_SECONDS)

    async def CancelStyleRegistration(
        self, request: pb.CancelStyleRegistrationRequest, _: _Context
    ) -> pb.StyleRegistration:
        """Ask a registration to end."""
        registration = await self._get(request.name)
        asked = await asyncio.to_thread(self._domain.registrations.request_cancel, registration)
        self._domain.changed(asked)
        return await self._message(asked)

    async def _get(self, name: str) -> Registration:
        parts = ensure_name(name, "name", _NAME)
        return await asyncio.to_thread(self._domain.registrations.get, parts["style"], parts["registration"])

    async def _message(self, registration: Registration) -> pb.StyleRegistration:
        return await asyncio.to_thread(self._told, registration)

    def _told(self, registration: Registration) -> pb.StyleRegistration:
        live = Live() if registration.ended else read_live(self._domain.store, registration)
        try:
            job = self._domain.jobs.get(registration.job) if registration.job else None
        except JobNotFound:  # about to be made
            job = None
        told = job_message(job, self._domain.jobs.progress(job)) if job else None
        return registration_message(registration, told, live)

    def _page(self, style: str, wanted: PageRequest) -> tuple[list[tuple[int, Registration]], bool]:
        """Registrations with their place in the order, and whether more follow."""
        below = _place(wanted)
        if style:
            numbered = [*enumerate(reversed(self._domain.registrations.of_style(style)), start=1)][::-1]
            rest = [entry for entry in numbered if below is None or entry[0] < below]
        else:
            rest = list(islice(self._logged(below), wanted.size + 1))
        return rest[: wanted.size], len(rest) > wanted.size

    def _logged(self, below: int | None) -> Iterator[tuple[int, Registration]]:
        for line in self._domain.registrations.logged_before(below):
            with suppress(RegistrationNotFound):  # announced, and never begun
                yield line.number, self._domain.registrations.get(line.style, line.id)


def _place(wanted: PageRequest) -> int | None:
    """The place in the order that the page lies below; None on the first page."""
    if wanted.after is None:
        return None
    if not (wanted.after.isascii() and wanted.after.isdigit() and len(wanted.after) <= 12):
        raise InvalidArgument(
            "page_token is damaged; start again without it", reason="INVALID_PAGE_TOKEN", field="page_token"
        )
    return int(wanted.after)
