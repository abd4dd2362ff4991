"""One training run as one typed model: every section's keys side by side, as the YAML file has them."""

from __future__ import annotations

import math
from typing import Annotated, Any, Final, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from terroir.training.config.adapter_keys import AdapterKeys
from terroir.training.config.data_keys import DataKeys
from terroir.training.config.judging_keys import JudgingKeys
from terroir.training.config.limits import Section
from terroir.training.config.loss_keys import LossKeys
from terroir.training.config.optimisation_keys import OptimisationKeys
from terroir.training.config.place_keys import PlaceKeys
from terroir.training.config.profiles import check_names
from terroir.training.config.scheduling_keys import SchedulingKeys

DEFAULT_EPOCHS: Final = 10.0

SECTIONS: Final[tuple[tuple[str, type[Section]], ...]] = (
    ("Data, base and result", PlaceKeys),
    ("The adapter", AdapterKeys),
    ("Pictures and captions", DataKeys),
    ("The update", OptimisationKeys),
    ("The loss", LossKeys),
    ("Samples and judgement", JudgingKeys),
    ("Queue and resources", SchedulingKeys),
)
"""Headings of the documentation, in order."""


def _one_or_more(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _known_profiles(names: tuple[str, ...]) -> tuple[str, ...]:
    check_names(names)
    return names


class TrainConfig(
    SchedulingKeys, JudgingKeys, LossKeys, OptimisationKeys, DataKeys, AdapterKeys, PlaceKeys
):  # the last of them comes first among the fields
    """One training run. The key names are those of the YAML file; `docs/training-config.md` is generated from here."""

    profile: Annotated[tuple[str, ...], BeforeValidator(_one_or_more), AfterValidator(_known_profiles)] = Field(
        (),
        max_length=2,
        description="Presets that the run starts from, at most one by hardware and one by data; its own keys overrule "
        "them, and what they set is filled in.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.epochs is not None and self.max_train_steps is not None:
            raise ValueError(
                f"epochs {self.epochs:g} and max_train_steps {self.max_train_steps} are both set (keep one)"
            )
        if self.min_bucket_reso > self.max_bucket_reso:
            raise ValueError(
                f"min_bucket_reso {self.min_bucket_reso} exceeds max_bucket_reso {self.max_bucket_reso} (swap them)"
            )
        if self.conv_alpha is not None and self.conv_rank is None:
            raise ValueError(f"conv_alpha {self.conv_alpha:g} is set without conv_rank (set conv_rank or leave both)")
        if self.text_encoder_lr is None and (self.text_encoder_stop_step or self.text_encoder_lr_scheduler):
            key = "text_encoder_stop_step" if self.text_encoder_stop_step else "text_encoder_lr_scheduler"
            raise ValueError(f"{key} {getattr(self, key)} changes nothing without text_encoder_lr (set it)")
        return self

    @property
    def alpha(self) -> float:
        """`lora_alpha` with its default."""
        return float(self.lora_rank) if self.lora_alpha is None else self.lora_alpha

    @property
    def samples_per_step(self) -> int:
        """Pictures an optimiser step, over all workers."""
        return self.batch_size * self.gradient_accumulation_steps * self.num_workers

    def total_steps(self, pictures: int) -> int:
        """Optimiser steps of a run over that many pictures."""
        if self.max_train_steps is not None:
            return self.max_train_steps
        epochs = DEFAULT_EPOCHS if self.epochs is None else self.epochs
        return max(1, math.ceil(epochs * pictures / self.samples_per_step))
