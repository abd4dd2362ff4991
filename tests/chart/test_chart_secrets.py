"""Certificates, access rules and secrets: what the chart makes, and where secret values may stand."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from terroir.common.access.access_file import AccessRules, read_rules
from terroir.common.principal import Role
from tests.chart.manifests import environment, named, of_kind, pod_templates
from tests.chart.rendering import Chart, Document
from tests.chart.scenarios import ALL, CI, OPTIONS

IDENTITIES = ("dataset", "training", "registry", "inference", "operator")


def decoded(secret: Document, key: str) -> bytes:
    return base64.b64decode(secret["data"][key])


def certificate(secret: Document, key: str = "tls.crt") -> x509.Certificate:
    return x509.load_pem_x509_certificate(decoded(secret, key))


def rules(documents: tuple[Document, ...], folder: Path) -> AccessRules:
    path = folder / "access.yaml"
    path.write_text(named(documents, "ConfigMap", "-access")["data"]["access.yaml"])
    return read_rules(path)


@pytest.mark.parametrize("component", IDENTITIES)
def test_a_generated_certificate_is_of_our_authority_for_our_names_and_both_ends(component: str, chart: Chart) -> None:
    documents = chart.render({})
    secret = named(documents, "Secret", f"-{component}-tls")
    assert secret["type"] == "kubernetes.io/tls"
    authority, own = certificate(secret, "ca.crt"), certificate(secret)
    own.verify_directly_issued_by(authority)
    assert certificate(named(documents, "Secret", "-authority")) == authority
    assert authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    key = load_pem_private_key(decoded(secret, "tls.key"), None)
    assert key.public_key() == own.public_key()
    (common,) = own.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    assert common.value == f"terroir-{component}"
    names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    at = f"style-terroir-{component}"
    expected = {f"terroir-{component}"}
    if component != "operator":
        expected |= {at, f"{at}.demo", f"{at}.demo.svc", f"{at}.demo.svc.cluster.local", "localhost"}
    assert set(names) == expected
    usage = own.extensions.get_extension_for_oid(ExtensionOID.EXTENDED_KEY_USAGE).value
    assert isinstance(usage, x509.ExtendedKeyUsage)
    assert {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH} <= set(usage)
    left = own.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=363) < left < timedelta(days=366)


def test_the_key_of_the_authority_is_mounted_nowhere(chart: Chart) -> None:
    for pods in pod_templates(chart.render({})):
        assert "authority" not in json.dumps(pods.spec)


def test_each_identity_is_mounted_where_it_belongs_and_as_a_folder(chart: Chart) -> None:
    """A single file mounted by subPath never changes, so that a rotation would not reach the pod."""
    expected = {name: f"style-terroir-{name}-tls" for name in IDENTITIES[:4]}
    expected |= {
        "ray-head": expected["training"],
        "ray-worker": expected["training"],
        "test": "style-terroir-operator-tls",
    }
    found: dict[str, str] = {}
    for pods in pod_templates(chart.render({})):
        for volume in pods.spec.get("volumes", ()):
            if volume["name"] == "tls":
                found[pods.component] = volume["secret"]["secretName"]
                assert volume["secret"]["defaultMode"] == 0o440
        for container in pods.containers():
            assert not [mount for mount in container["volumeMounts"] if "subPath" in mount]
    assert found == expected


def test_cert_manager_makes_the_same_names(chart: Chart) -> None:
    made = {one["metadata"]["name"]: one["spec"] for one in of_kind(chart.render(CI["mtls"]), "Certificate")}
    generated = chart.render({})
    for component in IDENTITIES:
        spec = made[f"style-terroir-{component}"]
        names = certificate(named(generated, "Secret", f"-{component}-tls")).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
        assert spec["dnsNames"] == names.value.get_values_for_type(x509.DNSName)
        assert spec["commonName"] == f"terroir-{component}"
        assert {"server auth", "client auth"} <= set(spec["usages"])
        assert spec["privateKey"]["rotationPolicy"] == "Always"
        assert spec["secretName"] == f"style-terroir-{component}-tls"
    assert len(made) == len(IDENTITIES)


def roles_of(component: str) -> set[Role]:
    """Training makes the datasets and adapters of the styles that it is asked for by one call."""
    return {Role.SERVICE, Role.STYLIST} if component == "training" else {Role.SERVICE}


@pytest.mark.parametrize("scenario", [name for name in ALL if name != "without-certificates"])
def test_the_access_file_is_one_that_services_read(scenario: str, chart: Chart, tmp_path: Path) -> None:
    read = rules(chart.render(ALL[scenario]), tmp_path)
    for service in IDENTITIES[:4]:
        assert read.principal(f"cert:terroir-{service}").roles == roles_of(service)
    assert read.principal("cert:terroir-operator").roles == {Role.OPERATOR}
    assert read.principal("cert:somebody").roles == frozenset()


def test_issuers_and_grants_of_the_values_are_added(chart: Chart, tmp_path: Path) -> None:
    read = rules(chart.render(CI["external-s3"]), tmp_path)
    (issuer,) = read.issuers
    assert (issuer.algorithms, issuer.roles_claim) == (("RS256",), "terroir_roles")
    ana = read.principal("oidc:https://login.example.com#ana")
    assert (ana.roles, ana.regions) == (frozenset({Role.PUBLISHER}), frozenset({"CN-ZJ"}))


def test_tokens_of_service_accounts_are_those_of_the_pods(chart: Chart, tmp_path: Path) -> None:
    documents = chart.render(CI["mtls"])
    read = rules(documents, tmp_path)
    for pods in pod_templates(documents):
        stated = environment(pods.spec["containers"][0])
        if shown := {name for name in stated if name.endswith("_TOKEN_PATH")}:
            mount = next(one for one in pods.spec["containers"][0]["volumeMounts"] if one["name"] == "token")
            assert {stated[name] for name in shown} == {f"{mount['mountPath']}/token"}
            account = f"system:serviceaccount:demo:{pods.spec['serviceAccountName']}"
            principal = f"oidc:https://kubernetes.default.svc.cluster.local#{account}"
            assert read.principal(principal).roles == roles_of(pods.component)


def secret_values(document: Document) -> set[str]:
    found = set()
    for value in document.get("data", {}).values():
        text = base64.b64decode(value).decode()
        found |= {value, text, *(line for line in text.splitlines() if len(line) > 40)}
    return {value for value in found if not value.startswith("-----") and len(value) >= 16}


@pytest.mark.parametrize("scenario", ALL)
def test_no_secret_value_stands_outside_of_a_secret(scenario: str, chart: Chart) -> None:
    documents = chart.render(ALL[scenario])
    private = {
        value
        for document in of_kind(documents, "Secret")
        for value in secret_values(
            {"data": {key: one for key, one in document["data"].items() if not key.endswith(".crt")}}
        )
    }
    others = json.dumps([document for document in documents if document["kind"] != "Secret"])
    assert not [value for value in private if json.dumps(value)[1:-1] in others]
    if scenario == "defaults":
        assert len(private) > 10


@pytest.mark.parametrize("scenario", ALL)
def test_a_variable_that_sounds_like_a_secret_comes_from_one(scenario: str, chart: Chart) -> None:
    for pods in pod_templates(chart.render(ALL[scenario])):
        for container in pods.containers():
            for name, value in environment(container).items():
                if (
                    name.endswith(("_KEY", "_KEY_ID", "_PASSWORD", "_AUTH_TOKEN", "_ROOT_USER", "_HEADERS"))
                    and name != "TERROIR_REGISTRY_SIGNING_KEY"
                ):
                    assert value.startswith("secret "), f"{pods.where}: {name}"


def test_keys_of_the_store_are_long_and_new_in_each_release(chart: Chart) -> None:
    first = named(chart.render({}), "Secret", "-store")
    second = named(chart.render({"logLevel": "debug"}), "Secret", "-store")
    for key in ("access-key-id", "secret-access-key"):
        assert decoded(first, key) != decoded(second, key)
    assert len(decoded(first, "secret-access-key")) == 40


def test_every_service_has_the_keys_of_the_store_by_reference_alone(chart: Chart) -> None:
    """Inference too: covers are kept there. It gets adapters from the registry all the same."""
    for scenario, secret in (
        ("defaults", "style-terroir-store"),
        ("external-s3", "terroir-s3"),
        ("own-store-keys", "keys"),
    ):
        for pods in pod_templates(chart.render(ALL[scenario])):
            if pods.component in IDENTITIES:
                named_keys = {
                    one["name"].rpartition("_STORE_")[2]: one["valueFrom"]["secretKeyRef"]["name"]
                    for one in pods.main()["env"] if "_STORE_" in one["name"] and "valueFrom" in one
                }  # fmt: skip
                assert named_keys == dict.fromkeys(("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"), secret), pods.where


def test_without_certificates_services_are_told_so_and_find_no_access_file(chart: Chart) -> None:
    documents = chart.render(OPTIONS["without-certificates"])
    assert not [one for one in of_kind(documents, "Secret") if "tls" in one["metadata"]["name"]]
    assert not [one for one in of_kind(documents, "ConfigMap") if one["metadata"]["name"].endswith("-access")]
    for pods in pod_templates(documents):
        stated = environment(pods.spec["containers"][0])
        if pods.component in IDENTITIES:
            assert stated[f"TERROIR_{pods.component.upper()}_INSECURE_LISTEN"] == "true"
            assert f"TERROIR_{pods.component.upper()}_TLS_DIR" not in stated


def test_nothing_says_insecure_unless_it_was_asked_for(chart: Chart) -> None:
    for scenario in ("defaults", "mtls", "external-s3", "own-certificates"):
        for pods in pod_templates(chart.render(ALL[scenario])):
            for name, value in environment(pods.spec["containers"][0]).items():
                if "INSECURE" in name and value == "true":
                    # The store of the release, within its namespace.
                    assert name.endswith("STORE_INSECURE_HTTP")
                    assert scenario != "external-s3"


def test_public_keys_and_rules_are_read_only(chart: Chart) -> None:
    for pods in pod_templates(chart.render(ALL["everything"])):
        for container in pods.containers():
            for mount in container["volumeMounts"]:
                if mount["mountPath"].startswith("/etc/"):
                    assert mount["readOnly"] is True


def test_signing_and_trusted_keys_are_where_the_settings_look(chart: Chart) -> None:
    found: dict[str, dict[str, Any]] = {
        pods.component: pods.spec["containers"][0] for pods in pod_templates(chart.render(ALL["signed-and-guarded"]))
    }
    signing = environment(found["registry"])["TERROIR_REGISTRY_SIGNING_KEY"]
    trusted = yaml.safe_load(environment(found["inference"])["TERROIR_INFERENCE_TRUSTED_KEYS"])
    words = environment(found["inference"])["TERROIR_INFERENCE_BLOCKED_WORDS_FILE"]
    mounts = {one["mountPath"] for container in found.values() for one in container["volumeMounts"]}
    assert {str(Path(path).parent) for path in (signing, words, *trusted)} <= mounts
    assert [Path(path).name for path in trusted] == ["a.pem", "b.pem"]
