"""Bounds and value types that several sections of the configuration share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MAX_RANK: Final = 256
MAX_STEPS: Final = 1_000_000

LINE: Final = r"^[^\p{C}\p{Zl}\p{Zp}]*$"
IDENTIFIER: Final = r"^([a-z][a-z0-9-]{0,62})?$"
MODULE_ENDING: Final = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*$"
PATTERNS: Final[Mapping[str, str]] = {
    LINE: "one line without control characters",
    IDENTIFIER: "at most 63 of a-z, 0-9 and '-', a letter first",
    MODULE_ENDING: "the end of a module's name, such as to_q or ff.net.2",
}
"""What a text must be, in words."""

Line = Annotated[str, StringConstraints(pattern=LINE)]
"""Text without control characters or line ends, which YAML would not give back as they were."""
Identifier = Annotated[str, StringConstraints(pattern=IDENTIFIER)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Steps = Annotated[int, Field(ge=1, le=MAX_STEPS)]
Rate = Annotated[float, Field(gt=0, le=1)]
"""A learning rate."""
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """What every section has in common: unknown keys and numbers that are not finite are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, allow_inf_nan=False)
