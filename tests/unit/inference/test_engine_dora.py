"""DoRA adapters draw what PEFT draws that is injected directly: diffusers drops `dora_scale` when it loads a file.

PEFT scales inside the norm, so it is our oracle for one adapter at weight 1. A stack's oracle is the sum of the changes
that PEFT merges one by one into the pristine base.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pytest

from terroir.inference.engine.pipeline.model import Model
from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.formats import parse, to_diffusers, to_kohya
from tests.unit.inference.drawing_kit import Studio, make_job, random_adapter
from tests.unit.inference.peer_kit import PROMPTS, TOLERANCE, Changes, Peer, Pixels

pytestmark = pytest.mark.slow

PLANS: Final[list[dict[str, Any]]] = [{}, {"plan": "copy"}, {"plan": "slots"}, {"plan": "concat"}, {"static_rows": 16}]
STACK: Final = {"dora": 0.7, "other": -0.5, "lora": 0.8}


@dataclass
class Duel:
    """Our model and diffusers' pipeline over one folder, two DoRA adapters and a plain one between them."""

    model: Model
    peer: Peer
    adapters: dict[str, Adapter]
    changes: dict[str, Changes]

    def entries(self, weights: dict[str, float], text_weight: float = 0.0) -> dict[str, tuple[Adapter, float, float]]:
        return {name: (self.adapters[name], weight, text_weight) for name, weight in weights.items()}


def with_magnitudes(model: Model, adapter: Adapter, seed: int) -> Adapter:
    """Each output's length is moved by up to a fifth."""
    rng = np.random.default_rng(seed)
    made = {}
    for layer, module in adapter.modules.items():
        assert isinstance(module, LoraModule)
        weight = model.layers()[layer].get_parameter("weight").flatten(1)
        lengths = weight.norm(dim=1).numpy() * rng.uniform(0.8, 1.2, len(weight)).astype(np.float32)
        made[layer] = LoraModule(module.down, module.up, module.alpha, lengths)
    return Adapter(made)


@pytest.fixture(scope="module", params=["base_dir", "sdxl_dir"])
def duel(request: pytest.FixtureRequest) -> Duel:
    model = Model(str(request.getfixturevalue(request.param)), dtype="float32")
    plain = [random_adapter(model, seed, strength=0.12) for seed in (1, 2, 3)]
    adapters = {
        "dora": with_magnitudes(model, plain[0], 4), "other": with_magnitudes(model, plain[1], 5), "lora": plain[2],
        "dropped": plain[0],
    }  # fmt: skip
    peer = Peer(model)
    return Duel(model, peer, adapters, {name: peer.changes(adapter) for name, adapter in adapters.items()})


def ours(duel: Duel, entries: dict[str, tuple[Adapter, float, float]]) -> Pixels:
    studio = Studio(duel.model)
    studio.run(make_job("job", entries, **PROMPTS))
    return np.stack(studio.pictures("job"))


@pytest.mark.parametrize("form", ["kohya", "diffusers"])
def test_a_dora_file_at_weight_1_draws_what_peft_draws(duel: Duel, form: str) -> None:
    adapter = duel.adapters["dora"]
    data = to_kohya(adapter, {}, sdxl=duel.model.family == "sdxl") if form == "kohya" else to_diffusers(adapter)
    read = parse(data, duel.model.key_table()).adapter
    assert set(read.modules) == set(adapter.modules)
    try:
        duel.peer.inject(adapter, ("unet",))
        theirs = duel.peer.draw()
        duel.peer.inject(adapter, ("unet", *duel.model.text_encoders))
        theirs_with_text = duel.peer.draw()
    finally:
        duel.peer.bare()
    assert theirs.std() > 1, "a flat picture would agree with anything"
    assert np.abs(ours(duel, {"dora": (read, 1.0, 0.0)}) - theirs).max() <= TOLERANCE
    assert np.abs(ours(duel, {"dora": (read, 1.0, 1.0)}) - theirs_with_text).max() <= TOLERANCE
    assert np.abs(theirs_with_text - theirs).max() > 2 * TOLERANCE, "text encoders wear it too"


@pytest.mark.parametrize("options", PLANS, ids=lambda options: str(next(iter(options.values()), "auto")))
def test_stacked_doras_add_up_the_changes_that_peft_makes_to_the_base_beside_any_neighbours(
    duel: Duel, options: dict[str, Any]
) -> None:
    wishes = {"stack": STACK, "half": {"dora": 0.5}, "bare": {}, "plain": {"lora": 1.2}}
    studio = Studio(duel.model, **options)
    for name, weights in wishes.items():
        studio.submit(make_job(name, duel.entries(weights), **PROMPTS))
    studio.work_off()
    for name, weights in wishes.items():
        try:
            terms = [(weight, unet_only(duel.changes[adapter])) for adapter, weight in weights.items()]
            duel.peer.add(terms)
            theirs = duel.peer.draw()
        finally:
            duel.peer.bare()
        assert np.abs(np.stack(studio.pictures(name)) - theirs).max() <= TOLERANCE, name


def test_magnitudes_change_the_picture(duel: Duel) -> None:
    """Without this, dropping them as diffusers does would pass; and a stack must not be its first adapter alone."""
    plain, dropped = ours(duel, {}), ours(duel, duel.entries({"dropped": 1.0}))
    dora, stack = ours(duel, duel.entries({"dora": 1.0})), ours(duel, duel.entries(STACK))
    for other in (plain, dropped, stack):
        assert np.abs(dora - other).max() > 4 * TOLERANCE


def unet_only(changes: Changes) -> Changes:
    return {layer: change for layer, change in changes.items() if layer.startswith("unet.")}
