"""The host tier, the disk tier and the way between them, without torch or gRPC."""

from __future__ import annotations

import asyncio
import hashlib
import os
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from terroir.common.clock import FixedClock
from terroir.common.errors import TerroirError
from terroir.common.signatures import Signature, SignatureRefused, SignedFacts, Signer, Verifier
from terroir.inference.adapters.disk_cache import DiskCache
from terroir.inference.adapters.loading import AdapterLoader
from terroir.inference.adapters.residency import LoadedAdapter, Residency
from terroir.inference.adapters.signature_policy import SignaturePolicy, Strictness
from terroir.inference.adapters.sources import Recipe, VersionInfo
from terroir.inference.adapters.tier_metrics import TierMetrics
from terroir.inference.errors import AdapterCorrupt, AdapterMatchesNothing, AdapterMemoryFull
from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.formats import to_kohya
from terroir.lora.key_table import KeyTable
from tests.unit.common.signing_keys import write_key

LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
TABLE: KeyTable = {LAYER: (8, 8)}
SIZE = 2 * 8 * 4 * 2
"""Bytes of the rank-2 factors."""


def adapter_file(seed: int) -> bytes:
    """A kohya file of one layer."""
    rng = np.random.default_rng(seed)
    down, up = rng.standard_normal((2, 8), dtype=np.float32), rng.standard_normal((8, 2), dtype=np.float32)
    return to_kohya(Adapter({LAYER: LoraModule(down, up, 2.0)}), {})


FACTS = SignedFacts("adapters/a", "b" * 64, "t" * 64, "")


class CountingSource:
    """A registry of files by version name that counts downloads and can be made to wait or lie."""

    def __init__(self, *files: bytes) -> None:
        self.files = {f"adapters/a/versions/{number}": data for number, data in enumerate(files, 1)}
        self.downloads = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.altered = b""
        self.signature: Signature | None = None

    def info(self, number: int) -> VersionInfo:
        """What the registry says of a version."""
        name = f"adapters/a/versions/{number}"
        return VersionInfo(
            name,
            "bases/b",
            "b" * 64,
            hashlib.sha256(self.files[name]).hexdigest(),
            len(self.files[name]),
            FACTS,
            self.signature,
        )

    async def version(self, name: str) -> VersionInfo:
        return self.info(int(name.rsplit("/", 1)[1]))

    async def download(self, version: VersionInfo) -> bytes:
        self.downloads += 1
        await self.gate.wait()
        return self.files[version.name] + self.altered

    async def recipe(self, region: str) -> Recipe:
        return Recipe((), "", "", (region,))


def make_residency(
    source: CountingSource, folder: Path, budget: int = 1 << 20, signatures: SignaturePolicy | None = None
) -> Residency:
    """Real loader and disk over the source."""
    metrics, signatures = TierMetrics(CollectorRegistry()), signatures or SignaturePolicy("off", Verifier(()))
    disk = DiskCache(folder, 1 << 20, metrics)
    loader = AdapterLoader(source, disk, metrics, FixedClock(), signatures, max_rank=256, max_bytes=1 << 20)
    return Residency(loader, budget, metrics)


