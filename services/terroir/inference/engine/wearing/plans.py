"""Which plan a layer takes in a batch: the cost table.

Rows that all wear the same composition wear one merged copy. In a mixed batch a layer has two ways, which agree:

* **slots**: one merged weight a request, `bmm(x, W)`. No extra arithmetic; reads `out · in` elements a request.
* **concat**: `W0 · x` for all rows and the padded low-rank factors beside it, `baddbmm`. Extra arithmetic and three
  more passes over the activations: about `tokens · (in + 2 · out)` elements a request.

So slots pay as soon as a request brings more tokens to the layer than about a sixth of its channels (calculated for
SD 1.5: 53, 107 and 213 tokens at 320, 640 and 1280 channels). On a CPU the weights stay in cache and slots are never
slower once they are merged; `python -m benchmarks.inference.plan_costs` measures both, its table is in
docs/inference.md. Slots need memory, concat needs factors: where one can't be had the other is taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from terroir.inference.engine.messages import PlanName

MixedPlan = Literal["slots", "concat"]

TOKENS_PER_CHANNEL: Final = {"cuda": 1 / 6, "cpu": 0.0}
"""Slots from so many tokens of a request per mean channel on; below, concat."""


@dataclass(frozen=True)
class LayerCall:
    """What the choice depends on."""

    tokens: int
    """Positions a request brings to the layer: rows × sequence length, or rows × height × width."""
    inputs: int
    outputs: int
    low_rank: bool
    """Whether every change in the batch has factors; a DoRA or LoHa has none."""
    slots_fit: bool
    """Whether the merged weights fit into the budget."""


def choose(call: LayerCall, device: str, forced: Literal["auto"] | PlanName) -> MixedPlan:
    """The plan of one layer in a batch of different compositions; `copy` can't be forced there and counts as `auto`."""
    if not call.low_rank:
        return "slots"
    if forced in ("slots", "concat"):
        return "slots" if forced == "slots" else "concat"
    if not call.slots_fit:
        return "concat"
    channels = (call.inputs + call.outputs) / 2
    return "slots" if call.tokens > channels * TOKENS_PER_CHANNEL.get(device, 1 / 6) else "concat"
