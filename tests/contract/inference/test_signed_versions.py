"""A signed version on its way from the registry into an inference server, and all that could be altered on it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.common.clock import FixedClock
from terroir.common.grpc_client import aio_channel
from terroir.common.signatures import SignatureRefused, Signer, Verifier
from terroir.inference.adapters.disk_cache import DiskCache
from terroir.inference.adapters.loading import AdapterLoader
from terroir.inference.adapters.registry_gateway import RegistryGateway
from terroir.inference.adapters.residency import LoadedAdapter
from terroir.inference.adapters.signature_policy import SignaturePolicy, Strictness
from terroir.inference.adapters.tier_metrics import TierMetrics
from terroir.lora.formats import parse
from terroir.lora.key_table import key_table_of
from terroir.registry.settings import RegistrySettings
from tests.contract.registry.running import running_registry
from tests.unit.common.signing_keys import write_key
from tests.unit.registry.adapter_kit import adapter_bytes
from tests.unit.registry.base_kit import TEXT_SHAPES, UNET_SHAPES, write_base_folder

ADAPTER = "adapters/jiangnan"
TABLE = key_table_of(UNET_SHAPES, TEXT_SHAPES)


class Bucket:
    """A registry's folder, and what somebody who can write to it may do between two of its runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = write_base_folder(folder / "base")
        self.key = write_key(folder / "registry.pem")

    def settings(self, key: Path | None) -> RegistrySettings:
        """Of a registry on this bucket that signs with `key`."""
        return RegistrySettings(
            data_dir=self.folder / "data", port=0, base_sources={"tiny": self.base}, signing_key=key
        )

    def publish(self, *files: bytes, key: Path | None) -> list[pb.AdapterVersion]:
        """Versions of one adapter, the first of them number 1 unless there are some."""
        with running_registry(self.settings(key)) as registry:
            return [registry.publish(ADAPTER, file, trigger_word=f"word{n}") for n, file in enumerate(files)]

    def alter(self, number: int, change: Callable[[dict[str, Any]], None]) -> None:
        """Rewrite a version's document."""
        path = self.folder / "data" / "adapters" / "jiangnan" / f"{number:020d}.json"
        document = json.loads(path.read_bytes())
        change(document["body"])
        path.chmod(0o644)
        path.write_text(json.dumps(document))

    def body(self, number: int) -> dict[str, Any]:
        """What a version's document says."""
        path = self.folder / "data" / "adapters" / "jiangnan" / f"{number:020d}.json"
        body: dict[str, Any] = json.loads(path.read_bytes())["body"]
        return body

    def put_blob(self, data: bytes) -> str:
        """Store a blob under its right digest."""
        digest = hashlib.sha256(data).hexdigest()
        path = self.folder / "data" / "blobs" / "sha256" / digest[:2] / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return digest

    def load(
        self, number: int = 1, *, trusted: list[Path] | None = None, policy: Strictness = "require"
    ) -> LoadedAdapter:
        """As an inference server with an empty disk does; the registry is started anew, so it reads the bucket."""
        keys = [self.key.with_suffix(".pub")] if trusted is None else trusted
        metrics = TierMetrics(CollectorRegistry())
        disk = DiskCache(self.folder / "cache", 1 << 20, metrics)

        async def load(port: int) -> LoadedAdapter:
            async with aio_channel(f"127.0.0.1:{port}") as channel:
                source = RegistryGateway(channel, 10)
                signatures = SignaturePolicy(policy, Verifier(keys))
                loader = AdapterLoader(source, disk, metrics, FixedClock(), signatures, max_rank=256, max_bytes=1 << 20)
                loaded = await loader.load(await source.version(f"{ADAPTER}/versions/{number}"), TABLE)
                await loader.close()
                return loaded

        with running_registry(self.settings(None)) as registry:
            return asyncio.run(load(registry.port))

    def refusal(self, number: int = 1, trusted: list[Path] | None = None) -> str:
        """The reason with which `load` is refused under `require`."""
        with pytest.raises(SignatureRefused) as caught:
            self.load(number, trusted=trusted)
        assert ADAPTER in str(caught.value)
        return caught.value.reason


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return Bucket(tmp_path)


def test_what_a_registry_signed_is_loaded_and_says_by_which_key(bucket: Bucket) -> None:
    (version,) = bucket.publish(adapter_bytes(2), key=bucket.key)
    assert version.signature.key_id == Signer(bucket.key).key_id
    assert bucket.load().digest == version.file_digest


def test_a_retry_of_a_publish_keeps_the_first_signature(bucket: Bucket) -> None:
    """Signatures on elliptic curves differ each time; the version that was made must not."""
    data = adapter_bytes(2)
    with running_registry(bucket.settings(bucket.key)) as registry:
        first, again = (
            registry.publish(ADAPTER, data, request_id="3" * 8 + "-0000-4000-8000-" + "0" * 12) for _ in "ab"
        )
    assert first == again
    assert first.signature.bundle


