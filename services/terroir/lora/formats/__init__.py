"""Published adapter formats, one file each, to and from the canonical form."""

from __future__ import annotations

from terroir.lora.formats.diffusers import ensure_expressible, to_diffusers
from terroir.lora.formats.kohya import kohya_file, to_kohya
from terroir.lora.formats.parsing import MAX_RANK, Parsed, parse
from terroir.lora.formats.reading import Ignored

__all__ = ["MAX_RANK", "Ignored", "Parsed", "ensure_expressible", "kohya_file", "parse", "to_diffusers", "to_kohya"]
