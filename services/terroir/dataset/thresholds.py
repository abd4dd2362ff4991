"""Thresholds of the quality gates, one setting each: TERROIR_DATASET_GATES__<FIELD>."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Share = Annotated[float, Field(ge=0.0, le=1.0)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Thresholds:
    """A "warn" limit still trains, a "quarantine" limit keeps the picture out until a person decides.

    Defaults were chosen on 18 sharp photographs (sharpness 0.03 … 3.6; blurred by 4 of 512 pixels half of them under
    0.002, all under 0.013) and on 240 drawn pictures of 64 pixels in four looks (sharpness from 0.6; blurred by 2
    pixels half of them under 0.015; hashes of different scenes differ in 6 bits or more, of re-encoded copies in 2).
    """

    minimum_side: Annotated[int, Field(ge=1, description="Least short side in pixels; smaller is rejected.")] = 512
    sharpness_warn: Annotated[float, Field(ge=0, description="Warn below this Laplacian over grey variance.")] = 0.02
    sharpness_quarantine: Annotated[float, Field(ge=0, description="Quarantine below this.")] = 0.001
    highlights_warn: Annotated[Share, Field(description="Warn if the lightest hundredth is darker than this.")] = 0.3
    highlights_quarantine: Annotated[Share, Field(description="Quarantine if it is darker than this.")] = 0.12
    shadows_warn: Annotated[Share, Field(description="Warn if the darkest hundredth is lighter than this.")] = 0.9
    shadows_quarantine: Annotated[Share, Field(description="Quarantine if it is lighter than this.")] = 0.97
    entropy_warn_bits: Annotated[float, Field(ge=0, le=8, description="Warn below this grey entropy.")] = 1.0
    entropy_quarantine_bits: Annotated[float, Field(ge=0, le=8, description="Quarantine below this.")] = 0.25
    aspect_warn: Annotated[float, Field(ge=1, description="Warn if long over short side exceeds this.")] = 2.5
    aspect_quarantine: Annotated[float, Field(ge=1, description="Quarantine if it exceeds this.")] = 4.0
    near_duplicate_bits: Annotated[int, Field(ge=0, le=64, description="Warn if at most this many bits differ.")] = 4
    few_pictures: Annotated[int, Field(ge=1, description="Warn at freeze below this many usable pictures.")] = 20
    many_pictures: Annotated[int, Field(ge=1, description="Warn at freeze above this many.")] = 1000
