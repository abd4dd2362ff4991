"""Adapters of convolutions, strided ones too, draw what diffusers draws that loaded the same files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
from peft.tuners.lora import LoraLayer
from torch import nn

from terroir.inference.engine.messages import Stepped
from terroir.inference.engine.pipeline.model import Model
from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.formats import parse, to_diffusers, to_kohya
from tests.unit.inference.drawing_kit import Studio, make_job
from tests.unit.inference.peer_kit import PROMPTS, TOLERANCE, Peer

pytestmark = pytest.mark.slow

TRAINED: Final = {
    "kohya": ("to_q", "to_out.0", "conv1", "conv2", "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv"),
    "diffusers": ("to_k", "proj_in", "conv1", "conv_shortcut", "downsamplers.0.conv", "conv_in", "conv_out"),
}
"""Endings of the layers in each file: the first is what sd-scripts trains with `conv_dim`."""
PLANS: Final[list[dict[str, Any]]] = [{}, {"plan": "copy"}, {"plan": "slots"}, {"plan": "concat"}, {"static_rows": 16}]
WISHES: Final[dict[str, dict[str, float]]] = {
    "both": {"kohya": 0.9, "diffusers": -0.7}, "bare": {}, "one": {"diffusers": 1.2},
}  # fmt: skip


@dataclass
class Duel:
    """Our model and diffusers' pipeline over one folder, one file of each format loaded by both."""

    model: Model
    peer: Peer
    adapters: dict[str, Adapter]


def convolving(model: Model, endings: tuple[str, ...], seed: int, *, alphas: tuple[float, ...]) -> Adapter:
    """Ranks differ by layer, and alphas where several are given."""
    rng = np.random.default_rng(seed)
    modules = {}
    for index, (layer, shape) in enumerate(sorted(model.key_table().items())):
        if layer.startswith("unet.") and layer.endswith(endings):
            rank, deep = 2 + index % 3, [1] * (len(shape) - 2)
            down = rng.standard_normal((rank, *shape[1:]), dtype=np.float32) * 0.1
            up = rng.standard_normal((shape[0], rank, *deep), dtype=np.float32) * 0.1
            modules[layer] = LoraModule(down, up, alphas[index % len(alphas)])
    return Adapter(modules)


@pytest.fixture(scope="module", params=["base_dir", "sdxl_dir"])
def duel(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Duel:
    model = Model(str(request.getfixturevalue(request.param)), dtype="float32")
    peer, work, read = Peer(model), tmp_path_factory.mktemp("files"), {}
    for seed, (form, endings) in enumerate(TRAINED.items()):
        # Of kohya files diffusers keeps only one alpha for attention layers, see the last test.
        made = convolving(model, endings, seed, alphas=(2.0,) if form == "kohya" else (1.0, 2.0))
        data = to_kohya(made, {}, sdxl=model.family == "sdxl") if form == "kohya" else to_diffusers(made)
        read[form] = parse(data, model.key_table()).adapter
        save_and_load(peer, work, form, data)
        assert loaded(peer.pipe.unet, form) == set(made.modules) == set(read[form].modules), "nobody dropped a layer"
    return Duel(model, peer, read)


def save_and_load(peer: Peer, work: Path, name: str, data: bytes) -> None:
    (work / f"{name}.safetensors").write_bytes(data)
    peer.pipe.load_lora_weights(work, weight_name=f"{name}.safetensors", adapter_name=name)


def loaded(unet: nn.Module, adapter: str) -> set[str]:
    layers = ((name, layer) for name, layer in unet.named_modules() if isinstance(layer, LoraLayer))
    return {f"unet.{name}" for name, layer in layers if adapter in layer.lora_A}


@pytest.mark.parametrize("options", PLANS, ids=lambda options: str(next(iter(options.values()), "auto")))
def test_every_plan_draws_what_diffusers_draws(duel: Duel, options: dict[str, Any]) -> None:
    studio = Studio(duel.model, **options)
    for name, weights in WISHES.items():
        worn = {form: (duel.adapters[form], weight, 0.0) for form, weight in weights.items()}
        studio.submit(make_job(name, worn, **PROMPTS))
    studio.work_off()
    worn_plans = {event.plan for event in studio.events if isinstance(event, Stepped)} - {"base"}
    assert "plan" not in options or worn_plans == {options["plan"]}
    drawn = {}
    for name, weights in WISHES.items():
        if weights:
            duel.peer.pipe.enable_lora()
            duel.peer.pipe.set_adapters(list(weights), list(weights.values()))
        else:
            duel.peer.pipe.disable_lora()
        drawn[name] = duel.peer.draw()
        assert np.abs(np.stack(studio.pictures(name)) - drawn[name]).max() <= TOLERANCE, name
    assert np.abs(drawn["both"] - drawn["bare"]).max() > 4 * TOLERANCE
    assert np.abs(drawn["both"] - drawn["one"]).max() > 4 * TOLERANCE


def test_strided_convolutions_alone_change_the_picture(duel: Duel) -> None:
    layers = duel.model.layers()
    strided = {
        layer: module
        for layer, module in duel.adapters["kohya"].modules.items()
        if isinstance(found := layers[layer], nn.Conv2d) and found.stride != (1, 1)
    }
    assert strided
    pictures = []
    for worn in ({}, {"strided": (Adapter(strided), 1.0, 0.0)}):
        studio = Studio(duel.model)
        studio.run(make_job("job", worn, **PROMPTS))
        pictures.append(np.stack(studio.pictures("job")))
    assert np.abs(pictures[0] - pictures[1]).max() > 2 * TOLERANCE


def test_alphas_that_differ_between_layers_of_a_kohya_file_are_kept(duel: Duel) -> None:
    """As sd-scripts writes them with a `conv_alpha` of its own; the oracle is PEFT injected directly.

    diffusers 0.42 files the alphas of attention layers under names that match no layer, so these layers get the file's
    most common alpha instead.
    """
    made = convolving(duel.model, TRAINED["kohya"], 7, alphas=(1.0, 4.0))
    data = to_kohya(made, {}, sdxl=duel.model.family == "sdxl")
    read = parse(data, duel.model.key_table()).adapter
    peer = Peer(duel.model)
    peer.inject(made, ("unet",))
    studio = Studio(duel.model)
    studio.run(make_job("job", {"kohya": (read, 1.0, 0.0)}, **PROMPTS))
    theirs = peer.draw()
    assert np.abs(np.stack(studio.pictures("job")) - theirs).max() <= TOLERANCE
    peer.inject(convolving(duel.model, TRAINED["kohya"], 7, alphas=(4.0,)), ("unet",))
    assert np.abs(peer.draw() - theirs).max() > 4 * TOLERANCE, "one alpha for all is another picture"
