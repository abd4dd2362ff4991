"""A version's training print on its way from the registry to an inference server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from terroir.client.registry import Registry
from terroir.common.errors import TerroirError
from terroir.common.grpc_client import aio_channel, channel
from terroir.inference.adapters.registry_gateway import RegistryGateway
from terroir.inference.adapters.sources import AdapterSource, VersionInfo
from terroir.registry.settings import RegistrySettings
from tests.contract.registry.running import Running, running_registry
from tests.unit.inference.tier_kit import FakeRegistry, small_file
from tests.unit.registry.adapter_kit import adapter_bytes
from tests.unit.registry.base_kit import write_base_folder
from tests.unit.scoring.print_kit import made_up

PRINT = made_up().to_bytes()
PRINTED, PLAIN = "adapters/printed", "adapters/plain"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Running]:
    """With a version that has a print and one that has none."""
    sources = {"tiny": write_base_folder(tmp_path / "tiny")}
    with running_registry(RegistrySettings(data_dir=tmp_path / "data", port=0, base_sources=sources)) as running:
        running.publish(PRINTED, adapter_bytes(1), training_print=PRINT)
        running.publish(PLAIN, adapter_bytes(1))
        yield running


async def prints(source: AdapterSource) -> list[bytes | None]:
    """Of both versions."""
    return [await source.training_print(await source.version(name)) for name in (PRINTED, PLAIN)]


def gateway_prints(registry: Running) -> list[bytes | None]:
    """The same over gRPC."""

    async def ask() -> list[bytes | None]:
        async with aio_channel(f"127.0.0.1:{registry.port}") as opened:
            return await prints(RegistryGateway(opened, 10))

    return asyncio.run(ask())


def test_a_version_s_print_is_had_by_the_gateway_and_by_the_fake_and_none_where_there_is_none(
    registry: Running,
) -> None:
    fake = FakeRegistry()
    fake.prints["a" * 64] = PRINT
    fake.publish(f"{PRINTED}/versions/1", small_file(1), training_print_digest="a" * 64)
    fake.publish(f"{PLAIN}/versions/1", small_file(2))
    assert gateway_prints(registry) == asyncio.run(prints(fake)) == [PRINT, None]


def test_a_program_has_it_from_the_client(registry: Running) -> None:
    with channel(f"127.0.0.1:{registry.port}") as opened:
        client = Registry(opened)
        assert (client.training_print(PRINTED), client.training_print(PLAIN)) == (PRINT, None)


def test_a_damaged_print_is_told_and_never_handed_on(registry: Running) -> None:
    async def ask() -> VersionInfo:
        async with aio_channel(f"127.0.0.1:{registry.port}") as opened:
            return await RegistryGateway(opened, 10).version(PRINTED)

    registry.damage_blob(asyncio.run(ask()).training_print_digest)
    with pytest.raises(TerroirError, match="corrupt"):
        gateway_prints(registry)