def test_one_digest_is_downloaded_once_however_many_ask_and_a_quitter_stops_nobody(tmp_path: Path) -> None:
    async def scenario() -> None:
        source = CountingSource(adapter_file(1))
        source.gate.clear()
        residency = make_residency(source, tmp_path)

        async def use() -> LoadedAdapter:
            async with residency.hold(source.info(1), TABLE) as loaded:
                return loaded

        users = [asyncio.create_task(use()) for _ in range(5)]
        while not source.downloads:
            await asyncio.sleep(0)
        users[0].cancel()
        source.gate.set()
        results = await asyncio.gather(*users, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert all(isinstance(result, LoadedAdapter) for result in results[1:])
        assert source.downloads == 1
        assert [entry.size_bytes for entry in residency.resident()] == [SIZE]

    asyncio.run(scenario())


def test_what_a_request_holds_is_never_evicted_and_the_rest_goes_oldest_first(tmp_path: Path) -> None:
    async def scenario() -> None:
        source = CountingSource(*(adapter_file(seed) for seed in range(4)))
        residency = make_residency(source, tmp_path, budget=2 * SIZE)
        async with AsyncExitStack() as held:
            await held.enter_async_context(residency.hold(source.info(1), TABLE))
            for number in (2, 3):
                async with residency.hold(source.info(number), TABLE):
                    pass
            assert [entry.version[-1] for entry in residency.resident()] == ["1", "3"]
            await held.enter_async_context(residency.hold(source.info(3), TABLE))
            with pytest.raises(AdapterMemoryFull) as refused:
                await held.enter_async_context(residency.hold(source.info(4), TABLE))
            assert refused.value.retry_after_seconds
        async with residency.hold(source.info(4), TABLE):
            assert residency.used_bytes <= residency.budget_bytes

    asyncio.run(scenario())


def test_the_disk_saves_the_second_download_and_damage_on_it_is_noticed(tmp_path: Path) -> None:
    async def load(source: CountingSource) -> None:
        residency = make_residency(source, tmp_path)
        async with residency.hold(source.info(1), TABLE):
            pass
        await residency.close()

    source = CountingSource(adapter_file(1))
    asyncio.run(load(source))
    asyncio.run(load(source))
    assert source.downloads == 1
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    asyncio.run(load(source))
    assert source.downloads == 2


def test_the_disk_drops_the_file_that_was_read_longest_ago(tmp_path: Path) -> None:
    disk = DiskCache(tmp_path, 25, TierMetrics(CollectorRegistry()))
    bodies = [b"0" * 10, b"1" * 10, b"2" * 10]
    digests = [hashlib.sha256(body).hexdigest() for body in bodies]
    for age, (digest, body) in enumerate(zip(digests[:2], bodies[:2], strict=True)):
        disk.put(digest, body)
        os.utime(tmp_path / f"{digest}.safetensors", (age, age))
    assert disk.get(digests[0]) == bodies[0]
    disk.put(digests[2], bodies[2])
    assert [disk.get(digest) is not None for digest in digests] == [True, False, True]


@pytest.mark.parametrize(
    ("data", "altered", "expected", "reason"),
    [
        (adapter_file(1), b"x", AdapterCorrupt, "ADAPTER_CORRUPT"),
        (b"no adapter", b"", TerroirError, "ADAPTER_FILE_UNREADABLE"),
    ],
)
def test_a_file_that_cannot_be_used_is_an_error_and_the_next_request_tries_again(
    tmp_path: Path, data: bytes, altered: bytes, expected: type[TerroirError], reason: str
) -> None:
    async def scenario() -> None:
        source = CountingSource(data)
        source.altered = altered
        residency = make_residency(source, tmp_path)
        for _ in range(2):
            with pytest.raises(expected) as refused:
                async with residency.hold(source.info(1), TABLE):
                    pass
            assert refused.value.reason == reason
            assert "adapters/a/versions/1" in str(refused.value)
        assert not list(residency.resident())

    asyncio.run(scenario())


def test_an_adapter_that_matches_no_layer_is_an_error(tmp_path: Path) -> None:
    async def scenario() -> None:
        source = CountingSource(adapter_file(1))
        with pytest.raises(AdapterMatchesNothing):
            async with make_residency(source, tmp_path).hold(source.info(1), {"unet.conv_in": (8, 8, 3, 3)}):
                pass

    asyncio.run(scenario())


@pytest.mark.parametrize("strictness", ["off", "warn", "require"])
def test_what_nobody_signed_is_loaded_unless_signatures_are_required(tmp_path: Path, strictness: Strictness) -> None:
    signer, verifier = keys(tmp_path)
    source = CountingSource(adapter_file(1))
    residency = make_residency(source, tmp_path / "disk", signatures=SignaturePolicy(strictness, verifier))

    async def load() -> None:
        async with residency.hold(source.info(1), TABLE):
            pass

    if strictness == "require":
        with pytest.raises(SignatureRefused) as caught:
            asyncio.run(load())
        assert caught.value.reason == "SIGNATURE_MISSING"
    else:
        asyncio.run(load())
    source.signature = signer.sign(source.files["adapters/a/versions/1"], FACTS)
    asyncio.run(load())


@pytest.mark.parametrize("strictness", ["off", "require"])
def test_an_unsigned_version_does_not_profit_from_a_signed_one_with_the_same_file(
    tmp_path: Path, strictness: Strictness
) -> None:
    """Found in review: the file was in memory, so the second version's own signature was never asked for."""
    signer, verifier = keys(tmp_path)
    source = CountingSource(adapter_file(1), adapter_file(1))
    residency = make_residency(source, tmp_path / "disk", signatures=SignaturePolicy(strictness, verifier))
    unsigned = source.info(2)
    source.signature = signer.sign(source.files["adapters/a/versions/1"], FACTS)

    async def use(version: VersionInfo) -> None:
        async with residency.hold(version, TABLE):
            pass

    async def scenario() -> None:
        await use(source.info(1))
        await use(source.info(2))
        for _ in range(2):
            if strictness == "require":
                with pytest.raises(SignatureRefused):
                    await use(replace(unsigned, name="adapters/b/versions/1"))
            else:
                await use(replace(unsigned, name="adapters/b/versions/1"))
        assert [entry.pins for entry in residency.resident()] == [0]

    asyncio.run(scenario())
    assert source.downloads == 1


def keys(folder: Path) -> tuple[Signer, Verifier]:
    """A signer and a verifier that trusts it."""
    key = write_key(folder / "a.pem")
    return Signer(key), Verifier([key.with_suffix(".pub")])
