"""Generate the gRPC stubs under services/terroir/_proto from proto/.

    python scripts/generate_protos.py [--out FOLDER]

The generated imports `from terroir.X.v1 import …` would find the services of the same names, so they are rewritten to
`terroir._proto.X.v1`. A test generates into a temporary folder and compares: stale stubs fail.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Final

from grpc_tools import protoc

ROOT: Final = Path(__file__).resolve().parent.parent
_IMPORT: Final = re.compile(
    r"^(\s*(?:from|import) )terroir\.(access|dataset|training|registry|inference)\.v1", re.MULTILINE
)


def generate(out: Path) -> None:
    """Write stubs, with types, into `out`; what was there is replaced."""
    sources = sorted(str(path.relative_to(ROOT / "proto")) for path in (ROOT / "proto").rglob("*.proto"))
    with tempfile.TemporaryDirectory() as scratch:
        common = str(files("grpc_tools") / "_proto")
        status = protoc.main(
            [
                "protoc", f"-I{ROOT / 'proto'}", f"-I{common}",
                f"--python_out={scratch}", f"--grpc_python_out={scratch}",
                f"--mypy_out=quiet:{scratch}", f"--mypy_grpc_out=quiet:{scratch}", *sources,
            ]
        )  # fmt: skip
        if status:
            sys.exit(f"protoc failed with status {status}; its messages are above")
        shutil.rmtree(out, ignore_errors=True)
        for path in sorted(Path(scratch).rglob("*.py*")):
            target = out / path.relative_to(Path(scratch) / "terroir")
            target.parent.mkdir(parents=True, exist_ok=True)
            stub = _IMPORT.sub(r"\1terroir._proto.\2.v1", path.read_text(encoding="utf-8"))
            target.write_text(stub, encoding="utf-8")
    for folder in [out, *(path for path in out.rglob("*") if path.is_dir())]:
        (folder / "__init__.py").touch()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "services" / "terroir" / "_proto", help="target folder")
    generate(parser.parse_args().out)


if __name__ == "__main__":
    main()
