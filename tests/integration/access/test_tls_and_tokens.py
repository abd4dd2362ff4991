"""A real server with TLS and an access file: who gets in, who does not, and what operators see of it."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
import yaml
from structlog.testing import capture_logs

from terroir._proto.dataset.v1 import dataset_pb2, dataset_pb2_grpc
from terroir._proto.registry.v1 import registry_pb2, registry_pb2_grpc
from terroir.common.credentials import CallerCredentials
from terroir.common.errors import FailedPrecondition, InvalidArgument, TerroirError
from terroir.common.grpc_client import aio_channel, channel, error_from_rpc
from terroir.common.server import Server
from terroir.common.settings import ServiceSettings
from tests.integration.common.probe_service import DATASET, REGISTRY, Probe
from tests.tools.authority import Authority, Issuer

InLoop = Callable[[Coroutine[Any, Any, Any]], Any]
LATER = 1.2
"""Seconds after which changed files have been looked at."""


@pytest.fixture(autouse=True)
def _logs() -> Any:
    yield
    structlog.reset_defaults()


@pytest.fixture
def in_loop() -> InLoop:
    return lambda work: asyncio.run(asyncio.wait_for(work, 60))


class Site:
    """Certificates, keys, an access file, and a server that uses them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.authority, self.issuer = folder, Authority(), Issuer()
        self.authority.write(folder / "server", "terroir-registry")
        (folder / "jwks.json").write_bytes(self.issuer.jwks())
        self.grant()

    def grant(self, *grants: dict[str, Any]) -> None:
        """Write the access file: one known service, and what else a test wants."""
        known = {"principals": ["cert:terroir-inference"], "roles": ["service"]}
        issuers = [self.issuer.rules(str(self.folder / "jwks.json"))]
        partial = self.folder / "access.partial"
        partial.write_text(yaml.dump({"issuers": issuers, "grants": [known, *grants]}))
        partial.replace(self.folder / "access.yaml")

    def caller(self, common: str = "terroir-inference", **options: Any) -> CallerCredentials:
        return CallerCredentials(self.authority.write(self.folder / f"caller-{common}", common, **options))

    def bearer(self, token: str) -> CallerCredentials:
        (self.folder / "ca-only").mkdir(exist_ok=True)
        (self.folder / "ca-only/ca.crt").write_bytes(self.authority.pem)
        (self.folder / "token").write_text(token + "\n")
        return CallerCredentials(self.folder / "ca-only", self.folder / "token")

    @asynccontextmanager
    async def server(self, **settings: Any) -> AsyncIterator[Server]:
        stated = {"tls_dir": self.folder / "server", "access_path": self.folder / "access.yaml", **settings}
        server, probe = Server(ServiceSettings(**stated), service_name="probe"), Probe()
        server.add(probe, dataset_pb2_grpc.add_DatasetServiceServicer_to_server, DATASET)
        server.add(probe, registry_pb2_grpc.add_RegistryServiceServicer_to_server, REGISTRY)
        await server.start()
        try:
            yield server
        finally:
            await server.stop(0)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


async def get(server: Server, credentials: CallerCredentials) -> str:
    """The answer of one read, or the reason why there is none."""
    async with aio_channel(f"localhost:{server.port}", credentials) as open_:
        try:
            request = dataset_pb2.GetDatasetRequest(name="datasets/a")
            return str((await dataset_pb2_grpc.DatasetServiceStub(open_).GetDataset(request, timeout=5)).name)
        except grpc.RpcError as error:
            return error_from_rpc(error).reason


async def create(server: Server, credentials: CallerCredentials, region: str) -> TerroirError:
    async with aio_channel(f"localhost:{server.port}", credentials) as open_:
        try:
            request = dataset_pb2.CreateDatasetRequest(dataset_id="a", dataset=dataset_pb2.Dataset(region=region))
            await dataset_pb2_grpc.DatasetServiceStub(open_).CreateDataset(request, timeout=5)
        except grpc.RpcError as error:
            return error_from_rpc(error)
    raise AssertionError("the probe implements no CreateDataset")


def counted(server: Server, metric: str, **labels: str) -> float:
    return server.registry.get_sample_value(metric, labels) or 0.0


def test_a_certificate_of_our_authority_that_a_grant_names_gets_in(site: Site, in_loop: InLoop) -> None:
    async def run() -> None:
        async with site.server() as server:
            assert await get(server, site.caller()) == "datasets/a"

    in_loop(run())


