"""Who may talk to whom: the edges that the network policies leave, against the list that people read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from tests.chart.manifests import SERVICES, of_kind, pod_templates
from tests.chart.rendering import Chart, Document, merged, nested
from tests.chart.scenarios import ALL, CI, OPTIONS

ANY = "any port"
Edge = tuple[str, str, str]
"""From, to, port."""

PORTS = {"dataset": "7101", "training": "7102", "registry": "7103", "inference": "7104"}
# Of the release with its own store and Ray, and with weights in the image.
EDGES: set[Edge] = {
    *(("operators", service, port) for service, port in PORTS.items()),
    ("recommenders", "inference", "7104"),
    ("recommenders", "registry", "7103"),
    *(("prometheus", service, "9090") for service in PORTS),
    ("prometheus", "ray-head", "8080"),
    ("prometheus", "ray-worker", "8080"),
    ("inference", "registry", "7103"),
    ("training", "dataset", "7101"),
    ("training", "registry", "7103"),
    ("training", "ray-head", "8265"),
    *((ray, other, ANY) for ray in ("ray-head", "ray-worker") for other in ("ray-head", "ray-worker")),
    *((ray, service, PORTS[service]) for ray in ("ray-head", "ray-worker") for service in ("dataset", "registry")),
    *((user, "store", "9000") for user in (*SERVICES, "ray-head", "ray-worker")),
    *(("test", service, port) for service, own in PORTS.items() for port in (own, "9090")),
    ("ray-head", "0.0.0.0/0", "443"),
    ("ray-head", "0.0.0.0/0", "6443"),
    *((pod, "dns", "53") for pod in (*SERVICES, "ray-head", "ray-worker", "test")),
}
ELSEWHERE = {
    "terroir.dev/operator": "operators", "terroir.dev/recommender": "recommenders",
    "monitoring": "prometheus", "observability": "collector", "kube-system": "dns",
}  # fmt: skip


def edges(documents: Iterable[Document]) -> set[Edge]:
    """What both ends allow: out of a pod of ours, and into one. The world beyond has one end only."""
    documents = list(documents)
    components = {pods.component: pods.metadata["labels"] for pods in pod_templates(documents)}
    out: dict[str, set[Edge]] = {name: set() for name in components}
    into: dict[str, set[Edge]] = {name: set() for name in components}
    for policy in of_kind(documents, "NetworkPolicy"):
        spec = policy["spec"]
        for name, labels in components.items():
            if _matches(spec["podSelector"], labels):
                for rule in spec.get("egress") or ():
                    out[name] |= {(name, end, port) for end in _ends(rule["to"], components) for port in _ports(rule)}
                for rule in spec.get("ingress") or ():
                    into[name] |= {
                        (end, name, port) for end in _ends(rule["from"], components) for port in _ports(rule)
                    }
    leaving, entering = set().union(*out.values()), set().union(*into.values())
    inner = {edge for edge in leaving | entering if edge[0] in components and edge[1] in components}
    lonely = inner - (leaving & entering)
    assert not {edge for edge in lonely if edge[0] in components and edge[1] in components}, f"one end only: {lonely}"
    return leaving | entering


def _matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    for one in selector.get("matchExpressions", ()):
        inside = labels.get(one["key"]) in one["values"]
        assert one["operator"] in ("In", "NotIn")
        if inside != (one["operator"] == "In"):
            return False
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


def _ends(peers: Iterable[dict[str, Any]], components: dict[str, dict[str, str]]) -> Iterator[str]:
    for peer in peers:
        if "ipBlock" in peer:
            yield peer["ipBlock"]["cidr"]
        elif "namespaceSelector" in peer:
            ((key, value),) = peer["namespaceSelector"]["matchLabels"].items()
            yield ELSEWHERE[value if key == "kubernetes.io/metadata.name" else key]
        else:
            # In this namespace alone.
            yield from (name for name, labels in components.items() if _matches(peer["podSelector"], labels))


def _ports(rule: dict[str, Any]) -> set[str]:
    return {str(port["port"]) for port in rule["ports"]} if "ports" in rule else {ANY}


def test_the_edges_are_those_declared_and_no_more(chart: Chart) -> None:
    assert edges(chart.render({})) == EDGES


def test_every_pod_denies_what_no_edge_allows(chart: Chart) -> None:
    """A pod without a policy of both types talks to everybody."""
    for scenario in ALL:
        if scenario == "without-network-policy":
            continue
        documents = chart.render(ALL[scenario])
        (deny,) = (
            one["spec"] for one in of_kind(documents, "NetworkPolicy") if "default-deny" in one["metadata"]["name"]
        )
        assert deny["policyTypes"] == ["Ingress", "Egress"]
        assert "ingress" not in deny
        assert "egress" not in deny
        for pods in pod_templates(documents):
            assert _matches(deny["podSelector"], pods.metadata["labels"]), f"{scenario}: {pods.where}"


@pytest.mark.parametrize(
    ("scenario", "more", "less"),
    [
        ("traced", {(pod, "collector", "4317") for pod in (*SERVICES, "ray-head", "ray-worker")}, set()),
        ("weights-in-the-store", set(), set()),
        ("weights-elsewhere", {(pod, "0.0.0.0/0", "9443") for pod in ("inference", "registry", "ray-worker")}, set()),
        ("cpu-kind", set(), {edge for edge in EDGES if "ray-head" in edge or "ray-worker" in edge}),
        (
            "no-monitoring",
            {("training", "10.0.0.0/8", "8265")},
            {edge for edge in EDGES if "ray-head" in edge or "ray-worker" in edge},
        ),
        (
            "store-over-http",
            {(pod, "0.0.0.0/0", "9000") for pod in (*SERVICES, "ray-head", "ray-worker")},
            {edge for edge in EDGES if "store" in edge},
        ),
        (
            "external-s3",
            # The store's 443 and the issuer's keys.
            {(pod, "0.0.0.0/0", "443") for pod in (*SERVICES, "ray-head", "ray-worker")},
            {edge for edge in EDGES if "store" in edge},
        ),
        ("tokens-instead-of-certificates", {(pod, "0.0.0.0/0", "443") for pod in SERVICES}, set()),
        ("mtls", set(), set()),
    ],
)
def test_an_option_adds_and_takes_edges_as_told(scenario: str, more: set[Edge], less: set[Edge], chart: Chart) -> None:
    found = edges(chart.render(ALL[scenario]))
    assert found - EDGES == more - EDGES
    assert EDGES - found == less


def test_without_certificates_nobody_asks_issuers_for_keys(chart: Chart) -> None:
    assert edges(chart.render(OPTIONS["without-certificates"])) == EDGES


def test_peers_are_chosen_by_the_labels_of_the_values(chart: Chart) -> None:
    labels = {"terroir.dev/recommender": None, "team": "shop"}
    peer = {"namespaceLabels": labels, "podLabels": {"app": "feed"}}
    values = merged(CI["cpu-kind"], nested("networkPolicy.recommenders", peer))
    (policy,) = (
        one for one in of_kind(chart.render(values), "NetworkPolicy") if one["metadata"]["name"].endswith("-inference")
    )
    assert {
        "namespaceSelector": {"matchLabels": {"team": "shop"}}, "podSelector": {"matchLabels": {"app": "feed"}},
    } in policy["spec"]["ingress"][0]["from"]  # fmt: skip
