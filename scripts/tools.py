"""Bring the programs that tests need and that are no Python packages: found, or built from their Go modules.

    python scripts/tools.py [NAME …]      prints `name path` for each; exit status 1 if one can't be had
    python scripts/tools.py --cluster     those that a Kubernetes control plane is made of as well

They go into a cache outside the tree, keyed by version (~/.cache/terroir/tools, or TERROIR_TOOLS_CACHE), so a second
clone costs nothing. A first build of MinIO takes some minutes on two cores, one of Kubernetes about ten.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a script, whose folder is on the path and not the repository
    sys.path.insert(0, str(ROOT))

from scripts.tools_recipes import (  # noqa: E402
    DebianPackage,
    GeneratedDefinitions,
    GoBuild,
    GoInstall,
    GoModuleFiles,
    Recipe,
)


@dataclass(frozen=True)
class Tool:
    """A program, or a folder of files, of one version."""

    name: str
    version: str
    about: str
    recipe: Recipe


TOOLS: Final = (
    Tool(
        "minio", "v0.0.0-20260212201848-7aac2a2c5b7c",
        "the object store; upstream's last release, which exists as source alone",
        GoInstall("github.com/minio/minio", "minio"),
    ),
    Tool(
        "toxiproxy", "v2.12.0", "cuts and slows connections in tests of faults",
        GoInstall("github.com/Shopify/toxiproxy/v2/cmd/server", "server"),
    ),
    Tool(
        "crane", "v0.20.6", "a container registry, and a client of one, for tests of OCI exports",
        GoInstall("github.com/google/go-containerregistry/cmd/crane", "crane"),
    ),
    Tool(
        "oras", "v1.2.3", "the client of container registries that the docs push OCI exports with",
        GoInstall("oras.land/oras/cmd/oras", "oras"),
    ),
    Tool(
        "ghz", "v0.120.0", "a load generator for gRPC that is not ours, for tests of the servers under many clients",
        GoInstall("github.com/bojand/ghz/cmd/ghz", "ghz"),
    ),
    Tool(
        "grpcurl", "v1.9.4", "a gRPC client that is not ours, for commands in the docs and probes of running servers",
        GoInstall("github.com/fullstorydev/grpcurl/cmd/grpcurl", "grpcurl"),
    ),
    Tool(
        "helm", "v4.3.1", "renders and installs the chart", GoInstall("helm.sh/helm/v4/cmd/helm", "helm"),
    ),
    Tool(
        "kubeconform", "v0.8.0", "validates rendered manifests against schemas",
        GoInstall("github.com/yannh/kubeconform/cmd/kubeconform", "kubeconform"),
    ),
    Tool(
        "prometheus", "2.42", "scrapes the running services in tests",
        DebianPackage("prometheus", "usr/bin/prometheus"),
    ),
    Tool(
        "promtool", "2.42", "checks and tests alert rules", DebianPackage("prometheus", "usr/bin/promtool"),
    ),
)  # fmt: skip

_KUBERNETES: Final = "v1.36.3"


def _kubernetes(command: str, about: str) -> Tool:
    major, minor, patch = _KUBERNETES.removeprefix("v").split(".")
    stamp = "k8s.io/component-base/version"
    # Without these it calls itself v0.0.0-master, which Helm cannot parse.
    ldflags = f"-X {stamp}.gitVersion={_KUBERNETES} -X {stamp}.gitMajor={major} -X {stamp}.gitMinor={minor}"
    recipe = GoBuild("k8s.io/kubernetes", f"k8s.io/kubernetes/cmd/{command}", f"v0.{minor}.{patch}", ldflags)
    return Tool(command, _KUBERNETES, about, recipe)


CLUSTER_TOOLS: Final = (
    Tool(
        "etcd", "v3.6.16", "where the Kubernetes API server keeps its objects",
        GoBuild("go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/server/v3"),
    ),
    _kubernetes("kube-apiserver", "the Kubernetes API with its admission and authorization"),
    _kubernetes("kube-controller-manager", "makes pods of deployments, claims, disruption budgets"),
    _kubernetes("kube-scheduler", "places pods by GPU count and zone"),
    _kubernetes("kubectl", "its client"),
    Tool("kwok", "v0.8.0", "nodes that run no containers", GoInstall("sigs.k8s.io/kwok/cmd/kwok", "kwok")),
    Tool(
        "kwok-stages", "v0.8.0", "how pods, nodes and volumes come up on such nodes",
        GoModuleFiles(
            "sigs.k8s.io/kwok",
            ("kustomize/stage/node/fast/node-*.yaml", "kustomize/stage/pod/fast/pod-*.yaml",
             "kustomize/stage/volume/fast/p*.yaml"),
        ),
    ),
    Tool(
        "prometheus-operator-crds", "v0.95.1", "ServiceMonitor, PrometheusRule and their like",
        GeneratedDefinitions(
            "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1", generator="v0.23.0",
        ),
    ),
    Tool(
        "keda-crds", "v2.21.0", "ScaledObject and its like",
        GoModuleFiles("github.com/kedacore/keda/v2", ("config/crd/bases/keda.sh_*.yaml",)),
    ),
    Tool(
        "cert-manager-crds", "v1.21.2", "Certificate and Issuer",
        GoModuleFiles("github.com/cert-manager/cert-manager", ("deploy/crds/cert-manager.io_*.yaml",)),
    ),
)  # fmt: skip


def cache() -> Path:
    """Where programs are kept."""
    named = os.environ.get("TERROIR_TOOLS_CACHE")
    return (
        Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "terroir" / "tools"
    )


def path_of(tool: Tool) -> Path:
    """Where this version is, once it is built."""
    return cache() / tool.name / tool.version / tool.name


def build(tool: Tool) -> Path:
    """Build it unless it is there; raises RuntimeError with the next step."""
    target = path_of(tool)
    if target.exists():
        return target
    print(f"tools: building {tool.name} {tool.version} ({tool.about}); minutes the first time", flush=True)
    began = time.monotonic()
    scratch = target.parent / f"building-{os.getpid()}"
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        made = tool.recipe.make(tool.name, tool.version, scratch)
        try:
            made.replace(target)  # atomic: two clones may build at once
        except OSError:
            if not target.is_dir():  # a folder does not replace the one that another clone has just put there
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"tools: {tool.name} built in {time.monotonic() - began:.0f} s", flush=True)
    return target


def main() -> int:
    """All tools, or those named."""
    known = {tool.name: tool for tool in (*TOOLS, *CLUSTER_TOOLS)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(known)}")
    parser.add_argument("--cluster", action="store_true", help="also what a Kubernetes control plane is made of")
    asked = parser.parse_args()
    usual = [tool.name for tool in (*TOOLS, *(CLUSTER_TOOLS if asked.cluster else ()))]
    if unknown := [name for name in asked.names if name not in known]:
        print(f"tools: unknown {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    failed = False
    for name in asked.names or usual:
        try:
            print(f"{name} {build(known[name])}", flush=True)
        except RuntimeError as error:
            print(f"tools: {error}", file=sys.stderr)
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
