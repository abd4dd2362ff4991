"""Many adapters in a store within minutes: documents as the registry writes them, without its checks and retries."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final

from terroir.registry.moving.state import AdapterState, AliasEntry
from terroir.registry.versions import Lineage, Manifest, StoredFile
from terroir.store.interface import ObjectStore

_REGIONS: Final = ("CN-ZJ", "CN-JS", "CN-SC", "CN-GD", "330100", "510100", "JP-13", "FR-75", "x-jiangnan")
_TAGS: Final = tuple(f"tag-{number}" for number in range(40))
_BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)
ALIASED_EVERY: Final = 10
_BATCH: Final = 4096

_Object = tuple[str, bytes]


def adapter_id(number: int) -> str:
    """Id of one of them; number 0 and every tenth has the alias `production`."""
    return f"style-{number:06d}"


def fill(store: ObjectStore, count: int, threads: int = 32) -> None:
    """Write `count` adapters of one version each; the store must hold no adapters."""
    objects = _objects(count)
    with ThreadPoolExecutor(threads, "fill") as pool:
        while batch := list(islice(objects, _BATCH)):
            for _ in pool.map(lambda each: store.put(*each), batch):
                pass


def _objects(count: int) -> Iterator[_Object]:
    chance = random.Random(4)
    last: dict[str, bytes] = {}
    aliased = 0
    for number in range(count):
        adapter, created = adapter_id(number), (_BEGIN + timedelta(minutes=number)).isoformat(timespec="milliseconds")
        yield _document(f"adapters/{adapter}", 1, _manifest(adapter, chance).to_body(), created)
        key, last["adapters"] = _document("adapters/INDEX", number + 1, {"id": adapter}, created)
        yield key, last["adapters"]
        if number % ALIASED_EVERY == 0:
            aliased += 1
            yield _document(f"aliases/{adapter}", 1, _state(adapter, created), created)
            key, last["aliases"] = _document("aliases/INDEX", aliased, {"id": adapter}, created)
            yield key, last["aliases"]
    for collection, body in last.items():
        newest = aliased if collection == "aliases" else count
        yield f"{collection}/INDEX/HEAD", f"{newest}-{hashlib.sha256(body).hexdigest()[:32]}".encode()


def _document(sequence: str, number: int, body: dict[str, Any], created: str) -> _Object:
    fields = {
        "number": number, "op_id": f"{sequence}-{number}", "request_digest": "0" * 64, "created_at": created,
        "body": body,
    }  # fmt: skip
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"{sequence}/{number:020d}.json", text.encode()


def _manifest(adapter: str, chance: random.Random) -> Manifest:
    digests = [chance.randbytes(32).hex() for _ in range(5)]
    return Manifest(
        base="terroir-tiny",
        base_digest="b" * 64,
        kohya=StoredFile(digests[0], 6_000_000),
        tensor_digest=digests[1],
        rank=16,
        matched_layers=192,
        ignored=(),
        trigger_word=f"{adapter[-6:]}sty",
        lineage=Lineage(job=f"jobs/{adapter}", config_digest=digests[2]),
        labels={"studio": "bench"},
        upload_digest=digests[0],
        upload_format="kohya",
        actor="local:bench",
        tags=tuple(chance.sample(_TAGS, 5)),
        region=chance.choice(_REGIONS),
        metrics={"style_similarity": round(chance.random(), 3), "loss": round(chance.random(), 3)},
        description=f"A style of ink and water, number {adapter[-6:]}, for measuring how searches answer.",
        hashes={
            "autov1": digests[3][:8],
            "autov2": digests[0][:10],
            "autov3": digests[2][:12],
            "kohya": digests[2],
            "diffusers": digests[4],
        },
    )


def _state(adapter: str, created: str) -> dict[str, Any]:
    entry = AliasEntry(1, "local:bench", "measured", created)
    change = {
        "action": "set_alias", "name": f"adapters/{adapter}@production", "actor": "local:bench", "reason": "measured",
        "request_id": "", "before": "", "after": "",
    }  # fmt: skip
    return {**AdapterState(aliases={"production": entry}).to_body(), "change": change}
