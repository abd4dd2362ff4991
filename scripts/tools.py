"""Bring the programs that tests need and that are no Python packages: found, or built from their Go modules.

    python scripts/tools.py [NAME …]      prints `name path` for each; exit status 1 if one can't be had

They go into a cache outside the tree, keyed by version (~/.cache/terroir/tools, or TERROIR_TOOLS_CACHE), so a second
clone costs nothing. A first build of MinIO takes some minutes on two cores.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True)
class Tool:
    """A program built by `go install module@version`."""

    name: str
    module: str
    version: str
    command: str
    """Name of the program that Go makes of it."""
    about: str


TOOLS: Final = (
    Tool(
        "minio", "github.com/minio/minio", "v0.0.0-20260212201848-7aac2a2c5b7c", "minio",
        "the object store; upstream's last release, which exists as source alone",
    ),
    Tool(
        "toxiproxy", "github.com/Shopify/toxiproxy/v2/cmd/server", "v2.12.0", "server",
        "cuts and slows connections in tests of faults",
    ),
    Tool(
        "crane", "github.com/google/go-containerregistry/cmd/crane", "v0.20.6", "crane",
        "a container registry, and a client of one, for tests of OCI exports",
    ),
    Tool(
        "oras", "oras.land/oras/cmd/oras", "v1.2.3", "oras",
        "the client of container registries that the docs push OCI exports with",
    ),
    Tool(
        "ghz", "github.com/bojand/ghz/cmd/ghz", "v0.120.0", "ghz",
        "a load generator for gRPC that is not ours, for tests of the servers under many clients",
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
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        raise RuntimeError(
            f"{tool.name} is built from source and needs Go (install the package golang-go, 1.24 or later)"
        )
    print(f"tools: building {tool.name} {tool.version} ({tool.about}); minutes the first time", flush=True)
    scratch = target.parent / f"building-{os.getpid()}"
    began = time.monotonic()
    environment = {**os.environ, "GOBIN": str(scratch), "CGO_ENABLED": "0", "GOFLAGS": "-trimpath"}
    done = subprocess.run(
        [go, "install", "-ldflags=-s -w", f"{tool.module}@{tool.version}"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        shutil.rmtree(scratch, ignore_errors=True)
        last = "\n  ".join(done.stderr.strip().splitlines()[-5:])
        raise RuntimeError(f"{tool.name} could not be built:\n  {last}")
    (scratch / tool.command).replace(target)  # atomic: two clones may build at once
    shutil.rmtree(scratch, ignore_errors=True)
    print(f"tools: {tool.name} built in {time.monotonic() - began:.0f} s", flush=True)
    return target


def main() -> int:
    """All tools, or those named."""
    wanted = sys.argv[1:] or [tool.name for tool in TOOLS]
    known = {tool.name: tool for tool in TOOLS}
    if unknown := [name for name in wanted if name not in known]:
        print(f"tools: unknown {', '.join(unknown)}; there are: {', '.join(known)}", file=sys.stderr)
        return 2
    failed = False
    for name in wanted:
        try:
            print(f"{name} {build(known[name])}", flush=True)
        except RuntimeError as error:
            print(f"tools: {error}", file=sys.stderr)
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
