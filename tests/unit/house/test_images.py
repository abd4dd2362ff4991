"""The script that builds and runs the images: what it leaves out of them, and what it makes of compose.yaml."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from scripts import images_compose, images_strip
from scripts.images_build import IMAGES, project_version
from scripts.images_compose import Composition, make_secrets
from scripts.images_engine import ImagesError, find_engine
from terroir.common.settings import ServiceSettings, describe
from terroir.dataset.settings import DatasetSettings
from terroir.inference.settings import InferenceSettings
from terroir.registry.settings import RegistrySettings
from terroir.training.settings import TrainingSettings

ROOT = Path(__file__).resolve().parents[3]
SETTINGS: dict[str, type[ServiceSettings]] = {
    "dataset": DatasetSettings,
    "inference": InferenceSettings,
    "registry": RegistrySettings,
    "training": TrainingSettings,
}
PORTS = {"dataset": 7101, "training": 7102, "registry": 7103, "inference": 7104}


def load(**environment: str) -> Composition:
    return Composition.load(ROOT, environment=environment)


def fields(name: str) -> dict[str, Any]:
    return dict(load().service(name).fields)


# --- compose.yaml


@pytest.mark.parametrize("name", [*SETTINGS, "minio"])
def test_a_container_can_do_nothing_that_it_need_not(name: str) -> None:
    told = fields(name)
    assert told["read_only"] is True
    assert told["cap_drop"] == ["ALL"]
    assert told["security_opt"] == ["no-new-privileges:true"]
    assert name == "minio" or told["user"] == "10001:10001"
    assert any(folder.startswith("/tmp:size=") for folder in told["tmpfs"])
    assert all(":/" in volume and not volume.startswith((".", "/")) for volume in told["volumes"])


@pytest.mark.parametrize("name", SETTINGS)
def test_a_service_is_published_on_loopback_at_the_port_that_clients_ask(name: str) -> None:
    assert fields(name)["ports"] == [f"127.0.0.1:{PORTS[name]}:{PORTS[name]}"]
    assert SETTINGS[name].model_fields["port"].default == PORTS[name]
    variable = f"TERROIR_PUBLISHED_{name.upper()}"
    assert load(**{variable: "9999"}).service(name).fields["ports"] == [f"127.0.0.1:9999:{PORTS[name]}"]


def test_the_object_store_is_reached_by_the_services_alone() -> None:
    assert "ports" not in fields("minio")
    assert fields("minio")["networks"] == ["inside"]
    assert load().networks["inside"] == {"internal": True}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_in_the_file_exist(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service itself reads them, so that a wrong value shows here and not in a container that will not start."""
    for variable in [name for name in os.environ if name.startswith("TERROIR_")]:
        monkeypatch.delenv(variable)
    for variable, value in fields(name).get("environment", {}).items():
        assert variable.startswith(f"TERROIR_{name.upper()}_")
        monkeypatch.setenv(variable, value)
    settings = SETTINGS[name].load()
    assert (settings.host, settings.insecure_listen, settings.metrics_port) == ("0.0.0.0", True, 9090)
    assert "metrics_port" in {row.name for row in describe(SETTINGS[name])}


def test_images_have_the_version_of_the_project_and_a_part_of_the_build() -> None:
    ours = {image.tag(project_version()): image for image in IMAGES}
    for name in SETTINGS:
        told = fields(name)
        image = ours[told["image"]]
        assert (told["build"]["dockerfile"], told["build"].get("target", "")) == (image.dockerfile, image.target)
    assert load(TERROIR_VERSION="7").service("registry").image == "terroir-control:7"


def test_no_key_of_the_store_stands_in_the_file() -> None:
    for name in SETTINGS:
        told = fields(name)
        assert told.get("env_file", []) == ["deploy/compose/secrets/store.env"]
        assert not [key for key in told["environment"] if "SECRET" in key or "ACCESS_KEY" in key]
    ignored = (ROOT / "deploy" / "compose" / ".gitignore").read_text().splitlines()
    assert "/secrets/" in ignored


def test_podman_is_told_all_that_the_file_says() -> None:
    arguments = load().service("training").run_arguments("terroir", ROOT)
    for expected in (
        "--read-only", "--init", "--user=10001:10001", "--cap-drop=ALL", "--security-opt=no-new-privileges",
        "--shm-size=512m", "--tmpfs=/tmp:size=2g,mode=1777", "--volume=terroir_training:/var/lib/terroir",
        "--network=terroir_inside:alias=training", "--publish=127.0.0.1:7102:7102", "--stop-timeout=60",
        "--env=TERROIR_TRAINING_REGISTRY_TARGET=registry:7103", f"--env-file={ROOT}/deploy/compose/secrets/store.env",
    ):  # fmt: skip
        assert expected in arguments
    assert arguments[-1] == "terroir-trainer:0.1.0"
    dataset = load().service("dataset").run_arguments("terroir", ROOT)
    assert dataset[-4:] == ["terroir-trainer:0.1.0", "python", "-m", "terroir.dataset.main"]


def test_who_is_waited_for_starts_first() -> None:
    order = [service.name for service in load().services]
    assert order.index("minio") < order.index("registry") < order.index("inference")
    assert order.index("dataset") < order.index("training")


def write(folder: Path, services: dict[str, Any]) -> None:
    told = {"name": "t", "services": services, "networks": {}, "volumes": {}}
    (folder / "compose.yaml").write_text(yaml.safe_dump(told))


