"""The images as they were built on this machine; their absence and their age are told."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from scripts.images_base import MINIO_IMAGE, make_minio
from scripts.images_build import IMAGES, Image, project_version
from scripts.images_compose import Composition, free_ports, published
from scripts.images_engine import Engine, ImagesError, find_engine
from tests.integration.images.containers import ROOT, BuiltImage, Running
from tests.tools.lacking import skip_without

_MADE_OF = ("services", "pyproject.toml", "requirements", "Dockerfile.inference", "Dockerfile.trainer", "scripts")


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> Engine:
    """Docker or Podman with all images, made of what is checked out; without them tests are skipped loudly.

    TERROIR_REQUIRE_TOOLS=images makes that a failure.
    """
    found, lacking = None, ""
    try:
        found = find_engine()
        lacking = "; ".join(told for image in IMAGES if (told := _lacking(found, image)))
    except ImagesError as error:
        lacking = str(error)
    if found is None or lacking:
        skip_without(request.config, "images", f"container images: {lacking}", target="images")
    return found


def _lacking(engine: Engine, image: Image) -> str:
    """Why this image cannot be tested: it is missing, or what it was made of has changed since."""
    tag = image.tag(project_version())
    if not engine.has(tag):
        return f"{tag} is missing"
    revision = BuiltImage.of(engine, image.name).revision
    command = ["git", "diff", "--quiet", revision.removesuffix("-dirty"), "HEAD", "--", *_MADE_OF]
    changed = subprocess.run(command, cwd=ROOT, check=False, capture_output=True).returncode != 0
    return f"{tag} is of {revision[:12]}, and the code has changed since" if changed else ""


@pytest.fixture(scope="session", params=[image.name for image in IMAGES])
def image(request: pytest.FixtureRequest, engine: Engine) -> BuiltImage:
    """Each of the images."""
    return BuiltImage.of(engine, request.param)


@pytest.fixture(scope="session")
def running(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """compose.yaml as it stands, under a name, with ports, keys and volumes of its own."""
    folder = tmp_path_factory.mktemp("compose")
    shutil.copy(ROOT / "compose.yaml", folder)
    (folder / "deploy" / "compose").mkdir(parents=True)
    if not engine.has(MINIO_IMAGE):
        make_minio(engine)
    ports = free_ports()
    project = f"terroir-test-{hashlib.sha256(bytes(ROOT)).hexdigest()[:6]}"  # one for each clone on this machine
    composition = Composition.load(folder, project, {**published(ports), "TERROIR_MINIO_IMAGE": MINIO_IMAGE})
    composition.down(engine, volumes=True)  # what a killed run left
    try:
        composition.up(engine, lambda line: print(line, file=sys.stderr))
        yield Running(engine, composition, {name: f"127.0.0.1:{port}" for name, port in ports.items()})
    finally:
        composition.down(engine, volumes=True)
