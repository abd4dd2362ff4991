"""The server kit over a real socket: errors, request identifiers, deadlines, drain, health, reflection, metrics."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import urllib.request

import grpc
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from terroir._proto.dataset.v1 import dataset_pb2, dataset_pb2_grpc
from terroir.common import errors
from terroir.common.errors import TerroirError
from terroir.common.grpc_client import aio_channel, error_from_rpc
from terroir.common.server import Server
from terroir.common.settings import ServiceSettings
from terroir.common.telemetry import configure_logging
from terroir.store import errors as store_errors
from tests.integration.common.probe_service import DATASET, REGISTRY, running_probe

KINDS = ["unary_unary", "unary_stream", "stream_unary", "stream_stream"]
CLASSES = [
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, TerroirError)
    if kind is not TerroirError
]  # fmt: skip


def raising(error):
    def act():
        raise error

    return act


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def failure(running, kind="unary_unary", **options):
    with pytest.raises(grpc.RpcError) as raised:
        await running.ask(kind, **options)
    return raised.value


@pytest.mark.parametrize("kind", KINDS)
def test_all_four_kinds_of_calls_work_and_echo_the_request_identifier(in_loop, kind):
    answers = {"unary_stream": [b"first", b"second"], "stream_stream": ["x", "y"]}

    async def story():
        async with running_probe() as running:
            answer = await running.ask(kind, metadata=(("x-request-id", "given"),))
            assert answer == answers.get(kind, answer)
            if kind == "stream_unary":
                assert answer.size_bytes == 9
            running.probe.act = raising(ValueError("secret"))
            failed = await failure(running, kind, metadata=(("x-request-id", "given"),))
            assert dict(failed.trailing_metadata())["x-request-id"] == "given"
            assert failed.details() == "internal error; tell the operator request given"

    in_loop(story())


def test_a_call_without_an_identifier_gets_one(in_loop):
    async def story():
        async with running_probe() as running:
            seen = set()
            for given in ((), (("x-request-id", "x" * 129),), (("x-request-id", ""),)):
                call = running.dataset.GetDataset(dataset_pb2.GetDatasetRequest(), metadata=given)
                await call
                seen.add(dict(await call.trailing_metadata())["x-request-id"])
            assert len(seen) == 3
            assert all(len(identifier) == 36 for identifier in seen)

    in_loop(story())


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_arrives_as_it_was_raised(in_loop, kind):
    raised = kind(
        "rank 512 exceeds 128 — 秩太大", reason="RANK_TOO_HIGH", metadata={"rank": "512"}, field="rank",
        retry_after_seconds=2.5,
    )  # fmt: skip

    async def story():
        async with running_probe() as running:
            running.probe.act = raising(raised)
            for call in KINDS:
                failed = await failure(running, call)
                assert failed.code().name == raised.code.value
                seen = error_from_rpc(failed)
                assert type(seen) is kind
                assert (str(seen), seen.reason, seen.metadata, seen.field, seen.retry_after_seconds) == (
                    str(raised), raised.reason, raised.metadata, raised.field, 2.5,
                )  # fmt: skip

    in_loop(story())


def test_an_error_of_the_store_arrives_with_its_reason(in_loop):
    async def story():
        async with running_probe() as running:
            running.probe.act = raising(store_errors.StoreUnavailable("the disk is full", "k", "STORE_DISK_FULL"))
            seen = error_from_rpc(await failure(running))
            assert (type(seen), seen.reason) == (errors.Unavailable, "STORE_DISK_FULL")

    in_loop(story())


@pytest.mark.parametrize("message", ["x" * 100_000, "秩" * 50_000, "lone \ud800 surrogate"])
def test_a_message_of_any_size_and_script_arrives_with_its_reason(in_loop, message):
    """Long ones used to exceed gRPC's limit for trailers: the caller saw RESOURCE_EXHAUSTED and no reason."""

    async def story():
        async with running_probe() as running:
            running.probe.act = raising(errors.FailedPrecondition(message, reason="STORY", field="text"))
            seen = error_from_rpc(await failure(running))
            assert (type(seen), seen.reason, seen.field) == (errors.FailedPrecondition, "STORY", "text")
            assert str(seen)[:4] == message[:4]

    in_loop(story())


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_exception_leaks_nothing_but_the_request_identifier(in_loop, kind):
    async def story():
        async with running_probe() as running:
            running.probe.act = raising(ZeroDivisionError("secret path /home/somebody"))
            failed = await failure(running, kind)
            identifier = dict(failed.trailing_metadata())["x-request-id"]
            assert failed.code() is grpc.StatusCode.INTERNAL
            assert failed.details() == f"internal error; tell the operator request {identifier}"
            assert "secret" not in str(failed.trailing_metadata())

    in_loop(story())


