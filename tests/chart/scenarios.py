"""Value sets that tests go through: those of ci/, and one for each option that they leave at its default."""

from __future__ import annotations

from typing import Any, Final

import yaml

from tests.chart.rendering import CHART, merged, nested

PEM: Final = "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n"
ISSUER: Final = {"issuer": "https://login.example.com", "audience": "terroir", "jwks": "https://login.example.com/k"}

CI: Final[dict[str, dict[str, Any]]] = {
    path.name.removesuffix("-values.yaml"): yaml.safe_load(path.read_text(encoding="utf-8"))
    for path in sorted((CHART / "ci").glob("*-values.yaml"))
}

OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "defaults": {},
    "without-certificates": {"insecure": True, "tls": {"source": "none"}},
    "own-certificates": nested("tls", {
        "source": "existingSecrets",
        "existingSecrets": {name: f"tls-{name}" for name in ("dataset", "training", "registry", "inference", "operator")},
    }),
    "tokens-instead-of-certificates": {"tls": {"requireClientCertificate": False}, "access": {"issuers": [ISSUER]}},
    "openshift": {"podSecurity": {"assignUser": False, "seccompRuntimeDefault": False}},
    "weights-on-a-claim": nested("inference.model", {"source": "pvc", "id": "sd15", "path": "sd/v1-5", "pvc": {"claimName": "base"}}),
    "weights-in-the-store": nested("inference.model", {"source": "bucket", "id": "sd15", "bucket": {"url": "s3://models/sd15"}}),
    "weights-elsewhere": nested("inference.model", {"source": "bucket", "id": "sd15", "bucket": {
        "url": "s3://models/sd15", "endpoint": "https://s3.example.com:9443", "region": "eu-west-1", "existingSecret": "weights",
    }}),
    "weights-for-local-ray": {"ray": {"enabled": False}, **nested("inference.model", {
        "source": "bucket", "id": "sd15", "bucket": {"url": "s3://models/sd15"}})},
    "aws-with-a-role": {"store": {"enabled": False, "external": {"machineRole": True, "region": "eu-west-1"}},
                        "dataset": {"serviceAccountAnnotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/a"}}},
    "store-over-http": {"insecure": True, "store": {"enabled": False, "external": {
        "endpoint": "http://minio.storage:9000", "existingSecret": "s3"}}},
    "own-store-keys": {"store": {"existingSecret": "keys", "prefix": "a/b", "persistence": {"enabled": False}}},
    "signed-and-guarded": {
        "registry": {"signing": {"existingSecret": "signing"}},
        "inference": {"signaturePolicy": "require", "trustedKeys": {"a.pem": PEM, "b.pem": PEM},
                      "blockedWords": {"configMap": "words"}},
    },
    "queue-scaled-hpa": nested("inference.autoscaling", {"hpa": {"enabled": True, "cpuUtilizationPercent": 0, "queueDepth": 3}}),
    "without-network-policy": {"networkPolicy": {"enabled": False}},
    "images-of-a-mirror": {"images": {
        "registry": "mirror.example.com:5000/ml", "pullSecrets": ["mirror"], "pullPolicy": "Always",
        "control": {"digest": "sha256:" + "a" * 64}, "trainer": {"tag": "nightly"},
    }},
    "ray-token-of-ours": {"ray": {"existingSecret": "ray-token"}},
    "traced": {"tracing": {"otlpEndpoint": "http://collector.observability:4317", "sampleRatio": 0.1}},
    "placed": {
        component: {
            "nodeSelector": {"pool": "services"}, "priorityClassName": "high", "podAnnotations": {"a/b": "c"},
            "tolerations": [{"key": "dedicated", "operator": "Equal", "value": "terroir", "effect": "NoSchedule"}],
        } for component in ("dataset", "training", "registry", "inference", "store")
    },
    "ipv6": {"listenAddress": "::", "clusterDomain": "c.example"},
    "many-settings": {
        "dataset": {"settings": {"max_pictures": 800, "gates": {"minimum_side": 256, "few_pictures": 5}, "tagger_idle_seconds": 30.5}},
        "registry": {"settings": {"protected_aliases": ["production", "stable"], "max_upload_bytes": 1073741824}},
        "training": {"settings": {"max_lost_attempts": 5, "store_timeout_seconds": 60}},
        "inference": {"settings": {"adapter_disk_bytes": 10737418240, "warm_regions": ["regions/CN-ZJ"], "compiled": True}},
    },
    "only-prometheus-of-ray": {"monitoring": {"podMonitor": {"enabled": True, "labels": {"release": "kps"}}}},
    "short-names": {"fullnameOverride": "t", "nameOverride": "x"},
}  # fmt: skip

ALL: Final = {**CI, **OPTIONS}
# Both at once, where the pieces meet.
ALL["everything"] = merged(CI["many-gpus"], CI["mtls"], OPTIONS["signed-and-guarded"], OPTIONS["placed"], OPTIONS["traced"])