def test_a_certificate_may_be_named_by_its_uri(site: Site, in_loop: InLoop) -> None:
    site.grant({"principals": ["cert:spiffe://cluster/ns/terroir/sa/recommender"], "roles": ["service"]})

    async def run() -> None:
        async with site.server() as server:
            caller = site.caller("recommender", uri="spiffe://cluster/ns/terroir/sa/recommender")
            assert await get(server, caller) == "datasets/a"

    in_loop(run())


def test_a_certificate_that_no_grant_names_may_nothing(site: Site, in_loop: InLoop) -> None:
    async def run() -> None:
        async with site.server() as server:
            assert await get(server, site.caller("stranger")) == "ROLE_MISSING"
            assert counted(server, "terroir_auth_refusals_total", reason="ROLE_MISSING") == 1

    in_loop(run())


def test_a_certificate_of_another_authority_is_refused_and_counted(
    site: Site, in_loop: InLoop, capfd: pytest.CaptureFixture[str]
) -> None:
    forger = CallerCredentials(
        Authority("forger").write(site.folder / "forged", "terroir-inference", trusted=site.authority.pem)
    )

    async def run() -> None:
        async with site.server() as server:
            assert await get(server, forger) == "SERVICE_UNREACHABLE"
            for _ in range(50):
                if counted(server, "terroir_tls_handshake_failures_total"):
                    break
                await asyncio.sleep(0.05)
            assert counted(server, "terroir_tls_handshake_failures_total") >= 1
            assert await get(server, site.caller()) == "datasets/a"

    in_loop(run())
    assert "Handshake failed" in capfd.readouterr().err, "what the core says still reaches the log"


def test_no_certificate_is_no_connection_where_one_is_required(site: Site, in_loop: InLoop) -> None:
    async def run() -> None:
        async with site.server() as server:
            assert await get(server, site.bearer(site.issuer.token(terroir_roles=["viewer"]))) == "SERVICE_UNREACHABLE"
            assert await get(server, CallerCredentials()) == "SERVICE_UNREACHABLE"

    in_loop(run())


def test_an_expired_certificate_is_refused(site: Site, in_loop: InLoop) -> None:
    async def run() -> None:
        async with site.server() as server:
            assert await get(server, site.caller(life=timedelta(days=-1))) == "SERVICE_UNREACHABLE"

    in_loop(run())


def test_a_caller_does_not_believe_a_server_of_another_authority(site: Site, in_loop: InLoop) -> None:
    async def run() -> None:
        async with site.server() as server:
            believing_another = Authority("other").write(site.folder / "other", "terroir-inference")
            assert await get(server, CallerCredentials(believing_another)) == "SERVICE_UNREACHABLE"

    in_loop(run())


@pytest.mark.parametrize(
    ("forge", "expected"),
    [
        (lambda issuer: issuer.token(terroir_roles=["viewer"]), "datasets/a"),
        (lambda issuer: issuer.token(), "ROLE_MISSING"),
        (lambda issuer: issuer.token(terroir_roles=["viewer"], aud="billing"), "TOKEN_AUDIENCE_WRONG"),
        (lambda issuer: issuer.token(terroir_roles=["viewer"], exp=1), "TOKEN_EXPIRED"),
        (lambda _issuer: Issuer("https://evil.example.com").token(), "TOKEN_ISSUER_UNKNOWN"),
        (lambda _issuer: "eyJhbGciOiJub25lIn0.e30.", "TOKEN_ISSUER_UNKNOWN"),
        (lambda _issuer: "not-a-token", "TOKEN_MALFORMED"),
    ],
    ids=["good", "without roles", "wrong audience", "expired", "other issuer", "algorithm none", "nonsense"],
)
def test_tokens_over_tls(site: Site, in_loop: InLoop, forge: Callable[[Issuer], str], expected: str) -> None:
    token = forge(site.issuer)

    async def run() -> None:
        async with site.server(tls_require_client_certificate=False) as server:
            with capture_logs() as logs:
                assert await get(server, site.bearer(token)) == expected
            if expected != "datasets/a":
                assert counted(server, "terroir_auth_refusals_total", reason=expected) == 1
                assert {"event": "refused", "reason": expected}.items() <= logs[0].items()
            assert token not in repr(logs)

    in_loop(run())


def test_a_token_that_does_not_hold_is_refused_even_with_a_good_certificate(site: Site, in_loop: InLoop) -> None:
    async def run() -> None:
        async with site.server() as server:
            caller = site.caller()
            (site.folder / "token").write_text(site.issuer.token(exp=1))
            both = CallerCredentials(caller.tls_dir, site.folder / "token")
            assert await get(server, both) == "TOKEN_EXPIRED"

    in_loop(run())


