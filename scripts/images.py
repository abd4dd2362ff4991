"""Build Terroir's container images, say how large they are, and run all services in containers.

    python scripts/images.py build [IMAGE …]    control, inference, trainer; from the commit that is checked out
    python scripts/images.py size               a table, packed and unpacked, and what is large
    python scripts/images.py reproduce [IMAGE]  build a second time without any cache and compare
    python scripts/images.py up | down          the services of compose.yaml; up makes their secrets if there are none
    python scripts/images.py base | minio       made from this machine, where no container registry is at hand

Docker or Podman is used, whichever is there (TERROIR_CONTAINER_ENGINE chooses). What stands after -- goes to the
engine's build.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:  # run as a script, whose folder is on the path and not the repository
    sys.path.insert(0, str(ROOT))

from scripts.images_base import BASE_IMAGE, MINIO_IMAGE, make_base, make_minio  # noqa: E402
from scripts.images_build import IMAGES, BuildOptions, build, built_from, layers, project_version, revision  # noqa: E402
from scripts.images_compose import Composition, make_secrets  # noqa: E402
from scripts.images_engine import Engine, ImagesError, find_engine  # noqa: E402
from scripts.images_sizes import ImageSize, Layer, measure  # noqa: E402

_LARGEST: Final = 12


def main() -> int:
    """Command line; exit status 1 with the next step where something could not be done."""
    options = _options()
    try:
        engine = find_engine()
        match options.command:
            case "build":
                _build(engine, options)
            case "size":
                known: dict[str, Layer] = {}
                for image in IMAGES:
                    print(told(measure(engine, image.tag(options.version), options.base, known)), flush=True)
            case "reproduce":
                return _reproduce(engine, options)
            case "up":
                Composition.load(ROOT).up(engine, say)
            case "down":
                Composition.load(ROOT).down(engine, volumes=options.volumes)
            case "secrets":
                make_secrets(ROOT, say)
            case "base":
                say(f"making {BASE_IMAGE} of Debian's packages, a minute")
                make_base(engine)
            case "minio":
                say(f"making {MINIO_IMAGE}")
                make_minio(engine)
    except ImagesError as error:
        print(f"images: {error}", file=sys.stderr)
        return 1
    return 0


def say(line: str) -> None:
    """A line of progress."""
    print(f"images: {line}", flush=True)


def told(size: ImageSize) -> str:
    """One image's sizes and its largest packages, for people."""
    head = (
        f"{size.image}: to pull {size.packed / 1e6:.0f} MB, on disk {size.unpacked / 1e6:.0f} MB; "
        f"above its base {size.packed_above / 1e6:.0f} MB and {size.unpacked_above / 1e6:.0f} MB"
    )
    largest = size.packages().most_common(_LARGEST)
    return "\n".join([head, *(f"  {count / 1e6:8.1f} MB  {name}" for name, count in largest)])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.set_defaults(passed=[])
    commands = parser.add_subparsers(dest="command", required=True)
    known = [image.name for image in IMAGES]
    for name in ("build", "reproduce", "size"):
        command = commands.add_parser(name)
        command.add_argument("--version", default=project_version(), help="tag and label (default: %(default)s)")
        command.add_argument("--base", default=BASE_IMAGE, help="base image (default: %(default)s)")
        if name == "size":
            continue
        command.add_argument("images", nargs="*", metavar="IMAGE", help=f"of {', '.join(known)}; all by default")
        command.add_argument("--source", default="", help="address of the repository, for the label")
        command.add_argument("--worktree", action="store_true", help="build the files as they lie here")
        command.add_argument("--no-cache", action="store_true", help="build every layer anew")
    commands.add_parser("up")
    commands.add_parser("down").add_argument("--volumes", action="store_true", help="remove what they have stored, too")
    for name in ("secrets", "base", "minio"):
        commands.add_parser(name)
    words = sys.argv[1:]
    here = words.index("--") if "--" in words else len(words)
    options = parser.parse_args(words[:here])
    options.passed = words[here + 1 :]
    if unknown := set(getattr(options, "images", ())) - set(known):
        parser.error(f"unknown {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return options


def _build(engine: Engine, options: argparse.Namespace) -> None:
    asked = [image for image in IMAGES if not options.images or image.name in options.images]
    for number, image in enumerate(asked, start=1):
        say(f"building {image.name} ({number} of {len(asked)}): {image.about}")
        build(engine, image, _build_options(options, options.version), say)


def _build_options(options: argparse.Namespace, version: str, *, no_cache: bool = False) -> BuildOptions:
    passed = ["--build-arg", f"BASE_IMAGE={options.base}", *options.passed]
    return BuildOptions(
        version=version, source=options.source, worktree=options.worktree, no_cache=no_cache or options.no_cache,
        passed=tuple(passed),
    )  # fmt: skip


def _reproduce(engine: Engine, options: argparse.Namespace) -> int:
    """Build again under a tag of its own; status 1 if a layer differs from the first build's."""
    differ = 0
    for image in IMAGES:
        if options.images and image.name not in options.images:
            continue
        first = image.tag(options.version)
        if built_from(engine, first) != revision():
            raise ImagesError(
                f"{first} is of another commit; build it first: python scripts/images.py build {image.name}"
            )
        second = build(engine, image, _build_options(options, "reproduced", no_cache=True), say)
        pairs = list(zip(layers(engine, first), layers(engine, second), strict=True))
        other = [str(number) for number, (one, two) in enumerate(pairs, start=1) if one != two]
        say(f"{image.name}: {len(pairs)} layers, {'these differ: ' + ', '.join(other) if other else 'all the same'}")
        differ += len(other)
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