def test_a_handler_knows_its_callers_deadline(in_loop):
    async def story():
        async with running_probe() as running:
            await running.ask("unary_unary", timeout=7)
            assert 0 < running.probe.remaining < 8  # gRPC rounds a timeout up on its way
            await running.dataset.GetDataset(dataset_pb2.GetDatasetRequest())
            assert running.probe.remaining is None

    in_loop(story())


def test_an_expired_deadline_ends_the_call_and_its_handler(in_loop):
    async def story():
        async with running_probe() as running:
            with pytest.raises(grpc.RpcError) as raised:
                await running.dataset.ListDatasets(dataset_pb2.ListDatasetsRequest(), timeout=0.3)
            seen = error_from_rpc(raised.value)
            assert (type(seen), seen.reason) == (errors.DeadlineExceeded, "DEADLINE_EXCEEDED")
            while not running.probe.cancelled:
                await asyncio.sleep(0.01)

    in_loop(story())


def test_a_drain_lets_a_running_call_finish_and_refuses_new_ones(in_loop):
    """A new call that overtook the server's farewell used to end as CANCELLED, which nobody tries again."""

    async def story():
        async with running_probe() as running:
            late = running.dataset.ListDatasets(dataset_pb2.ListDatasetsRequest(), timeout=30)
            await running.probe.entered.wait()
            stopping = asyncio.create_task(running.server.stop(30))
            refused = None
            while refused is None:
                try:
                    await running.ask("unary_unary", timeout=1)
                except grpc.RpcError as error:
                    refused = error_from_rpc(error)
            assert isinstance(refused, errors.Unavailable)
            assert refused.reason == "SERVICE_STOPPING" and refused.retry_after_seconds
            assert "another replica" in str(refused), "the server itself says why"
            assert not stopping.done()
            running.probe.release.set()
            assert (await late).next_page_token == "late"
            await stopping

    in_loop(story())


@pytest.mark.parametrize("kind", KINDS)
def test_calls_of_all_kinds_are_told_that_the_server_stops(in_loop, kind):
    async def story():
        async with running_probe() as running:
            late = running.dataset.ListDatasets(dataset_pb2.ListDatasetsRequest(), timeout=30)
            await running.probe.entered.wait()
            stopping = asyncio.create_task(running.server.stop(30))
            await asyncio.sleep(0)
            for _ in range(20):
                seen = error_from_rpc(await failure(running, kind))
                # grpc.aio's own end of a call that is aborted before its caller has written; nothing of ours is asked.
                if seen.code != "INTERNAL":
                    break
            assert (seen.code, seen.reason) == ("UNAVAILABLE", "SERVICE_STOPPING")
            running.probe.release.set()
            assert (await late).next_page_token == "late"
            await stopping

    in_loop(story())


def test_a_watch_of_health_does_not_keep_a_server_from_stopping(in_loop):
    """It lasts as long as its caller: the whole grace used to pass although no call was left to wait for."""

    async def story():
        async with running_probe() as running:
            health = health_pb2_grpc.HealthStub(running.channel)
            watch = health.Watch(health_pb2.HealthCheckRequest(service=DATASET), timeout=60)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            await asyncio.wait_for(running.server.stop(60), 10)

    in_loop(story())


def test_a_drain_ends_calls_that_take_longer_than_its_grace(in_loop):
    """gRPC's stop used to return first: the engine was closed under a handler that still cleaned up."""

    async def story():
        async with running_probe() as running:
            late = running.dataset.ListDatasets(dataset_pb2.ListDatasetsRequest(), timeout=30)
            await running.probe.entered.wait()
            await running.server.stop(0.1)
            assert running.probe.cancelled
            with pytest.raises(grpc.RpcError):
                await late

    in_loop(story())


@pytest.mark.parametrize("setting", ["port", "metrics_port"])
def test_a_port_in_use_is_refused_with_the_variable_to_set(in_loop, setting):
    async def story():
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            with pytest.raises(errors.FailedPrecondition, match=f"TERROIR_{setting.upper()}") as refused:
                async with running_probe(**{setting: port}):
                    pass
            assert refused.value.reason == "PORT_IN_USE"
            assert str(port) in str(refused.value)

    in_loop(story())


def test_two_servers_never_share_a_port(in_loop):
    async def story():
        async with running_probe() as running:
            with pytest.raises(errors.FailedPrecondition):
                async with running_probe(port=running.server.port):
                    pass

    in_loop(story())


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.invalid"])
def test_listening_beyond_loopback_must_be_asked_for(in_loop, host):
    async def story():
        with pytest.raises(errors.FailedPrecondition, match="TERROIR_INSECURE_LISTEN=true") as refused:
            async with running_probe(host=host):
                pass
        assert refused.value.reason == "INSECURE_LISTEN_REFUSED"

    in_loop(story())


def test_listening_beyond_loopback_works_when_asked_for(in_loop):
    async def story():
        async with running_probe(host="0.0.0.0", insecure_listen=True) as running:
            assert (await running.ask("unary_unary")).name == "datasets/a"

    in_loop(story())


