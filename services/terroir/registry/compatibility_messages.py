"""CheckCompatibility between the contract's messages and the domain's values."""

from __future__ import annotations

from typing import Final

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.lora.compatibility import Level
from terroir.registry.compatibility import Compatibility, PairCompatibility
from terroir.registry.names import VersionRef, parse_reference

_LEVELS: Final = {
    Level.LOW: pb.INTERFERENCE_LEVEL_LOW,
    Level.MEDIUM: pb.INTERFERENCE_LEVEL_MEDIUM,
    Level.HIGH: pb.INTERFERENCE_LEVEL_HIGH,
}


def compatibility_references(request: pb.CheckCompatibilityRequest) -> list[VersionRef]:
    """The versions to compare; raises InvalidArgument (INVALID_NAME)."""
    return [parse_reference(name, f"adapters[{at}]") for at, name in enumerate(request.adapters)]


def compatibility_message(compatibility: Compatibility) -> pb.CheckCompatibilityResponse:
    """A comparison as the contract shows it."""
    return pb.CheckCompatibilityResponse(
        pairs=[_pair_message(pair) for pair in compatibility.pairs],
        suggested_weights=compatibility.suggested_weights,
        level=_LEVELS[compatibility.level],
    )


def _pair_message(pair: PairCompatibility) -> pb.PairCompatibility:
    return pb.PairCompatibility(
        first=pair.first.name,
        second=pair.second.name,
        interference=pair.interference,
        delta_cosine=pair.overlap.cosine,
        input_overlap=pair.overlap.input_overlap,
        output_overlap=pair.overlap.output_overlap,
        shared_layers=pair.overlap.shared_layers,
        layers=pair.overlap.layers,
        level=_LEVELS[pair.level],
    )
