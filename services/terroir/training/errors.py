"""What can go wrong with training; each error has a stable reason code and says the next step."""

from __future__ import annotations

from terroir.common.errors import (
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)


class ConfigInvalid(InvalidArgument):
    """The configuration cannot be read or has a value out of bounds."""

    reason = "CONFIG_VALUE"


class DemandImpossible(InvalidArgument):
    """A job asks for more than its team or the cluster may ever give it."""

    reason = "DEMAND_IMPOSSIBLE"


class JobNotFound(NotFound):
    """No such job."""

    reason = "JOB_NOT_FOUND"


class AttemptNotFound(NotFound):
    """The job has no such attempt."""

    reason = "ATTEMPT_NOT_FOUND"


class RightsNotAttested(FailedPrecondition):
    """The dataset version carries no statement that the rights to train on it are held."""

    reason = "RIGHTS_NOT_ATTESTED"


class BaseMismatch(FailedPrecondition):
    """The weights that the trainer finds are not those that the registry knows."""

    reason = "BASE_MISMATCH"


class BaseUnreadable(FailedPrecondition):
    """No readable base model where the operator's settings point."""

    reason = "BASE_UNREADABLE"


class BaseQuantizationUnavailable(FailedPrecondition):
    """The base cannot be held in so few bits here."""

    reason = "BASE_QUANTIZATION_UNAVAILABLE"


class NothingToTrain(FailedPrecondition):
    """No pictures, or no layers."""

    reason = "DATASET_EMPTY"


class PictureUnreadable(FailedPrecondition):
    """A picture of the dataset cannot be decoded."""

    reason = "PICTURE_UNREADABLE"


class CaptionMissing(FailedPrecondition):
    """Pictures have no caption, and nothing says that this is meant."""

    reason = "CAPTION_MISSING"


class LatentsNotFinite(FailedPrecondition):
    """The autoencoder overflows on a picture."""

    reason = "LATENTS_NOT_FINITE"


class NonFiniteLoss(FailedPrecondition):
    """Too many steps in a row had a loss or gradient that is not finite."""

    reason = "NON_FINITE_LOSS"


class OutOfMemory(ResourceExhausted):
    """The device or the machine has not enough memory for the run."""

    reason = "OUT_OF_MEMORY"


class OutputUnwritable(FailedPrecondition):
    """The output folder of a run without a server cannot be made or written."""

    reason = "OUTPUT_UNWRITABLE"


class CheckpointMismatch(FailedPrecondition):
    """A checkpoint belongs to another configuration or base."""

    reason = "CHECKPOINT_MISMATCH"


class PretrainedMismatch(FailedPrecondition):
    """The adapter to go on from does not fit the run: another base, rank, alpha or other layers."""

    reason = "PRETRAINED_MISMATCH"


class PretrainedUnusable(FailedPrecondition):
    """The adapter to go on from is no longer to be used, or its file cannot be had or read."""

    reason = "PRETRAINED_UNUSABLE"


class AttemptSuperseded(FailedPrecondition):
    """A newer attempt has taken the job over; this one may write nothing more."""

    reason = "ATTEMPT_SUPERSEDED"


class WorkerLost(Unavailable):
    """Another worker of the same run is gone."""

    reason = "WORKER_LOST"


class RayUnavailable(Unavailable):
    """Ray cannot be started or reached."""

    reason = "RAY_UNAVAILABLE"


class TrainingFailed(Internal):
    """The trainer ended by an error that nobody foresaw."""

    reason = "TRAINING_FAILED"
