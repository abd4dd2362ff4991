"""LoHa and LoKr: the change is LyCORIS' and PEFT's, files come back key for key, damage is refused by reason."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.compatibility import compare
from terroir.lora.composition import Composition
from terroir.lora.errors import LoraError
from terroir.lora.formats import parse, to_diffusers, to_kohya
from terroir.lora.formats.reading import LYCORIS_PARTS
from tests.unit.lora.adapters import TABLE, random_adapter, same
from tests.unit.lora.lycoris_adapters import FORMS, lycoris_adapter, lycoris_adapters
from tests.unit.lora.published import family_of, file_of, key_table, layout

unhurried = settings(deadline=None)  # times vary with what else the machine does
Q = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
CONV = "unet.down_blocks.0.resnets.0.conv1"
KEY, CONV_KEY = f"lora_{Q.replace('.', '_')}", f"lora_{CONV.replace('.', '_')}"


def oracle(tensors: dict[str, np.ndarray], alpha: float, shape: tuple[int, ...]) -> torch.Tensor:
    """The change by LyCORIS' own formulas (lycoris/functional/loha.py, lokr.py), in double precision."""
    w = {name: torch.from_numpy(tensor).double() for name, tensor in tensors.items()}

    def product(name: str, core: str) -> torch.Tensor:
        if name in w:
            return w[name]
        if core in w:
            return torch.einsum("i j k l, i p, j r -> p r k l", w[core], w[f"{name}_a"], w[f"{name}_b"])
        return w[f"{name}_a"] @ w[f"{name}_b"]

    if "hada_w1_a" in w:
        rank = w["hada_w1_b"].shape[0]
        return alpha / rank * (product("hada_w1", "hada_t1") * product("hada_w2", "hada_t2")).reshape(shape)
    small, large = product("lokr_w1", "-"), product("lokr_w2", "lokr_t2")
    ranks = [w[name].shape[0] for name in ("lokr_w1_b", "lokr_w2_b") if name in w]
    for _ in range(large.dim() - small.dim()):
        small = small.unsqueeze(-1)
    return (alpha / ranks[0] if ranks else 1.0) * torch.kron(
        small, large.clone(memory_format=torch.contiguous_format)
    ).reshape(shape)


@unhurried
@given(lycoris_adapters)
def test_the_change_is_the_one_of_lycoris(adapter: Adapter) -> None:
    for layer, module in adapter.modules.items():
        if isinstance(module, LoraModule):
            continue
        expected = oracle(dict(module.tensors), module.alpha, TABLE[layer]).numpy()
        found = module.delta()
        assert (found.dtype, found.shape) == (np.float32, TABLE[layer])
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * max(np.abs(expected).max(), 1))
        np.testing.assert_array_equal(module.change_of(np.ones(TABLE[layer], np.float32)), found)


@pytest.mark.parametrize("form", ["loha plain", "loha tucker", "lokr small whole", "lokr tucker"])
@pytest.mark.parametrize("layer", [Q, CONV])
def test_the_change_is_the_one_of_peft(form: str, layer: str) -> None:
    """PEFT's own layers, another implementation: its parameters are loaded with ours."""
    import peft  # takes seconds, and no other test of this file needs it

    shape, rank = TABLE[layer], 1
    base = torch.nn.Linear(shape[1], shape[0]) if len(shape) == 2 else torch.nn.Conv2d(shape[1], shape[0], shape[2])
    module = lycoris_adapter(5, form, rank, alpha=4.0).modules[layer]
    config = peft.LoHaConfig if form.startswith("loha") else peft.LoKrConfig
    options: dict[str, Any] = {} if form.startswith("loha") else {"decompose_factor": 2}
    wrapped = torch.nn.Sequential(base)
    model = peft.get_peft_model(
        wrapped,
        config(target_modules=["0"], r=rank, alpha=4, use_effective_conv2d=form.endswith("tucker"), **options),
    )
    injected = model.base_model.model[0]
    for name, tensor in module.tensors.items():
        parameter = getattr(injected, name)["default"]
        if parameter.shape != tensor.shape:
            pytest.fail(f"PEFT has {tuple(parameter.shape)} for {name}, we {tensor.shape}")
        parameter.data = torch.from_numpy(tensor)
    theirs = injected.get_delta_weight("default").detach().numpy()
    np.testing.assert_allclose(module.delta(), theirs, rtol=1e-4, atol=1e-4)


