"""The dataset service as people run it: a process of its own, spoken to over TCP."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import IO

import grpc

import terroir
from terroir._proto.dataset.v1 import dataset_pb2 as pb
from terroir._proto.dataset.v1 import dataset_pb2_grpc
from terroir.common.grpc_client import channel, error_from_rpc

CHUNK_BYTES = 512 * 1024


@dataclass
class Service:
    """A running service and a stub for it."""

    process: subprocess.Popen[str]
    port: int
    stub: dataset_pb2_grpc.DatasetServiceStub


@contextmanager
def running(data_dir: Path, **settings: str) -> Iterator[Service]:
    """Start the service over `data_dir`, with settings by the names of their variables."""
    variables = {
        "PYTHONPATH": str(Path(terroir.__file__).parents[1]),
        "TERROIR_DATASET_PORT": "0",
        "TERROIR_DATASET_DATA_DIR": str(data_dir),
        "TERROIR_DATASET_GATES__MINIMUM_SIDE": "64",
        **{f"TERROIR_DATASET_{name}": value for name, value in settings.items()},
    }
    command = [sys.executable, "-m", "terroir.dataset.main"]
    process = subprocess.Popen(command, env={**os.environ, **variables}, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        port = _port(process.stderr)
        with channel(f"127.0.0.1:{port}") as connection:
            yield Service(process, port, dataset_pb2_grpc.DatasetServiceStub(connection))
    finally:
        process.terminate()
        process.wait(30)
        process.stderr.close()


def _port(log: IO[str]) -> int:
    """Read the log up to the line that says which port it is, and let a thread read the rest."""
    seen = []
    for line in log:
        seen.append(line)
        if line.startswith("{") and (event := json.loads(line))["event"] == "listening":
            Thread(target=_drain, args=(log,), daemon=True).start()
            return int(event["port"])
    raise AssertionError("".join(seen))


def _drain(log: IO[str]) -> None:
    try:
        for _ in log:
            pass
    except ValueError:  # closed by the test's end
        return


class ImportStream:
    """One import as a client runs it, message by message."""

    def __init__(self, stub: dataset_pb2_grpc.DatasetServiceStub, dataset: str) -> None:
        self._outgoing: queue.SimpleQueue[pb.ImportImagesRequest | None] = queue.SimpleQueue()
        self.put(start=pb.ImportStart(dataset=dataset))
        self.answers = stub.ImportImages(iter(self._outgoing.get, None))

    def put(self, **message: object) -> None:
        self._outgoing.put(pb.ImportImagesRequest(**message))

    def offer(self, name: str, data: bytes, caption: str = "") -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.put(offer=pb.ImageOffer(digest=digest, file_name=name, size_bytes=len(data), caption=caption))
        return digest

    def send(self, digest: str, data: bytes) -> None:
        for offset in range(0, len(data), CHUNK_BYTES):
            part = data[offset : offset + CHUNK_BYTES]
            self.put(chunk=pb.ImageChunk(digest=digest, offset=offset, data=part))

    def close(self) -> None:
        self._outgoing.put(None)
        self.answers.cancel()


def import_all(
    stub: dataset_pb2_grpc.DatasetServiceStub, dataset: str, files: Iterable[tuple[str, bytes, str]]
) -> tuple[list[pb.ImageVerdict], list[str]]:
    """Import `(name, content, caption)`; the verdicts, and the digests that the server asked for."""
    stream = ImportStream(stub, dataset)
    contents = {stream.offer(name, data, caption): data for name, data, caption in files}
    stream.put(offers_done=pb.OffersDone())
    verdicts, wanted = [], []
    try:
        for answer in stream.answers:
            if answer.WhichOneof("message") == "wanted":
                wanted.append(answer.wanted.digest)
                stream.send(answer.wanted.digest, contents[answer.wanted.digest])
            else:
                verdicts.append(answer.verdict)
    finally:
        stream.close()
    return verdicts, wanted


def reason_of(error: grpc.RpcError) -> str:
    """The stable reason code of a refused call."""
    return error_from_rpc(error).reason
