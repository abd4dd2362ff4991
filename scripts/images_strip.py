"""Take out of an image what no service runs; runs in the build, with the Python of the image and nothing else.

python images_strip.py base                   the Python beneath: installers go, its own library is compiled
python images_strip.py packages /opt/terroir  an environment: tests, headers and their like; the rest is compiled
"""

from __future__ import annotations

import compileall
import importlib.util
import os
import py_compile
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

INSTALLERS = ("pip", "setuptools", "wheel", "pkg_resources", "_distutils_hack", "ensurepip")
KEPT_COMMANDS = ("python", "python3", f"python3.{sys.version_info[1]}", "terroir", "ray")
TESTS = ("tests", "test", "SelfTest")
USELESS_FOLDERS = ("numpy/f2py", "numpy/distutils", "torch/include", "torch/share/cmake", "torch/test", "ray/jars")
"""Of use with a compiler or Java alone, and there is none."""
USELESS_SUFFIXES = frozenset({".a", ".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp", ".map", ".pxd", ".pyi", ".pyx"})
NEEDED_TESTS = frozenset({"numpy/_core/tests/_natype.py"})
"""numpy.testing imports it, and other packages import numpy.testing outside of tests."""
# The standard library's own tests and programs; a copy of every module in bytecode would double them.
UNCOMPILED = re.compile(r"[/\\](test|idlelib|lib2to3|turtledemo|tkinter|distutils)[/\\]")


def strip_base() -> None:
    """Remove what could install packages, and compile the standard library, which some base images leave to its users.

    A container's root is read-only, so every start would compile it anew.
    """
    for folder in {sysconfig.get_path("purelib"), *(path for path in sys.path if path.endswith("-packages"))}:
        _remove_installers(Path(folder))
    if spec := importlib.util.find_spec("ensurepip"):
        shutil.rmtree(Path(spec.origin or "").parent)
    for wheels in Path("/usr/share").glob("python-wheels"):  # Debian's ensurepip keeps its wheels apart
        shutil.rmtree(wheels)
    for folder in {sysconfig.get_path("scripts"), "/usr/bin", "/usr/local/bin"}:
        for pattern in ("pip", "pip[0-9]*", "easy_install*", "wheel"):
            for command in Path(folder).glob(pattern):
                command.unlink()
    compileall.compile_dir(
        sysconfig.get_path("stdlib"), quiet=2, rx=UNCOMPILED, maxlevels=20,
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )  # fmt: skip


def _remove_installers(packages: Path) -> None:
    for name in INSTALLERS:
        shutil.rmtree(packages / name, ignore_errors=True)
        for info in (*packages.glob(f"{name}-*.dist-info"), *packages.glob(f"{name}-*.egg-info")):
            shutil.rmtree(info) if info.is_dir() else info.unlink()
    (packages / "distutils-precedence.pth").unlink(missing_ok=True)


def strip_packages(environment: Path) -> None:
    """Remove tests, what needs a compiler, and other packages' commands, then compile what is left."""
    (packages,) = (environment / "lib").glob("python3.*/site-packages")
    (environment / ".lock").unlink(missing_ok=True)  # uv's, for everybody to write
    for folder in USELESS_FOLDERS:
        shutil.rmtree(packages / folder, ignore_errors=True)
    for compiler in packages.glob("torch/bin/protoc*"):
        compiler.unlink()
    for path in list(_unwanted(packages)):
        path.unlink()
    for note in packages.glob("*.dist-info/uv_cache.json"):
        _forget(note)
    for command in (environment / "bin").iterdir():
        if command.name not in KEPT_COMMANDS:
            command.unlink()
    for folder, _, _ in os.walk(packages, topdown=False):
        if not any(Path(folder).iterdir()):
            Path(folder).rmdir()
    # Unchecked: nobody edits sources in a read-only image, and a start need not look at each of them. Files that are
    # for another version of Python fail to compile, and that is no reason to stop.
    compileall.compile_dir(
        packages, quiet=2, maxlevels=30, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
    )


def _forget(note: Path) -> None:
    """Remove uv's note of when it saw a local wheel, which no two builds have in common; from the RECORD, too."""
    note.unlink()
    record = note.with_name("RECORD")
    lines = record.read_text(encoding="utf-8").splitlines(keepends=True)
    record.write_text("".join(line for line in lines if f"/{note.name}," not in line), encoding="utf-8")


def _unwanted(packages: Path) -> Iterator[Path]:
    for path in packages.rglob("*"):
        relative = path.relative_to(packages)
        if path.is_dir() and not path.is_symlink():
            continue
        in_tests = any(part in TESTS for part in relative.parts[1:-1])
        useless = path.suffix in USELESS_SUFFIXES or "include" in relative.parts[:-1]
        if (in_tests or useless or path.suffix == ".pyc") and relative.as_posix() not in NEEDED_TESTS:
            yield path


def set_times(root: Path, epoch: int) -> None:
    """Give everything one modification time, or two builds would differ; folders last, as they change with content."""
    for folder, _, files in os.walk(root, topdown=False):
        for name in files:
            os.utime(Path(folder, name), (epoch, epoch), follow_symlinks=False)
        os.utime(folder, (epoch, epoch))


def main() -> None:
    """One of the two."""
    match sys.argv[1:]:
        case ["base"]:
            strip_base()
        case ["packages", folder]:
            strip_packages(Path(folder))
            set_times(Path(folder), int(os.environ["SOURCE_DATE_EPOCH"]))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
