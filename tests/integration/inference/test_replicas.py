"""Several inference replicas behind one client: styles keep to their replica, and a lost one is passed over."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from terroir._proto.inference.v1 import inference_pb2 as pb
from terroir.client import Client
from terroir.client.endpoints import Endpoints
from terroir.client.pictures import Generated
from terroir.common.errors import Unavailable
from tests.integration.inference.hot_load_kit import Replica
from tests.integration.inference.inference_process import InferenceProcess, inference_process
from tests.integration.inference.test_hot_load import adapter_file

pytestmark = pytest.mark.slow


def draw(client: Client, worn: dict[str, float]) -> Generated:
    return client.generate("a hill", adapters=worn, seeds=[1], width=32, height=32, steps=2)


@pytest.fixture
def servers(tmp_path: Path, tiny_base: Path) -> Iterator[tuple[Client, list[InferenceProcess]]]:
    """A registry, two inference processes, and a client of all."""
    with ExitStack() as running:
        registry = Replica(tmp_path / "data", tiny_base)
        registry.start()
        running.callback(registry.kill)
        for seed in range(4):
            registry.publish(f"style-{seed}", adapter_file(seed))
        processes = []
        for number in range(2):
            folder = tmp_path / f"inference-{number}"
            folder.mkdir()
            started = inference_process(folder, tiny_base, registry_target=registry.target)
            processes.append(running.enter_context(started)[0])
        endpoints = Endpoints(registry=registry.target, inference=",".join(server.target for server in processes))
        yield running.enter_context(Client(endpoints)), processes


def test_styles_keep_to_their_replica_and_a_lost_one_is_passed_over(
    servers: tuple[Client, list[InferenceProcess]],
) -> None:
    client, processes = servers
    styles = [{f"style-{seed}": 1.0} for seed in range(4)]
    for worn in styles * 3:
        draw(client, worn)
    loads = [server.metric("terroir_inference_adapter_load_seconds_count", source="registry") for server in processes]
    found = [draw(client, worn).done.adapters[0].found for worn in styles]
    assert found == [pb.TIER_DEVICE] * 4
    assert sum(loads) == 4, "each style was fetched by one replica alone"
    processes[0].process.kill()
    processes[0].process.wait()
    for worn in styles:
        assert len(draw(client, worn).pictures) == 1
    processes[1].process.kill()
    processes[1].process.wait()
    with pytest.raises(Unavailable) as gone:
        draw(client, styles[0])
    assert gone.value.reason == "SERVICE_UNREACHABLE"
