"""After a loss Ray is asked for another node, on a real cluster of two."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ray
from ray.cluster_utils import Cluster

from terroir.training.attempt.on_ray import task_options
from terroir.training.attempt.order import DriverOrder

pytestmark = pytest.mark.slow


@pytest.fixture
def nodes() -> Iterator[list[str]]:
    store = {"object_store_memory": 80_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False, **store})
    try:
        cluster.add_node(num_cpus=2, **store)
        ray.init(address=cluster.address, log_to_driver=False)
        yield [node["NodeID"] for node in ray.nodes()]
    finally:
        ray.shutdown()
        cluster.shutdown()


def _placed(*avoid: str) -> str:
    order = DriverOrder("job-1", 2, "job-1-2", "", "", "", "", "", "", {}, cpus=1, gpus=0.0, avoid_nodes=avoid)
    # Made here, so that it travels as it is: workers do not have this module.
    where = ray.remote(**task_options(order))(lambda: ray.get_runtime_context().get_node_id())
    return str(ray.get(where.remote()))


def test_an_attempt_goes_to_the_other_node_and_where_there_is_none_to_the_same(nodes: list[str]) -> None:
    first, second = nodes
    assert _placed(first) == second
    assert _placed(second) == first
    assert _placed(first, second) in nodes
