"""What a picture's file says about itself: the private profile and the label that it was made by a model."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Final
from xml.sax.saxutils import quoteattr

_AI_GENERATED: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC Digital Source Type of pictures that a trained model made."""


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

    def to_json(self) -> str:
        """One JSON object, with `ai_generated: true`."""
        return json.dumps({"ai_generated": True, **asdict(self)}, ensure_ascii=False, sort_keys=True)

    def to_xmp(self) -> bytes:
        """An XMP packet: IPTC's digital source type for everyone, the JSON for us."""
        packet = (
            '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
            '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
            ' xmlns:terroir="urn:terroir:provenance:1"'
            f' Iptc4xmpExt:DigitalSourceType="{_AI_GENERATED}" terroir:provenance={quoteattr(self.to_json())}/>'
            "</rdf:RDF></x:xmpmeta>"
        )
        return packet.encode()
