"""What a registration relies on in the other services; the real ones keep it, and so do those in memory."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from terroir._proto.registry.v1 import region_pb2
from terroir._proto.registry.v1 import registry_pb2 as reg
from terroir.client.datasets import Datasets
from terroir.client.regions import Regions
from terroir.client.registry import Registry
from terroir.common.errors import AlreadyExists, NotFound, TerroirError
from terroir.common.grpc_client import channel
from terroir.dataset.main import build as build_dataset
from terroir.dataset.settings import DatasetSettings
from terroir.dataset.thresholds import Thresholds
from terroir.registry.main import build as build_registry
from terroir.registry.settings import RegistrySettings
from terroir.training.styles.gateways import DatasetGateway, RegistryGateway
from terroir.training.styles.ports import DatasetHouse, NewDataset, StyleShelf
from tests.integration.inference.inference_server import running_server
from tests.unit.registry.base_kit import UNET_SHAPES, write_base_folder
from tests.unit.styles.styles_kit import MemoryDatasets, MemoryShelf

REGION, OTHER = "CN-ZJ", "CN-FJ"


@dataclass
class World:
    """Both ports, and what is done by others than a registration."""

    datasets: DatasetHouse
    shelf: StyleShelf
    publish: Callable[[str], str]
    """Publishes a version of an adapter in REGION, with a figure; its name."""
    alias_of: Callable[[str], str]
    """Where `staging` of an adapter points."""
    recipe_of: Callable[[str], str]
    """The one adapter of a region's own recipe."""


def memory(_folder: Path, _stack: ExitStack) -> World:
    datasets, shelf = MemoryDatasets(), MemoryShelf(tree=[REGION, OTHER])

    def publish(adapter: str) -> str:
        shelf.adapters.setdefault(adapter, []).append(REGION)
        return f"adapters/{adapter}/versions/{len(shelf.adapters[adapter])}"

    return World(datasets, shelf, publish, lambda a: shelf.aliases[f"{a}@staging"], lambda r: shelf.recipes[r])


def real(folder: Path, stack: ExitStack) -> World:
    base = write_base_folder(folder / "base")
    dataset_settings = DatasetSettings(data_dir=folder / "store", port=0, gates=Thresholds(minimum_side=32))
    registry_settings = RegistrySettings(data_dir=folder / "store", port=0, base_sources={"tiny": base})
    to_dataset = stack.enter_context(
        channel(stack.enter_context(running_server("dataset", dataset_settings, build_dataset)))
    )
    to_registry = stack.enter_context(
        channel(stack.enter_context(running_server("registry", registry_settings, build_registry)))
    )
    registry, regions = Registry(to_registry), Regions(to_registry)
    for code in (REGION, OTHER):
        regions.put(region_pb2.Region(name=f"regions/{code}", display_name=code))

    def publish(adapter: str) -> str:
        header = reg.PublishHeader(
            adapter=f"adapters/{adapter}",
            base="bases/tiny",
            region=f"regions/{REGION}",
            metrics={"style_similarity": 0.7},
        )
        return str(registry.publish(header, _adapter_file()).name)

    return World(
        DatasetGateway(Datasets(to_dataset)),
        RegistryGateway(registry, regions),
        publish,
        lambda adapter: registry.version(f"adapters/{adapter}@staging").name,
        lambda region: regions.get(f"regions/{region}").recipe.adapters[0].adapter.removeprefix("adapters/"),
    )


def _adapter_file() -> bytes:
    from safetensors.numpy import save

    layer = next(iter(UNET_SHAPES)).removesuffix(".weight").replace(".", "_")
    rng = np.random.default_rng(int(uuid.uuid4()) % 2**32)
    return bytes(
        save(
            {
                f"lora_unet_{layer}.lora_down.weight": rng.standard_normal((2, 8), dtype=np.float32),
                f"lora_unet_{layer}.lora_up.weight": rng.standard_normal((8, 2), dtype=np.float32),
                f"lora_unet_{layer}.alpha": np.array(2, np.float32),
            }
        )
    )


@pytest.fixture(params=[memory, real], ids=["memory", "real"], scope="module")
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        yield request.param(tmp_path_factory.mktemp("ports"), stack)


def name() -> str:
    return f"s-{uuid.uuid4().hex[:12]}"


