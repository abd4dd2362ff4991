"""One denoiser call for drawings of one shape, and what is tried before a drawing is given up."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch

from terroir.inference.engine.drawing import Drawing
from terroir.inference.engine.failures import is_out_of_memory
from terroir.inference.engine.pace import Pace
from terroir.inference.engine.pipeline.conditioning import Conditioning
from terroir.inference.engine.pipeline.model import Model
from terroir.inference.engine.wearing.stacks import Stacks
from terroir.lora.composition import Composition

BARE: Final = Composition()


@dataclass(frozen=True)
class Call:
    """What came of a step of a group."""

    went: Sequence[Drawing]
    """Those that made it, in the order in which they were given."""
    plan: str
    """What they wore."""
    rows: int
    seconds: float = 0.0
    lacked: int = 0
    """Rows for which memory did not suffice, so that fewer were tried; 0 if all were in one call."""


class Calls:
    """Makes steps of groups on the device, each with one call where memory allows."""

    def __init__(self, model: Model, stacks: Stacks, pace: Pace, fail: Callable[[Drawing, Exception], None]) -> None:
        """`fail` gives a drawing up."""
        self._model, self._stacks, self._pace, self._fail = model, stacks, pace, fail
        if stacks.static:
            stacks.join(BARE)  # padding rows wear it

    def step(self, group: Sequence[Drawing], lane: Hashable) -> Call:
        """One step of those who may share a call.

        Without memory for all, drawings that nobody waits for are left out, then halves are tried before a single one
        is given up. An error of any other kind fails them first: it may be theirs.
        """
        self._pace.begin()
        call = self._denoise(group, lane)
        seconds = self._pace.end((lane, call.rows, mixed(group)))
        return replace(call, went=[drawing for drawing in group if drawing in set(call.went)], seconds=seconds)

    def padding(self, rows: int) -> int:
        """Rows without a request that a compiled denoiser is given, so that it is compiled for few row counts."""
        return (1 << (rows - 1).bit_length()) - rows if self._stacks.static else 0

    def _denoise(self, group: Sequence[Drawing], lane: Hashable) -> Call:
        order = self._stacks.arranged([(drawing.job.composition, drawing.row_count) for drawing in group], lane)
        group = [group[index] for index in order]
        latents, timesteps = zip(*(drawing.rows() for drawing in group), strict=True)
        conditioning = Conditioning.cat([drawing.conditioning for drawing in group])
        worn = [(drawing.job.composition, drawing.row_count) for drawing in group]
        if padding := self.padding(conditioning.rows):
            worn.append((BARE, padding))
        try:
            with self._stacks.worn(worn, lane) as dressed:
                predicted = self._model.predict(torch.cat(latents), torch.cat(timesteps), conditioning, padding)
        except Exception as error:
            return self._with_fewer(group, lane, error)
        went = []
        for drawing, part in zip(group, predicted.split([d.row_count for d in group]), strict=True):
            try:
                drawing.advance(part)
            except Exception as error:
                self._fail(drawing, error)
            else:
                went.append(drawing)
        return Call(went, dressed.plan, conditioning.rows)

    def _with_fewer(self, group: Sequence[Drawing], lane: Hashable, error: Exception) -> Call:
        rows = sum(drawing.row_count for drawing in group)
        lacked = rows if is_out_of_memory(error) else 0
        if lacked:
            self._stacks.free()
        awaited = [drawing for drawing in group if not drawing.job.spare]
        if awaited and len(awaited) < len(group):
            for drawing in group:
                if drawing.job.spare and not lacked:
                    self._fail(drawing, error)
            return replace(self._denoise(awaited, lane), lacked=lacked)
        if lacked and len(group) > 1:
            middle = len(group) // 2
            first, second = self._denoise(group[:middle], lane), self._denoise(group[middle:], lane)
            return Call([*first.went, *second.went], first.plan, first.rows + second.rows, lacked=lacked)
        for drawing in group:
            self._fail(drawing, error)
        return Call([], "base", rows, lacked=lacked)


def mixed(group: Sequence[Drawing]) -> bool:
    """Whether these wear different compositions."""
    return len({drawing.job.composition for drawing in group}) > 1
