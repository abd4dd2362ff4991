"""Banks against weights merged one by one, through every change of membership."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from terroir.inference.engine.wearing import bank as banks
from terroir.inference.engine.wearing import merging
from terroir.inference.engine.wearing.bank import Bank
from terroir.inference.engine.wearing.device_adapter import DeviceAdapter, flattened, on_device
from terroir.inference.engine.wearing.layers import AdaptedLayer, adapt
from terroir.inference.engine.wearing.merging import merged
from terroir.inference.engine.wearing.stack import Stack
from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.composition import Composition

NAME = "unet.layer"
CAPACITY = 6


def layer_of(kind: str, dtype: torch.dtype = torch.float32) -> AdaptedLayer:
    torch.manual_seed(1)
    made = nn.Linear(6, 4) if kind == "linear" else nn.Conv2d(6, 4, 3)
    return adapt({NAME: made.to(dtype, memory_format=torch.channels_last).requires_grad_(False)})[NAME]


def device_adapter(layer: AdaptedLayer, seed: int, *, dora: bool = False) -> DeviceAdapter:
    rng, (out, *inputs), rank = np.random.default_rng(seed), layer.weight.shape, 1 + seed % 3
    down, up = rng.standard_normal((rank, *inputs)), rng.standard_normal((out, rank, *(1 for _ in inputs[1:])))
    magnitude = np.abs(rng.standard_normal(out)).astype(np.float32) if dora else None
    return on_device(Adapter({NAME: LoraModule(down.astype(np.float32), up.astype(np.float32), 1.0, magnitude)}), "cpu")


def stacks_of(layer: AdaptedLayer) -> list[Stack]:
    """Bare, single, sums of different ranks, and one that has no factors."""
    adapters = {f"{seed}": device_adapter(layer, seed, dora=seed == 4) for seed in range(5)}
    entries: list[list[tuple[str, float]]] = [
        [], [("0", 0.5)], [("1", 1.0), ("2", -0.3)], [("3", 0.2)], [("4", 0.7), ("0", 0.1)], [("2", 0.9), ("3", 0.4)],
    ]  # fmt: skip
    return [
        Stack(Composition.of((digest, weight, 0.0) for digest, weight in parts), {d: adapters[d] for d, _ in parts})
        for parts in entries
    ]


def expected(layer: AdaptedLayer, stack: Stack) -> Tensor:
    return flattened(merged(layer.weight, stack.terms.get(NAME, ())))


@pytest.mark.parametrize("kind", ["linear", "convolution"])
@given(memberships=st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=CAPACITY), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_every_unit_holds_its_stack_whoever_was_there_before(kind: str, memberships: list[list[int]]) -> None:
    layer = layer_of(kind)
    stacks, bank = stacks_of(layer), Bank(NAME, layer, 1)
    for members in memberships:
        if len(members) > bank.units:
            bank = bank.widened(len(members))
        held = bank.hold([stacks[member] for member in members])
        for unit, member in zip(held, members, strict=True):
            assert torch.allclose(unit, expected(layer, stacks[member]), atol=1e-5)


@pytest.mark.parametrize("most_numbers", [1, 1 << 20])
@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_in_half_precision_the_sum_is_rounded_once(
    kind: str, most_numbers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merging, "_MOST_NUMBERS", most_numbers)
    layer = layer_of(kind, torch.bfloat16)
    stacks = stacks_of(layer)
    held = Bank(NAME, layer, CAPACITY).hold(stacks)
    exact = layer_of(kind, torch.bfloat16).float()
    for unit, stack in zip(held, stacks, strict=True):
        assert unit.dtype == torch.bfloat16
        total = flattened(merged(exact.weight, stack.terms.get(NAME, ())))
        assert torch.allclose(unit.float(), total, rtol=2**-8, atol=1e-6)


def test_who_stays_is_not_written_again_and_who_comes_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = layer_of("linear")
    stacks, bank, writes = stacks_of(layer), Bank(NAME, layer, 4), list[int]()
    real = banks.merge_factors

    def counted(flat: Tensor, *rest: object) -> None:
        writes.append(len(flat))
        real(flat, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(banks, "merge_factors", counted)
    bank.hold([stacks[1], stacks[2], stacks[3]])
    assert writes == [3], "all new ones in one call"
    bank.hold([stacks[1], stacks[2], stacks[3]])
    bank.hold([stacks[1], stacks[2]])
    bank.hold([stacks[1], stacks[2], stacks[3]])
    assert writes == [3], "nobody new came"
    bank.hold([stacks[1], stacks[5], stacks[3], stacks[1]])
    assert writes == [3, 1], "the other copy was copied"


def test_a_write_that_fails_leaves_nothing_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = layer_of("linear")
    stacks, bank = stacks_of(layer), Bank(NAME, layer, 2)
    bank.hold([stacks[1], stacks[2]])

    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("pretended")

    with monkeypatch.context() as patch:
        patch.setattr(banks, "merge_factors", full)
        with pytest.raises(torch.OutOfMemoryError):
            bank.hold([stacks[3], stacks[2]])
    held = bank.hold([stacks[1], stacks[2]])
    assert torch.allclose(held[0], expected(layer, stacks[1]), atol=1e-6)