def test_no_credentials_at_all(site: Site, in_loop: InLoop) -> None:
    async def run() -> None:
        async with site.server(tls_require_client_certificate=False) as server:
            nobody = CallerCredentials(site.bearer("").tls_dir)
            assert await get(server, nobody) == "CREDENTIALS_MISSING"

    in_loop(run())


def test_who_is_limited_to_a_region_changes_nothing_beyond_it(site: Site, in_loop: InLoop) -> None:
    site.grant({"principals": ["cert:ana"], "roles": ["stylist"], "regions": ["CN-ZJ"]})

    async def run() -> None:
        async with site.server() as server:
            ana = site.caller("ana")
            assert await get(server, ana) == "datasets/a", "reading has no limits"
            assert (await create(server, ana, "CN-JS")).reason == "REGION_OUT_OF_SCOPE"
            assert (await create(server, ana, "")).reason == "REGION_OUT_OF_SCOPE"
            assert (await create(server, ana, "CN-ZJ")).code == "INTERNAL", "let through: the probe has no such method"

    in_loop(run())


def test_limits_of_streams_and_of_resources_that_lie_in_a_region(site: Site, in_loop: InLoop) -> None:
    site.grant({"principals": ["cert:ana"], "roles": ["stylist"], "regions": ["CN-ZJ"]})
    regions = {"datasets/ink": "CN-ZJ", "datasets/tea": "CN-FJ"}

    async def run() -> None:
        async with (
            site.server() as server,
            aio_channel(f"localhost:{server.port}", site.caller("ana")) as open_,
        ):
            server.scope_regions(regions.__getitem__)
            stub = dataset_pb2_grpc.DatasetServiceStub(open_)

            async def offer(dataset: str) -> list[str]:
                start = dataset_pb2.ImportImagesRequest(start=dataset_pb2.ImportStart(dataset=dataset))
                more = dataset_pb2.ImportImagesRequest(offer=dataset_pb2.ImageOffer(digest="d"))
                return [answer.wanted.digest async for answer in stub.ImportImages(iter([start, more]), timeout=5)]

            assert await offer("datasets/ink") == ["", "d"]
            with pytest.raises(grpc.RpcError) as refused:
                await offer("datasets/tea")
            assert error_from_rpc(refused.value).reason == "REGION_OUT_OF_SCOPE"

    in_loop(run())


def test_a_rate_limit_is_one_principals_own(site: Site, in_loop: InLoop) -> None:
    site.grant({"principals": ["cert:ana"], "roles": ["viewer"]})

    async def run() -> None:
        async with site.server(rate_limit_calls_per_second=0.01, rate_limit_burst_calls=2) as server:
            loud = site.caller("ana")
            assert [await get(server, loud) for _ in range(3)] == ["datasets/a", "datasets/a", "RATE_LIMITED"]
            assert await get(server, site.caller()) == "datasets/a"
            assert counted(server, "terroir_rate_limited_total") == 1

    in_loop(run())


def test_certificates_change_under_load_and_no_call_fails(site: Site, in_loop: InLoop) -> None:
    """Server and caller get certificates of a new authority, as at a rotation: first both are trusted, then used."""
    caller = site.caller()
    new = Authority("new")

    async def run() -> None:
        calls, failures = 0, list[grpc.RpcError]()
        async with (
            site.server() as server,
            aio_channel(f"localhost:{server.port}", caller) as first,
            aio_channel(f"localhost:{server.port}", caller) as second,
        ):
            stubs = [dataset_pb2_grpc.DatasetServiceStub(open_) for open_ in (first, second)]
            stop = asyncio.Event()

            async def load(stub: Any) -> None:
                nonlocal calls
                while not stop.is_set():
                    try:
                        await stub.GetDataset(dataset_pb2.GetDatasetRequest(name="datasets/a"), timeout=5)
                    except grpc.RpcError as error:
                        failures.append(error)
                    calls += 1

            running = [asyncio.create_task(load(stub)) for stub in stubs for _ in range(4)]
            both = site.authority.pem + new.pem
            for folder, common in ((site.folder / "server", "terroir-registry"), (caller.tls_dir, "terroir-inference")):
                assert folder is not None
                site.authority.write(folder, common, trusted=both)
                await asyncio.sleep(LATER)
                new.write(folder, common, trusted=both)
                await asyncio.sleep(LATER)
            stop.set()
            await asyncio.gather(*running)
            assert not failures and calls > 100
            with_old_only = CallerCredentials(site.authority.write(site.folder / "old", "terroir-inference"))
            assert await get(server, with_old_only) == "SERVICE_UNREACHABLE", "new connections meet the new certificate"

    in_loop(run())


