"""Reads an uploaded adapter file against its base."""

from __future__ import annotations

from terroir.lora.errors import LoraError, RankTooLarge
from terroir.lora.formats import MAX_RANK, Parsed, ensure_expressible, parse
from terroir.lora.formats.headers import BASE_DIGEST_KEY
from terroir.lora.key_table import KeyTable
from terroir.registry.errors import AdapterFileInvalid

__all__ = ["BASE_DIGEST_KEY", "read_adapter_file"]


def read_adapter_file(data: bytes, key_table: KeyTable, *, max_rank: int = MAX_RANK) -> Parsed:
    """Parse and check every tensor; raises AdapterFileInvalid with the reason code of `terroir.lora.errors`."""
    try:
        parsed = parse(data, key_table, max_rank=max_rank)
        if parsed.adapter.is_lora:  # the others have a kohya file only
            ensure_expressible(parsed.adapter)
    except LoraError as error:
        metadata = {"key": error.key[:256]} if error.key else {}
        hint = " (or raise TERROIR_REGISTRY_MAX_RANK)" if isinstance(error, RankTooLarge) else ""
        raise AdapterFileInvalid(f"{error}{hint}", reason=error.reason, metadata=metadata) from error
    return parsed
