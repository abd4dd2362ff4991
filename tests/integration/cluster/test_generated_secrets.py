"""What Helm generates it finds again: an upgrade must lock nobody out, and a certificate must not reach its end."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator

import pytest
from cryptography import x509

from tests.integration.cluster.release import Release
from tests.tools.cluster_client import ClusterClient, wait_until

SCENARIO = "cpu-kind"
NAME = "kept"
PREFIX = f"{NAME}-terroir"


@pytest.fixture
def own_release(cluster: ClusterClient, namespace: str) -> Iterator[Release]:
    release = Release(cluster, SCENARIO, namespace, name=NAME)
    release.install()
    yield release
    release.uninstall()


def secrets(release: Release) -> dict[str, dict[str, str]]:
    """Secrets of the chart, not those that Helm keeps its revisions in."""
    return {
        one["metadata"]["name"]: one["data"] for one in release.items("secrets") if one["type"] != "helm.sh/release.v1"
    }


def certificates(data: dict[str, dict[str, str]]) -> dict[str, tuple[x509.Certificate, x509.Certificate]]:
    """Name → certificate and authority."""
    return {
        name: (
            x509.load_pem_x509_certificate(base64.b64decode(fields["tls.crt"])),
            x509.load_pem_x509_certificate(base64.b64decode(fields["ca.crt"])),
        )
        for name, fields in data.items()
        if {"tls.crt", "ca.crt"} <= set(fields)
    }


def test_an_upgrade_changes_no_password_and_no_certificate(own_release: Release) -> None:
    before = secrets(own_release)
    assert before
    own_release.upgrade("--set", "logLevel=debug")
    assert secrets(own_release) == before


def test_certificates_are_renewed_under_the_same_authority(own_release: Release) -> None:
    """Pods that still show the old one are believed by those with the new one, in whatever order they restart."""
    before = certificates(secrets(own_release))
    assert len(before) > 3
    two_days_ago = int(time.time()) - 2 * 86400
    for name in before:
        own_release.cluster.kubectl(
            "annotate", "secret", name, f"--namespace={own_release.namespace}", "--overwrite",
            f"terroir.dev/issued-at={two_days_ago}",
        )  # fmt: skip
    # Forced, since the annotation is the test's now; nobody else writes what is Helm's.
    own_release.upgrade("--set", "tls.generated.renewAfterDays=3", "--force-conflicts")
    assert certificates(secrets(own_release)) == before
    own_release.upgrade("--set", "tls.generated.renewAfterDays=1", "--force-conflicts")
    after = certificates(secrets(own_release))
    assert set(after) == set(before)
    for name, (certificate, authority) in after.items():
        assert authority == before[name][1], name
        certificate.verify_directly_issued_by(authority)
        assert certificate.serial_number != before[name][0].serial_number, name


def test_an_upgrade_without_a_change_restarts_no_pod(own_release: Release) -> None:
    def generations() -> dict[str, int]:
        deployments = own_release.items("deployments")
        return {one["metadata"]["name"]: one["metadata"]["generation"] for one in deployments}

    before = generations()
    assert len(before) == 4
    own_release.upgrade()
    assert generations() == before


def test_a_deleted_certificate_is_made_anew_by_the_same_authority(own_release: Release) -> None:
    before, lost = secrets(own_release), f"{PREFIX}-inference-tls"
    _, authority = certificates(before)[lost]
    own_release.delete("secret", lost)
    own_release.upgrade()
    after = secrets(own_release)
    assert after[lost] != before[lost]
    certificates(after)[lost][0].verify_directly_issued_by(authority)
    assert {**after, lost: before[lost]} == before


def test_a_certificate_whose_names_have_changed_is_renewed(own_release: Release) -> None:
    own_release.upgrade("--set=clusterDomain=cluster.example")
    certificate, _ = certificates(secrets(own_release))[f"{PREFIX}-dataset-tls"]
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    wanted = f"{PREFIX}-dataset.{own_release.namespace}.svc.cluster.example"
    assert wanted in names.get_values_for_type(x509.DNSName)


def test_a_new_authority_signs_every_certificate(own_release: Release) -> None:
    before = certificates(secrets(own_release))
    own_release.delete("secret", f"{PREFIX}-authority")
    own_release.upgrade()
    after = certificates(secrets(own_release))
    assert set(after) == set(before)
    (authority,) = {ca for _, ca in after.values()}
    assert authority not in {ca for _, ca in before.values()}
    for certificate, _ in after.values():
        certificate.verify_directly_issued_by(authority)


def test_a_rollback_brings_back_no_certificate_that_services_refuse(own_release: Release) -> None:
    own_release.upgrade("--set=logLevel=debug")
    before = certificates(secrets(own_release))
    own_release.rollback(1)
    after = certificates(secrets(own_release))
    assert set(after) == set(before)
    for name, (certificate, authority) in after.items():
        assert authority == before[name][1]
        certificate.verify_directly_issued_by(authority)


def test_objects_in_the_store_outlive_the_release(cluster: ClusterClient, namespace: str) -> None:
    """The bucket is the only state: uninstalling by mistake and installing again finds the same volume."""
    before = cluster.everything()
    release = Release(cluster, SCENARIO, namespace, name="again")
    release.install("--set", "store.persistence.retain=true")
    (claim,) = release.items("persistentvolumeclaims")
    release.uninstall()
    left = {one["metadata"]["name"] for one in cluster.items("persistentvolumeclaims", namespace)}
    assert left == {claim["metadata"]["name"]}
    release.install("--set", "store.persistence.retain=true")
    (again,) = release.items("persistentvolumeclaims")
    assert again["spec"]["volumeName"] == claim["spec"]["volumeName"]
    release.uninstall()
    cluster.kubectl("delete", "persistentvolumeclaims", "--all", f"--namespace={namespace}")
    wait_until(lambda: not cluster.everything() - before, "nothing is left")
