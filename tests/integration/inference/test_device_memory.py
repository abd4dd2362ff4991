"""A device whose memory holds one large adapter: who brings another is refused, who draws finishes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from terroir._proto.inference.v1 import inference_pb2 as pb
from terroir._proto.registry.v1 import region_pb2_grpc, registry_pb2_grpc
from terroir.common.grpc_client import channel
from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.formats import to_kohya
from terroir.registry.main import build as build_registry
from terroir.registry.settings import RegistrySettings
from tests.contract.registry.running import Running
from tests.integration.inference.inference_process import InferenceProcess, inference_process
from tests.integration.inference.inference_server import RunningInference, running_server, small_request, until

pytestmark = pytest.mark.slow
_BLOCK = "unet.mid_block.attentions.0.transformer_blocks.0.attn1"
_RANK = 140
"""Times 4 layers of 160 × 160 × 2 in fp32: 717 kB, so that 1 MiB holds one such adapter."""


def large_adapter(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    modules = {
        f"{_BLOCK}.{layer}": LoraModule(
            rng.standard_normal((_RANK, 160), dtype=np.float32) * 0.01,
            rng.standard_normal((160, _RANK), dtype=np.float32) * 0.01,
            alpha=float(_RANK),
        )
        for layer in ("to_q", "to_k", "to_v", "to_out.0")
    }
    return to_kohya(Adapter(modules), {})


@pytest.fixture(scope="module")
def server(
    tiny_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[InferenceProcess, RunningInference]]:
    folder = tmp_path_factory.mktemp("device-memory")
    registry_settings = RegistrySettings(data_dir=folder / "registry", port=0, base_sources={"tiny": tiny_base})
    with ExitStack() as stack:
        target = stack.enter_context(running_server("registry", registry_settings, build_registry))
        opened = stack.enter_context(channel(target))
        registry = Running(
            registry_pb2_grpc.RegistryServiceStub(opened), region_pb2_grpc.RegionServiceStub(opened), folder
        )
        for name in ("one", "two"):
            registry.publish(f"adapters/{name}", large_adapter(len(name) + ord(name[0])))
        limits = {"adapter_device_bytes": 1 << 20, "registry_target": target}
        yield stack.enter_context(inference_process(folder, tiny_base, **limits))


def test_the_request_whose_adapter_does_not_fit_is_refused_and_the_other_finishes(
    server: tuple[InferenceProcess, RunningInference],
) -> None:
    process, calls = server
    one, two = ([pb.AdapterWeight(adapter=f"adapters/{name}")] for name in ("one", "two"))
    drawing = calls.stub.Generate(small_request(adapters=one, steps=60, width=128, height=128), timeout=120)
    assert next(drawing).HasField("queued") and next(drawing).HasField("step")
    refused = calls.refusal(adapters=two)
    assert (refused.code, refused.reason) == ("RESOURCE_EXHAUSTED", "ADAPTER_DEVICE_MEMORY_FULL")
    assert "TERROIR_INFERENCE_ADAPTER_DEVICE_BYTES" in str(refused)
    assert calls.generate().files, "without an adapter there is room"
    assert [event.HasField("done") for event in drawing][-1]
    assert calls.generate(adapters=two).done.adapters[0].matched_layers == 4
    until(process.at_rest)
    resident = calls.stub.ListResidentAdapters(pb.ListResidentAdaptersRequest(), timeout=10).adapters
    assert len(resident) == 2 and not any(adapter.pins for adapter in resident)


def test_a_client_that_gives_up_while_drawing_leaves_no_pins(
    server: tuple[InferenceProcess, RunningInference],
) -> None:
    process, calls = server
    worn = [pb.AdapterWeight(adapter="adapters/one")]
    drawing = calls.stub.Generate(small_request(adapters=worn, steps=150, width=128, height=128), timeout=120)
    assert next(drawing).HasField("queued") and next(drawing).HasField("step")

    def pins() -> int:
        answer = calls.stub.ListResidentAdapters(pb.ListResidentAdaptersRequest(), timeout=10)
        return sum(adapter.pins for adapter in answer.adapters)

    assert pins() >= 1
    drawing.cancel()
    until(lambda: pins() == 0, 10)
    until(process.at_rest, 10)
