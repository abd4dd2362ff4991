"""Bases between the contract's messages and the domain's values."""

from __future__ import annotations

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.common.errors import InvalidArgument
from terroir.registry.bases.bases import Base
from terroir.registry.bases.registration import MAX_LAYERS, BaseRegistration
from terroir.registry.names import base_name
from terroir.registry.timestamps import timestamp


def base_message(base: Base) -> pb.Base:
    """A base as the contract shows it."""
    return pb.Base(
        name=base_name(base.base),
        family=base.family,
        digest=base.digest,
        prediction_type=base.prediction_type,
        component_digests=base.component_digests,
        adaptable_layers=base.adaptable_layers,
        native_resolution=base.native_resolution,
        create_time=timestamp(base.created_at),
        source=base.source,
        actor=base.actor,
    )


def base_registration(request: pb.RegisterBaseRequest) -> BaseRegistration:
    """The registration in a request, unchecked but for a layer that is told twice (BASE_LAYER_TWICE)."""
    layers: dict[str, tuple[int, ...]] = {}
    for entry in request.layers[: MAX_LAYERS + 1]:
        if entry.layer in layers:
            raise InvalidArgument(
                f"layer {entry.layer[:80]!r} is given twice; send each once", reason="BASE_LAYER_TWICE", field="layers"
            )
        layers[entry.layer] = tuple(entry.shape)
    return BaseRegistration(
        family=request.family,
        prediction_type=request.prediction_type,
        native_resolution=request.native_resolution,
        component_digests=dict(request.component_digests),
        layers=layers,
        source=request.source,
    )
