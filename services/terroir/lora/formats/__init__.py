"""Published adapter formats, one file each, to and from the canonical form."""

from __future__ import annotations

from terroir.lora.formats.assembling import Ignored
from terroir.lora.formats.diffusers import to_diffusers
from terroir.lora.formats.kohya import to_kohya
from terroir.lora.formats.parsing import Parsed, parse

__all__ = ["Ignored", "Parsed", "parse", "to_diffusers", "to_kohya"]
