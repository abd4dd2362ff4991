"""What a picture's file says about itself: that a model made it, and by profile everything or an opaque identifier."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final
from xml.sax.saxutils import quoteattr

_AI_GENERATED: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC Digital Source Type of pictures that a trained model made."""


class ProvenanceProfile(StrEnum):
    """How much a file says."""

    PRIVATE = "private"
    """Everything that draws the same picture again."""
    PUBLIC = "public"
    """That a model made it, and the identifier under which its maker can look the rest up."""


@dataclass(frozen=True)
class AppliedAdapter:
    """An adapter as it was applied."""

    version: str
    file_digest: str
    weight: float
    text_encoder_weight: float
    matched_layers: int


@dataclass(frozen=True)
class Provenance:
    """Everything that draws the same picture again."""

    base: str
    base_digest: str
    adapters: tuple[AppliedAdapter, ...]
    prompt: str
    """As it was encoded: with the region's prefix, without tags."""
    negative_prompt: str
    seed: int
    width: int
    height: int
    steps: int
    guidance_scale: float
    sampler: str
    picture_id: str
    """UUID, new for each picture; all that the public profile tells."""
    init_picture_digest: str = ""
    """SHA-256 of the file that it started from, with `strength`; empty if it started from noise."""
    strength: float | None = None
    variation_of: int | None = None
    """Seed of the picture that it varies, by `variation_strength`."""
    variation_strength: float | None = None

    def to_json(self) -> str:
        """The private profile: one JSON object, with `ai_generated: true`."""
        return json.dumps({"ai_generated": True, **asdict(self)}, ensure_ascii=False, sort_keys=True)

    def text(self, profile: ProvenanceProfile) -> str:
        """The JSON object that a profile writes into a file."""
        if profile is ProvenanceProfile.PRIVATE:
            return self.to_json()
        return json.dumps({"ai_generated": True, "picture_id": self.picture_id}, sort_keys=True)

    def to_xmp(self, profile: ProvenanceProfile) -> bytes:
        """An XMP packet: IPTC's digital source type for everyone, the JSON for us."""
        packet = (
            '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
            '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
            ' xmlns:terroir="urn:terroir:provenance:1"'
            f' Iptc4xmpExt:DigitalSourceType="{_AI_GENERATED}" terroir:provenance={quoteattr(self.text(profile))}/>'
            "</rdf:RDF></x:xmpmeta>"
        )
        return packet.encode()
