"""One call from pictures to a judged version under `staging`, on the real services, a real Ray and real pictures."""

from __future__ import annotations

import json
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

from terroir._proto.registry.v1 import region_pb2
from terroir._proto.training.v1 import style_pb2 as pb
from terroir._proto.training.v1 import training_pb2
from terroir.client import Client, Endpoints
from terroir.client.styles import PHASES
from terroir.common.errors import Cancelled, FailedPrecondition, TerroirError
from terroir.tiny import CLIP_DIR
from terroir.tiny.random_pipeline import build
from tests.integration.training.services_kit import Services

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

EXAMPLE = Path(__file__).parents[3] / "examples" / "styles" / "jiangnan-ink"
CONFIG = (
    "lora_rank: 2\nresolution: 32\nbatch_size: 2\nlearning_rate: 1.0e-3\nsave_steps: 4\n"
    "publish_gate: warn\njudge_seeds: 2\njudge_checkpoints: 1\njudge_prompts: [a lake, a hill]\n"
)
RIGHTS = "Drawn for this test."


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """The training service keeps its port, so that callers find it again after its death."""
    folder = tmp_path_factory.mktemp("styles")
    source = folder / "source"
    source.mkdir()
    for number, path in enumerate(sorted(EXAMPLE.glob("*.png"))[:3]):
        shutil.copy(path, source / f"西湖 {number}.png")
        (source / f"西湖 {number}.txt").write_text("a lake, in the style of ink")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    extra = {
        "TERROIR_TRAINING_LOCAL_RAY_START_SECONDS": "400",
        "TERROIR_TRAINING_JUDGE_MODEL": str(CLIP_DIR),
        "TERROIR_TRAINING_PORT": str(port),
        "TERROIR_TRAINING_IMPORT_SOURCES": json.dumps({"team": str(source)}),
    }
    services = Services(folder, build(folder / "base"), extra)
    try:
        for name in ("dataset", "registry", "training"):
            services.start(name)
        with client_of(services) as client:
            for code in ("CN", "CN-ZJ"):
                client.regions.put(region_pb2.Region(name=f"regions/{code}", display_name=code))
        yield services
    finally:
        services.stop()
        told = (p.info["cmdline"] or () for p in psutil.process_iter(["cmdline"]))
        assert not [line for line in told if any(str(folder) in part for part in line)]


@pytest.fixture(scope="module")
def client(services: Services) -> Iterator[Client]:
    with client_of(services) as opened:
        yield opened


def client_of(services: Services) -> Client:
    ports = {name: f"127.0.0.1:{port}" for name, port in services.ports.items()}
    return Client(Endpoints(**ports))


def folder_of(parent: Path, first: int, last: int) -> Path:
    parent.mkdir()
    for path in sorted(EXAMPLE.glob("*.png"))[first:last]:
        shutil.copy(path, parent)
    shutil.copy(EXAMPLE / "metadata.csv", parent)
    return parent


def restart(services: Services) -> None:
    services.kill("training")
    services.start("training")


def test_it_survives_the_callers_exit_and_two_deaths_of_the_service(services: Services, tmp_path: Path) -> None:
    """The second caller watches through both; the region gets the style, as was asked for."""
    pictures = folder_of(tmp_path / "pictures", 0, 5)
    uploaded: list[tuple[int, int]] = []
    with client_of(services) as first:
        begun = first.styles.register(
            "ink", region="CN-ZJ", folder=pictures, config=f"{CONFIG}max_train_steps: 24\n", rights=RIGHTS,
            trigger_word="ink style", assign_region=True, on_upload=lambda done, total: uploaded.append((done, total)),
        )  # fmt: skip
    assert uploaded[-1] == (5, 5) and begun.registration.state == pb.REGISTRATION_STATE_RUNNING
    restart(services)
    seen: list[pb.StyleRegistration] = []
    trains = threading.Event()

    def watch() -> None:
        with client_of(services) as second:
            for state in second.styles.watch(begun.name):
                seen.append(state)
                if state.job.progress.step >= 5:
                    trains.set()

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    assert trains.wait(700)
    restart(services)
    watching.join(400)
    ended = seen[-1]
    assert ended.state == pb.REGISTRATION_STATE_SUCCEEDED, ended
    assert ended.adapter_version == "adapters/ink/versions/1" and ended.job.state == training_pb2.JOB_STATE_SUCCEEDED
    told = [PHASES[begun.phase] for begun in ended.phases]
    assert told[:4] == ["importing", "captioning", "freezing", "queued"] and told[-1] == "staging"
    assert ended.pictures.total == 0 and not ended.waiting_for
    with client_of(services) as third:
        assert [job.name for job in third.training.list() if job.adapter == "adapters/ink"] == [ended.job.name]
        version = third.registry.version("adapters/ink@staging")
        assert (version.name, version.region, version.trigger_word) == (
            ended.adapter_version,
            "regions/CN-ZJ",
            "ink style",
        )
        assert version.lineage.dataset_version == ended.dataset_version == "datasets/ink/versions/1"
        event = next(event for event in third.registry.audit("adapters/ink") if event.action == "set_alias")
        assert event.reason == f"registered by {ended.creator}: {ended.name}"
        region = third.regions.get("regions/CN-ZJ")
        assert [a.adapter for a in region.recipe.adapters] == ["adapters/ink@staging"]
        assert region.recipe.prompt_prefix == "ink style"
        assert third.styles.operation("styles/ink").result() == ended.adapter_version