def test_a_key_that_would_be_left_out_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"one": {"image": "x", "privileged": True}})
    with pytest.raises(ImagesError, match="service one has privileged, which only docker compose understands"):
        Composition.load(tmp_path)


def test_services_that_wait_for_each_other_are_named(tmp_path: Path) -> None:
    on = {"condition": "service_started"}
    write(tmp_path, {"a": {"image": "x", "depends_on": {"b": on}}, "b": {"image": "x", "depends_on": {"a": on}}})
    with pytest.raises(ImagesError, match="a, b wait for each other"):
        Composition.load(tmp_path)


def test_secrets_are_made_once_for_their_owner_alone(tmp_path: Path) -> None:
    (tmp_path / "deploy" / "compose").mkdir(parents=True)
    said: list[str] = []
    make_secrets(tmp_path, said.append)
    files = {path.name: path.read_text() for path in (tmp_path / images_compose._SECRETS).iterdir()}
    values = {name: [line.split("=", 1)[1] for line in text.splitlines()] for name, text in files.items()}
    assert set(files) == {"minio.env", "store.env"}
    assert values["minio.env"] == values["store.env"]
    assert len(values["store.env"][1]) >= 40
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / images_compose._SECRETS).iterdir())
    make_secrets(tmp_path, said.append)
    assert len(said) == 1
    assert not any(value in said[0] for value in values["store.env"])
    assert {path.name: path.read_text() for path in (tmp_path / images_compose._SECRETS).iterdir()} == files


# --- The engine


def test_without_an_engine_the_next_step_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("TERROIR_CONTAINER_ENGINE", raising=False)
    with pytest.raises(ImagesError, match="neither docker nor podman was found; install Docker, or Podman"):
        find_engine()
    monkeypatch.setenv("TERROIR_CONTAINER_ENGINE", "lxc")
    with pytest.raises(ImagesError, match="'lxc'; docker and podman are known"):
        find_engine()


# --- What is taken out of an image


def environment(folder: Path, *paths: str) -> Path:
    packages = folder / "lib" / f"python3.{sys.version_info[1]}" / "site-packages"
    for path in (*paths, "terroir/__init__.py"):
        (packages / path).parent.mkdir(parents=True, exist_ok=True)
        (packages / path).write_text("X = 1\n")
    (folder / "bin").mkdir()
    for command in ("python", "terroir", "ray", "f2py", "torchrun"):
        (folder / "bin" / command).write_text("")
    (folder / ".lock").write_text("")
    return packages


def test_tests_headers_and_build_tools_go_and_the_rest_is_compiled(tmp_path: Path) -> None:
    packages = environment(
        tmp_path, "numpy/core.py", "numpy/tests/test_core.py", "numpy/_core/tests/_natype.py", "numpy/f2py/main.py",
        "torch/include/a.h", "torch/bin/protoc", "torch/bin/torch_shm_manager", "nvidia/lib/libx.a",
        "Crypto/SelfTest/run.py", "ray/stub.pyi", "torch/protocol.py", "sympy/testing/quality.py",
    )  # fmt: skip
    images_strip.strip_packages(tmp_path)
    images_strip.set_times(tmp_path, 315_532_800)
    left = {path.relative_to(packages).as_posix() for path in packages.rglob("*") if path.is_file()}
    sources = {path for path in left if not path.endswith(".pyc")}
    assert sources == {
        "numpy/core.py", "numpy/_core/tests/_natype.py", "torch/bin/torch_shm_manager", "sympy/testing/quality.py",
        "terroir/__init__.py", "torch/protocol.py",
    }  # fmt: skip
    assert len(left - sources) == 5
    assert not (packages / "Crypto").exists()
    assert {path.name for path in (tmp_path / "bin").iterdir()} == {"python", "terroir", "ray"}
    assert not (tmp_path / ".lock").exists()
    assert {path.lstat().st_mtime for path in (tmp_path, *tmp_path.rglob("*"))} == {315_532_800}


def test_bytecode_holds_also_where_a_copy_changed_the_times(tmp_path: Path) -> None:
    """Bytecode that is checked against times would be compiled anew at each start of a read-only container."""
    packages = environment(tmp_path)
    images_strip.strip_packages(tmp_path)
    (compiled,) = packages.rglob("*.pyc")
    assert int.from_bytes(compiled.read_bytes()[4:8], "little") == 0b01, "hash-based, and never checked"


def test_what_uv_notes_of_a_build_is_forgotten(tmp_path: Path) -> None:
    """Its time made two builds of one commit differ in their last layer."""
    info = environment(tmp_path) / "terroir-0.1.0.dist-info"
    info.mkdir()
    (info / "uv_cache.json").write_text('{"timestamp":{"secs_since_epoch":1795471654}}')
    (info / "RECORD").write_text(f"{info.name}/METADATA,sha256=a,1\n{info.name}/uv_cache.json,sha256=b,2\n")
    images_strip.strip_packages(tmp_path)
    assert [path.name for path in info.iterdir()] == ["RECORD"]
    assert (info / "RECORD").read_text() == f"{info.name}/METADATA,sha256=a,1\n"


def test_installers_leave_the_base(tmp_path: Path) -> None:
    for name in ("pip/__init__.py", "pip-23.dist-info/RECORD", "setuptools/__init__.py", "pipeline/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text("")
    images_strip._remove_installers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["pipeline"]


def test_without_a_known_order_it_explains_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["images_strip.py", "everything"])
    with pytest.raises(SystemExit, match=r"images_strip\.py packages /opt/terroir"):
        runpy.run_path(str(ROOT / "scripts" / "images_strip.py"), run_name="__main__")
