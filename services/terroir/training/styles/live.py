"""What a registration does at this moment: hints for watchers, which nothing depends on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from terroir.store.errors import NotFound
from terroir.store.interface import ObjectStore
from terroir.training.styles.model import Registration


@dataclass(frozen=True)
class Live:
    """How far a step is, and what it waits for."""

    done: int = 0
    total: int = 0
    """Pictures; 0 until known."""
    waiting_for: str = ""


def write_live(store: ObjectStore, registration: Registration, live: Live) -> None:
    """Replace the hint."""
    store.put(_key(registration), json.dumps(asdict(live)).encode())


def read_live(store: ObjectStore, registration: Registration) -> Live:
    """The hint, if there is one."""
    try:
        return Live(**json.loads(store.get(_key(registration))))
    except (NotFound, ValueError, TypeError):
        return Live()


def _key(registration: Registration) -> str:
    return f"styles/{registration.wish.style}/live/{registration.id}"