def test_files_that_are_wrong_leave_the_last_good_certificate(site: Site, in_loop: InLoop) -> None:
    async def run() -> None:
        async with site.server() as server:
            good = counted(server, "terroir_tls_certificate_expiry_timestamp_seconds")
            assert good > time.time()
            (site.folder / "server/tls.key").write_bytes(b"half of a ke")
            assert await get(server, site.caller()) == "datasets/a"
            (site.folder / "server/tls.crt").unlink()
            assert await get(server, site.caller()) == "datasets/a"
            assert counted(server, "terroir_tls_reload_failures_total") >= 1
            assert counted(server, "terroir_tls_certificate_expiry_timestamp_seconds") == good

    in_loop(run())


def test_a_grant_that_is_withdrawn_ends_at_once(site: Site, in_loop: InLoop) -> None:
    site.grant({"principals": ["cert:ana"], "roles": ["viewer"]})

    async def run() -> None:
        async with site.server() as server:
            assert await get(server, site.caller("ana")) == "datasets/a"
            site.grant()
            await asyncio.sleep(LATER)
            assert await get(server, site.caller("ana")) == "ROLE_MISSING"

    in_loop(run())


def test_a_renewed_token_file_is_shown_from_then_on(site: Site, in_loop: InLoop) -> None:
    async def run() -> None:
        async with site.server(tls_require_client_certificate=False) as server:
            credentials = site.bearer(site.issuer.token(exp=1))
            async with aio_channel(f"localhost:{server.port}", credentials) as open_:
                stub = dataset_pb2_grpc.DatasetServiceStub(open_)
                with pytest.raises(grpc.RpcError):
                    await stub.GetDataset(dataset_pb2.GetDatasetRequest(name="datasets/a"), timeout=5)
                site.bearer(site.issuer.token(terroir_roles=["viewer"]))
                await asyncio.sleep(LATER)
                assert (await stub.GetDataset(dataset_pb2.GetDatasetRequest(name="datasets/a"), timeout=5)).name

    in_loop(run())


def test_blocking_callers_rotate_too(site: Site, in_loop: InLoop) -> None:
    caller = site.caller()
    assert caller.tls_dir is not None

    async def run() -> None:
        async with site.server() as server:
            with channel(f"localhost:{server.port}", caller) as open_:
                ask = dataset_pb2_grpc.DatasetServiceStub(open_).GetDataset
                request = dataset_pb2.GetDatasetRequest(name="datasets/a")
                assert (await asyncio.to_thread(ask, request, timeout=5)).name
                site.authority.write(caller.tls_dir, "stranger")
                await asyncio.sleep(LATER)
                with pytest.raises(grpc.RpcError) as refused:
                    await asyncio.to_thread(ask, request, timeout=5)
                assert error_from_rpc(refused.value).reason == "ROLE_MISSING"

    in_loop(run())


