"""How the frozen bucket `tests/fixtures/registry/bucket-v1.tar.gz` was made; it is never made again.

    python -m tests.integration.registry.bucket_v1 OUT.tar.gz

The file is what registries of the first release left behind. Every later release must start on it and read all of it,
so a change of the layout comes with code that reads the old one, and with a bucket-v2 beside this.
"""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
import tempfile
from pathlib import Path

from PIL import Image

from terroir.common.clock import FixedClock
from terroir.common.principal import Principal, Role
from terroir.registry.assembly import Registry, assemble
from terroir.registry.moving.aliases import Move
from terroir.registry.moving.deprecation import DeprecationRequest
from terroir.registry.moving.presets import Preset
from terroir.registry.moving.state import Canary
from terroir.registry.publishing import PublishRequest
from terroir.registry.regions.recipes import RecipeAdapter, RecipeChoice, StyleRecipe
from terroir.registry.regions.regions import RegionSpec
from terroir.registry.regions.seasons import Season
from terroir.registry.settings import RegistrySettings
from terroir.registry.versions import Lineage
from terroir.store.local import LocalStore
from tests.unit.registry.adapter_kit import adapter_bytes
from tests.unit.registry.base_kit import write_base_folder

ANA = Principal("local:ana", frozenset({Role.OPERATOR}))


def fill(registry: Registry, clock: FixedClock) -> None:
    """Everything that a registry of this release can keep, at least once."""
    for number in (1, 2, 3):
        data = adapter_bytes(rank=number, seed=number)
        request = PublishRequest(
            "jiangnan", "tiny", "", len(data), hashlib.sha256(data).hexdigest(), "jnsty",
            Lineage(job="jobs/1", dataset_version="datasets/jiangnan/versions/1", checkpoint="jobs/1/checkpoints/300"),
            {"note": str(number)}, ("ink", "garden"), "CN-ZJ", {"style_similarity": 0.5 + number / 10}, "墨 and mist",
        )  # fmt: skip
        registry.publisher.publish(request, data, ANA, op_id=f"publish-{number}")
        clock.advance(60)
    data = adapter_bytes(rank=1, seed=9)
    request = PublishRequest("hebei", "tiny", "", len(data), hashlib.sha256(data).hexdigest())
    registry.publisher.publish(request, data, ANA, op_id="publish-hebei")
    adapters = registry.adapters
    adapters.set_alias(Move("jiangnan", "production", 1, "first"), ANA, op_id="set-1")
    clock.advance(60)
    adapters.set_alias(Move("jiangnan", "production", 3, "better", Canary(2, 5.0)), ANA, op_id="set-2")
    adapters.set_alias(Move("jiangnan", "staging", 2, ""), ANA, op_id="set-3")
    adapters.delete_alias("jiangnan", "staging", "not needed", ANA, op_id="delete-1")
    adapters.deprecate(DeprecationRequest("jiangnan", 1, "smears"), ANA, op_id="deprecate-1")
    registry.presets.set(
        "jiangnan", [Preset("soft", ("jnsty",), "{prompt}, jnsty", "photo", 0.8)], ANA, op_id="presets"
    )
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), "navy").save(picture, "PNG")
    registry.presets.add_sample("jiangnan", picture.getvalue(), ANA, caption="a lake", version="", op_id="sample")
    style = StyleRecipe((RecipeAdapter("adapters/jiangnan@production", 0.8),), "in ink, ")
    registry.recipes.put("tea", "Tea brand", style, ANA, op_id="recipe")
    tea = RecipeChoice(saved="tea")
    registry.regions.put(RegionSpec("x-jiangnan", "江南", None, tea), ANA, op_id="region-1")
    spring = Season("spring", RecipeChoice(style), "01-20", "02-20")
    registry.regions.put(RegionSpec("CN-ZJ", "浙江", "x-jiangnan", seasons=(spring,)), ANA, op_id="region-2")
    registry.live.refresh()
    registry.live.write_snapshot()
    adapters.set_alias(Move("hebei", "production", 1, "behind the snapshot"), ANA, op_id="set-4")


def main() -> None:
    """Write the archive, the same bytes each time but for what the store names by chance."""
    with tempfile.TemporaryDirectory() as scratch:
        root, clock = Path(scratch), FixedClock()
        base = write_base_folder(root / "base")
        store = LocalStore(root / "data")
        fill(assemble(store, clock, RegistrySettings(base_sources={"tiny": base})), clock)
        with tarfile.open(sys.argv[1], "w:gz") as archive:
            for key in store.list(""):
                archive.add(root / "data" / key, key)


if __name__ == "__main__":
    main()
