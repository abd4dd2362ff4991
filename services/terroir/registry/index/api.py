"""The part of RegistryService that reads from the index: adapters, versions, searches and the watch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeAlias

import grpc

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir._proto.registry.v1 import registry_pb2_grpc
from terroir.common.validation import ensure_text
from terroir.registry.adapters import Adapters, AdapterSearch
from terroir.registry.index.live import LiveIndex
from terroir.registry.index.messages import adapter_filter, watch_message
from terroir.registry.messages import adapter_message, version_message
from terroir.registry.names import parse_adapter, parse_reference
from terroir.registry.paging import PageQuery

KEEP_ALIVE_SECONDS: Final = 15.0
MAX_STICKY_KEY_CHARACTERS: Final = 256

_Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]


class WatchEnd:
    """Ends all watches of a server at once, so that a stop need not wait for them."""

    def __init__(self) -> None:
        self._bells: set[asyncio.Event] = set()
        self.reached = False

    def reach(self) -> None:
        """End them; call on the event loop."""
        self.reached = True
        for bell in self._bells:
            bell.set()

    def add(self, bell: asyncio.Event) -> None:
        """Ring `bell` at the end."""
        self._bells.add(bell)

    def remove(self, bell: asyncio.Event) -> None:
        """Forget `bell`."""
        self._bells.discard(bell)


class IndexCalls(registry_pb2_grpc.RegistryServiceServicer):
    """Reads; a base of the class that serves all of RegistryService, which sets the parts."""

    _adapters: Adapters
    _search: AdapterSearch
    _live: LiveIndex
    _watch_end: WatchEnd

    async def GetAdapter(self, request: pb.GetAdapterRequest, _context: _Context) -> pb.Adapter:
        """Return one adapter with its aliases."""
        return adapter_message(await asyncio.to_thread(self._adapters.get, parse_adapter(request.name)))

    async def ListAdapters(self, request: pb.ListAdaptersRequest, _context: _Context) -> pb.ListAdaptersResponse:
        """List the adapters that meet a filter, by identifier."""
        conditions, query = adapter_filter(request.filter), PageQuery(request.page_size, request.page_token)
        found = await asyncio.to_thread(self._search.page, conditions, query)
        return pb.ListAdaptersResponse(
            adapters=[adapter_message(adapter) for adapter in found.items], next_page_token=found.next_token
        )

    async def GetVersion(self, request: pb.GetVersionRequest, _context: _Context) -> pb.AdapterVersion:
        """Return a version by number, by alias, or the newest."""
        resolve = partial(
            self._adapters.resolve,
            parse_reference(request.name),
            sticky_key=ensure_text(request.sticky_key, "sticky_key", MAX_STICKY_KEY_CHARACTERS),
            strong=request.strong,
        )
        return version_message(await asyncio.to_thread(resolve))

    async def ListVersions(self, request: pb.ListVersionsRequest, _context: _Context) -> pb.ListVersionsResponse:
        """List the versions of an adapter, newest first."""
        adapter = parse_adapter(request.adapter, "adapter")
        found = await asyncio.to_thread(
            self._adapters.versions, adapter, PageQuery(request.page_size, request.page_token)
        )
        return pb.ListVersionsResponse(
            versions=[version_message(version) for version in found.items], next_page_token=found.next_token
        )

    async def FindByHash(self, request: pb.FindByHashRequest, _context: _Context) -> pb.FindByHashResponse:
        """Find versions by a digest."""
        found = await asyncio.to_thread(self._search.by_hash, request.hash)
        return pb.FindByHashResponse(versions=[version_message(version) for version in found])

    async def Watch(self, request: pb.WatchRequest, _context: _Context) -> AsyncIterator[pb.WatchResponse]:
        """Stream changes until the caller goes away or this server stops."""
        bell, loop = asyncio.Event(), asyncio.get_running_loop()

        def ring() -> None:
            with suppress(RuntimeError):  # the loop has closed, and nobody listens any more
                loop.call_soon_threadsafe(bell.set)

        follower = self._live.follower
        subscription, begin, missed = await asyncio.to_thread(follower.subscribe, request.resume_token, ring)
        self._watch_end.add(bell)
        try:
            yield watch_message(begin)
            while (event := await asyncio.to_thread(next, missed, None)) is not None:
                yield watch_message(event.position, event)
            rang = True
            while not self._watch_end.reached:
                bell.clear()
                # Before the buffer is emptied: all that this place covers was put there earlier.
                place = follower.here()
                for event in subscription.take():
                    yield watch_message(event.position, event)
                if not rang:
                    yield watch_message(place)
                rang = await _rings(bell, KEEP_ALIVE_SECONDS)
        finally:
            self._watch_end.remove(bell)
            follower.unsubscribe(subscription)


async def _rings(bell: asyncio.Event, seconds: float) -> bool:
    """Wait for the bell; False if it did not ring in time."""
    try:
        await asyncio.wait_for(bell.wait(), seconds)
    except TimeoutError:
        return False
    return True
