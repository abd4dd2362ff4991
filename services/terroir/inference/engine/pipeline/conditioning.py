"""What the denoiser is told besides latents and timestep, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Conditioning:
    """Rows of one request or of a whole batch; guided requests bring rows without the prompt, then rows with it."""

    embeddings: Tensor
    """`[rows, tokens, channels]`."""
    pooled: Tensor | None = None
    """SDXL: the second text encoder's summary, `[rows, channels]`."""
    time_ids: Tensor | None = None
    """SDXL: original size, crop and target size, `[rows, 6]`."""

    @property
    def rows(self) -> int:
        """Rows of the batch axis."""
        return len(self.embeddings)

    @property
    def key(self) -> tuple[object, ...]:
        """Must be equal for rows to share a call: their tensors are stacked."""
        return tuple(None if part is None else part.shape[1:] for part in self._parts)

    @classmethod
    def cat(cls, parts: Sequence[Conditioning]) -> Conditioning:
        """One batch of several requests' rows, in order."""
        return cls(
            torch.cat([part.embeddings for part in parts]),
            _cat([part.pooled for part in parts]),
            _cat([part.time_ids for part in parts]),
        )

    def padded(self, count: int) -> Conditioning:
        """With so many more rows, whose answers nobody reads."""
        return Conditioning(
            _longer(self.embeddings, count),
            None if self.pooled is None else _longer(self.pooled, count),
            None if self.time_ids is None else _longer(self.time_ids, count),
        )

    def arguments(self) -> dict[str, Any]:
        """As diffusers' UNet2DConditionModel takes it."""
        if self.pooled is None:
            return {"encoder_hidden_states": self.embeddings}
        added = {"text_embeds": self.pooled, "time_ids": self.time_ids}
        return {"encoder_hidden_states": self.embeddings, "added_cond_kwargs": added}

    @property
    def _parts(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        return self.embeddings, self.pooled, self.time_ids


def _longer(rows: Tensor, count: int) -> Tensor:
    return torch.cat([rows, rows[-1:].expand(count, *rows.shape[1:])])


def _cat(parts: Sequence[Tensor | None]) -> Tensor | None:
    tensors = [part for part in parts if part is not None]
    return torch.cat(tensors) if tensors else None
