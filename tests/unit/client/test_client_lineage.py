"""The client joins the registry's lineage with the pictures that only the dataset service knows."""

from __future__ import annotations

from typing import Any

from terroir._proto.dataset.v1 import dataset_pb2
from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.client.lineage import lineage


class Known:
    """A registry and a dataset service that know two dataset versions with one picture in common."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def lineage(self, name: str) -> pb.GetLineageResponse:
        graph = pb.GetLineageResponse()
        graph.nodes.add(name=name, kind="adapter_version")
        for number in (1, 2):
            graph.nodes.add(name=f"datasets/tea/versions/{number}", kind="dataset_version")
        return graph

    def version(self, name: str) -> dataset_pb2.DatasetVersion:
        self.asked.append(name)
        return dataset_pb2.DatasetVersion(images=[dataset_pb2.Image(digest=digest) for digest in ("aa", name[-1])])


def test_pictures_hang_on_every_dataset_version_and_are_told_once() -> None:
    known: Any = Known()
    graph = lineage(known, known, "adapters/a/versions/1", pictures=True)
    assert [node.name for node in graph.nodes if node.kind == "picture"] == ["picture:aa", "picture:1", "picture:2"]
    assert [(edge.source, edge.relation, edge.target[-1]) for edge in graph.edges] == [
        ("picture:aa", "part_of", "1"),
        ("picture:1", "part_of", "1"),
        ("picture:aa", "part_of", "2"),
        ("picture:2", "part_of", "2"),
    ]


def test_the_dataset_service_is_not_asked_without_need() -> None:
    known: Any = Known()
    lineage(known, known, "adapters/a/versions/1")
    assert known.asked == []
