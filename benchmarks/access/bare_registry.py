"""The registry's servicer on a bare gRPC server: no interceptor, no TLS, no metrics, no logs. The peer of `overhead`.

python -m benchmarks.access.bare_registry ANNOUNCE_PATH    (configured by TERROIR_REGISTRY_… as the service is)
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from prometheus_client import CollectorRegistry

from terroir.common.principal import Principal, local_principal
from terroir.registry.main import build
from terroir.registry.settings import RegistrySettings


class _Everybody:
    def __init__(self, principal: Principal) -> None:
        self._principal = principal

    def of(self, _context: object) -> Principal:
        """See PrincipalSource."""
        return self._principal


class BareServer:
    """What `build` asks of a server, and nothing else."""

    def __init__(self, settings: RegistrySettings) -> None:
        self.registry = CollectorRegistry()
        self.principals = _Everybody(local_principal(settings.local_roles))
        self.server = grpc.aio.server()

    def add(self, servicer: Any, add_to_server: Callable[[Any, Any], None], _name: str) -> None:
        """See Server."""
        add_to_server(servicer, self.server)

    def on_stop(self, end: Callable[[], None]) -> None:
        """Nobody drains."""

    def scope_regions(self, region_of: Callable[[str], str]) -> None:
        """Nobody is limited."""


async def serve(announce: Path) -> None:
    """Serve until killed."""
    settings = RegistrySettings.load()
    bare = BareServer(settings)
    async with build(settings, bare):  # type: ignore[arg-type]  # the part of a server that it uses
        port = bare.server.add_insecure_port("127.0.0.1:0")
        await bare.server.start()
        announce.write_text(json.dumps({"ports": {"grpc": port}}))
        await bare.server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
