"""Write the hashed lock files under requirements/ from pyproject.toml.

    python scripts/lock.py                      all of them, at the newest versions that fit
    python scripts/lock.py --images             requirements/images/ alone, at the versions of all.txt
    python scripts/lock.py --torch-index URL    requirements/images/torch.txt: the locked PyTorch in another build,
                                                such as the one for processors alone

Each begins with a digest of what it was made from; a test compares it, so a stale lock fails without any network. No
index address is written: the locks hold wherever the packages are had from. They cover every platform and Python that
the packages do, by markers.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDER: Final = ROOT / "requirements"
_HEAD: Final = "# Made by scripts/lock.py; change pyproject.toml and run `make lock`.\n# inputs: "
_BOOTSTRAP: Final = "uv>=0.13\nhatchling>=1.27\n"
_PEERS: Final = "mlflow-skinny>=3.17\nsqlalchemy>=2.1\nalembic>=1.16\n"
"""What benchmarks compare with and nothing of ours imports: it lives in an environment of its own."""
IMAGES: Final = {"control": ("registry",), "inference": ("inference",), "trainer": ("dataset", "training")}
"""Which extras an image needs. Their locks leave torch out: it has a lock and a layer of its own."""
_TORCH_ONLY: Final = re.compile(r"^(torch|triton|nvidia-.*|cuda-.*)$")
_HASHES: Final = re.compile(r" \\\n(\s+--hash=\S+( \\\n)?)+")


def inputs_digest() -> str:
    """Digest of the requirements in pyproject.toml; what else it says does not matter to a lock."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = sorted(project["optional-dependencies"].items())
    stated = repr((project["requires-python"], project["dependencies"], extras))
    return hashlib.sha256((stated + _BOOTSTRAP + _PEERS).encode()).hexdigest()


def recorded_digest(lock: Path) -> str:
    """The digest that a lock file says it was made from; empty if it says none."""
    found = re.search(r"^# inputs: ([0-9a-f]{64})$", lock.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else ""


def _compile(source: Path, *options: str) -> str:
    command = [
        str(Path(sys.executable).parent / "uv"), "pip", "compile", str(source), "--quiet", "--universal",
        "--python-version", "3.11", "--generate-hashes", "--no-emit-index-url", "--no-emit-find-links", "--no-header",
        "--no-annotate", *options,
    ]  # fmt: skip
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        sys.exit(f"lock: uv could not resolve {source.name}:\n{done.stderr}")
    return done.stdout


def _packages(lock: str) -> list[str]:
    return re.findall(r"^([A-Za-z0-9_.-]+)==", lock, re.MULTILINE)


def _head() -> str:
    return f"{_HEAD}{inputs_digest()}\n"


def write_all() -> None:
    """Compile bootstrap, the benchmarks' peers, torch and everything else."""
    with tempfile.TemporaryDirectory() as scratch:
        for name, stated in (("bootstrap", _BOOTSTRAP), ("peers", _PEERS)):
            source = Path(scratch) / f"{name}.in"
            source.write_text(stated)
            (FOLDER / f"{name}.txt").write_text(_head() + _compile(source))
        whole = _compile(ROOT / "pyproject.toml", "--all-extras")
        pins = Path(scratch) / "pins.txt"
        pins.write_text(_HASHES.sub("", whole))
        own = [name for name in _packages(whole) if _TORCH_ONLY.match(name)]
        torch = Path(scratch) / "torch.in"
        torch.write_text("torch\n")
        others = [
            f"--no-emit-package={name}" for name in _packages(_compile(torch, "-c", str(pins))) if name not in own
        ]
        (FOLDER / "torch.txt").write_text(_head() + _compile(torch, "-c", str(pins), *others))
        excluded = [f"--no-emit-package={name}" for name in own]
        (FOLDER / "all.txt").write_text(_head() + _compile(ROOT / "pyproject.toml", "--all-extras", *excluded))


def write_images() -> None:
    """Compile a lock for each image, at the versions that tests run with."""
    (FOLDER / "images").mkdir(exist_ok=True)
    torch = (FOLDER / "torch.txt").read_text(encoding="utf-8")
    excluded = [f"--no-emit-package={name}" for name in _packages(torch)]
    with tempfile.TemporaryDirectory() as scratch:
        pins = Path(scratch) / "pins.txt"
        pins.write_text(_HASHES.sub("", (FOLDER / "all.txt").read_text(encoding="utf-8") + torch))
        for image, extras in IMAGES.items():
            asked = [f"--extra={extra}" for extra in extras]
            compiled = _compile(ROOT / "pyproject.toml", *asked, "-c", str(pins), *excluded)
            (FOLDER / "images" / f"{image}.txt").write_text(_head() + compiled)


def write_torch(index: str) -> Path:
    """Lock the version of torch.txt as another index has it; what it needs besides is in the locks of the images."""
    torch = (FOLDER / "torch.txt").read_text(encoding="utf-8")
    pinned = re.search(r"^torch==(\S+)", torch, re.MULTILINE)
    if pinned is None:
        sys.exit(f"lock: {FOLDER / 'torch.txt'} names no torch; restore it from git")
    everything = (FOLDER / "all.txt").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "torch.in"
        source.write_text(f"torch=={pinned[1]}\n")
        others = [f"--no-emit-package={name}" for name in _packages(everything)]
        compiled = _compile(source, *others, f"--index-url={index}")
    (FOLDER / "images").mkdir(exist_ok=True)
    path = FOLDER / "images" / "torch.txt"
    path.write_text(_head() + compiled)
    return path


def main() -> None:
    """All locks, or those asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", action="store_true", help="only the locks of the images")
    parser.add_argument("--torch-index", metavar="URL", help="only PyTorch, from this index")
    options = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    if options.torch_index:
        print(write_torch(options.torch_index).relative_to(ROOT))
        return
    if not options.images:
        write_all()
    write_images()


if __name__ == "__main__":
    main()
