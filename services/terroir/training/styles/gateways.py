"""The dataset service and the registry, as a registration sees them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from terroir._proto.dataset.v1 import dataset_pb2
from terroir._proto.registry.v1 import recipe_pb2, region_pb2
from terroir.client.datasets import Datasets, scan_folder
from terroir.client.regions import Regions
from terroir.client.registry import Registry
from terroir.common.errors import NotFound
from terroir.training.styles.ports import DatasetFacts, NewDataset, Progress, Usable

_USABLE: Final = (dataset_pb2.VERDICT_PASS, dataset_pb2.VERDICT_WARN)
_KEPT_OUT: Final = (dataset_pb2.VERDICT_QUARANTINE, dataset_pb2.VERDICT_REJECT)
_WEIGHT: Final = 1.0


class DatasetGateway:
    """`DatasetHouse` over gRPC."""

    def __init__(self, datasets: Datasets) -> None:
        self._datasets = datasets

    def find(self, dataset_id: str) -> DatasetFacts | None:
        """See DatasetHouse."""
        try:
            found = self._datasets.get(f"datasets/{dataset_id}")
        except NotFound:
            return None
        return DatasetFacts(dataset_id, found.region, found.rights_statement, found.image_count)

    def create(self, dataset: NewDataset, request_id: str) -> None:
        """See DatasetHouse."""
        fields = dataset_pb2.Dataset(
            display_name=dataset.id, region=dataset.region, rights_statement=dataset.rights_statement,
            trigger_word=dataset.trigger_word, license=dataset.license,
        )  # fmt: skip
        self._datasets.create(dataset.id, fields, request_id)

    def import_folder(self, dataset_id: str, folder: Path, progress: Progress) -> None:
        """See DatasetHouse."""
        pictures = scan_folder(folder)
        for done, _ in enumerate(self._datasets.import_pictures(f"datasets/{dataset_id}", pictures), start=1):
            progress(done, len(pictures))

    def usable(self, dataset_id: str) -> Usable:
        """See DatasetHouse."""
        count = total = 0
        gates: Counter[str] = Counter()
        for image in self._datasets.images(f"datasets/{dataset_id}"):
            total += 1
            if image.verdict in _USABLE:
                count += 1
            else:
                gates.update({finding.gate for finding in image.findings if finding.verdict in _KEPT_OUT})
        return Usable(count, total, dict(gates.most_common()))

    def caption(self, dataset_id: str, progress: Progress) -> None:
        """See DatasetHouse."""
        for answer in self._datasets.caption(f"datasets/{dataset_id}"):
            progress(answer.done, answer.total)

    def freeze(self, dataset_id: str, request_id: str) -> str:
        """See DatasetHouse."""
        return str(self._datasets.freeze(f"datasets/{dataset_id}", request_id).name)


class RegistryGateway:
    """`StyleShelf` over gRPC."""

    def __init__(self, registry: Registry, regions: Regions) -> None:
        self._registry = registry
        self._regions = regions

    def region(self, code: str) -> str | None:
        """See StyleShelf."""
        try:
            return str(self._regions.get(f"regions/{code}").name).removeprefix("regions/")
        except NotFound:
            return None

    def regions(self) -> Sequence[str]:
        """See StyleShelf."""
        return [region.name.removeprefix("regions/") for region in self._regions.list()]

    def region_of_adapter(self, adapter: str) -> str | None:
        """See StyleShelf."""
        try:
            return str(self._registry.version(f"adapters/{adapter}", strong=True).region).removeprefix("regions/")
        except NotFound:
            return None

    def metrics(self, version: str) -> Mapping[str, float]:
        """See StyleShelf."""
        return dict(self._registry.version(version, strong=True).metrics)

    def set_alias(self, adapter: str, alias: str, version: str, *, reason: str, request_id: str) -> None:
        """See StyleShelf."""
        self._registry.set_alias(f"adapters/{adapter}", alias, version, reason=reason, request_id=request_id)

    def assign(self, region: str, adapter: str, request_id: str) -> None:
        """See StyleShelf. The request's identifier gets the region's etag, as a region that changed is another one."""
        found = self._regions.get(f"regions/{region}")
        version = self._registry.version(f"adapters/{adapter}", strong=True)
        recipe = recipe_pb2.StyleRecipe(
            adapters=[recipe_pb2.RecipeAdapter(adapter=f"adapters/{adapter}", weight=_WEIGHT)],
            prompt_prefix=version.trigger_word,
        )
        if found.recipe == recipe:
            return
        wanted = region_pb2.Region()
        wanted.CopyFrom(found)
        wanted.ClearField("saved_recipe")
        wanted.recipe.CopyFrom(recipe)
        self._regions.put(wanted, f"{request_id}/{hashlib.sha256(found.etag.encode()).hexdigest()[:8]}")
