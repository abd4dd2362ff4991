"""Servicer of InferenceService: parse, call the domain, map the answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from typing import TYPE_CHECKING, Any, Final

import grpc
import structlog

from terroir._proto.inference.v1 import inference_pb2 as pb
from terroir._proto.inference.v1 import inference_pb2_grpc
from terroir.common.call import remaining_seconds
from terroir.common.validation import ensure_text
from terroir.inference.adapters.hot_load import HotLoad
from terroir.inference.adapters.residency import Resident
from terroir.inference.adapters.tiers import Tier
from terroir.inference.engine.messages import SAMPLERS
from terroir.inference.engine_host import EngineHost
from terroir.inference.errors import TooManyAdapters
from terroir.inference.generation import Generator
from terroir.inference.request.wish import MAX_STEPS
from terroir.inference.settings import InferenceSettings
from terroir.inference.wire import TIERS, picture_format, raw_wish, responses

MAX_PREFETCHED: Final = 64
_MAX_REQUEST_ID_CHARACTERS: Final = 128

_log = structlog.get_logger()

if TYPE_CHECKING:
    Context = grpc.aio.ServicerContext[Any, Any]


class InferenceServicer(inference_pb2_grpc.InferenceServiceServicer):
    """InferenceService on the domain."""

    def __init__(
        self,
        generator: Generator,
        hot: HotLoad,
        engine: EngineHost,
        settings: InferenceSettings,
    ) -> None:
        self._generator = generator
        self._hot = hot
        self._engine = engine
        self._settings = settings

    async def Generate(self, request: pb.GenerateRequest, context: Context) -> AsyncIterator[pb.GenerateResponse]:
        """Draw and stream what happens."""
        remaining = remaining_seconds(context)
        asked_as = ensure_text(request.request_id, "request_id", _MAX_REQUEST_ID_CHARACTERS)
        _log.info(
            "generate",
            client_request_id=asked_as,
            pictures=max(1, len(request.seeds), request.variants),
            steps=request.steps,
        )
        events = self._generator.generate(raw_wish(request), picture_format(request.format), remaining)
        async with aclosing(events) as progress:
            async for made in progress:
                for response in responses(made):
                    yield response

    async def PrefetchAdapters(
        self, request: pb.PrefetchAdaptersRequest, _context: Context
    ) -> pb.PrefetchAdaptersResponse:
        """Bring adapters into host memory."""
        if len(request.adapters) > MAX_PREFETCHED:
            raise TooManyAdapters(
                f"{len(request.adapters)} adapters, at most {MAX_PREFETCHED} are fetched at once; split the call",
                field="adapters",
            )
        base = self._generator.base()
        residency = self._hot.residency
        versions = await self._hot.stylist.resolve(list(request.adapters), base)
        async with AsyncExitStack() as held:
            for version in versions:
                residency.begin(version, base.key_table)
            for version in versions:
                await held.enter_async_context(residency.hold(version, base.key_table))
            wanted = {version.file_digest for version in versions}
            return pb.PrefetchAdaptersResponse(
                adapters=[self._resident(entry) for entry in residency.resident() if entry.digest in wanted]
            )

    async def ListResidentAdapters(
        self, _request: pb.ListResidentAdaptersRequest, _context: Context
    ) -> pb.ListResidentAdaptersResponse:
        """List the host tier, and what of it the device holds."""
        residency, device = self._hot.residency, self._hot.device
        return pb.ListResidentAdaptersResponse(
            adapters=[self._resident(entry) for entry in residency.resident()],
            used_bytes=residency.used_bytes,
            budget_bytes=residency.budget_bytes,
            device_used_bytes=device.used_bytes,
            device_budget_bytes=device.budget_bytes,
        )

    async def GetServerInfo(self, _request: pb.GetServerInfoRequest, _context: Context) -> pb.GetServerInfoResponse:
        """Say what is served; raises ModelLoading until it is known."""
        base, info = self._generator.base(), self._engine.info
        return pb.GetServerInfoResponse(
            base=base.name,
            base_digest=base.digest,
            device=info.device,
            native_resolution=info.native_resolution,
            max_pixels=self._settings.max_pixels,
            max_steps=MAX_STEPS,
            samplers=SAMPLERS,
            max_queue_size=self._settings.max_queue_size,
            engine_pid=info.pid,
            dtype=info.dtype,
            family=info.family,
            watching=self._hot.follower.connected,
        )

    def _resident(self, entry: Resident) -> pb.ResidentAdapter:
        return pb.ResidentAdapter(
            version=entry.version,
            file_digest=entry.digest,
            size_bytes=entry.size_bytes,
            tier=TIERS[Tier.DEVICE if entry.digest in self._hot.device else Tier.HOST],
            pins=entry.pins,
        )
