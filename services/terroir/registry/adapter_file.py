"""Reads an uploaded adapter file against its base."""

from __future__ import annotations

from typing import Final

from terroir.lora.errors import LoraError
from terroir.lora.formats import Parsed, parse
from terroir.lora.key_table import KeyTable
from terroir.registry.errors import AdapterFileInvalid

BASE_DIGEST_KEY: Final = "terroir.base_digest"
"""Entry of the file's metadata that ties it to its base also outside the registry."""


def read_adapter_file(data: bytes, key_table: KeyTable) -> Parsed:
    """Parse and check every tensor; raises AdapterFileInvalid with the reason code of `terroir.lora.errors`."""
    try:
        return parse(data, key_table)
    except LoraError as error:
        metadata = {"key": error.key[:256]} if error.key else {}
        raise AdapterFileInvalid(str(error), reason=error.reason, metadata=metadata) from error
