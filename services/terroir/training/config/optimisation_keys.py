"""Keys of the update: length, batch, rates, optimiser, precision, memory."""

from __future__ import annotations

import difflib
from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from terroir.training.config.limits import MAX_STEPS, Rate, Section, Seed, Steps


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
    COSINE_WITH_RESTARTS = "cosine_with_restarts"


class MixedPrecision(StrEnum):
    """Arithmetic of the denoiser's forward pass; weights and optimiser state are always fp32."""

    NO = "no"
    BF16 = "bf16"
    FP16 = "fp16"


BLOCKS: Final = ("down_blocks", "mid_block", "up_blocks", "conv_in", "time_embedding", "add_embedding", "conv_out")
"""Parts of a U-Net, as diffusers names them; of those in the plural one may be named by its number."""


def _known_block(name: str) -> str:
    part, _, number = name.partition(".")
    if part in BLOCKS and (not number or (part.endswith("s") and number.isascii() and number.isdecimal())):
        return name
    known = [*BLOCKS, *(f"{block}.{n}" for block in BLOCKS if block.endswith("s") for n in range(4))]
    nearest = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.0)[0]
    raise ValueError(f"{name[:80]!r} is no block of a denoiser; the nearest is {nearest!r} of {', '.join(BLOCKS)}")


BlockName = Annotated[str, AfterValidator(_known_block)]
Multiplier = Annotated[float, Field(ge=0, le=100)]


class OptimisationKeys(Section):
    """The update."""

    batch_size: int = Field(1, ge=1, le=256, description="Pictures a forward pass.")
    gradient_accumulation_steps: int = Field(1, ge=1, le=1024, description="Forward passes an optimiser step.")
    epochs: float | None = Field(
        None,
        gt=0,
        le=100_000,
        description="Passes over the pictures; 10 if max_train_steps is unset too.",
    )
    max_train_steps: Steps | None = Field(None, description="Optimiser steps in all; give this or epochs, not both.")
    learning_rate: Rate = Field(1e-4, description="Highest learning rate of the denoiser's adapter.")
    text_encoder_lr: Rate | None = Field(
        None, description="Highest learning rate of the text encoder's adapter. Unset: the text encoder stays as it is."
    )
    text_encoder_lr_scheduler: LrScheduler | None = Field(
        None, description="Course of text_encoder_lr. Unset: that of lr_scheduler."
    )
    text_encoder_stop_step: Steps | None = Field(
        None,
        description="Optimiser step after which the text encoder's adapter stays as it is. Unset: trained to the end.",
    )
    block_lr_weights: dict[BlockName, Multiplier] = Field(
        default_factory=dict,
        max_length=64,
        description="Multipliers of learning_rate by block of the denoiser, such as `down_blocks.0: 0.5`, "
        "`mid_block: 0`, `up_blocks: 1.5`; the longest name that fits decides, others have 1.",
    )
    loraplus_lr_ratio: float | None = Field(
        None,
        ge=1,
        le=1000,
        description="LoRA+ (Hayou et al., arXiv 2402.12354): the up factors learn this many times faster; 16 is usual.",
    )
    lr_scheduler: LrScheduler = Field(
        LrScheduler.CONSTANT,
        description="Course after the warm-up: `constant`, `linear` or `cosine` to 0, or `cosine_with_restarts`.",
    )
    lr_num_cycles: int = Field(1, ge=1, le=1000, description="Cycles of `cosine_with_restarts`.")
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
    ema_decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Publish an exponential moving average of the adapter's weights with this decay a step; 0.99 to "
        "0.999 is usual. Unset: the last weights.",
    )
    mixed_precision: MixedPrecision = Field(
        MixedPrecision.NO,
        description="`no` (fp32), `bf16` or `fp16` (with a loss scale that adapts) for the passes of the models.",
    )
    gradient_checkpointing: bool = Field(
        False, description="Compute activations twice instead of keeping them: less memory, about a third slower."
    )
    seed: Seed = Field(0, description="Everything random in the run follows from it.")
    save_steps: Steps = Field(500, description="Optimiser steps between checkpoints; the last step is always one.")
