"""All plans give every row what its own composition, merged by hand, gives; and the base is only ever read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from terroir.inference.engine.wearing.layers import AdaptedLayer, adapt
from terroir.inference.engine.wearing.stacks import Stacks
from terroir.lora.adapter import Adapter, Array, LoraModule, Module
from terroir.lora.composition import Composition
from tests.unit.lora.lycoris_adapters import FORMS, random_module

TOLERANCE: Final = 1e-4
"""Of the largest value, in fp32."""
PLANS: Final[Mapping[str, Mapping[str, Any]]] = {
    "auto": {}, "slots": {"plan": "slots"}, "concat": {"plan": "concat"}, "no room": {"budget_bytes": 0},
    "static": {"static_rows": 16},
}  # fmt: skip
ROOM: Final = 1 << 24
unhurried = settings(deadline=None, max_examples=50)  # times vary with what else the machine does
SIZES: Final = (2, 4, 6, 8)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    """Threads that wait for busy cores are slower than none."""
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Layer:
    """One layer and the form of its input."""

    kind: str
    inputs: int
    outputs: int
    bias: bool
    channels_last: bool = False

    def build(self) -> nn.Module:
        """With torch's own random weights."""
        if self.kind.startswith("linear"):
            return nn.Linear(self.inputs, self.outputs, self.bias)
        kernel, stride = {"pointwise": (1, 1), "strided": (1, 2), "kernel": (3, 1), "down": (3, 2)}[self.kind]
        return nn.Conv2d(self.inputs, self.outputs, kernel, stride, padding=kernel // 2, bias=self.bias)

    def input(self, rows: int) -> Tensor:
        """Random input for so many rows."""
        if self.kind == "linear rows":  # time embeddings
            return torch.randn(rows, self.inputs)
        if self.kind == "linear tokens":
            return torch.randn(rows, 5, self.inputs)
        x = torch.randn(rows, self.inputs, 4, 4)
        return x.contiguous(memory_format=torch.channels_last) if self.channels_last else x


layers = st.builds(
    Layer,
    kind=st.sampled_from(("linear rows", "linear tokens", "pointwise", "strided", "kernel", "down")),
    inputs=st.sampled_from(SIZES),
    outputs=st.sampled_from(SIZES),
    bias=st.booleans(),
    channels_last=st.booleans(),
)
modules = st.tuples(
    st.sampled_from(("none", "lora", "lora", "dora", *FORMS)), st.integers(1, 4), st.sampled_from((0.5, 2.0, 4.0))
)
weights = st.sampled_from((-1.5, -0.3, 0.0, 0.7, 1.0, 2.0))
stacks_of_requests = st.lists(
    st.tuples(st.lists(st.tuples(st.sampled_from("abc"), weights, weights), max_size=4), st.integers(1, 3)),
    min_size=1,
    max_size=4,
)


@dataclass(frozen=True)
class Scene:
    """Layers, adapters over some of them, and the requests of one call."""

    layers: tuple[Layer, ...]
    kinds: tuple[tuple[tuple[str, int, float], ...], ...]
    """A module for each layer of each adapter; `none` leaves the layer alone."""
    requests: tuple[tuple[Composition, int], ...]
    seed: int

    def build(self) -> tuple[dict[str, AdaptedLayer], dict[str, Adapter]]:
        """The layers, which a denoiser and a text encoder have in turn, and the adapters."""
        torch.manual_seed(self.seed)
        found = adapt({name: layer.build().requires_grad_(False) for name, layer in self.named().items()})
        rng = np.random.default_rng(self.seed)
        adapters = {}
        for digest, kinds in zip("abc", self.kinds, strict=True):
            made = {
                name: module_of(rng, found[name].weight.numpy(), *kind)
                for name, kind in zip(found, kinds, strict=False)
                if kind[0] != "none"
            }
            adapters[digest] = Adapter(made)
        return found, adapters

    def named(self) -> dict[str, Layer]:
        """By names of a key table."""
        return {f"unet.layer_{number}": layer for number, layer in enumerate(self.layers)}


scenes = st.builds(
    Scene,
    layers=st.lists(layers, min_size=1, max_size=3).map(tuple),
    kinds=st.tuples(*[st.tuples(modules, modules, modules)] * 3),
    requests=stacks_of_requests.map(lambda found: tuple((Composition.of(stack), rows) for stack, rows in found)),
    seed=st.integers(0, 2**16),
)


def module_of(rng: np.random.Generator, base: Array, kind: str, rank: int, alpha: float) -> Module:
    """A module of moderate size, so that rounding stays far below the tolerance."""
    out, inner, *kernel = base.shape
    if kind not in ("lora", "dora"):
        return random_module(rng, kind, base.shape, rank, alpha / 8)
    down = rng.standard_normal((rank, inner, *kernel), dtype=np.float32)
    up = rng.standard_normal((out, rank, *(1 for _ in kernel)), dtype=np.float32)
    lengths = np.linalg.norm(base.reshape(out, -1), axis=1) * rng.uniform(0.5, 2, out)
    return LoraModule(down, up, alpha, lengths.astype(np.float32) if kind == "dora" else None)


def by_hand(layer: AdaptedLayer, x: Tensor, change: Array | None) -> Tensor:
    """The layer's answer with the change added to its weight, in double precision."""
    weight = layer.weight.double() + (0 if change is None else torch.from_numpy(change).double())
    bias = None if layer.bias is None else layer.bias.double()
    if isinstance(layer, nn.Linear):
        return nn.functional.linear(x.double(), weight, bias)
    return nn.functional.conv2d(x.double(), weight, bias, layer.stride, layer.padding)


def change_of(
    composition: Composition, adapters: Mapping[str, Adapter], name: str, layer: AdaptedLayer
) -> Array | None:
    try:
        return composition.delta(adapters, name, layer.weight.numpy())
    except KeyError:
        return None


def stacks_over(
    found: Mapping[str, AdaptedLayer], adapters: Mapping[str, Adapter], options: Mapping[str, Any]
) -> Stacks:
    stacks = Stacks(found, **{"budget_bytes": ROOM, **options})
    for digest, adapter in adapters.items():
        stacks.put(digest, stacks.prepare(adapter))
    return stacks


def assert_close(made: Tensor, expected: Tensor) -> None:
    assert made.shape == expected.shape
    largest = max(float(expected.abs().max()), 1.0)
    assert float((made.double() - expected).abs().max()) <= TOLERANCE * largest


class Watch:
    """Bits, place and write counters of weights; an in-place write shows even if it was undone."""

    def __init__(self, found: Mapping[str, AdaptedLayer]) -> None:
        self._found = found
        self._before = self._state()
        self._bits = {name: layer.weight.clone() for name, layer in found.items()}

    def _state(self) -> list[tuple[int, int, int]]:
        return [(id(layer.weight), layer.weight.data_ptr(), layer.weight._version) for layer in self._found.values()]

    def assert_untouched(self) -> None:
        """Nothing was written, and nothing hangs."""
        assert self._state() == self._before
        assert all(torch.equal(layer.weight, self._bits[name]) for name, layer in self._found.items())
        assert all(layer.hanger.worn is None for layer in self._found.values())


@pytest.mark.parametrize("plan", PLANS)
@unhurried
@given(scene=scenes)
def test_every_row_gets_what_its_own_composition_merged_by_hand_gives(plan: str, scene: Scene) -> None:
    found, adapters = scene.build()
    watch, stacks = Watch(found), stacks_over(found, adapters, PLANS[plan])
    rows = [count for _, count in scene.requests]
    inputs = {name: layer.input(sum(rows)) for name, layer in scene.named().items()}
    for composition, _ in scene.requests:
        stacks.join(composition)
    with stacks.worn(scene.requests) as dressed:
        first = {name: found[name](x) for name, x in inputs.items()}
        again = {name: found[name](x) for name, x in inputs.items()}
        assert dressed.plan in ("base", "copy", "slots", "concat", "mixed")
    for name, x in inputs.items():
        assert torch.equal(first[name], again[name]), "a layer's first call decides, later ones do the same"
        parts = [
            by_hand(found[name], part, change_of(composition, adapters, name, found[name]))
            for part, (composition, _) in zip(x.split(rows), scene.requests, strict=True)
        ]
        assert_close(first[name], torch.cat(parts))
    watch.assert_untouched()


@unhurried
@given(scene=scenes)
def test_a_request_alone_wears_a_copy_that_agrees_with_it_in_any_batch(scene: Scene) -> None:
    found, adapters = scene.build()
    copies = stacks_over(found, adapters, {"plan": "copy"})
    mixed = stacks_over(found, adapters, {})
    rows = [count for _, count in scene.requests]
    inputs = {name: layer.input(sum(rows)) for name, layer in scene.named().items()}
    for composition, _ in scene.requests:
        copies.join(composition)
        mixed.join(composition)
    with mixed.worn(scene.requests):
        together = {name: found[name](x) for name, x in inputs.items()}
    for name, x in inputs.items():
        pairs = zip(x.split(rows), together[name].split(rows), scene.requests, strict=True)
        for part, made, (composition, count) in pairs:
            with copies.worn([(composition, count)]):
                assert_close(found[name](part), made.double())


@unhurried
@given(scene=scenes, plan=st.sampled_from(sorted(PLANS)), fails_at=st.integers(0, 3))
def test_an_error_inside_a_call_leaves_the_base_as_it_was(scene: Scene, plan: str, fails_at: int) -> None:
    found, adapters = scene.build()
    watch, stacks = Watch(found), stacks_over(found, adapters, PLANS[plan])
    for composition, _ in scene.requests:
        stacks.join(composition)
    rows = sum(count for _, count in scene.requests)
    named = list(scene.named().items())
    with pytest.raises(RuntimeError, match="pretended"), stacks.worn(scene.requests):
        for name, layer in named[:fails_at]:
            found[name](layer.input(rows))
        raise RuntimeError("pretended")
    watch.assert_untouched()
    for name, layer in named:
        x = layer.input(rows)
        assert_close(found[name](x), by_hand(found[name], x, None))


@unhurried
@given(
    layer=layers.filter(lambda layer: layer.kind.startswith("linear")),
    kinds=st.tuples(modules, modules),
    stack=st.lists(st.tuples(st.sampled_from("ab"), weights, weights), max_size=3),
    seed=st.integers(0, 2**16),
)
def test_text_encoders_wear_their_own_weight(
    layer: Layer, kinds: tuple[Any, Any], stack: Sequence[tuple[str, float, float]], seed: int
) -> None:
    name = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
    torch.manual_seed(seed)
    rng, built = np.random.default_rng(seed), layer.build().requires_grad_(False)
    found = adapt({name: built})
    adapters = {
        digest: Adapter({name: module_of(rng, found[name].weight.numpy(), *kind)} if kind[0] != "none" else {})
        for digest, kind in zip("ab", kinds, strict=True)
    }
    watch, stacks, composition = Watch(found), stacks_over(found, adapters, {}), Composition.of(stack)
    stacks.join(composition)
    x = layer.input(3)
    with stacks.worn_by_text(composition):
        made = found[name](x)
    assert_close(made, by_hand(found[name], x, change_of(composition, adapters, name, found[name])))
    watch.assert_untouched()


@unhurried
@given(scene=scenes, weight=st.floats(-2, 2).map(lambda w: round(w, 2)))
def test_another_weight_is_exact_and_forgets_the_one_before(scene: Scene, weight: float) -> None:
    """Weights may come and go on one engine: the answer never depends on what was worn before."""
    found, adapters = scene.build()
    used, fresh = (stacks_over(found, adapters, {}) for _ in range(2))
    inputs = {name: layer.input(2) for name, layer in scene.named().items()}

    def draw(stacks: Stacks, composition: Composition) -> dict[str, Tensor]:
        stacks.join(composition)
        with stacks.worn([(composition, 2)]):
            made = {name: found[name](x) for name, x in inputs.items()}
        stacks.leave(composition)
        return made

    for other in (1.0, weight / 2, 0.0):
        draw(used, Composition.of([("a", other, 0.0), ("b", 1.0, 0.0)]))
    wanted = Composition.of([("a", weight, 0.0)])
    ours, expected = draw(used, wanted), draw(fresh, wanted)
    assert all(torch.equal(ours[name], expected[name]) for name in inputs)
    assert math.isclose(used.pinned, 0)