@unhurried
@given(lycoris_adapters)
def test_files_come_back_key_for_key(adapter: Adapter) -> None:
    data = to_kohya(adapter, {})
    parsed = parse(data, TABLE)
    assert (parsed.format, parsed.ignored, parsed.unknown) == ("kohya", (), ())
    assert same(parsed.adapter, adapter)
    assert {k: type(m) for k, m in parsed.adapter.modules.items()} == {k: type(m) for k, m in adapter.modules.items()}
    assert to_kohya(parsed.adapter, {}) == data
    assert len(load(data)) == sum(len(module.tensors) + 1 for module in adapter.modules.values())


@pytest.mark.parametrize(
    "name", [f"lycoris_{n}" for n in ("sd15_loha", "sd15_loha_cp", "sd15_lokr", "sd15_lokr_cp", "sd15_lokr_full")]
)
def test_a_published_file_is_written_with_the_keys_that_it_had(name: str) -> None:
    written = to_kohya(parse(file_of(layout(name)), key_table(family_of(name))).adapter, {})
    header = json.loads(written[8 : 8 + int.from_bytes(written[:8], "little")])
    assert header.pop("__metadata__")["ss_network_module"] == "lycoris.kohya"
    assert {key: tuple(entry["shape"]) for key, entry in header.items()} == layout(name)


def test_sdxl_is_written_with_the_originals_block_names() -> None:
    table, name = key_table("sdxl"), "lycoris_sdxl_lokr"
    written = to_kohya(parse(file_of(layout(name)), table).adapter, {}, sdxl=True)
    assert {key: tensor.shape for key, tensor in load(written).items()} == layout(name)


def test_the_header_names_the_algorithm_of_lycoris() -> None:
    metadata = parse(to_kohya(lycoris_adapter(1, "lokr whole"), {}), TABLE).metadata
    assert (metadata["ss_network_module"], json.loads(metadata["ss_network_args"])) == (
        "lycoris.kohya",
        {"algo": "lokr"},
    )


def test_two_whole_matrices_ignore_their_alpha_as_lycoris_does() -> None:
    """LyCORIS sets alpha to its network dimension there (100000 in real files) and trains at scale 1."""
    strong, weak = (lycoris_adapter(2, "lokr whole", alpha=alpha).modules[Q] for alpha in (100_000.0, 1.0))
    np.testing.assert_array_equal(strong.delta(), weak.delta())
    assert (strong.scale, strong.rank) == (1.0, 1)
    assert lycoris_adapter(2, "lokr large whole", rank=4, alpha=2.0).modules[Q].scale == 0.5


def test_alpha_absent_means_scale_one() -> None:
    for form in FORMS:
        tensors = {k: v for k, v in load(to_kohya(lycoris_adapter(3, form, 4), {})).items() if not k.endswith("alpha")}
        assert {module.scale for module in parse(save(tensors), TABLE).adapter.modules.values()} == {1.0}


@pytest.mark.parametrize("form", FORMS)
def test_every_tensor_and_the_alpha_are_part_of_the_tensor_digest(form: str) -> None:
    adapter = lycoris_adapter(4, form)
    tensors = load(to_kohya(adapter, {}))
    digests = {adapter.tensor_digest()}
    changed = [key for key in tensors if key.startswith(CONV_KEY)]
    for key in changed:
        other = parse(save({**tensors, key: np.asarray(tensors[key] * 2)}), TABLE).adapter
        digests.add(other.tensor_digest())
    assert len(digests) == 1 + len(changed)


def test_digests_of_loras_are_those_of_the_first_release() -> None:
    """Versions are found by it; a change of the formula would orphan every published one."""
    digest = random_adapter(1).tensor_digest()
    assert digest == "2040c77ec6bb276ab05f6f5bec7aa7830a735f69be13fe28101a96289190842c"


