"""The keys of a training run: one typed model for YAML and the contract."""

from terroir.training.config.adapter_keys import BaseQuantization, TargetPreset
from terroir.training.config.judging_keys import PublishGate
from terroir.training.config.limits import MAX_RANK, MAX_STEPS
from terroir.training.config.loss_keys import PredictionType
from terroir.training.config.model import DEFAULT_EPOCHS, TrainConfig
from terroir.training.config.optimisation_keys import LrScheduler, MixedPrecision, Optimizer
from terroir.training.config.scheduling_keys import Priority

__all__ = [
    "DEFAULT_EPOCHS",
    "MAX_RANK",
    "MAX_STEPS",
    "BaseQuantization",
    "LrScheduler",
    "MixedPrecision",
    "Optimizer",
    "PredictionType",
    "Priority",
    "PublishGate",
    "TargetPreset",
    "TrainConfig",
]
