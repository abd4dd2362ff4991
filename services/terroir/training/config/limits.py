"""Bounds and value types that several sections of the configuration share."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MAX_RANK: Final = 256
MAX_STEPS: Final = 1_000_000

Line = Annotated[str, StringConstraints(pattern=r"^[^\p{C}\p{Zl}\p{Zp}]*$")]
"""Text without control characters or line ends, which YAML would not give back as they were."""
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Steps = Annotated[int, Field(ge=1, le=MAX_STEPS)]
Rate = Annotated[float, Field(gt=0, le=1)]
"""A learning rate."""
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """What every section has in common: unknown keys and numbers that are not finite are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)