def test_the_diffusers_file_holds_the_signed_tensors(bucket: Bucket) -> None:
    """The signature covers the kohya file and the tensors' digest, which the other file's tensors must give too."""
    with running_registry(bucket.settings(bucket.key)) as registry:
        version = registry.publish(ADAPTER, adapter_bytes(2))
        _, data = registry.download(version.name, pb.ADAPTER_FORMAT_DIFFUSERS)
    assert parse(data, TABLE).adapter.tensor_digest() == version.tensor_digest


def _other_file(bucket: Bucket, body: dict[str, Any]) -> None:
    data = adapter_bytes(2, seed=9)
    body["kohya"] = {"digest": bucket.put_blob(data), "size_bytes": len(data)}


def _file_of_version_2(bucket: Bucket, body: dict[str, Any]) -> None:
    body["kohya"] = bucket.body(2)["kohya"]


def _bundle_of_version_2(bucket: Bucket, body: dict[str, Any]) -> None:
    body["signature"] = bucket.body(2)["signature"]


def _payload(bucket: Bucket, body: dict[str, Any]) -> None:
    bundle = json.loads(body["signature"]["bundle"])
    other = json.loads(bucket.body(2)["signature"]["bundle"])
    bundle["dsseEnvelope"]["payload"] = other["dsseEnvelope"]["payload"]
    body["signature"]["bundle"] = json.dumps(bundle)


def _own_signature(bucket: Bucket, body: dict[str, Any]) -> None:
    """Somebody signs another file with a key of their own and claims the registry's."""
    _other_file(bucket, body)
    stranger = Bucket(bucket.folder / "stranger")
    stranger.publish(adapter_bytes(2, seed=9), key=stranger.key)
    body["signature"] = {**stranger.body(1)["signature"], "key_id": body["signature"]["key_id"]}


def _fact(name: str, value: str) -> Callable[[Bucket, dict[str, Any]], None]:
    return lambda _, body: body.update({name: value})


ALTERED = {
    "the file": _other_file,
    "the file, by another version's": _file_of_version_2,
    "the bundle, by another version's": _bundle_of_version_2,
    "the statement in the bundle": _payload,
    "file and bundle, by somebody else's": _own_signature,
    "the base": _fact("base_digest", "0" * 64),
    "the tensors' digest": _fact("tensor_digest", "0" * 64),
    "the trigger word": _fact("trigger_word", "other word"),
    "the bundle, by nonsense": lambda _, body: body["signature"].update(bundle="{}"),
}


@pytest.mark.parametrize("change", ALTERED.values(), ids=ALTERED)
def test_nothing_that_was_signed_can_be_altered_in_the_bucket(
    bucket: Bucket, change: Callable[[Bucket, dict[str, Any]], None]
) -> None:
    bucket.publish(adapter_bytes(2), adapter_bytes(2, seed=2), key=bucket.key)
    bucket.alter(1, lambda body: change(bucket, body))
    assert bucket.refusal() == "SIGNATURE_INVALID"
    assert bucket.load(2).version.endswith("/2")


def test_a_signature_can_not_be_dropped_nor_made_with_an_untrusted_key(bucket: Bucket, tmp_path: Path) -> None:
    bucket.publish(adapter_bytes(2), key=bucket.key)
    bucket.publish(adapter_bytes(2, seed=2), key=write_key(tmp_path / "other.pem"))
    bucket.publish(adapter_bytes(2, seed=3), key=None)
    assert bucket.refusal(2) == "SIGNATURE_KEY_UNKNOWN"
    assert bucket.refusal(3) == "SIGNATURE_MISSING"
    bucket.alter(1, lambda body: body.update(signature=None))
    assert bucket.refusal(1) == "SIGNATURE_MISSING"
    assert bucket.refusal(2, trusted=[]) == "SIGNATURE_KEY_UNKNOWN"


def test_looser_policies_load_what_is_not_proved(bucket: Bucket) -> None:
    (version,) = bucket.publish(adapter_bytes(2), key=None)
    for policy in ("warn", "off"):
        assert bucket.load(policy=policy).digest == version.file_digest


def test_while_keys_change_versions_of_both_are_loaded_and_then_only_the_new(bucket: Bucket, tmp_path: Path) -> None:
    new = write_key(tmp_path / "new.pem")
    bucket.publish(adapter_bytes(2), key=bucket.key)
    bucket.publish(adapter_bytes(2, seed=2), key=new)
    both = [bucket.key.with_suffix(".pub"), new.with_suffix(".pub")]
    assert {bucket.load(number, trusted=both).version[-1] for number in (1, 2)} == {"1", "2"}
    assert bucket.refusal(1, trusted=both[1:]) == "SIGNATURE_KEY_UNKNOWN"
    assert bucket.load(2, trusted=both[1:]).version.endswith("/2")


def test_what_lies_on_the_disk_is_proved_again(bucket: Bucket) -> None:
    """An inference server that once loaded with a loose policy must not serve its cache under a strict one."""
    bucket.publish(adapter_bytes(2), key=None)
    bucket.load(policy="off")
    assert list((bucket.folder / "cache").rglob("*"))
    assert bucket.refusal() == "SIGNATURE_MISSING"
