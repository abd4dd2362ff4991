"""An attempt's training on Ray: in one worker, or in a group of them that Ray Train joins.

torch is imported in the workers, never in the driver.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import replace
from functools import partial
from threading import Thread
from typing import Any, Final, TypeVar

import ray
from ray.exceptions import RayActorError, RayTaskError, TaskCancelledError, WorkerCrashedError
from ray.util.scheduling_strategies import NodeLabelSchedulingStrategy, NotIn

from terroir.common.clock import SystemClock
from terroir.common.collector import collector_paused
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
T = TypeVar("T")


def train_on_ray(order: DriverOrder, jobs: Jobs) -> Trained:
    """Run the attempt in as many Ray workers as its job says; raises what it raised there, Stopped if it never began.

    Raises RayError or RayUnavailable where a worker was lost.
    """
    told = replace(order, traceparent=current_traceparent())
    workers = parse_config(jobs.get(order.job_id).config_yaml).config.num_workers
    return _in_one_worker(told, jobs) if workers == 1 else _in_a_group(told, workers, jobs)


def task_options(order: DriverOrder) -> dict[str, Any]:
    """What Ray is told of the task of a worker that trains alone."""
    needs: dict[str, Any] = {"num_cpus": order.cpus, "num_gpus": order.gpus, "max_retries": 0}
    if order.avoid_nodes:
        # Only where another node has room: a node that lost an attempt is better than none.
        needs["scheduling_strategy"] = NodeLabelSchedulingStrategy({}, soft={_NODE_ID: NotIn(*order.avoid_nodes)})
    return needs


def _in_one_worker(order: DriverOrder, jobs: Jobs) -> Trained:
    task = ray.remote(**task_options(order))(_work_alone).remote(order)
    try:
        _wait_unless_stopped(lambda seconds: bool(ray.wait([task], timeout=seconds)[0]), order, jobs)
    except Stopped:
        ray.cancel(task)
        raise
    try:
        trained: Trained = ray.get(task)
    except (WorkerCrashedError, RayActorError, TaskCancelledError):
        raise
    except RayTaskError as error:
        raise error.cause from error
    return trained


def _wait_unless_stopped(over: Callable[[float], bool], order: DriverOrder, jobs: Jobs) -> None:
    """Wait until it is `over`, which is asked to look for so many seconds.

    Raises Stopped if the job shall stop and no worker has taken it yet, so that nobody else could notice.
    """
    while not over(_ASK_SECONDS):
        job = jobs.get(order.job_id)
        if (job.cancel_requested or job.preempt_for) and job.state is JobState.QUEUED:
            raise Stopped(0)


def unless_stopped(fit: Callable[[], T], order: DriverOrder, jobs: Jobs) -> T:
    """What `fit` returns or raises; Stopped if the job shall stop before a worker has taken it.

    `fit` can't be told to end, so it runs in a thread that ends with the process, and what it began with it.
    """
    future = Future[T]()

    def run() -> None:
        try:
            future.set_result(fit())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, name="ray-train", daemon=True).start()
    _wait_unless_stopped(lambda seconds: bool(wait([future], seconds).done), order, jobs)
    return future.result()


def _work_alone(order: DriverOrder) -> Trained:
    """The body of the Ray task."""
    with collector_paused():
        from terroir.training.attempt.worker import train_attempt

    with traced_part(order, "worker", "train attempt"):
        return train_attempt(order, store_of(order), credentials_of_node(), _node_id, SystemClock())


def _in_a_group(order: DriverOrder, workers: int, jobs: Jobs) -> Trained:
    """Data parallelism by Ray Train; it places the group as a whole, and waits for room as long as it takes."""
    # Where the group is left behind it may still write there.
    with tempfile.TemporaryDirectory(prefix="terroir-ray-train-", ignore_cleanup_errors=True) as scratch:
        return unless_stopped(partial(_fit, order, workers, scratch), order, jobs)


def _fit(order: DriverOrder, workers: int, scratch: str) -> Trained:
    """Attempts are the queue's affair, so it tries nothing again; what it would store lies in a folder that goes.

    Nodes that lost an attempt are not avoided: the label_selector of a ScalingConfig is a condition and no preference.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError  # what trainer.fit() documents; nowhere else exported

    resources = {"CPU": float(order.cpus), **({"GPU": order.gpus} if order.gpus else {})}
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
    with collector_paused():
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