def test_health_needs_no_grant_but_the_handshake(site: Site, in_loop: InLoop) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    async def run() -> None:
        async with (
            site.server() as server,
            aio_channel(f"localhost:{server.port}", site.caller("stranger")) as open_,
        ):
            answer = await health_pb2_grpc.HealthStub(open_).Check(health_pb2.HealthCheckRequest(), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING

    in_loop(run())


def test_probes_answer_over_plain_http_beside_tls(site: Site, in_loop: InLoop) -> None:
    def ask(port: int, path: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    async def run() -> None:
        async with site.server(metrics_port=_free_port()) as server:
            port = server.metrics_port
            assert await asyncio.to_thread(ask, port, "/healthz") == (200, b"ok\n")
            assert await asyncio.to_thread(ask, port, "/readyz") == (200, b"ok\n")
            assert (await asyncio.to_thread(ask, port, "/other"))[0] == 404
            status, text = await asyncio.to_thread(ask, port, "/metrics")
            assert status == 200 and b"terroir_tls_certificate_expiry_timestamp_seconds 1." in text
            await server.set_serving(DATASET, serving=False)  # as inference does while it loads its model
            assert await asyncio.to_thread(ask, port, "/readyz") == (503, b"not now\n")
            await server.set_serving(DATASET, serving=True)
            assert await asyncio.to_thread(ask, port, "/readyz") == (200, b"ok\n")

    in_loop(run())


def test_healthz_tells_of_an_event_loop_that_is_stuck(site: Site, in_loop: InLoop) -> None:
    def ask(port: int) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    async def run() -> None:
        async with site.server(metrics_port=_free_port()) as server:
            asking = asyncio.get_running_loop().run_in_executor(None, ask, server.metrics_port)
            time.sleep(2.5)
            assert await asking == 503

    in_loop(run())


@pytest.mark.parametrize(
    ("settings", "reason", "named"),
    [
        ({}, "INSECURE_LISTEN_REFUSED", "TERROIR_TLS_DIR and TERROIR_ACCESS_PATH"),
        ({"tls": True}, "INSECURE_LISTEN_REFUSED", "set TERROIR_ACCESS_PATH,"),
        ({"access": True}, "INSECURE_LISTEN_REFUSED", "set TERROIR_TLS_DIR,"),
    ],
)
def test_will_not_listen_beyond_loopback_unprotected(
    site: Site, in_loop: InLoop, settings: dict[str, bool], reason: str, named: str
) -> None:
    stated = {"host": "0.0.0.0"}
    stated |= {"tls_dir": site.folder / "server"} if "tls" in settings else {}  # type: ignore[dict-item]
    stated |= {"access_path": site.folder / "access.yaml"} if "access" in settings else {}  # type: ignore[dict-item]

    async def run() -> None:
        server = Server(ServiceSettings(**stated), service_name="probe")  # type: ignore[arg-type]
        with pytest.raises(FailedPrecondition) as refused:
            await server.start()
        assert refused.value.reason == reason and named in str(refused.value)

    in_loop(run())


def test_listens_beyond_loopback_with_both_or_where_it_is_asked_to(site: Site, in_loop: InLoop) -> None:
    async def run() -> None:
        async with site.server(host="0.0.0.0"):
            pass
        async with site.server(host="0.0.0.0", tls_dir=None, access_path=None, insecure_listen=True):
            pass

    in_loop(run())


@pytest.mark.parametrize(
    ("mistake", "reason"),
    [
        (lambda site: (site.folder / "server/tls.key").unlink(), "TLS_FILES_MISSING"),
        (lambda site: (site.folder / "server/ca.crt").unlink(), "TLS_FILES_MISSING"),
        (lambda site: (site.folder / "server/tls.crt").write_text("no certificate"), "TLS_FILES_INVALID"),
        (
            lambda site: (site.folder / "server/tls.key").write_bytes(
                (Authority().write(site.folder / "else", "x") / "tls.key").read_bytes()
            ),
            "TLS_FILES_INVALID",
        ),
        (lambda site: (site.folder / "access.yaml").write_text("grants: x"), "ACCESS_FILE_INVALID"),
        (lambda site: (site.folder / "access.yaml").unlink(), "ACCESS_FILE_UNREADABLE"),
    ],
    ids=["no key", "no authority", "no certificate", "another's key", "a wrong access file", "no access file"],
)
def test_refuses_to_start_with_files_that_are_wrong(
    site: Site, in_loop: InLoop, mistake: Callable[[Site], object], reason: str
) -> None:
    mistake(site)

    async def run() -> None:
        with pytest.raises((FailedPrecondition, InvalidArgument)) as refused:
            async with site.server():
                pass
        assert refused.value.reason == reason and str(site.folder) in str(refused.value)

    in_loop(run())


def test_a_token_is_never_sent_without_tls(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="only ever sent over TLS"):
        CallerCredentials(token_path=tmp_path / "token")


def test_publishing_is_open_to_services_and_publishers_alone(site: Site, in_loop: InLoop) -> None:
    site.grant({"principals": ["cert:ana"], "roles": ["stylist"]})

    async def publish(server: Server, credentials: CallerCredentials) -> str:
        async with aio_channel(f"localhost:{server.port}", credentials) as open_:
            chunks = [registry_pb2.PublishVersionRequest(chunk=b"abc")]
            try:
                await registry_pb2_grpc.RegistryServiceStub(open_).PublishVersion(iter(chunks), timeout=5)
            except grpc.RpcError as error:
                return error_from_rpc(error).reason
            return "published"

    async def run() -> None:
        async with site.server() as server:
            assert await publish(server, site.caller()) == "published"
            assert await publish(server, site.caller("ana")) == "ROLE_MISSING"

    in_loop(run())


def _free_port() -> int:
    from tests.tools.minio_server import free_port

    return free_port()
