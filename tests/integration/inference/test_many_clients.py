"""64 clients of a load generator that is not ours (ghz) at a real server.

TERROIR_SOAK_GHZ_SECONDS sets how long; the soak takes 300.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from terroir._proto.inference.v1 import inference_pb2 as pb
from terroir._proto.registry.v1 import region_pb2_grpc, registry_pb2_grpc
from terroir.common.grpc_client import channel
from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.formats import to_kohya
from terroir.registry.main import build as build_registry
from terroir.registry.settings import RegistrySettings
from tests.command_line import ROOT
from tests.contract.registry.running import Running
from tests.integration.inference.inference_process import InferenceProcess, inference_process
from tests.integration.inference.inference_server import RunningInference, running_server, until

SECONDS = int(os.environ.get("TERROIR_SOAK_GHZ_SECONDS", "5"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300 + SECONDS)]
CLIENTS = 64
ADAPTERS = 6
MOST_GROWTH_BYTES = 128 * 1024 * 1024
"""Far below what keeping each request or picture would take in the soak; above what allocators do in seconds."""
_LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
Server = tuple[InferenceProcess, RunningInference]


def adapter_file(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    down, up = (rng.standard_normal(shape, dtype=np.float32) * 0.3 for shape in ((4, 160), (160, 4)))
    return to_kohya(Adapter({_LAYER: LoraModule(down, up, alpha=4.0)}), {})


@pytest.fixture(scope="module")
def server(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("many-clients")
    registry_settings = RegistrySettings(data_dir=folder / "registry", port=0, base_sources={"tiny": tiny_base})
    with ExitStack() as stack:
        target = stack.enter_context(running_server("registry", registry_settings, build_registry))
        opened = stack.enter_context(channel(target))
        registry = Running(
            registry_pb2_grpc.RegistryServiceStub(opened), region_pb2_grpc.RegionServiceStub(opened), folder
        )
        for number in range(ADAPTERS):
            registry.publish(f"adapters/a{number}", adapter_file(number))
        limits = {"max_queue_size": 24, "max_active_requests": 8}
        yield stack.enter_context(inference_process(folder, tiny_base, registry_target=target, **limits))


def requests() -> list[dict[str, Any]]:
    """Small pictures that differ in stack, size, steps, sampler, guidance, priority and format."""
    return [
        {
            "prompt": f"a red cat <lora:a{number % ADAPTERS}:0.5>",
            "adapters": [{"adapter": f"adapters/a{(number + 1) % ADAPTERS}", "weight": 0.3}],
            "width": (32, 64)[number % 2], "height": 32, "steps": 2 + number % 3, "seeds": [number],
            "sampler": ("ddim", "euler-a", "dpmpp-2m")[number % 3], "guidance_scale": (1, 3)[number // 2 % 2],
            "priority": number % 4, "format": number % 4, "preview_interval_steps": number % 2,
        }
        for number in range(24)
    ]  # fmt: skip


def ghz(program: str, process: InferenceProcess, folder: Path, seconds: float, timeout: str, **about: Any) -> Any:
    """What ghz saw: counts by status, and by error."""
    data = folder / "requests.json"
    data.write_text(json.dumps(requests()))
    command = [
        program, "--insecure", "--protoset", str(ROOT / "proto" / "baseline.binpb"), "--data-file", str(data),
        "--call", "terroir.inference.v1.InferenceService.Generate",
        "--concurrency", str(CLIENTS), "--connections", "16", "--duration", f"{seconds}s", "--duration-stop", "wait",
        "--timeout", timeout, "--rps", "200", "--format", "json", process.target,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 120, check=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    print("ghz:", seen["statusCodeDistribution"], f"{seen['rps']:.0f} answers/s")
    return seen


def test_64_clients_get_pictures_or_a_refusal_with_its_reason(
    server: Server, tool: Callable[[str], str], tmp_path: Path
) -> None:
    process, calls = server
    program = tool("ghz")
    ghz(program, process, tmp_path, min(4, SECONDS), "60s")  # the first requests load adapters and fill caches
    before = process.resident_bytes()
    seen = ghz(program, process, tmp_path, SECONDS, "60s")
    codes = seen["statusCodeDistribution"]
    assert set(codes) <= {"OK", "ResourceExhausted"}, seen["errorDistribution"]
    assert codes["OK"] >= SECONDS and codes.get("ResourceExhausted", 0) > 0, codes
    assert process.metric("terroir_inference_refused_requests_total") == process.metric(
        "terroir_inference_refused_requests_total", reason="QUEUE_FULL"
    )
    until(process.at_rest)
    growth = process.resident_bytes() - before
    print(f"memory grew by {growth / 2**20:.1f} MiB")
    assert growth < MOST_GROWTH_BYTES
    _nothing_is_held(calls)


def test_64_clients_in_a_hurry_are_refused_at_once_or_end_at_their_deadline(
    server: Server, tool: Callable[[str], str], tmp_path: Path
) -> None:
    process, calls = server
    seen = ghz(tool("ghz"), process, tmp_path, min(4, SECONDS), "400ms")
    assert set(seen["statusCodeDistribution"]) <= {"OK", "ResourceExhausted", "DeadlineExceeded"}, seen[
        "errorDistribution"
    ]
    until(process.at_rest)
    _nothing_is_held(calls)
    assert calls.generate().files


def _nothing_is_held(calls: RunningInference) -> None:
    resident = calls.stub.ListResidentAdapters(pb.ListResidentAdaptersRequest(), timeout=10).adapters
    assert len(resident) >= ADAPTERS and not any(adapter.pins for adapter in resident)
