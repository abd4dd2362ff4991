"""Sizes of the container images, and the cold start of their containers.

They must have been built (`make images`); starts need the rights to ask a container's own address, as root's Podman and
Docker on Linux give.
"""

from __future__ import annotations

import json
import os
import statistics
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.bench import Bench
from benchmarks.rows import Row, Target
from scripts.images_base import BASE_IMAGE, MINIO_IMAGE, make_minio
from scripts.images_build import IMAGES, project_version
from scripts.images_compose import Composition, Service, free_ports, published
from scripts.images_engine import Engine, ImagesError, find_engine
from scripts.images_sizes import Layer, measure

_CHECKOUT: Final = Path(__file__).resolve().parent.parent.parent
_MEGABYTES: Final = 1e6
_CONTROL: Final = Target(at_most=120)
_START: Final = Target(at_most=15, cores=2)
_LOOK_SECONDS: Final = 0.02


def rows(bench: Bench) -> Iterator[Row]:
    """Megabytes of each image, packed and on disk; seconds from asking for a container until it is ready."""
    try:
        engine = _engine_with_images()
    except ImagesError as error:
        for figure, unit, target in (
            ("control above its base, to pull (gzip)", "MB", _CONTROL),
            ("container created to ready", "s", _START),
        ):
            yield bench.row(figure, unit, None, target=target, reason=str(error))
        return
    yield from _sizes(bench, engine)
    yield from _starts(bench, engine)


def _engine_with_images() -> Engine:
    engine = find_engine()
    if missing := [tag for tag in (image.tag(project_version()) for image in IMAGES) if not engine.has(tag)]:
        raise ImagesError(f"no image {', '.join(missing)}; run make images")
    return engine


def _sizes(bench: Bench, engine: Engine) -> Iterator[Row]:
    known: dict[str, Layer] = {}
    for image in IMAGES:
        size = measure(engine, image.tag(project_version()), BASE_IMAGE, known)
        target = _CONTROL if image.name == "control" else None
        for figure, value, judged in (
            ("above its base, to pull (gzip)", size.packed_above, target),
            ("above its base, on disk", size.unpacked_above, target),
            ("with its base, to pull (gzip)", size.packed, None),
            ("with its base, on disk", size.unpacked, None),
        ):
            yield bench.row(f"{image.name} {figure}", "MB", value / _MEGABYTES, target=judged)


def _starts(bench: Bench, engine: Engine) -> Iterator[Row]:
    if not engine.has(MINIO_IMAGE):
        make_minio(engine)
    stated = {"TERROIR_MINIO_IMAGE": MINIO_IMAGE, **published(free_ports())}
    composition = Composition.load(_CHECKOUT, "terroir-bench", stated)
    composition.down(engine, volumes=True)
    rounds = bench.count(5, 1)
    try:
        composition.up(engine, bench.say)
        for name in ("registry", "dataset", "training", "inference"):
            service = composition.service(name)
            seconds = [_start(engine, composition, service) for _ in range(rounds)]
            for figure, value in (("median", statistics.median(seconds)), ("longest", max(seconds))):
                told = f"{name}: container created to ready, image not in memory, {figure} of {rounds}"
                yield bench.row(told, "s", value, target=_START)
    finally:
        composition.down(engine, volumes=True)


def _start(engine: Engine, composition: Composition, service: Service) -> float:
    """Seconds from asking for a new container until it says that it is ready."""
    engine.run("stop", service.container)
    engine.run("rm", service.container)
    _forget_files(engine, service.image)
    began = time.monotonic()
    engine.run("run", *service.run_arguments(composition.project, composition.root))
    told = json.loads(engine.run("container", "inspect", service.container))[0]["NetworkSettings"]["Networks"]
    address = next(iter(told.values()))["IPAddress"]
    while not _ready(address):
        if time.monotonic() - began > 120:
            raise ImagesError(f"{service.name} was not ready after 120 s:\n{engine.logs(service.container)}")
        time.sleep(_LOOK_SECONDS)
    return time.monotonic() - began


def _ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}:9090/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _forget_files(engine: Engine, image: str) -> None:
    """Have the kernel drop what it holds of the image, so that a start reads it from the disk as on a fresh node."""
    driver = json.loads(engine.run("image", "inspect", image))[0]["GraphDriver"]["Data"]
    os.sync()
    for layer in filter(None, [driver.get("UpperDir"), *driver.get("LowerDir", "").split(":")]):
        for folder, _, names in os.walk(layer):
            for name in names:
                path = Path(folder, name)
                if path.is_symlink() or not path.is_file():
                    continue
                descriptor = os.open(path, os.O_RDONLY)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(descriptor)
