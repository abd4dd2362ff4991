"""An attempt's training on Ray: in one worker, or in a group of them that Ray Train joins.

torch is imported in the workers, never in the driver.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import ray
from ray.exceptions import RayActorError, RayTaskError, TaskCancelledError, WorkerCrashedError
from ray.util.scheduling_strategies import NodeLabelSchedulingStrategy, NotIn

from terroir.common.clock import SystemClock
from terroir.common.errors import TerroirError, Unavailable
from terroir.common.tracing import current_traceparent
from terroir.training.attempt.access import credentials_of_node, store_of
from terroir.training.attempt.order import DriverOrder, Trained
from terroir.training.attempt.tracing import traced_part
from terroir.training.config.parser import parse_config
from terroir.training.engine.ports import Stopped
from terroir.training.errors import RayUnavailable
from terroir.training.jobs.documents import Jobs, JobState

_ASK_SECONDS: Final = 1.0
_NODE_ID: Final = "ray.io/node-id"
"""Label that Ray gives each node."""


def train_on_ray(order: DriverOrder, jobs: Jobs) -> Trained:
    """Run the attempt in as many Ray workers as its job says; raises what it raised there, Stopped if it never began.

    Raises RayError or RayUnavailable where a worker was lost.
    """
    told = replace(order, traceparent=current_traceparent())
    workers = parse_config(jobs.get(order.job_id).config_yaml).config.num_workers
    return _in_one_worker(told, jobs) if workers == 1 else _in_a_group(told, workers)


def task_options(order: DriverOrder) -> dict[str, Any]:
    """What Ray is told of the task of a worker that trains alone."""
    needs: dict[str, Any] = {"num_cpus": order.cpus, "num_gpus": order.gpus, "max_retries": 0}
    if order.avoid_nodes:
        # Only where another node has room: a node that lost an attempt is better than none.
        needs["scheduling_strategy"] = NodeLabelSchedulingStrategy({}, soft={_NODE_ID: NotIn(*order.avoid_nodes)})
    return needs


def _in_one_worker(order: DriverOrder, jobs: Jobs) -> Trained:
    task = ray.remote(**task_options(order))(_work_alone).remote(order)
    while True:
        ready, _ = ray.wait([task], timeout=_ASK_SECONDS)
        if ready:
            break
        job = jobs.get(order.job_id)
        if (job.cancel_requested or job.preempt_for) and job.state is JobState.QUEUED:
            ray.cancel(task)  # no worker has taken it yet, so nobody else could notice
            raise Stopped(0)
    try:
        trained: Trained = ray.get(task)
    except (WorkerCrashedError, RayActorError, TaskCancelledError):
        raise
    except RayTaskError as error:
        raise error.cause from error
    return trained


def _work_alone(order: DriverOrder) -> Trained:
    """The body of the Ray task."""
    from terroir.training.attempt.worker import train_attempt

    with traced_part(order, "worker", "train attempt"):
        return train_attempt(order, store_of(order), credentials_of_node(), _node_id, SystemClock())


def _in_a_group(order: DriverOrder, workers: int) -> Trained:
    """Data parallelism by Ray Train; it places the group as a whole, and waits for room as long as it takes.

    Attempts are the queue's affair, so it tries nothing again; what it would store lies in a folder that goes. Nodes
    that lost an attempt are not avoided: Ray Train has no preference of nodes, only conditions.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError  # what trainer.fit() documents; nowhere else exported

    resources = {"CPU": float(order.cpus), **({"GPU": order.gpus} if order.gpus else {})}
    with tempfile.TemporaryDirectory(prefix="terroir-ray-train-") as scratch:
        trainer = TorchTrainer(
            _work_in_group,
            train_loop_config={"order": order.to_json()},
            scaling_config=ScalingConfig(
                num_workers=workers, use_gpu=order.gpus > 0, resources_per_worker=resources, placement_strategy="PACK"
            ),
            run_config=RunConfig(
                name=order.submission_id,
                storage_path=scratch,
                failure_config=FailureConfig(max_failures=0, max_preemption_failures=0),
            ),
        )
        try:
            trained: Trained = trainer.fit().return_value
        except TrainingFailedError as error:
            raise cause_of(getattr(error, "worker_failures", {}), str(error)) from error
    return trained


def _work_in_group(told: dict[str, Any]) -> Trained | None:
    """The body of each worker of a group; the first returns what was trained."""
    from ray.train import get_context

    from terroir.training.attempt.worker import assist_attempt, train_attempt
    from terroir.training.engine.parallel import ProcessGroup

    order = DriverOrder.from_json(told["order"])
    group = ProcessGroup("cuda" if order.gpus else "cpu")
    with traced_part(order, "worker", "train attempt"):
        reach = (order, store_of(order), credentials_of_node())
        if get_context().get_world_rank() > 0:
            assist_attempt(*reach, SystemClock(), group)
            return None
        return train_attempt(*reach, _node_id, SystemClock(), group)


def cause_of(failures: Mapping[int, Exception], told: str) -> Exception:
    """The error of a group, of which `failures` are each worker's by rank, and `told` is what Ray says of all.

    What a run did wrong outweighs a lost worker, for the others lose it as soon as it raises; that outweighs what
    nobody foresaw, such as a broken connection, and a stop comes last: workers stop when the first of them fails.
    """
    ranked = [failures[rank] for rank in sorted(failures)]
    own = [one for one in ranked if isinstance(one, TerroirError) and not isinstance(one, Unavailable)]
    unavailable = [one for one in ranked if isinstance(one, Unavailable)]
    of_ray = [RayUnavailable(f"a worker was lost: {one}") for one in ranked if type(one).__module__.startswith("ray.")]
    unforeseen = [one for one in ranked if not isinstance(one, TerroirError | Stopped)]
    nobody = [RayUnavailable(f"the workers never came together: {told}")]
    return (own or of_ray or unavailable or unforeseen or ranked or nobody)[0]


def _node_id() -> str:
    return str(ray.get_runtime_context().get_node_id())
