"""A writer in a process of its own: `writer_process.py <mode> <root> <name>`.

Prints `ready` and begins at a line of input.

create: one create of `race/one` from each of 4 threads, prints how many won; append: 25 documents to `log`;
flood: 32 MiB objects until killed; unprivileged: what a create and a read answer without any right to the folder.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

from terroir.common.clock import SystemClock
from terroir.store.documents import DocumentSequence
from terroir.store.errors import AlreadyExists, StoreUnavailable
from terroir.store.local import LocalStore

NOBODY = 65534
FLOOD_BYTES = 32 * 2**20


def wins(store: LocalStore, key: str, body: bytes) -> bool:
    try:
        store.create(key, body)
    except AlreadyExists:
        return False
    return True


def flood(store: LocalStore, name: str) -> None:
    for number in count():
        store.create(f"flood/{name}-{number}", bytes([number % 256]) * FLOOD_BYTES)


def reason_of_create_and_get(root: Path) -> list[str]:
    if os.getuid() == 0:
        os.setuid(NOBODY)
    store = LocalStore(root)
    reasons = []
    for attempt in (lambda: store.create("a/b", b"x"), lambda: store.get("secret"), store.ensure_writable):
        try:
            attempt()
        except StoreUnavailable as error:
            reasons.append(error.reason)
    return reasons


def main(mode: str, root: Path, name: str) -> None:
    if mode == "unprivileged":
        print(*reason_of_create_and_get(root))
        return
    store = LocalStore(root)
    print("ready", flush=True)
    sys.stdin.readline()
    if mode == "create":
        with ThreadPoolExecutor(4) as pool:
            print(sum(pool.map(lambda thread: wins(store, "race/one", f"{name}-{thread}".encode()), range(4))))
    elif mode == "append":
        sequence = DocumentSequence(store, "log", SystemClock())
        for number in range(25):
            sequence.append({"by": name, "number": number}, op_id=f"{name}-{number}")
    elif mode == "flood":
        flood(store, name)
    else:
        raise SystemExit(f"unknown mode {mode!r}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
