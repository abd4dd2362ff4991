"""Sizes of the images and the cold start of their containers: `python -m benchmarks.images`.

They must have been built (`make images`). Writes benchmarks/results/images.json and the table in docs/images.md. Needs
the rights to ask a container's own address, as root's Podman and Docker on Linux give.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks import machine
from benchmarks.rows import AreaResult, Row, Target, judge
from scripts.images_base import BASE_IMAGE, MINIO_IMAGE, make_minio
from scripts.images_build import IMAGES, project_version
from scripts.images_compose import Composition, Service, free_ports, published
from scripts.images_engine import Engine, ImagesError, find_engine
from scripts.images_sizes import Layer, measure

CHECKOUT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = CHECKOUT / "benchmarks" / "results"
PAGE: Final = CHECKOUT / "docs" / "images.md"
_COMMAND: Final = "python -m benchmarks.images"
_MEGABYTES: Final = 1e6
_CONTROL: Final = Target(at_most=120)
_START: Final = Target(at_most=15, cores=2)
_ROUNDS: Final = 5
_LOOK_SECONDS: Final = 0.02
_MARKS: Final = re.compile(r"(<!-- figures -->\n).*?(<!-- end of figures -->)", re.DOTALL)


def main() -> int:
    """Measure, say and keep."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.images", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="starts of each container (default: %(default)s)")
    parser.add_argument("--docs", action="store_true", help="only write the table from the results at hand")
    options = parser.parse_args()
    if not options.docs:
        here, since = machine.describe(CHECKOUT), time.monotonic()
        try:
            found = []
            for row in (*_sizes(find_engine(), here), *_starts(find_engine(), here, options.rounds)):
                found.append(row)
                print(f"  {row.figure}: {row.ours} {row.unit}", flush=True)
        except ImagesError as error:
            print(f"images: {error}", file=sys.stderr)
            return 1
        AreaResult("images", here, round(time.monotonic() - since, 1), tuple(found)).save(RESULTS)
    _write_page(AreaResult.load(RESULTS / "images.json"))
    return 0


def _sizes(engine: Engine, here: machine.Machine) -> Iterator[Row]:
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
            yield judge(
                f"{image.name} {figure}", "MB", value / _MEGABYTES, command=_COMMAND, machine=here, target=judged
            )


def _starts(engine: Engine, here: machine.Machine, rounds: int) -> Iterator[Row]:
    if not engine.has(MINIO_IMAGE):
        make_minio(engine)
    stated = {"TERROIR_MINIO_IMAGE": MINIO_IMAGE, **published(free_ports())}
    composition = Composition.load(CHECKOUT, "terroir-bench", stated)
    composition.down(engine, volumes=True)
    try:
        composition.up(engine, lambda line: print(f"  {line}", flush=True))
        for name in ("registry", "dataset", "training", "inference"):
            service = composition.service(name)
            seconds = [_start(engine, composition, service) for _ in range(rounds)]
            for figure, value in (("median", statistics.median(seconds)), ("longest", max(seconds))):
                yield judge(
                    f"{name}: container created to ready, image not in memory, {figure} of {rounds}", "s", value,
                    command=_COMMAND, machine=here, target=_START,
                )  # fmt: skip
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


def _write_page(result: AreaResult) -> None:
    here = result.machine
    lines = [
        f"`{_COMMAND}`, {here.measured_at[:10]}, commit {here.commit}: {here.cpu}, {here.cores} cores, "
        f"torch {here.torch}, load {here.load:g} before.",
        "",
        "| figure | measured | target | met |",
        "| --- | ---: | --- | --- |",
    ]
    verdicts = {True: "✓", False: "✗", None: "–"}
    lines += [
        f"| {row.figure} | {row.ours} {row.unit} | {row.target or ''} | {verdicts[row.met]} |" for row in result.rows
    ]
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(_MARKS.sub(lambda found: found[1] + "\n".join(lines) + "\n" + found[2], text), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