@unhurried
@given(lycoris_adapters, st.floats(-2, 2).map(lambda w: round(w, 3)))
def test_stacks_sum_changes_of_every_kind(adapter: Adapter, weight: float) -> None:
    adapters = {"a": adapter, "b": random_adapter(9)}
    stack = Composition.of([("a", weight, weight), ("b", 0.5, 0.5)])
    for layer in TABLE:
        expected = np.float32(weight) * adapter.modules[layer].delta() + 0.5 * adapters["b"].modules[layer].delta()
        np.testing.assert_allclose(stack.delta(adapters, layer), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_no_pair_of_factors_is_claimed(form: str) -> None:
    adapters = {"a": lycoris_adapter(1, form)}
    with pytest.raises(ValueError, match=f"{form[:4]} module has no low-rank form"):
        Composition.of([("a", 1.0, 1.0)]).rank_concatenated(adapters, Q)
    assert adapters["a"].modules[Q].low_rank is None


@pytest.mark.parametrize("form", FORMS)
def test_diffusers_and_the_comparison_refuse_with_the_next_step(form: str) -> None:
    adapter = lycoris_adapter(1, form)
    with pytest.raises(LoraError, match="kohya file") as caught:
        to_diffusers(adapter)
    assert (caught.value.reason, caught.value.key in TABLE) == ("ADAPTER_NOT_IN_DIFFUSERS", True)
    with pytest.raises(LoraError, match="low-rank") as caught:
        compare(random_adapter(1), adapter)
    assert caught.value.reason == "ADAPTER_NOT_COMPARABLE"
    assert not adapter.is_lora


def test_layers_that_the_base_lacks_are_listed() -> None:
    tensors = load(to_kohya(lycoris_adapter(1, "loha plain"), {}))
    extra = {f"lora_unet_nowhere.{part}": np.ones((1, 1), np.float32) for part in LYCORIS_PARTS}
    parsed = parse(save({**tensors, **extra}), TABLE)
    assert {entry.key for entry in parsed.unknown} == set(extra)
    assert {entry.reason for entry in parsed.unknown} == {"no such layer in the base"}


def damaged(form: str, changes: dict[str, Any], key: str = KEY) -> bytes:
    """A good file in which parts of one layer are replaced, or dropped (None)."""
    tensors = load(to_kohya(lycoris_adapter(7, form), {}))
    for part, value in changes.items():
        tensors.pop(f"{key}.{part}", None)
        if value is not None:
            tensors[f"{key}.{part}"] = np.asarray(value, np.float32)
    return save(tensors)


ONES = np.ones((2, 8), np.float32)
DAMAGED = {
    "LoHa without a factor": (damaged("loha plain", {"hada_w2_b": None}), "ADAPTER_INCOMPLETE"),
    "LoHa with one core": (damaged("loha tucker", {"hada_t2": None}, CONV_KEY), "ADAPTER_INCOMPLETE"),
    "LoHa of another base": (damaged("loha plain", {"hada_w1_a": np.ones((9, 2))}), "ADAPTER_WRONG_SHAPE"),
    "LoHa of two ranks": (
        damaged("loha plain", {"hada_w2_a": np.ones((8, 3)), "hada_w2_b": np.ones((3, 8))}),
        "ADAPTER_WRONG_SHAPE",
    ),
    "LoHa with a core for a matrix": (
        damaged("loha plain", {"hada_t1": np.ones((2, 2, 1, 1)), "hada_t2": np.ones((2, 2, 1, 1))}),
        "ADAPTER_WRONG_SHAPE",
    ),
    "LoHa with a core of another kernel": (
        damaged("loha tucker", {"hada_t1": np.ones((2, 2, 5, 5))}, CONV_KEY),
        "ADAPTER_WRONG_SHAPE",
    ),
    "LoHa of rank 0": (
        damaged("loha plain", {p: np.ones((8, 0)) if p[-1] == "a" else np.ones((0, 8)) for p in sorted(LYCORIS_PARTS)
                               if p.startswith("hada_w")}),
        "ADAPTER_WRONG_SHAPE",
    ),
    "LoHa of scalars": (
        damaged("loha plain", {p: 1.0 for p in sorted(LYCORIS_PARTS) if p.startswith("hada_w")}),
        "ADAPTER_WRONG_SHAPE",
    ),
    "LoHa whose rank is huge": (
        damaged("loha plain", {"hada_w1_b": np.ones((5000, 8)), "hada_w1_a": np.ones((8, 5000))}),
        "ADAPTER_RANK_TOO_LARGE",
    ),
    "LoHa that overflows": (
        damaged("loha plain", {p: np.full((8, 2) if p[-1] == "a" else (2, 8), 1e10) for p in sorted(LYCORIS_PARTS)
                               if p.startswith("hada_w")}),
        "ADAPTER_NOT_FINITE",
    ),
    "LoHa with DoRA magnitudes": (damaged("loha plain", {"dora_scale": np.ones((8, 1))}), "ADAPTER_UNSUPPORTED"),
    "LoHa beside a LoRA": (
        damaged("loha plain", {"lora_down.weight": ONES, "lora_up.weight": ONES.T}),
        "ADAPTER_UNSUPPORTED",
    ),
    "LoHa beside a LoKr": (damaged("loha plain", {"lokr_w1": np.ones((2, 2))}), "ADAPTER_UNSUPPORTED"),
    "LoHa with an alpha of 0": (damaged("loha plain", {"alpha": 0}), "ADAPTER_STRENGTH_UNKNOWN"),
    "LoHa with another scale": (damaged("loha plain", {"scale": 3.0}), "ADAPTER_STRENGTH_UNKNOWN"),
    "LoHa of NaN": (damaged("loha plain", {"hada_w1_a": np.full((8, 2), np.nan)}), "ADAPTER_NOT_FINITE"),
    "LoKr without its large factor": (damaged("lokr whole", {"lokr_w2": None}), "ADAPTER_INCOMPLETE"),
    "LoKr without its small factor": (damaged("lokr whole", {"lokr_w1": None}), "ADAPTER_INCOMPLETE"),
    "LoKr with half a product": (damaged("lokr small whole", {"lokr_w2_b": None}), "ADAPTER_INCOMPLETE"),
    "LoKr with both a matrix and a product": (
        damaged("lokr small whole", {"lokr_w2": np.ones((4, 4))}),
        "ADAPTER_UNSUPPORTED",
    ),
    "LoKr that does not divide the layer": (damaged("lokr whole", {"lokr_w1": np.ones((3, 2))}), "ADAPTER_WRONG_SHAPE"),
    "LoKr larger than its layer": (damaged("lokr whole", {"lokr_w1": np.ones((4, 4))}), "ADAPTER_WRONG_SHAPE"),
    "LoKr with an empty factor": (damaged("lokr whole", {"lokr_w1": np.ones((0, 2))}), "ADAPTER_WRONG_SHAPE"),
    "LoKr of vectors": (damaged("lokr whole", {"lokr_w1": np.ones(2)}), "ADAPTER_WRONG_SHAPE"),
    "LoKr of two ranks": (
        damaged("lokr both products", {"lokr_w1_a": np.ones((2, 3)), "lokr_w1_b": np.ones((3, 2))}),
        "ADAPTER_WRONG_SHAPE",
    ),
    "LoKr with a core of another rank": (
        damaged("lokr tucker", {"lokr_t2": np.ones((3, 3, 3, 3))}, CONV_KEY),
        "ADAPTER_WRONG_SHAPE",
    ),
    "LoKr whose rank is huge": (
        damaged("lokr small whole", {"lokr_w2_a": np.ones((4, 5000)), "lokr_w2_b": np.ones((5000, 4))}),
        "ADAPTER_RANK_TOO_LARGE",
    ),
    "LoKr with a core of its small factor": (damaged("lokr whole", {"lokr_t1": ONES}), "ADAPTER_UNSUPPORTED"),
    "LoKr whole with a scale of A1111": (damaged("lokr whole", {"scale": 0.5}), "ADAPTER_STRENGTH_UNKNOWN"),
    "LoKr that overflows": (
        damaged("lokr whole", {"lokr_w1": np.full((2, 2), 1e30), "lokr_w2": np.full((4, 4), 1e30)}),
        "ADAPTER_NOT_FINITE",
    ),
    "LoKr with an infinite alpha": (damaged("lokr whole", {"alpha": np.inf}), "ADAPTER_NOT_FINITE"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_refused_by_reason(name: str) -> None:
    data, reason = DAMAGED[name]
    with pytest.raises(LoraError) as caught:
        parse(data, TABLE)
    assert caught.value.reason == reason
    assert len(str(caught.value)) < 600


def test_factors_of_two_ranks_leave_the_strength_unknown() -> None:
    """A1111 divides alpha by the first rank, ComfyUI by the second."""
    with pytest.raises(LoraError, match=r"ranks \[2, 3\], so its strength is unknown"):
        parse(DAMAGED["LoKr of two ranks"][0], TABLE)


def test_a_whole_factor_of_a_pointwise_convolution_may_lack_its_window() -> None:
    layer = "unet.down_blocks.0.attentions.0.proj_in"
    adapter = Adapter({layer: lycoris_adapter(8, "lokr whole").modules[layer]})
    tensors = load(to_kohya(adapter, {}))
    key = f"lora_{layer.replace('.', '_')}.lokr_w2"
    flat = parse(save({**tensors, key: tensors[key].reshape(4, 4)}), TABLE).adapter
    np.testing.assert_array_equal(flat.modules[layer].delta(), adapter.modules[layer].delta())
