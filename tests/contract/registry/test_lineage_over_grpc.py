"""GetLineage over gRPC, and `terroir base` and `terroir adapter lineage` against a running registry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.common.errors import TerroirError
from tests.contract.registry.running import Running, refused
from tests.contract.registry.test_region_commands import Shell
from tests.unit.registry.adapter_kit import adapter_bytes
from tests.unit.registry.base_kit import write_base_folder

TRAINED = pb.Lineage(
    job="jobs/j1",
    dataset_version="datasets/tea/versions/2",
    dataset_digest="a" * 64,
    config_digest="c" * 64,
    code_version="0.1.0",
    checkpoint="jobs/j1/checkpoints/600",
)


@pytest.fixture
def family(registry: Running) -> Running:
    """`jiangnan`, version 2 of which was trained from version 1 and is in production."""
    registry.publish("adapters/jiangnan", adapter_bytes(rank=1), lineage=TRAINED)
    parent = pb.Lineage(job="jobs/j2", parent="adapters/jiangnan/versions/1")
    registry.publish("adapters/jiangnan", adapter_bytes(rank=1, seed=1), lineage=parent)
    registry.set_alias("production", 2)
    return registry


@pytest.fixture
def shell(family: Running, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Shell]:
    """A command line that finds the family."""
    services = ("dataset", "training", "registry", "inference")
    monkeypatch.setenv("TERROIR_ENDPOINTS", ",".join(f"{name}=127.0.0.1:{family.port}" for name in services))
    monkeypatch.chdir(tmp_path)
    with capture_logs():  # the server logs to the standard output that the commands have here
        yield Shell(family)


def test_the_graph_runs_from_the_dataset_to_the_alias_and_starts_with_the_version(family: Running) -> None:
    graph = family.api.GetLineage(pb.GetLineageRequest(name="adapters/jiangnan@production"))
    assert (graph.nodes[0].name, graph.nodes[0].kind) == ("adapters/jiangnan/versions/2", "adapter_version")
    kinds = {node.name: (node.kind, node.digest) for node in graph.nodes}
    base = family.api.GetBase(pb.GetBaseRequest(name="bases/tiny"))
    assert kinds["bases/tiny"] == ("base", base.digest)
    assert kinds["datasets/tea/versions/2"] == ("dataset_version", "a" * 64)
    assert kinds["adapters/jiangnan@production"] == ("alias", "")
    path = {(edge.relation, edge.target): edge.source for edge in graph.edges}
    first = path["continued_from", "adapters/jiangnan/versions/2"]
    assert path["trained_on", first] == "datasets/tea/versions/2"
    assert path["configured_by", path["made_by", path["made_by", first]]] == f"config:{'c' * 64}"
    assert path["points_at", "adapters/jiangnan@production"] == "adapters/jiangnan/versions/2"


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        ("adapters/none", "NOT_FOUND", "ADAPTER_NOT_FOUND"),
        ("adapters/jiangnan/versions/9", "NOT_FOUND", "VERSION_NOT_FOUND"),
        ("adapters/jiangnan@none", "NOT_FOUND", "ALIAS_NOT_FOUND"),
        ("jobs/j1", "INVALID_ARGUMENT", "INVALID_NAME"),
    ],
)
def test_what_is_not_there_is_refused(family: Running, name: str, code: str, reason: str) -> None:
    with refused() as error:
        family.api.GetLineage(pb.GetLineageRequest(name=name))
    assert (error.code, error.reason) == (code, reason)


def test_a_parent_must_be_spelled_as_a_version(family: Running) -> None:
    with refused() as error:
        family.publish("adapters/x", adapter_bytes(rank=1), lineage=pb.Lineage(parent="adapters/jiangnan@production"))
    assert (error.code, error.reason) == ("INVALID_ARGUMENT", "INVALID_NAME")
    assert "header.lineage.parent" in error.message


def test_the_command_line_draws_both_directions(shell: Shell) -> None:
    lines = [line.rstrip() for line in shell.said("adapter", "lineage", "jiangnan/versions/1").splitlines()]
    assert lines[0] == "adapters/jiangnan/versions/1 comes from"
    assert "├── trained on: datasets/tea/versions/2 aaaaaaaaaaaa" in lines
    assert "    └── made by: jobs/j1" in lines
    forward = lines.index("adapters/jiangnan/versions/1 leads to")
    assert lines[forward + 1].startswith("└── continued from: adapters/jiangnan/versions/2")
    assert lines[forward + 2] == "    └── points at: adapters/jiangnan@production"
    graph = json.loads(shell.said("--json", "adapter", "lineage", "jiangnan"))
    assert graph["nodes"][0]["name"] == "adapters/jiangnan/versions/2"


def test_bases_are_registered_listed_and_shown_from_the_command_line(shell: Shell, tmp_path: Path) -> None:
    folder = write_base_folder(tmp_path / "mine", seed=7)
    registered = json.loads(shell.said("--json", "base", "register", "mine", str(folder)))
    assert (registered["name"], registered["family"]) == ("bases/mine", "sd15")
    assert json.loads(shell.said("--json", "base", "register", "mine", str(folder))) == registered
    assert [base["name"] for base in json.loads(shell.said("--json", "base", "list"))] == [
        "bases/mine",
        "bases/other",
        "bases/tiny",
    ]
    shown = shell.said("base", "show", "mine")
    assert registered["digest"] in shown
    assert "from a folder" in shown


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("none", "BASE_FOLDER_MISSING"),
        ("tiny/unet", "BASE_FOLDER_INVALID"),
        ("other", "BASE_CONTENT_CHANGED"),
        ("hub:owner/name", "BASE_NOT_PINNED"),
        ("hub:owner/name@main", "BASE_NOT_PINNED"),
        ("hub:owner/name@" + "a" * 39, "BASE_NOT_PINNED"),
        ("hub:owner/../x@" + "a" * 40, "BASE_NOT_PINNED"),
    ],
)
def test_sources_that_cannot_be_registered_are_refused_with_their_reason(
    shell: Shell, source: str, reason: str
) -> None:
    with pytest.raises(TerroirError) as error:
        shell.run("base", "register", "tiny", source)
    assert error.value.reason == reason