def test_a_further_version_goes_on_from_the_first_with_thirty_more_pictures(
    client: Client, services: Services, tmp_path: Path
) -> None:
    """T6: lineage tells the parent, and from the parent the child."""
    _ensure_ink(client, tmp_path)
    client.registry.set_alias("adapters/ink", "production", "adapters/ink/versions/1", reason="good enough")
    config = f"{CONFIG}max_train_steps: 4\npretrained_lora: ink@production\n"
    more = folder_of(tmp_path / "more", 5, 35)
    begun = client.styles.register("ink", region="CN-ZJ", folder=more, config=config, rights=RIGHTS, new_version=True)
    assert begun.result() == "adapters/ink/versions/2"
    assert "pretrained_lora: adapters/ink/versions/1" in begun.registration.job.config_yaml
    version = client.registry.version("adapters/ink/versions/2")
    assert version.lineage.parent == "adapters/ink/versions/1"
    assert client.datasets.version(version.lineage.dataset_version).image_count > 30
    edges = {(edge.source, edge.target) for edge in client.registry.lineage("adapters/ink/versions/1").edges
             if edge.relation == "continued_from"}  # fmt: skip
    assert ("adapters/ink/versions/1", "adapters/ink/versions/2") in edges
    log = "\n".join(client.training.logs(begun.registration.job.name))
    assert "adapters/ink/versions/2" in log


def test_a_style_is_registered_from_a_source_that_the_operator_configured(client: Client) -> None:
    begun = client.styles.register(
        "west-lake", region="CN-ZJ", import_source="team", rights=RIGHTS, config=f"{CONFIG}max_train_steps: 2\n"
    )
    assert begun.result() == "adapters/west-lake/versions/1"
    names = {image.file_name for image in client.datasets.images("datasets/west-lake")}
    assert names == {"西湖 0.png", "西湖 1.png", "西湖 2.png"}
    dataset = client.datasets.get("datasets/west-lake")
    assert (dataset.region, dataset.rights_statement) == ("CN-ZJ", RIGHTS)


def test_cancelled_while_it_trains_it_takes_its_job_along(client: Client, tmp_path: Path) -> None:
    pictures = folder_of(tmp_path / "pictures", 0, 3)
    begun = client.styles.register(
        "cut", region="CN-ZJ", folder=pictures, config=f"{CONFIG}max_train_steps: 100000\n", rights=RIGHTS
    )
    for state in begun.watch():
        if state.job.progress.step >= 2:
            break
    begun.cancel()
    with pytest.raises(Cancelled):
        begun.result()
    assert client.training.get(begun.registration.job.name).state == training_pb2.JOB_STATE_CANCELLED
    assert [r.state for r in client.styles.list("cut")] == [pb.REGISTRATION_STATE_CANCELLED]


def test_pictures_that_are_all_too_small_end_it_by_name(client: Client, tmp_path: Path) -> None:
    for number in range(3):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(tmp_path / f"{number}.png")
    begun = client.styles.register("small", region="CN-ZJ", folder=tmp_path, config=CONFIG, rights=RIGHTS)
    with pytest.raises(FailedPrecondition, match="3 by MINIMUM_SIDE") as failed:
        begun.result()
    assert failed.value.reason == "DATASET_EMPTY"


def test_what_is_refused_is_refused_before_anything_is_sent(client: Client, tmp_path: Path) -> None:
    pictures = folder_of(tmp_path / "pictures", 0, 2)
    for wrong, reason in (
        ({"region": "CN-ZX"}, "REGION_NOT_FOUND"),
        ({"config": "lora_rnk: 2"}, "CONFIG_KEY_UNKNOWN"),
        ({"config": f"{CONFIG}pretrained_lora: none@production\n"}, "PRETRAINED_NOT_FOUND"),
        ({"rights": " "}, "RIGHTS_MISSING"),
        ({"import_source": "team"}, "PICTURES_TWICE"),
    ):
        right = {"region": "CN-ZJ", "folder": pictures, "config": CONFIG, "rights": RIGHTS}
        with pytest.raises(TerroirError) as refused:
            client.styles.register("refused", **{**right, **wrong})  # type: ignore[arg-type]  # of several types
        assert refused.value.reason == reason
    assert "datasets/refused" not in {dataset.name for dataset in client.datasets.list()}
    assert list(client.styles.list("refused")) == []


def _ensure_ink(client: Client, tmp_path: Path) -> None:
    """What the first test leaves; made here if this one runs by itself."""
    if any(adapter.name == "adapters/ink" for adapter in client.registry.adapters()):
        return
    client.styles.register(
        "ink", region="CN-ZJ", folder=folder_of(tmp_path / "first", 0, 5),
        config=f"{CONFIG}max_train_steps: 4\n", rights=RIGHTS, trigger_word="ink style",
    ).result()  # fmt: skip
