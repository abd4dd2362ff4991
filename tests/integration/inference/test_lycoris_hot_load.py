"""LoHa and LoKr from upload to picture: published, followed, worn, and stacked in one batch with a LoRA."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from terroir._proto.inference.v1 import inference_pb2 as pb
from terroir._proto.registry.v1 import registry_pb2 as registry_pb
from terroir.common.grpc_client import error_from_rpc
from terroir.lora.adapter import Adapter, Array, LoraModule
from terroir.lora.base_folder import read_base_folder
from terroir.lora.formats import to_kohya
from terroir.lora.key_table import KeyTable
from terroir.lora.loha import HadamardFactor, LohaModule
from terroir.lora.lokr import KroneckerFactor, LokrModule
from tests.integration.inference.hot_load_kit import Followed, followed_registry

pytestmark = pytest.mark.slow
RANK, ALPHA = 2, 4.0


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from terroir.tiny.random_pipeline import build  # deferred: imports torch

    return build(tmp_path_factory.mktemp("base") / "base", seed=3)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Iterator[Followed]:
    with followed_registry(tmp_path_factory.mktemp("lycoris"), base) as rig:
        yield rig


def pairs(table: KeyTable) -> dict[str, tuple[Array, Array]]:
    """Factors (up, flat down) for attention, a convolution and the text encoder."""
    rng = np.random.default_rng(4)
    chosen = [layer for layer in table if layer.endswith(("attn1.to_q", "resnets.0.conv1", "self_attn.q_proj"))]
    return {
        layer: (
            rng.standard_normal((table[layer][0], RANK), dtype=np.float32) * 0.2,
            rng.standard_normal((RANK, int(np.prod(table[layer][1:]))), dtype=np.float32) * 0.2,
        )
        for layer in sorted(chosen)
    }


def one_change_in_three_kinds(table: KeyTable) -> dict[str, Adapter]:
    """As a LoRA; as a LoHa whose second factor is all ones; as a LoKr whose small factor is the number one."""
    lora, loha, lokr = {}, {}, {}
    for layer, (up, down) in pairs(table).items():
        shape = tuple(table[layer])
        tail = (1,) * (len(shape) - 2)
        lora[layer] = LoraModule(down.reshape(RANK, *shape[1:]), up.reshape(*up.shape, *tail), ALPHA)
        ones = HadamardFactor(np.full_like(up, 1 / RANK), np.ones_like(down))
        loha[layer] = LohaModule(HadamardFactor(up, down), ones, ALPHA, shape)
        lokr[layer] = LokrModule(
            KroneckerFactor(np.ones((1, 1), np.float32)), KroneckerFactor(None, up, down), ALPHA, shape
        )
    return {"a-lora": Adapter(lora), "a-loha": Adapter(loha), "a-lokr": Adapter(lokr)}


def draw(rig: Followed, *names: str) -> np.ndarray[Any, np.dtype[np.int16]]:
    """A picture wearing adapters at 0.7."""
    worn = [pb.AdapterWeight(adapter=f"adapters/{name}", weight=0.7) for name in names]
    answer = rig.inference.generate(adapters=worn)
    assert [adapter.version.split("/")[1] for adapter in answer.done.adapters] == list(names)
    return np.asarray(Image.open(io.BytesIO(answer.files[0])).convert("RGB"), dtype=np.int16)


def test_one_change_draws_one_picture_in_whichever_kind_it_was_published(rig: Followed, base: Path) -> None:
    table = read_base_folder(base).layers
    for name, adapter in one_change_in_three_kinds(table).items():
        rig.publish_until_resident(name, to_kohya(adapter, {}))
    plain, lora, loha, lokr = draw(rig), draw(rig, "a-lora"), draw(rig, "a-loha"), draw(rig, "a-lokr")
    assert np.abs(lora - plain).max() > 8, "or an adapter that is not worn would not show"
    assert np.abs(loha - lora).max() <= 2
    assert np.abs(lokr - lora).max() <= 2
    assert np.abs(draw(rig, "a-loha", "a-lokr") - draw(rig, "a-lokr", "a-lora")).max() <= 2
    with pytest.raises(grpc.RpcError) as refused:
        list(
            rig.publisher.api.DownloadVersion(
                registry_pb.DownloadVersionRequest(
                    name="adapters/a-loha/versions/1", format=registry_pb.ADAPTER_FORMAT_DIFFUSERS
                ),
                timeout=30,
            )
        )
    assert error_from_rpc(refused.value).reason == "ADAPTER_NOT_IN_DIFFUSERS"
