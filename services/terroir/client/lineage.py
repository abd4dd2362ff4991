"""Where a version came from, down to its pictures: what the registry knows, joined with the dataset service."""

from __future__ import annotations

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.client.datasets import Datasets
from terroir.client.registry import Registry


def lineage(registry: Registry, datasets: Datasets, name: str, *, pictures: bool = False) -> pb.GetLineageResponse:
    """The graph around a version, by number, alias or the newest.

    `pictures` adds those of every dataset version in it: nodes of kind `picture` named `picture:{digest}`, edges
    `part_of`. The registry does not have them, so this asks the dataset service too.
    """
    graph = registry.lineage(name)
    if pictures:
        known: set[str] = set()
        for dataset in [node.name for node in graph.nodes if node.kind == "dataset_version"]:
            for image in datasets.version(dataset).images:
                picture = f"picture:{image.digest}"
                if picture not in known:
                    known.add(picture)
                    graph.nodes.add(name=picture, kind="picture", digest=image.digest)
                graph.edges.add(source=picture, target=dataset, relation="part_of")
    return graph
