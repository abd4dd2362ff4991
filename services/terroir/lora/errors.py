"""What can be wrong with an adapter file. Services map these to their own errors; the reason codes are stable."""

from __future__ import annotations

from typing import ClassVar


class LoraError(ValueError):
    """Root of the tree; `key` is the tensor or layer at fault, empty if it is the whole file."""

    default_reason: ClassVar[str] = "ADAPTER_INVALID"

    def __init__(self, message: str, *, key: str = "", reason: str | None = None) -> None:
        super().__init__(message)
        self.key = key
        self.reason = reason or self.default_reason


class NotAnAdapterFile(LoraError):
    """The bytes are no safetensors file, or one that is too large or damaged."""

    default_reason = "ADAPTER_FILE_UNREADABLE"


class UnsupportedAdapter(LoraError):
    """The file is of a kind or format that cannot be represented here."""

    default_reason = "ADAPTER_UNSUPPORTED"


class WrongShape(LoraError):
    """A factor does not fit its layer, its partner, or has no rank."""

    default_reason = "ADAPTER_WRONG_SHAPE"


class NotFinite(LoraError):
    """A tensor holds NaN or infinity."""

    default_reason = "ADAPTER_NOT_FINITE"


class IncompleteModule(LoraError):
    """A layer has only one of its two factors."""

    default_reason = "ADAPTER_INCOMPLETE"


class MatchesNothing(LoraError):
    """No key of the file names a layer of the base."""

    default_reason = "ADAPTER_MATCHES_NOTHING"


class RankTooLarge(LoraError):
    """The rank of a layer exceeds what is accepted."""

    default_reason = "ADAPTER_RANK_TOO_LARGE"
