"""Base models from a program."""

from __future__ import annotations

from collections.abc import Callable

import grpc

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir._proto.registry.v1 import registry_pb2_grpc
from terroir.client.base_source import BaseSource
from terroir.client.calls import UNARY_SECONDS, new_request_id, typed_errors
from terroir.lora.base_folder import read_base_folder


class Bases:
    """Calls of RegistryService about base models."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = registry_pb2_grpc.RegistryServiceStub(channel)

    def get(self, name: str) -> pb.Base:
        """One base model, by `bases/{id}`."""
        with typed_errors():
            return self._stub.GetBase(pb.GetBaseRequest(name=name), timeout=UNARY_SECONDS)

    def list(self) -> list[pb.Base]:
        """All base models."""
        with typed_errors():
            return list(self._stub.ListBases(pb.ListBasesRequest(), timeout=UNARY_SECONDS).bases)

    def register(self, name: str, source: BaseSource, on_bytes: Callable[[int], None] = lambda _: None) -> pb.Base:
        """Register `bases/{id}` with what the folder shows; equal content again changes nothing.

        Hashes the weights here, about a second a gigabyte, and sends digests and shapes, never weights; `on_bytes`
        hears of the progress. Raises BaseFolderInvalid, or what the registry refuses (BASE_CONTENT_CHANGED,
        ROLE_MISSING, …).
        """
        content = read_base_folder(source.folder, on_bytes)
        request = pb.RegisterBaseRequest(
            name=name,
            family=content.family,
            prediction_type=content.prediction_type,
            component_digests=content.component_digests,
            native_resolution=content.native_resolution,
            layers=[pb.LayerShape(layer=layer, shape=shape) for layer, shape in sorted(content.layers.items())],
            source=source.origin,
            request_id=new_request_id(),
        )
        with typed_errors():
            return self._stub.RegisterBase(request, timeout=UNARY_SECONDS)
