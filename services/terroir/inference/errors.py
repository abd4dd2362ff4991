"""Errors of the inference service that more than one place raises, each with its stable reason."""

from __future__ import annotations

from terroir.common.errors import DataLoss, FailedPrecondition, InvalidArgument, ResourceExhausted, Unavailable


class PromptTagInvalid(InvalidArgument):
    """A `<lora:…>` tag that can't be read; the message shows it."""

    reason = "PROMPT_TAG_INVALID"


class PromptRefused(FailedPrecondition):
    """The safety check does not let the prompt be drawn."""

    reason = "PROMPT_REFUSED"


class PictureRefused(FailedPrecondition):
    """The safety check does not let a finished picture out; none of its request is delivered after it."""

    reason = "PICTURE_REFUSED"


class TooManyAdapters(InvalidArgument):
    """More adapters than one request may stack."""

    reason = "TOO_MANY_ADAPTERS"


class AdapterBaseMismatch(FailedPrecondition):
    """The adapter was trained on another base than the one that is loaded."""

    reason = "ADAPTER_BASE_MISMATCH"


class AdapterWithdrawn(FailedPrecondition):
    """The version was deprecated for cause: it must not be served, not even from memory."""

    reason = "ADAPTER_WITHDRAWN"


class AdapterMatchesNothing(FailedPrecondition):
    """The adapter changes no layer of the base, so applying it would be a silent no-op."""

    reason = "ADAPTER_MATCHES_NOTHING"


class AdapterCorrupt(DataLoss):
    """Bytes from the registry that do not have the digest of the version."""

    reason = "ADAPTER_CORRUPT"


class AdapterMemoryFull(ResourceExhausted):
    """Adapters of running requests fill the host budget."""

    reason = "ADAPTER_MEMORY_FULL"


class AdapterDeviceMemoryFull(ResourceExhausted):
    """Adapters of running requests fill the device budget."""

    reason = "ADAPTER_DEVICE_MEMORY_FULL"


class RegistryUnreachable(Unavailable):
    """The registry gives no answer, and what is asked for is not known here."""

    reason = "REGISTRY_UNREACHABLE"


class QueueFull(ResourceExhausted):
    """As many requests wait as may wait."""

    reason = "QUEUE_FULL"


class DeadlineUnmeetable(ResourceExhausted):
    """The pictures would come after the caller's deadline, by what ticks cost here; nothing was begun."""

    reason = "DEADLINE_UNMEETABLE"


class ModelLoading(Unavailable):
    """The engine has not loaded its model yet."""

    reason = "MODEL_LOADING"


class ModelLoadFailed(Unavailable):
    """The engine could not load its model; it tries again."""

    reason = "MODEL_LOAD_FAILED"


class EngineRestarted(Unavailable):
    """The engine's process ended while it drew; the same request may work on its successor."""

    reason = "ENGINE_RESTARTED"
