"""The demo with all its objects in a bucket of a real MinIO, started here and ended afterwards.

    python scripts/demo_minio.py [--out build/demo-minio]

Ends with the number of objects that the bucket holds; fails if what the demo published is not among them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.tools import TOOLS, build  # noqa: E402 (a script, whose folder is no package on the path)
from terroir.store.s3 import S3Store  # noqa: E402
from tests.tools.minio_server import ACCESS_KEY, SECRET_KEY, MinioServer  # noqa: E402


def main() -> int:
    """Run and check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/demo-minio"))
    options = parser.parse_args()
    program = build(next(tool for tool in TOOLS if tool.name == "minio"))
    with tempfile.TemporaryDirectory(prefix="terroir-minio-") as folder:
        server = MinioServer(str(program), Path(folder) / "data")
        server.start()
        try:
            location = server.location("terroir-demo")
            command = [
                str(Path(sys.executable).with_name("terroir")), "demo", "--out", str(options.out),
                "--store", f"s3://{location.bucket}", "--store-endpoint", server.endpoint,
            ]  # fmt: skip
            keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
            status = subprocess.run(command, env={**os.environ, **keys}, cwd=ROOT, check=False).returncode
            objects = list(S3Store(location).list(""))
        finally:
            server.stop()
    versions = [key for key in objects if key.startswith("adapters/") and key.endswith(".json") and "INDEX" not in key]
    blobs = sum(key.startswith("blobs/") for key in objects)
    print(f"the bucket holds {len(objects)} objects: {blobs} blobs, adapter versions {versions}")
    return status or (0 if len(versions) >= 2 and not (options.out / "data" / "blobs").exists() else 1)


if __name__ == "__main__":
    sys.exit(main())
