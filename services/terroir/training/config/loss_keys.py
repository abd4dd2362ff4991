"""Keys of the loss."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from terroir.training.config.limits import Section


class PredictionType(StrEnum):
    """What the denoiser is taught to predict."""

    BASE = "base"
    EPSILON = "epsilon"
    V_PREDICTION = "v_prediction"


class LossKeys(Section):
    """The loss."""

    prediction_type: PredictionType = Field(
        PredictionType.BASE,
        description="`base` takes it from the base's scheduler; `epsilon` or `v_prediction` (Salimans and Ho, "
        "arXiv 2202.00512) overrule a scheduler_config.json that says it wrongly.",
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
    prior_loss_weight: float = Field(
        1.0,
        ge=0,
        le=100,
        description="Weight of the loss on regularisation pictures (prior preservation, Ruiz et al., 2208.12242).",
    )
    masked_loss: bool = Field(
        False,
        description="Weigh the loss by each picture's mask: its alpha channel, or in a local run the file "
        "`NAME.mask.png` beside it; white counts, black does not.",
    )
    unmasked_weight: float = Field(0.0, ge=0, le=1, description="Weight of what a mask leaves out.")
