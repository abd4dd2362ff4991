"""Presets and sample pictures of adapters from a program."""

from __future__ import annotations

import hashlib
from typing import Final

import grpc

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir._proto.registry.v1 import registry_pb2_grpc
from terroir.client.calls import UNARY_SECONDS, new_request_id, typed_errors
from terroir.common.errors import InvalidArgument, Unavailable

MAX_SAMPLE_BYTES: Final = 4 * 1024 * 1024
"""Above it the registry refuses a sample, and far above it the connection does, which says less."""


class Presets:
    """Calls of RegistryService about how an adapter is best used."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = registry_pb2_grpc.RegistryServiceStub(channel)

    def get(self, adapter: str) -> pb.AdapterPresets:
        """Presets and samples, by `adapters/{id}`."""
        with typed_errors():
            return self._stub.GetPresets(pb.GetPresetsRequest(adapter=adapter), timeout=UNARY_SECONDS)

    def set(self, presets: pb.AdapterPresets) -> pb.AdapterPresets:
        """Replace the presets; their `etag` as last read refuses a lost update."""
        request = pb.SetPresetsRequest(presets=presets, request_id=new_request_id())
        with typed_errors():
            return self._stub.SetPresets(request, timeout=UNARY_SECONDS)

    def add_sample(self, adapter: str, picture: bytes, *, caption: str = "", version: str = "") -> pb.Sample:
        """Keep a PNG, JPEG or WebP file of at most 4 MiB; beyond 32 the oldest gives way."""
        if len(picture) > MAX_SAMPLE_BYTES:
            raise InvalidArgument(
                f"the picture has {len(picture)} bytes, at most {MAX_SAMPLE_BYTES} are allowed; shrink it or save it "
                "as WebP",
                reason="SAMPLE_TOO_LARGE",
                field="picture",
            )
        request = pb.AddSampleRequest(
            adapter=adapter, picture=picture, caption=caption, version=version, request_id=new_request_id()
        )
        with typed_errors():
            return self._stub.AddSample(request, timeout=UNARY_SECONDS)

    def sample(self, adapter: str, digest: str) -> pb.GetSampleResponse:
        """A sample with its file; raises Unavailable (DOWNLOAD_CORRUPT) if other bytes arrived."""
        with typed_errors():
            found = self._stub.GetSample(pb.GetSampleRequest(adapter=adapter, digest=digest), timeout=UNARY_SECONDS)
        if hashlib.sha256(found.picture).hexdigest() != digest:
            raise Unavailable(f"sample {digest} of {adapter} arrived damaged; try again", reason="DOWNLOAD_CORRUPT")
        return found
