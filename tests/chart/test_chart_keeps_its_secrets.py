"""What Helm generates, as a cluster has it: made anew where it was taken away or no longer fits, else left alone.

Only a real API server shows that: `helm template` looks nothing up. That certificates are kept over upgrades and
renewed in time is seen in tests/integration/cluster.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography import x509

from tests.chart.rendering import CHART
from tests.tools.cluster_client import ClusterClient
from tests.tools.control_plane import ControlPlane, missing_tools

pytestmark = pytest.mark.slow
NAMESPACE = "keeps"
Secrets = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def control_plane(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], ClusterClient]]:
    started: list[ControlPlane] = []

    def start(helm: str) -> ClusterClient:
        if not started:
            if lacking := missing_tools():
                if "cluster" in os.environ.get("TERROIR_REQUIRE_TOOLS", "").split(","):
                    pytest.fail(f"{', '.join(lacking)} required here; run make tools-cluster")
                pytest.skip(f"{', '.join(lacking)} missing")
            started.append(ControlPlane(tmp_path_factory.mktemp("control-plane"), helm))
            started[0].start()
            started[0].client.kubectl("create", "namespace", NAMESPACE)
        return started[0].client

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def cluster(control_plane: Callable[[str], ClusterClient], tool: Callable[[str], str]) -> Iterator[ClusterClient]:
    client = control_plane(tool("helm"))
    helm(client, "install")
    yield client
    client.helm("uninstall", "style", f"--namespace={NAMESPACE}")


def helm(client: ClusterClient, verb: str, *extra: str) -> None:
    values = CHART / "ci" / "cpu-kind-values.yaml"
    client.helm(verb, "style", str(CHART), f"--namespace={NAMESPACE}", f"--values={values}", *extra)


def secrets(client: ClusterClient) -> Secrets:
    found = client.items("secrets", NAMESPACE, "app.kubernetes.io/instance=style")
    return {one["metadata"]["name"].removeprefix("style-terroir-"): one for one in found}


def certificate(secret: dict[str, Any], key: str = "tls.crt") -> x509.Certificate:
    return x509.load_pem_x509_certificate(base64.b64decode(secret["data"][key]))


def test_an_upgrade_without_a_change_restarts_no_pod(cluster: ClusterClient) -> None:
    def templates() -> dict[str, int]:
        return {
            one["metadata"]["name"]: one["metadata"]["generation"] for one in cluster.items("deployments", NAMESPACE)
        }

    before = templates()
    assert len(before) == 4
    helm(cluster, "upgrade")
    assert templates() == before


def test_a_deleted_certificate_is_made_anew_by_the_same_authority(cluster: ClusterClient) -> None:
    before = secrets(cluster)
    cluster.kubectl("delete", "secret", "style-terroir-inference-tls", f"--namespace={NAMESPACE}")
    helm(cluster, "upgrade")
    after = secrets(cluster)
    assert after["inference-tls"]["data"] != before["inference-tls"]["data"]
    certificate(after["inference-tls"]).verify_directly_issued_by(certificate(before["authority"]))
    unchanged = set(before) - {"inference-tls"}
    assert {name: after[name]["data"] for name in unchanged} == {name: before[name]["data"] for name in unchanged}


def test_a_certificate_whose_names_have_changed_is_renewed(cluster: ClusterClient) -> None:
    helm(cluster, "upgrade", "--set=clusterDomain=cluster.example")
    names = certificate(secrets(cluster)["dataset-tls"]).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert f"style-terroir-dataset.{NAMESPACE}.svc.cluster.example" in names.value.get_values_for_type(x509.DNSName)


def test_a_new_authority_signs_every_certificate(cluster: ClusterClient) -> None:
    before = secrets(cluster)
    cluster.kubectl("delete", "secret", "style-terroir-authority", f"--namespace={NAMESPACE}")
    helm(cluster, "upgrade")
    after = secrets(cluster)
    authority = certificate(after["authority"])
    assert authority != certificate(before["authority"])
    for name, one in after.items():
        if name.endswith("-tls"):
            assert certificate(one, "ca.crt") == authority
            certificate(one).verify_directly_issued_by(authority)


def test_a_rollback_brings_back_no_certificate_that_services_refuse(cluster: ClusterClient) -> None:
    helm(cluster, "upgrade", "--set=logLevel=debug")
    before = secrets(cluster)
    cluster.helm("rollback", "style", "1", f"--namespace={NAMESPACE}")
    after = secrets(cluster)
    authority = certificate(after["authority"])
    assert authority == certificate(before["authority"])
    for name in ("registry-tls", "inference-tls"):
        certificate(after[name]).verify_directly_issued_by(authority)
