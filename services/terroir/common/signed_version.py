"""What a version's signature says and is, from the registry's message."""

from __future__ import annotations

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.common.signatures import Signature, SignedFacts


def signed_facts(version: pb.AdapterVersion) -> SignedFacts:
    """What must have been signed beside the file."""
    adapter = version.name.rpartition("/versions/")[0]
    return SignedFacts(adapter, version.base_digest, version.tensor_digest, version.trigger_word)


def signature_of(version: pb.AdapterVersion) -> Signature | None:
    """None for a version that was published unsigned."""
    if not version.HasField("signature"):
        return None
    # Bytes that are no text are no bundle either, and are refused as such.
    return Signature(version.signature.key_id, version.signature.bundle.decode("utf-8", "replace"))
