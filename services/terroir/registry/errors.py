"""What the registry refuses, each with a reason code that never changes."""

from __future__ import annotations

from terroir.common.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
)


class BaseNotFound(NotFound):
    """No base model under this id."""

    reason = "BASE_NOT_FOUND"


class AdapterNotFound(NotFound):
    """No adapter under this id."""

    reason = "ADAPTER_NOT_FOUND"


class VersionNotFound(NotFound):
    """The adapter has no such version."""

    reason = "VERSION_NOT_FOUND"


class AliasNotFound(NotFound):
    """The adapter has no such alias."""

    reason = "ALIAS_NOT_FOUND"


class VersionDeprecated(FailedPrecondition):
    """An alias may not point at a version that must no longer be used."""

    reason = "VERSION_DEPRECATED"


class VersionInUse(FailedPrecondition):
    """An alias points at the version."""

    reason = "VERSION_IN_USE"


class VersionNotDeprecated(FailedPrecondition):
    """There is no deprecation to take back."""

    reason = "VERSION_NOT_DEPRECATED"


class NothingToRollBack(FailedPrecondition):
    """The alias never pointed at another version."""

    reason = "NOTHING_TO_ROLL_BACK"


class RegionNotFound(NotFound):
    """No region under this code."""

    reason = "REGION_NOT_FOUND"


class BaseChanged(FailedPrecondition):
    """Other content was offered under the id of a registered base, to whose weights adapters are bound."""

    reason = "BASE_CONTENT_CHANGED"


class BaseMismatch(FailedPrecondition):
    """The adapter was trained on other base weights than those registered under the id."""

    reason = "ADAPTER_BASE_MISMATCH"


class BasesDiffer(FailedPrecondition):
    """Adapters of different bases were to be compared; their changes have nothing to do with each other."""

    reason = "COMPATIBILITY_BASES_DIFFER"


class AdapterFileInvalid(InvalidArgument):
    """The uploaded file is no adapter for this base; the reason is one of `terroir.lora.errors`."""

    reason = "ADAPTER_INVALID"


class FormatUnavailable(FailedPrecondition):
    """The adapter cannot be written in the format that was asked for: diffusers has no words for LoHa and LoKr."""

    reason = "ADAPTER_NOT_IN_DIFFUSERS"


class NotComparable(FailedPrecondition):
    """Only low-rank changes are compared, and an adapter is a LoHa or LoKr."""

    reason = "ADAPTER_NOT_COMPARABLE"


class TrainingPrintNotFound(NotFound):
    """The version was published without a training print."""

    reason = "TRAINING_PRINT_NOT_FOUND"


class UploadInvalid(InvalidArgument):
    """The stream does not follow the protocol, or its bytes are not what the header announced."""

    reason = "UPLOAD_INVALID"


class RegionCycle(FailedPrecondition):
    """The region would become its own ancestor."""

    reason = "REGION_CYCLE"


class RegionEtagMismatch(Aborted):
    """The region changed since the caller read it."""

    reason = "REGION_ETAG_MISMATCH"


class RegionDuplicate(AlreadyExists):
    """A region whose code differs only by case is there."""

    reason = "REGION_DUPLICATE"


class RegionInUse(FailedPrecondition):
    """Other regions name it as their parent."""

    reason = "REGION_IN_USE"


class RecipeNotFound(NotFound):
    """No saved recipe under this id."""

    reason = "RECIPE_NOT_FOUND"


class RecipeInUse(FailedPrecondition):
    """Regions name the saved recipe."""

    reason = "RECIPE_IN_USE"


class RecipeEtagMismatch(Aborted):
    """The saved recipe changed since the caller read it."""

    reason = "RECIPE_ETAG_MISMATCH"


class SampleInvalid(InvalidArgument):
    """The sample is no picture, or too large a one."""

    reason = "SAMPLE_INVALID"


class SampleNotFound(NotFound):
    """The adapter has no such sample picture."""

    reason = "SAMPLE_NOT_FOUND"


class WatchTokenInvalid(InvalidArgument):
    """The resume token was not given out by a watch."""

    reason = "WATCH_TOKEN_INVALID"


class WatchTokenAhead(InvalidArgument):
    """The resume token lies ahead of this store's journal: it is of another store, or of before a restore."""

    reason = "WATCH_TOKEN_AHEAD"


class WatcherTooSlow(ResourceExhausted):
    """The watcher did not take its changes in time, and must watch again from the last one that it saw."""

    reason = "WATCHER_TOO_SLOW"


class WatchersExhausted(ResourceExhausted):
    """The replica has as many watchers as it serves."""

    reason = "WATCHERS_EXHAUSTED"
