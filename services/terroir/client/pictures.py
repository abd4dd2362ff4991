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
    """Calls of InferenceService."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = inference_pb2_grpc.InferenceServiceStub(channel)

    def stream(self, request: pb.GenerateRequest, timeout: float | None = None) -> Iterator[pb.GenerateResponse]:
        """Events of one request; closing the iterator cancels it at the next step."""
        call = self._stub.Generate(request, timeout=timeout)
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
        """Fetch adapters before they are needed."""
        with typed_errors():
            return self._stub.PrefetchAdapters(pb.PrefetchAdaptersRequest(adapters=adapters), timeout=300.0)

    def resident(self) -> pb.ListResidentAdaptersResponse:
        """Adapters in the server's memory."""
        with typed_errors():
            return self._stub.ListResidentAdapters(pb.ListResidentAdaptersRequest(), timeout=UNARY_SECONDS)

    def info(self) -> pb.GetServerInfoResponse:
        """What the server serves, and its limits."""
        with typed_errors():
            return self._stub.GetServerInfo(pb.GetServerInfoRequest(), timeout=UNARY_SECONDS)


def adapter_weights(adapters: Mapping[str, float]) -> list[pb.AdapterWeight]:
    """Weights by name; `jiangnan@production` is short for `adapters/jiangnan@production`."""
    return [
        pb.AdapterWeight(adapter=name if name.startswith("adapters/") else f"adapters/{name}", weight=weight)
        for name, weight in adapters.items()
    ]
