"""Published adapter formats, one file each, to and from the canonical form."""

from __future__ import annotations

from terroir.lora.formats.assembling import Ignored
from terroir.lora.formats.diffusers import ensure_expressible, to_diffusers
from terroir.lora.formats.kohya import to_kohya
from terroir.lora.formats.parsing import MAX_RANK, Parsed, parse

__all__ = ["MAX_RANK", "Ignored", "Parsed", "ensure_expressible", "parse", "to_diffusers", "to_kohya"]
