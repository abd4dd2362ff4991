"""The main job with every call authenticated: certificates of services and people, one of them limited to a region."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml

from terroir.tiny import BASE_DIR
from tests.command_line import ROOT, CommandLine, Up, base_settings
from tests.tools.authority import Authority

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STYLE = ROOT / "examples" / "styles" / "jiangnan-ink"
SERVICES = ("dataset", "training", "registry", "inference")
CONFIG = """
dataset: datasets/{dataset}
lora_rank: 4
batch_size: 4
max_train_steps: 4
save_steps: 4
"""
GRANTS = [
    {"principals": [f"cert:terroir-{service}" for service in SERVICES], "roles": ["service"]},
    {"principals": ["cert:terroir-training"], "roles": ["stylist"]},
    {"principals": ["cert:ana"], "roles": ["publisher"]},
    {"principals": ["cert:bo"], "roles": ["stylist"], "regions": ["CN-ZJ"]},
    {"principals": ["cert:vi"], "roles": ["viewer"]},
]


@dataclass(frozen=True)
class House:
    """A Terroir with mTLS, and its people."""

    folder: Path
    authority: Authority
    data_dir: Path

    def person(self, name: str) -> CommandLine:
        """Commands with this person's certificate."""
        shown = self.authority.write(self.folder / name, name)
        return CommandLine(self.data_dir, extra={"TERROIR_TLS_DIR": str(shown)})

    def submit(self, who: CommandLine, dataset: str, adapter: str, status: int = 0) -> str:
        """A training job on a dataset; what the command says."""
        config = self.folder / f"{dataset}.yaml"
        config.write_text(CONFIG.format(dataset=dataset))
        done = who.run("--json", "train", "submit", str(config), "--adapter", adapter, "--no-watch", status=status)
        return done.stdout + done.stderr

    def dataset(self, who: CommandLine, name: str, region: str, status: int = 0) -> str:
        """A frozen dataset of four pictures."""
        rights = ("--rights", "drawn by this project")
        done = who.run("--json", "dataset", "create", name, "--region", region, *rights, status=status)
        if status == 0:
            who.run("dataset", "import", name, str(self.folder / "pictures"))
            who.run("dataset", "freeze", name)
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder, authority = tmp_path_factory.mktemp("mtls"), Authority()
    (folder / "access.yaml").write_text(yaml.dump({"grants": GRANTS}))
    pictures = folder / "pictures"
    pictures.mkdir()
    for path in [*sorted(STYLE.glob("*.png"))[:4], STYLE / "metadata.csv"]:
        shutil.copy(path, pictures)
    told = base_settings(BASE_DIR) | {"TERROIR_TLS_DIR": str(authority.write(folder / "supervisor", "supervisor"))}
    for service in SERVICES:
        own = f"TERROIR_{service.upper()}"
        told[f"{own}_TLS_DIR"] = str(authority.write(folder / service, f"terroir-{service}"))
        told[f"{own}_ACCESS_PATH"] = str(folder / "access.yaml")
    built = House(folder, authority, folder / "data")
    with Up(built.data_dir, told) as running:
        running.ready()
        yield built
        assert running.end(signal.SIGTERM)[0] == 0


def test_who_is_limited_to_a_region_trains_there_alone(house: House) -> None:
    ana, bo = house.person("ana"), house.person("bo")
    house.dataset(ana, "fujian-tea", "CN-FJ")
    assert "REGION_OUT_OF_SCOPE" in house.dataset(bo, "hers", "CN-FJ", status=1)
    assert "REGION_OUT_OF_SCOPE" in house.submit(bo, "fujian-tea", "tea", status=1), "another region's pictures"
    house.dataset(bo, "hangzhou", "CN-ZJ")
    job = json.loads(house.submit(bo, "hangzhou", "hangzhou"))
    assert job["creator"] == "cert:bo"
    bo.run("train", "cancel", job["name"])  # what it would do, the job of a registration does


def test_who_is_limited_to_a_region_registers_styles_there_alone_and_all_draw_with_them(house: House) -> None:
    """The service acts under its own name for hours; who asked stands in the registration, the job and the audit.

    Ray's driver and worker authenticate too: they read the dataset and publish with the training service's name.
    """
    ana, bo = house.person("ana"), house.person("bo")
    for code in ("CN-ZJ", "CN-FJ"):
        ana.run("region", "put", code)
    (house.folder / "style.yaml").write_text(
        "lora_rank: 4\nbatch_size: 4\nmax_train_steps: 4\nsave_steps: 4\npublish_gate: warn\n"
        "judge_seeds: 2\njudge_checkpoints: 1\njudge_prompts: [a lake, a hill]\n"
    )
    asked = ("style", "register", str(house.folder / "pictures"), "--config", str(house.folder / "style.yaml"),
             "--rights", "drawn by this project", "--no-watch")  # fmt: skip
    refused = bo.run("--json", *asked, "--name", "tea-hills", "--region", "CN-FJ", status=1)
    assert "REGION_OUT_OF_SCOPE" in refused.stdout
    vi = house.person("vi")
    assert "ROLE_MISSING" in vi.run("--json", *asked, "--name", "x", "--region", "CN-ZJ", status=1).stdout
    begun = bo.json(*asked, "--name", "west-lake", "--region", "CN-ZJ")
    assert begun["creator"] == "cert:bo"
    ended = vi.json("style", "watch", begun["name"])
    assert ended["state"] == "REGISTRATION_STATE_SUCCEEDED" and ended["job"]["creator"] == "cert:bo"
    move = next(event for event in vi.json("adapter", "audit", "west-lake") if event["action"] == "set_alias")
    assert move["actor"] == "cert:terroir-training"
    assert move["reason"] == f"registered by cert:bo: {begun['name']}"
    version = ana.json("adapter", "versions", "west-lake")[0]
    assert (version["region"], version["actor"]) == ("regions/CN-ZJ", "cert:terroir-training")
    drawn = ana.json("generate", "a lake", "--adapter", "west-lake", "--steps", "2", "--out", str(house.folder / "out"))
    assert Path(drawn["files"][0]).stat().st_size > 0


def test_a_viewer_looks_and_changes_nothing(house: House) -> None:
    vi = house.person("vi")
    assert isinstance(vi.json("adapter", "list"), list)
    assert "ROLE_MISSING" in house.dataset(vi, "viewers", "CN-ZJ", status=1)
    refused = vi.run("generate", "a red teapot", "--steps", "2", "--out", str(house.folder), status=1)
    assert "needs the role stylist or service" in refused.stdout + refused.stderr


def test_without_a_certificate_nothing_is_reached(house: House) -> None:
    refused = CommandLine(house.data_dir).run("adapter", "list", status=1)
    assert "no answer from the service" in refused.stdout + refused.stderr
    stranger = replace(house.person("vi"), extra={"TERROIR_TLS_DIR": str(Authority().write(house.folder / "x", "ana"))})
    assert "no answer from the service" in stranger.run("adapter", "list", status=1).stderr


def test_no_log_holds_a_key_or_a_certificate(house: House) -> None:
    logs = list((house.data_dir / "run").glob("*.log"))
    assert len(logs) >= len(SERVICES)
    assert not [log for log in logs if "PRIVATE KEY" in (text := log.read_text()) or "BEGIN CERTIFICATE" in text]
