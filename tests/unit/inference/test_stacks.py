"""What stacks keep, for how long, and what a compiled denoiser sees of them; that plans agree is tested beside this."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from terroir.inference.engine.wearing import bank as banks
from terroir.inference.engine.wearing.layers import AdaptedConv2d, AdaptedLinear, adapt
from terroir.inference.engine.wearing.plans import LayerCall, choose
from terroir.inference.engine.wearing.stacks import Stacks
from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.composition import Composition

BASE = Composition()


class Net(nn.Module):
    """A linear layer over tokens, a plain 1×1 and a 3×3 convolution, as a denoiser has them."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 12)
        self.pointwise = nn.Conv2d(12, 12, 1)
        self.kernel = nn.Conv2d(12, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`[rows, 12, 4, 4]` to the same shape."""
        rows, channels, height, width = x.shape
        tokens = self.linear(x.flatten(2).transpose(1, 2))
        return self.kernel(self.pointwise(tokens.transpose(1, 2).view(rows, channels, height, width)))


NAMES = ("linear", "pointwise", "kernel")


@pytest.fixture
def net() -> Net:
    torch.manual_seed(4)
    return Net().requires_grad_(False).eval()


def adapter(seed: int, names: tuple[str, ...] = NAMES, rank: int = 2) -> Adapter:
    rng = np.random.default_rng(seed)
    shapes = {"linear": ((rank, 12), (12, rank)), "pointwise": ((rank, 12, 1, 1), (12, rank, 1, 1)),
              "kernel": ((rank, 12, 3, 3), (12, rank, 1, 1))}  # fmt: skip
    return Adapter(
        {
            f"unet.{name}": LoraModule(
                rng.standard_normal(shapes[name][0], np.float32), rng.standard_normal(shapes[name][1], np.float32), 1.0
            )
            for name in names
        }
    )


def stacks_of(net: Net, *, budget_bytes: int = 1 << 20, **options: Any) -> Stacks:
    stacks = Stacks(
        adapt({f"unet.{name}": net.get_submodule(name) for name in NAMES}), budget_bytes=budget_bytes, **options
    )
    for seed, digest in enumerate("abc"):
        stacks.put(digest, stacks.prepare(adapter(seed)))
    return stacks


def wearing(*entries: tuple[str, float]) -> Composition:
    return Composition.of((digest, weight, 0.0) for digest, weight in entries)


def merged_by_hand(net: Net, x: Tensor, composition: Composition) -> Tensor:
    """The same call by weights that numpy merged."""
    other = Net().requires_grad_(False)
    other.load_state_dict(net.state_dict())
    adapters = {digest: adapter(seed) for seed, digest in enumerate("abc")}
    for layer in composition.layers(adapters):
        delta = torch.from_numpy(composition.delta(adapters, layer))
        other.get_parameter(layer.removeprefix("unet.") + ".weight").add_(delta)
    return other(x)


MIXED = [(wearing(("a", 0.7), ("b", -0.4)), 2), (BASE, 2), (wearing(("c", 1.5)), 4)]


@pytest.mark.parametrize("options", [{}, {"plan": "slots"}, {"plan": "concat"}, {"static_rows": 8}])
def test_every_row_is_what_its_own_composition_merged_by_hand_gives(net: Net, options: dict[str, Any]) -> None:
    stacks, x = stacks_of(net, **options), torch.randn(8, 12, 4, 4)
    for composition, _ in MIXED:
        stacks.join(composition)
    with stacks.worn(MIXED):
        found = net(x)
    expected = [
        merged_by_hand(net, part, composition) for part, (composition, _) in zip(x.split([2, 2, 4]), MIXED, strict=True)
    ]
    assert torch.allclose(found, torch.cat(expected), atol=1e-3)
    assert torch.allclose(net(x), merged_by_hand(net, x, BASE)), "outside the call the base is bare"


def test_layers_keep_their_names_their_type_and_their_bits(net: Net) -> None:
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    stacks = stacks_of(net)
    stacks.join(MIXED[0][0])
    with stacks.worn([MIXED[0]]):
        net(torch.randn(2, 12, 4, 4))
    assert {name: type(net.get_submodule(name)) for name in NAMES} == {
        "linear": AdaptedLinear, "pointwise": AdaptedConv2d, "kernel": AdaptedConv2d,
    }  # fmt: skip
    after = net.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_an_error_inside_a_call_undresses_every_layer(net: Net) -> None:
    stacks, x = stacks_of(net), torch.randn(2, 12, 4, 4)
    bare = net(x)
    stacks.join(MIXED[0][0])
    with pytest.raises(RuntimeError, match="pretended"), stacks.worn([MIXED[0]]):
        assert not torch.equal(net(x), bare)
        raise RuntimeError("pretended")
    assert torch.equal(net(x), bare)


def test_a_composition_whose_adapter_was_not_put_cannot_join(net: Net) -> None:
    with pytest.raises(KeyError, match="unknown"):
        stacks_of(net).join(wearing(("unknown", 1.0)))


def test_merged_weights_stay_within_the_budget_once_nobody_holds_them(net: Net) -> None:
    budget = 3 * sum(net.get_parameter(f"{name}.weight").nbytes for name in NAMES)
    stacks, x = stacks_of(net, budget_bytes=budget), torch.randn(2, 12, 4, 4)
    for number in range(40):
        composition = wearing(("a", 0.1 + number / 100), ("b", 0.2))
        stacks.join(composition)
        with stacks.worn([(composition, 2)]):
            net(x)
        stacks.leave(composition)
        assert stacks.used_bytes <= budget
    assert stacks.used_bytes > 0, "recent ones are kept for the next request"
    assert stacks.pinned == 0


def test_where_merged_weights_do_not_fit_the_factors_are_worn(net: Net) -> None:
    stacks = stacks_of(net, budget_bytes=0)
    for composition, _ in MIXED:
        stacks.join(composition)
    with stacks.worn(MIXED) as dressed:
        net(torch.randn(8, 12, 4, 4))
    assert dressed.plan == "concat"
    for composition, _ in MIXED:
        stacks.leave(composition)
    assert stacks.used_bytes == 0


def test_a_dropped_adapter_leaves_no_unused_stack_behind(net: Net) -> None:
    stacks = stacks_of(net)
    composition = wearing(("a", 1.0))
    stacks.join(composition)
    with stacks.worn([(composition, 1)]):
        net(torch.randn(1, 12, 4, 4))
    stacks.leave(composition)
    stacks.drop("a")
    with pytest.raises(KeyError):
        stacks.join(composition)
    stacks.free()
    assert stacks.used_bytes == 0


def test_a_replaced_adapter_is_worn_after_its_drop(net: Net) -> None:
    """A digest names its bytes, so this is stricter than needed: what was merged before a drop is not found again."""
    stacks, x, composition = stacks_of(net), torch.randn(1, 12, 4, 4), wearing(("a", 1.0))

    def draw() -> Tensor:
        stacks.join(composition)
        with stacks.worn([(composition, 1)]):
            made = net(x)
        stacks.leave(composition)
        return made

    before = draw()
    stacks.drop("a")
    stacks.put("a", stacks.prepare(adapter(9)))
    assert not torch.allclose(draw(), before)


def test_a_compiled_denoiser_is_compiled_once_whatever_is_worn(net: Net) -> None:
    graphs: list[torch.fx.GraphModule] = []

    def count(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    stacks, x = stacks_of(net, static_rows=8), torch.randn(8, 12, 4, 4)
    compiled = torch.compile(net, backend=count, dynamic=False)
    batches = [MIXED, [(MIXED[2][0], 4), (MIXED[0][0], 4)], [(BASE, 8)], [(wearing(("b", 0.3)), 1), (BASE, 7)], MIXED]
    for composition in {composition for batch in batches for composition, _ in batch}:
        stacks.join(composition)
    with torch.inference_mode():
        for batch in batches:
            with stacks.worn(batch):
                made = compiled(x)
            counts = [count for _, count in batch]
            expected = [merged_by_hand(net, part, worn) for part, (worn, _) in zip(x.split(counts), batch, strict=True)]
            assert torch.allclose(made, torch.cat(expected), atol=1e-3)
    assert len(graphs) == 1
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("call", "device", "forced", "plan"),
    [
        (LayerCall(tokens=4096, inputs=320, outputs=320, low_rank=True, slots_fit=True), "cuda", "auto", "slots"),
        (LayerCall(tokens=64, inputs=1280, outputs=1280, low_rank=True, slots_fit=True), "cuda", "auto", "concat"),
        (LayerCall(tokens=64, inputs=1280, outputs=1280, low_rank=True, slots_fit=True), "cpu", "auto", "slots"),
        (LayerCall(tokens=4096, inputs=320, outputs=320, low_rank=True, slots_fit=False), "cuda", "auto", "concat"),
        (LayerCall(tokens=64, inputs=1280, outputs=1280, low_rank=False, slots_fit=False), "cuda", "auto", "slots"),
        (LayerCall(tokens=64, inputs=1280, outputs=1280, low_rank=True, slots_fit=True), "cuda", "slots", "slots"),
        (LayerCall(tokens=4096, inputs=320, outputs=320, low_rank=True, slots_fit=True), "cuda", "concat", "concat"),
        (LayerCall(tokens=4096, inputs=320, outputs=320, low_rank=False, slots_fit=True), "cuda", "concat", "slots"),
    ],
)
def test_the_cost_table(call: LayerCall, device: str, forced: Any, plan: str) -> None:
    assert choose(call, device, forced) == plan


NAMED = [wearing((digest, weight)) for digest in "abc" for weight in (0.3, 0.6)]


@given(
    before=st.lists(st.sampled_from(NAMED), max_size=6),
    after=st.lists(st.sampled_from(NAMED), max_size=6),
    options=st.sampled_from([{}, {"static_rows": 8}]),
)
@settings(max_examples=60, deadline=None)
def test_who_stays_keeps_its_place_and_nobody_is_lost(
    before: list[Composition], after: list[Composition], options: dict[str, Any]
) -> None:
    torch.manual_seed(4)
    net = Net().requires_grad_(False).eval()
    stacks = stacks_of(net, **options)
    for composition in {*before, *after}:
        stacks.join(composition)
    if before:
        with stacks.worn([(composition, 1) for composition in before]):
            net(torch.randn(len(before), 12, 4, 4))
    order = stacks.arranged([(composition, 1) for composition in after])
    assert sorted(order) == list(range(len(after)))
    arranged = [after[index] for index in order]
    for place, composition in enumerate(before[: len(after)]):
        if before.count(composition) == after.count(composition) == 1:
            assert arranged[place] == composition


def test_memory_of_a_batch_goes_to_the_next_and_two_that_rest_are_kept(net: Net) -> None:
    stacks, x = stacks_of(net), torch.randn(2, 12, 4, 4)
    taken = []
    for composition in NAMED:
        stacks.join(composition)
        with stacks.worn([(composition, 2)]):
            net(x)
        stacks.leave(composition)
        taken.append(stacks.used_bytes)
    assert taken[0] < taken[1] and set(taken[1:]) == {taken[1]}


def test_lanes_that_take_turns_write_nothing_again(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have a request in the same stack: without lanes each would take the other's banks."""
    stacks, x, writes = stacks_of(net), torch.randn(2, 12, 4, 4), list[int]()
    real = banks.merge_factors

    def counted(flat: Tensor, *rest: Any) -> None:
        writes.append(len(flat))
        real(flat, *rest)

    monkeypatch.setattr(banks, "merge_factors", counted)
    for composition in NAMED[:3]:
        stacks.join(composition)
    memberships = {"small": [(NAMED[0], 1), (NAMED[1], 1)], "large": [(NAMED[0], 1), (NAMED[2], 1)]}
    for _ in range(3):
        for lane, rows in memberships.items():
            with stacks.worn(rows, lane):
                net(x)
    assert writes == [2] * len(NAMES) * 2