def pictures(folder: Path, count: int = 3, side: int = 64) -> Path:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(int(uuid.uuid4()) % 2**32)
    for number in range(count):
        Image.fromarray(rng.integers(0, 255, (side, side, 3), np.uint8)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("noise, nowhere")
    return folder


def ignore(_done: int, _total: int) -> None:
    pass


def made(world: World, folder: Path, side: int = 64) -> str:
    dataset = name()
    world.datasets.create(NewDataset(dataset, REGION, "Ours.", "ink", "CC0-1.0"), dataset)
    world.datasets.import_folder(dataset, pictures(folder, side=side), ignore)
    return dataset


def test_a_dataset_is_made_once_and_told_as_it_is(world: World) -> None:
    dataset = name()
    assert world.datasets.find(dataset) is None
    new = NewDataset(dataset, REGION, "Ours.", "ink", "")
    world.datasets.create(new, "request-1")
    world.datasets.create(new, "request-1")
    facts = world.datasets.find(dataset)
    assert facts is not None
    assert (facts.id, facts.region, facts.rights_statement, facts.pictures) == (dataset, REGION, "Ours.", 0)
    with pytest.raises(AlreadyExists):
        world.datasets.create(new, "request-2")


def test_pictures_are_imported_with_progress_and_again_without_harm(world: World, tmp_path: Path) -> None:
    dataset, heard = name(), list[tuple[int, int]]()
    world.datasets.create(NewDataset(dataset, REGION, "Ours.", "", ""), dataset)
    folder = pictures(tmp_path / "p")
    for _ in range(2):
        world.datasets.import_folder(dataset, folder, lambda done, total: heard.append((done, total)))
    assert heard == [(1, 3), (2, 3), (3, 3)] * 2
    facts, usable = world.datasets.find(dataset), world.datasets.usable(dataset)
    assert facts is not None and facts.pictures == 3
    assert (usable.count, usable.of, dict(usable.kept_out_by)) == (3, 3, {})


def test_what_progress_raises_ends_an_import_that_is_taken_up_later(world: World, tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    dataset, folder = name(), pictures(tmp_path / "p")
    world.datasets.create(NewDataset(dataset, REGION, "Ours.", "", ""), dataset)

    def stop(done: int, _total: int) -> None:
        if done == 2:
            raise Enough

    with pytest.raises(Enough):
        world.datasets.import_folder(dataset, folder, stop)
    world.datasets.import_folder(dataset, folder, ignore)
    assert world.datasets.usable(dataset).count == 3


def test_a_freeze_is_done_once_for_one_request(world: World, tmp_path: Path) -> None:
    dataset = made(world, tmp_path / "p")
    world.datasets.caption(dataset, ignore)
    world.datasets.caption(dataset, ignore)
    first = world.datasets.freeze(dataset, "one")
    assert first == f"datasets/{dataset}/versions/1"
    assert world.datasets.freeze(dataset, "one") == first
    assert world.datasets.freeze(dataset, "two") == first, "one that would change nothing gives the newest"
    world.datasets.import_folder(dataset, pictures(tmp_path / "more", count=5), ignore)
    world.datasets.caption(dataset, ignore)
    assert world.datasets.freeze(dataset, "three") == f"datasets/{dataset}/versions/2"


def test_pictures_that_the_gates_keep_out_are_counted_by_gate(world: World, tmp_path: Path) -> None:
    if isinstance(world.datasets, MemoryDatasets):
        world.datasets.kept_out = {"MINIMUM_SIDE": 3}
    dataset = made(world, tmp_path / "p", side=16)
    usable = world.datasets.usable(dataset)
    if isinstance(world.datasets, MemoryDatasets):
        world.datasets.kept_out = {}
    assert (usable.count, usable.of) == (0, 3)
    assert usable.kept_out_by["MINIMUM_SIDE"] == 3


def test_a_region_is_found_in_any_case_and_spelled_as_the_tree_spells_it(world: World) -> None:
    assert world.shelf.region(REGION) == world.shelf.region(REGION.lower()) == REGION
    assert world.shelf.region("x-none") is None
    assert {REGION, OTHER} <= set(world.shelf.regions())


def test_an_adapter_lies_where_its_newest_version_does(world: World) -> None:
    adapter = name()
    assert world.shelf.region_of_adapter(adapter) is None
    version = world.publish(adapter)
    assert world.shelf.region_of_adapter(adapter) == REGION
    assert dict(world.shelf.metrics(version)) == {"style_similarity": 0.7}


def test_an_alias_is_moved_once_for_one_request_and_not_back_by_a_late_repeat(world: World) -> None:
    adapter = name()
    first, second = world.publish(adapter), world.publish(adapter)
    move: Any = world.shelf.set_alias
    move(adapter, "staging", first, reason="one", request_id=f"{adapter}/1")
    move(adapter, "staging", second, reason="two", request_id=f"{adapter}/2")
    move(adapter, "staging", first, reason="one", request_id=f"{adapter}/1")
    assert world.alias_of(adapter) == second


def test_an_alias_of_a_version_that_is_not_there_is_refused(world: World) -> None:
    with pytest.raises(NotFound):
        world.shelf.set_alias("none", "staging", "adapters/none/versions/1", reason="", request_id=name())


def test_a_region_is_assigned_and_again_without_harm(world: World) -> None:
    adapter = name()
    with pytest.raises(NotFound):
        world.shelf.assign(REGION, f"{adapter}@staging", name())
    version = world.publish(adapter)
    world.shelf.set_alias(adapter, "staging", version, reason="r", request_id=name())
    for _ in range(2):
        world.shelf.assign(REGION, f"{adapter}@staging", f"{adapter}/assign")
    assert world.recipe_of(REGION) == f"{adapter}@staging"


def test_an_unknown_version_has_no_figures(world: World) -> None:
    with pytest.raises(TerroirError):
        world.shelf.metrics(f"adapters/{name()}/versions/1")
