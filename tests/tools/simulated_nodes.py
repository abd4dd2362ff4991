"""The nodes of the test cluster: two zones, in each a node without GPU; GPU nodes of one, four and eight devices."""

from __future__ import annotations

from typing import Any, Final

GPU: Final = "nvidia.com/gpu"
ZONES: Final = ("zone-a", "zone-b")
GPUS_OF: Final = {"gpu-one": 1, "gpu-four": 4, "gpu-eight": 8}
_ZONE_OF: Final = {
    "cpu-a": "zone-a",
    "cpu-b": "zone-b",
    "gpu-one": "zone-a",
    "gpu-four": "zone-b",
    "gpu-eight": "zone-a",
}


def _node(name: str) -> dict[str, Any]:
    devices = GPUS_OF.get(name, 0)
    capacity = {"cpu": "96", "memory": "512Gi", "ephemeral-storage": "2Ti", "pods": "110"}
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "topology.kubernetes.io/zone": _ZONE_OF[name],
        "topology.kubernetes.io/region": "test",
    }
    taints = []
    if devices:
        capacity[GPU] = str(devices)
        # As NVIDIA's operator labels them, and as clouds taint them to keep other pods away.
        labels |= {"nvidia.com/gpu.present": "true"}
        taints = [{"key": GPU, "value": "present", "effect": "NoSchedule"}]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels},
        "spec": {"taints": taints},
        "status": {"capacity": capacity, "allocatable": capacity},
    }


NODES: Final = tuple(_node(name) for name in _ZONE_OF)

STORAGE_CLASS: Final[dict[str, Any]] = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    # The name that kwok's stages of volumes look for.
    "metadata": {"name": "kwok-volume", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
    "provisioner": "kwok.x-k8s.io/volume",
    "reclaimPolicy": "Delete",
    "volumeBindingMode": "Immediate",
}

HOOK_STAGE: Final[dict[str, Any]] = {
    "apiVersion": "kwok.x-k8s.io/v1alpha1",
    "kind": "Stage",
    "metadata": {"name": "pod-of-a-helm-test-completes"},
    "spec": {
        "resourceRef": {"apiGroup": "v1", "kind": "Pod"},
        "selector": {
            "matchExpressions": [
                {"key": ".metadata.deletionTimestamp", "operator": "DoesNotExist"},
                {"key": ".status.phase", "operator": "In", "values": ["Running"]},
                {"key": '.metadata.annotations["helm.sh/hook"]', "operator": "In", "values": ["test"]},
            ]
        },
        "next": {"statusTemplate": "phase: Succeeded\n"},
    },
}
