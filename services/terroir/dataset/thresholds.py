"""Thresholds of the quality gates, one setting each: TERROIR_DATASET_GATES__<FIELD>."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Share = Annotated[float, Field(ge=0.0, le=1.0)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Thresholds:
    """Measured on photographs and on drawn pictures of 64 to 512 pixels, sharp and blurred (docs of `measure.py`).

    "warn" still trains, "quarantine" keeps the picture out until a person decides.
    """

    minimum_side: Annotated[int, Field(ge=1, description="Least short side in pixels; smaller is rejected.")] = 512
    sharpness_warn: Annotated[float, Field(ge=0, description="Warn below this Laplacian variance over variance.")] = (
        0.01
    )
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
