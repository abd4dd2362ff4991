"""Pictures from a program."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc

from terroir._proto.inference.v1 import inference_pb2 as pb
from terroir._proto.inference.v1 import inference_pb2_grpc
from terroir.client.calls import UNARY_SECONDS, typed_errors, typed_stream
from terroir.client.routing import HEADER, Router, composition_key, header_of
from terroir.common.errors import Unavailable

ASPECT_RATIOS: Final = {
    "": pb.ASPECT_RATIO_UNSPECIFIED,
    "1:1": pb.ASPECT_RATIO_SQUARE,
    "16:9": pb.ASPECT_RATIO_WIDE_16_9,
    "3:4": pb.ASPECT_RATIO_TALL_3_4,
}
PRIORITIES: Final = {
    "high": pb.PRIORITY_HIGH,
    "normal": pb.PRIORITY_NORMAL,
    "background": pb.PRIORITY_BACKGROUND,
}


ELSEWHERE: Final = ("SERVICE_UNREACHABLE", "SERVICE_STOPPING", "MODEL_LOADING", "MODEL_LOAD_FAILED")
"""Reasons of Unavailable for which another replica may do."""


@dataclass(frozen=True)
class Picture:
    """One finished picture: the encoded file and the seed that drew it."""

    seed: int
    data: bytes
    picture_id: str = ""
    """Opaque look-up id; what a file of the public profile tells."""
    provenance: str = field(default="", repr=False)
    """The private profile, JSON: everything that draws the picture again."""

    def save(self, path: str | Path) -> Path:
        """Write the file as it came."""
        target = Path(path)
        target.write_bytes(self.data)
        return target


@dataclass(frozen=True)
class Generated:
    """Pictures in order of their seeds, and what was applied."""

    pictures: tuple[Picture, ...]
    done: pb.Done = field(repr=False)


class Pictures:
    """Calls of InferenceService, of one server or of several replicas."""

    def __init__(self, channels: Mapping[str, grpc.Channel]) -> None:
        """Channels by address; requests go where their styles are warm (terroir.client.routing)."""
        self._stubs = {target: inference_pb2_grpc.InferenceServiceStub(open_) for target, open_ in channels.items()}
        self.router = Router(channels)

    def stream(self, request: pb.GenerateRequest, timeout: float | None = None) -> Iterator[pb.GenerateResponse]:
        """Events of one request; closing the iterator cancels it at the next step.

        A replica that can't be reached is passed over, as long as nothing came from it.
        """
        key, tried = composition_key(request), list[str]()
        while True:
            with self.router.placed(key, tried) as replica:
                begun = False
                try:
                    for event in self._events(replica, request, key, timeout):
                        if not begun:
                            self.router.answered(replica)
                        begun = True
                        yield event
                    return
                except Unavailable as error:
                    if begun or error.reason not in ELSEWHERE:
                        raise
                    self.router.failed(replica)
                    tried.append(replica)
                    if len(tried) == len(self._stubs):
                        raise

    def _events(
        self, replica: str, request: pb.GenerateRequest, key: str, timeout: float | None
    ) -> Iterator[pb.GenerateResponse]:
        metadata = ((HEADER, header_of(key)),) if key else ()
        call = self._stubs[replica].Generate(request, timeout=timeout, metadata=metadata)
        try:
            yield from typed_stream(call)
        finally:
            call.cancel()  # type: ignore[no-untyped-call]  # untyped in the stubs

    def generate(
        self,
        request: pb.GenerateRequest,
        *,
        timeout: float | None = 300.0,
        on_event: Callable[[pb.GenerateResponse], None] | None = None,
    ) -> Generated:
        """Draw and collect; `on_event` sees every event as it comes (seconds for `timeout`)."""
        parts: dict[int, list[bytes]] = {}
        last: dict[int, pb.PictureChunk] = {}
        done = pb.Done()
        for event in self.stream(request, timeout):
            if on_event is not None:
                on_event(event)
            if event.WhichOneof("event") == "picture":
                parts.setdefault(event.picture.index, []).append(event.picture.data)
                last[event.picture.index] = event.picture
            elif event.WhichOneof("event") == "done":
                done = event.done
        made = [
            Picture(chunk.seed, b"".join(parts[index]), chunk.picture_id, chunk.provenance)
            for index, chunk in sorted(last.items())
        ]
        return Generated(tuple(made), done)

    def prefetch(self, adapters: list[str]) -> pb.PrefetchAdaptersResponse:
        """Fetch adapters before they are needed, where a request with all of them will go."""
        key = composition_key(pb.GenerateRequest(adapters=[pb.AdapterWeight(adapter=name) for name in adapters]))
        with typed_errors(), self.router.placed(key) as replica:
            return self._stubs[replica].PrefetchAdapters(pb.PrefetchAdaptersRequest(adapters=adapters), timeout=300.0)

    def resident(self) -> pb.ListResidentAdaptersResponse:
        """Adapters in the memory of a server, of several that with the least to do."""
        with typed_errors(), self.router.placed("") as replica:
            return self._stubs[replica].ListResidentAdapters(pb.ListResidentAdaptersRequest(), timeout=UNARY_SECONDS)

    def info(self) -> pb.GetServerInfoResponse:
        """What the server serves, and its limits."""
        with typed_errors(), self.router.placed("") as replica:
            return self._stubs[replica].GetServerInfo(pb.GetServerInfoRequest(), timeout=UNARY_SECONDS)


def adapter_weights(adapters: Mapping[str, float]) -> list[pb.AdapterWeight]:
    """Weights by name; `jiangnan@production` is short for `adapters/jiangnan@production`."""
    return [
        pb.AdapterWeight(adapter=name if name.startswith("adapters/") else f"adapters/{name}", weight=weight)
        for name, weight in adapters.items()
    ]
