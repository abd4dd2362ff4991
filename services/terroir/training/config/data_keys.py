"""Keys of how pictures and captions become batches."""

from __future__ import annotations

from typing import Any, Final, Self

from pydantic import Field, model_validator

from terroir.training.config.limits import Line, Section, Share

_RESOLUTION: Final = 64
"""Side of the embedded base's pictures."""


def _bucket_steps(checked: dict[str, Any]) -> int:
    return min(64, max(8, _side(checked) // 32 * 8))


def _shortest_side(checked: dict[str, Any]) -> int:
    return max(16, _side(checked) // 16 * 8)


def _longest_side(checked: dict[str, Any]) -> int:
    return min(4096, 2 * _side(checked))


def _side(checked: dict[str, Any]) -> int:
    """The resolution, which is checked first; any other if it is wrong, as that is the error then."""
    return int(checked.get("resolution", _RESOLUTION))


class DataKeys(Section):
    """Pictures and captions."""

    resolution: int = Field(
        _RESOLUTION,
        ge=16,
        le=2048,
        multiple_of=8,
        description="Side in pixels that pictures are resized and centre-cropped to.",
    )
    enable_bucket: bool = Field(
        False,
        description="Keep aspect ratios: each picture goes to the nearest of a set of sizes with about resolution² "
        "pixels, and a batch holds one size; an epoch's last batch of each size may be smaller than batch_size.",
    )
    bucket_reso_steps: int = Field(
        default_factory=_bucket_steps,
        ge=8,
        le=256,
        multiple_of=8,
        description="Sides of bucket sizes are multiples of this. Unset: 64, for less than 256 pixels a quarter of "
        "resolution.",
    )
    min_bucket_reso: int = Field(
        default_factory=_shortest_side,
        ge=16,
        le=4096,
        multiple_of=8,
        description="Shortest side of a bucket size. Unset: half of resolution.",
    )
    max_bucket_reso: int = Field(
        default_factory=_longest_side,
        ge=16,
        le=4096,
        multiple_of=8,
        description="Longest side of a bucket size. Unset: twice resolution.",
    )
    bucket_no_upscale: bool = Field(
        False,
        description="Sides shorter than their bucket's keep their length, rounded down to bucket_reso_steps, so that "
        "no picture is enlarged.",
    )
    horizontal_flip: bool = Field(False, description="Mirror each picture in half of its uses.")
    augment_variants: int = Field(
        4,
        ge=1,
        le=64,
        description="Seeded variants of a picture that the augmentations below make, and orders of a caption that "
        "shuffle_caption makes; each is encoded once and cached.",
    )
    augment_color_jitter: Share = Field(
        0.0, description="Most that brightness, contrast and saturation change by, as a share; 0 leaves them."
    )
    augment_erase: Share = Field(0.0, description="Share of variants in which one rectangle is erased.")
    augment_erase_area: float = Field(
        0.1, gt=0, le=0.5, description="Largest share of the picture that is erased in one."
    )
    augment_crop: Share = Field(0.0, description="Most of each side that a random crop cuts off, as a share.")
    caption_dropout: Share = Field(
        0.1, description="Share of uses with an empty caption, which classifier-free guidance needs."
    )
    shuffle_caption: bool = Field(
        False,
        description="Shuffle the comma-separated parts of a caption: augment_variants orders of it, each encoded once "
        "and cached.",
    )
    keep_tokens: int = Field(1, ge=0, le=32, description="Leading parts of a caption that shuffling leaves in place.")
    clip_skip: int | None = Field(
        None,
        ge=1,
        le=12,
        description="Use the text encoder's state before its last N - 1 layers. Unset: 1 for Stable Diffusion, 2 for "
        "SDXL, as they were trained.",
    )
    reg_dataset: Line = Field(
        "",
        max_length=200,
        description="Pictures of what must not change, for prior preservation: a dataset version for the service.",
    )
    reg_data_dir: Line = Field(
        "",
        max_length=4096,
        description="The same as a folder, for a run without a server; `terroir train submit` makes a dataset of it.",
    )
    reg_share: float = Field(
        0.1, gt=0, lt=1, description="Share of a run's samples that come from the regularisation pictures."
    )

    @model_validator(mode="after")
    def _buckets_hold_the_resolution(self) -> Self:
        if not self.enable_bucket:
            return self
        for key in ("bucket_reso_steps", "min_bucket_reso"):
            if (value := getattr(self, key)) > self.resolution:
                raise ValueError(
                    f"{key} {value} exceeds resolution {self.resolution}, so no bucket size has its area (lower it)"
                )
        if self.max_bucket_reso < self.resolution:
            raise ValueError(
                f"max_bucket_reso {self.max_bucket_reso} is below resolution {self.resolution}, so no bucket size has "
                "its area (raise it)"
            )
        return self