def test_health_is_serving_until_the_drain(in_loop):
    async def story():
        async with running_probe() as running:
            health = health_pb2_grpc.HealthStub(running.channel)
            for name in ("", DATASET, REGISTRY):
                answer = await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
            watch = health.Watch(health_pb2.HealthCheckRequest(service=DATASET), timeout=20)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            stopping = asyncio.create_task(running.server.stop(0.5))
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            await stopping

    in_loop(story())


def test_a_service_that_loads_is_not_serving_from_the_first_answer_on(in_loop):
    """The health library's own beginning is SERVING: whoever asked early was sent to a server without a model."""

    async def story():
        server = Server(ServiceSettings(), service_name="loading")
        add = dataset_pb2_grpc.add_DatasetServiceServicer_to_server
        server.add(dataset_pb2_grpc.DatasetServiceServicer(), add, DATASET, serving=False)
        port = await server.start()
        async with aio_channel(f"127.0.0.1:{port}") as channel:
            health = health_pb2_grpc.HealthStub(channel)

            async def statuses():
                return [
                    (await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)).status
                    for name in ("", DATASET)
                ]

            assert await statuses() == [health_pb2.HealthCheckResponse.NOT_SERVING] * 2
            await server.set_serving(DATASET, serving=True)
            assert await statuses() == [health_pb2.HealthCheckResponse.SERVING] * 2
            await server.set_serving(DATASET, serving=False)
            assert await statuses() == [health_pb2.HealthCheckResponse.NOT_SERVING] * 2
        await server.stop(0)

    in_loop(story())


def test_reflection_lists_the_services(in_loop):
    async def story():
        async with running_probe() as running:
            stub = reflection_pb2_grpc.ServerReflectionStub(running.channel)
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            call = stub.ServerReflectionInfo(iter([request]), timeout=5)
            answer = await call.read()
            names = {service.name for service in answer.list_services_response.service}
            assert {DATASET, REGISTRY, "grpc.health.v1.Health"} <= names

    in_loop(story())


def test_calls_are_counted_by_method_and_code_and_scraped_over_http(in_loop):
    method = f"/{DATASET}/GetDataset"

    async def story():
        port = free_port()
        async with running_probe(metrics_port=port) as running:
            await running.ask("unary_unary")
            running.probe.act = raising(errors.NotFound("no"))
            for _ in range(2):
                await failure(running)
            late = running.dataset.ListDatasets(dataset_pb2.ListDatasetsRequest(), timeout=30)
            await running.probe.entered.wait()
            text = await asyncio.to_thread(scrape, port)
            running.probe.release.set()
            await late
            await running.server.stop(0)
            with pytest.raises(OSError):
                await asyncio.to_thread(scrape, port)
        assert f'terroir_rpc_handled_total{{code="OK",method="{method}"}} 1.0' in text
        assert f'terroir_rpc_handled_total{{code="NOT_FOUND",method="{method}"}} 2.0' in text
        assert f'terroir_rpc_duration_seconds_count{{method="{method}"}} 3.0' in text
        assert f'terroir_rpc_running{{method="/{DATASET}/ListDatasets"}} 1.0' in text
        assert "process_cpu_seconds_total" in text

    in_loop(story())


def test_each_call_is_one_log_line_that_shows_no_content(in_loop, capsys):
    """What Python writes: gRPC's C core adds lines of its own to the descriptor, also those of the test before."""

    async def story():
        async with running_probe() as running:
            await running.ask("unary_unary", metadata=(("x-request-id", "given"),))
            running.probe.act = raising(errors.NotFound("no", reason="DATASET_NOT_FOUND"))
            await failure(running, metadata=(("x-request-id", "other"),))

    configure_logging("probe", "info")
    in_loop(story())
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    calls = [line for line in lines if line["event"] == "call"]
    seen = [(c["service"], c["request_id"], c["method"], c["code"], c.get("reason")) for c in calls]
    method = f"/{DATASET}/GetDataset"
    assert seen == [
        ("probe", "given", method, "OK", None),
        ("probe", "other", method, "NOT_FOUND", "DATASET_NOT_FOUND"),
    ]
    assert "datasets/a" not in json.dumps(lines)


def test_threads_log_for_their_service_too(capsys):
    configure_logging("probe", "warning")
    thread = threading.Thread(target=lambda: structlog.get_logger().warning("hot", degrees=99))
    thread.start()
    thread.join()
    structlog.get_logger().info("not shown")
    line = json.loads(capsys.readouterr().err)
    assert (line["service"], line["event"], line["level"], line["degrees"]) == ("probe", "hot", "warning", 99)


def scrape(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return answer.read().decode()


def test_the_bound_ports_are_announced_in_a_file(in_loop, tmp_path):
    async def story():
        async with running_probe(announce_path=tmp_path / "probe.json") as running:
            announced = json.loads((tmp_path / "probe.json").read_text())
            assert announced["ports"] == {"grpc": running.server.port, "metrics": 0}

    in_loop(story())
