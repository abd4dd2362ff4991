"""The keys of a training run: one model, with the help text, bounds and default of every key beside it."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

SYNONYMS: Final = {
    "network_dim": "lora_rank",
    "network_alpha": "lora_alpha",
    "network_dropout": "lora_dropout",
    "train_batch_size": "batch_size",
    "save_every_n_steps": "save_steps",
    "pretrained_model": "base_model",
    "pretrained_model_name_or_path": "base_model",
    "output_name": "adapter",
    "name": "adapter",
    "max_train_epochs": "epochs",
    "num_train_epochs": "epochs",
    "unet_lr": "learning_rate",
    "optimizer_type": "optimizer",
    "caption_dropout_rate": "caption_dropout",
    "snr_gamma": "min_snr_gamma",
    "flip_aug": "horizontal_flip",
    "random_flip": "horizontal_flip",
    "lr_scheduler_type": "lr_scheduler",
    "max_steps": "max_train_steps",
}
"""Spellings of other trainers, and the key that each stands for."""

MAX_RANK: Final = 256
MAX_STEPS: Final = 1_000_000
DEFAULT_EPOCHS: Final = 10.0


class Optimizer(StrEnum):
    """Update rules of torch.optim."""

    ADAMW = "adamw"
    ADAM = "adam"
    SGD = "sgd"


class LrScheduler(StrEnum):
    """Course of the learning rate after the warm-up."""

    CONSTANT = "constant"
    LINEAR = "linear"
    COSINE = "cosine"


class MixedPrecision(StrEnum):
    """Arithmetic of the denoiser's forward pass; weights and optimiser state are always fp32."""

    NO = "no"
    BF16 = "bf16"


class TargetPreset(StrEnum):
    """Layers of the denoiser that get an adapter."""

    ATTENTION = "attention"
    ATTENTION_FF = "attention-ff"
    ALL_LINEAR_CONV = "all-linear-conv"


ModuleSuffix = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*$", max_length=120)]
Line = Annotated[str, StringConstraints(pattern=r"^[^\p{C}\p{Zl}\p{Zp}]*$")]
"""Text without control characters or line ends, which YAML would not give back as they were."""
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]


class TrainConfig(BaseModel):
    """One training run. The key names are those of the YAML file; `docs/training-config.md` is generated from here."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)

    dataset: Line = Field(
        "",
        max_length=200,
        description="For the service: dataset version, `datasets/ID/versions/N`, or `datasets/ID` for the newest.",
    )
    train_data_dir: Line = Field(
        "",
        max_length=4096,
        description="For a run without a server: folder of pictures with sidecar .txt files or a metadata.csv.",
    )
    output_dir: Line = Field(
        "output", min_length=1, max_length=4096, description="Folder that receives the files of a run without a server."
    )
    adapter: str = Field(
        "",
        pattern=r"^([a-z][a-z0-9-]{0,62})?$",
        description="Adapter that receives the result; names the files of a local run.",
    )
    base_model: Line = Field(
        "terroir-tiny",
        min_length=1,
        max_length=4096,
        description="Base model: an id that the operator registered; a local run also takes a diffusers folder.",
    )
    trigger_word: Line = Field(
        "",
        max_length=64,
        description="Word put before every caption that lacks it; empty means the dataset's own.",
    )
    lora_rank: int = Field(16, ge=1, le=MAX_RANK, description="Rank of every adapter layer.")
    lora_alpha: float | None = Field(
        None,
        gt=0,
        le=4096,
        description="Strength: the adapter's output is scaled by alpha / rank. Unset means the rank.",
    )
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Share of an adapter layer's inputs dropped in training.")
    target_modules: TargetPreset | tuple[ModuleSuffix, ...] = Field(
        TargetPreset.ATTENTION,
        description="Layers to adapt: `attention` (q, k, v, out), `attention-ff` (also feed-forward and projections), "
        "`all-linear-conv` (also the residual blocks), or a list of module name endings.",
    )
    resolution: int = Field(
        64, ge=16, le=2048, multiple_of=8, description="Side in pixels that pictures are resized and centre-cropped to."
    )
    horizontal_flip: bool = Field(False, description="Mirror each picture in half of its uses.")
    batch_size: int = Field(1, ge=1, le=256, description="Pictures a forward pass.")
    gradient_accumulation_steps: int = Field(1, ge=1, le=1024, description="Forward passes an optimiser step.")
    epochs: float | None = Field(
        None,
        gt=0,
        le=100_000,
        description=f"Passes over the pictures; {DEFAULT_EPOCHS:g} if max_train_steps is unset too.",
    )
    max_train_steps: int | None = Field(
        None, ge=1, le=MAX_STEPS, description="Optimiser steps in all; give this or epochs, not both."
    )
    learning_rate: float = Field(1e-4, gt=0, le=1, description="Highest learning rate.")
    lr_scheduler: LrScheduler = Field(
        LrScheduler.CONSTANT, description="Course after the warm-up: `constant`, `linear` or `cosine` to 0."
    )
    lr_warmup_steps: int = Field(0, ge=0, le=MAX_STEPS, description="Optimiser steps over which the rate rises from 0.")
    optimizer: Optimizer = Field(Optimizer.ADAMW, description="Update rule: `adamw`, `adam` or `sgd`.")
    weight_decay: float = Field(0.01, ge=0, le=1, description="Weight decay of the optimiser.")
    max_grad_norm: float = Field(
        1.0, ge=0, le=1e6, description="Gradients are scaled down to this norm; 0 leaves them."
    )
    max_bad_batches: int = Field(
        8,
        ge=1,
        le=1000,
        description="Steps in a row with a loss or gradient that is not finite, after which the run stops.",
    )
    mixed_precision: MixedPrecision = Field(
        MixedPrecision.NO, description="`no` (fp32) or `bf16` for the denoiser's passes."
    )
    caption_dropout: float = Field(
        0.1, ge=0, le=1, description="Share of uses with an empty caption, which classifier-free guidance needs."
    )
    min_snr_gamma: float | None = Field(
        None,
        gt=0,
        le=100,
        description="Min-SNR loss weighting (Hang et al., arXiv 2303.09556); 5 is usual. Unset: off.",
    )
    noise_offset: float = Field(
        0.0, ge=0, le=1, description="Noise shared by a whole channel, for darker and brighter pictures."
    )
    seed: Seed = Field(0, description="Everything random in the run follows from it.")
    save_steps: int = Field(
        500, ge=1, le=MAX_STEPS, description="Optimiser steps between checkpoints; the last step is always one."
    )

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.epochs is not None and self.max_train_steps is not None:
            raise ValueError(
                f"epochs {self.epochs:g} and max_train_steps {self.max_train_steps} are both set (keep one)"
            )
        return self

    @property
    def alpha(self) -> float:
        """`lora_alpha` with its default."""
        return float(self.lora_rank) if self.lora_alpha is None else self.lora_alpha

    @property
    def samples_per_step(self) -> int:
        """Pictures an optimiser step."""
        return self.batch_size * self.gradient_accumulation_steps

    def total_steps(self, pictures: int) -> int:
        """Optimiser steps of a run over that many pictures."""
        if self.max_train_steps is not None:
            return self.max_train_steps
        epochs = DEFAULT_EPOCHS if self.epochs is None else self.epochs
        return max(1, math.ceil(epochs * pictures / self.samples_per_step))
