"""Reading any published format: detect, sort every key, check against the base."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from terroir.lora import safetensors_bytes
from terroir.lora.adapter import Adapter
from terroir.lora.errors import MatchesNothing, UnsupportedAdapter
from terroir.lora.formats import diffusers, kohya
from terroir.lora.formats.assembling import assemble
from terroir.lora.formats.reading import Ignored
from terroir.lora.key_table import KeyTable

MAX_RANK: Final = 4096
"""Beyond it no layer of Stable Diffusion has a low rank; services set lower limits of their own."""
_DIFFUSERS_PREFIXES: Final = ("unet.", "text_encoder.", "text_encoder_2.", "transformer.")
_USUAL: Final = tuple(
    f".{attention}.{part}" for attention in ("attn1", "attn2") for part in ("to_q", "to_k", "to_v", "to_out.0")
)


@dataclass(frozen=True)
class Parsed:
    """An adapter file, understood: every key was matched or is listed in `ignored` or `unknown`."""

    adapter: Adapter
    ignored: tuple[Ignored, ...]
    """Understood, and left out on purpose."""
    unknown: tuple[Ignored, ...]
    """Of no known format, or for no layer of the base."""
    missing: int
    """Attention projections of the denoiser, which style adapters usually change, that this one does not."""
    format: str
    """`kohya`, `diffusers` or `peft`."""
    metadata: Mapping[str, str]

    @property
    def matched(self) -> int:
        """Number of layers that the adapter changes."""
        return len(self.adapter.modules)


def parse(data: bytes, key_table: KeyTable, *, max_rank: int = MAX_RANK) -> Parsed:
    """Read an adapter file against the layers of a base.

    Raises a LoraError: NotAnAdapterFile, UnsupportedAdapter, MatchesNothing, IncompleteModule, WrongShape,
    RankTooLarge, NotFinite.
    """
    file = safetensors_bytes.read(data)
    kind = _detect(list(file.tensors))
    if kind == "kohya":
        reading = kohya.read(file.tensors, key_table)
    else:
        reading = diffusers.read(file.tensors, file.metadata, key_table)
    if not reading.layers:
        sample = next(iter(sorted(file.tensors)), "none")
        raise MatchesNothing(
            f"none of the {len(file.tensors)} keys names a layer of the base (such as {sample}); "
            "it is for another model family",
            key=sample,
        )
    missing = sum(1 for layer in key_table if layer.endswith(_USUAL) and layer not in reading.layers)
    adapter = assemble(reading.layers, key_table, max_rank)
    return Parsed(adapter, tuple(reading.ignored), tuple(reading.unknown), missing, kind, file.metadata)


def _detect(keys: list[str]) -> str:
    if any(key.startswith(kohya.PREFIXES) for key in keys):
        return "kohya"
    if any(key.startswith(diffusers.PEFT_PREFIX) for key in keys):
        return "peft"
    if any(key.startswith(_DIFFUSERS_PREFIXES) or diffusers.is_factor(key) for key in keys):
        return "diffusers"
    sample = keys[0] if keys else "none at all"
    raise UnsupportedAdapter(
        f"unknown format: keys such as {sample}; supported are kohya (lora_unet_…), diffusers (unet.…) and PEFT "
        "(base_model.model.…)",
        key=sample if keys else "",
        reason="ADAPTER_FORMAT_UNKNOWN",
    )
