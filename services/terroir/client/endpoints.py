"""Where the four services listen."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from terroir.common.errors import FailedPrecondition, InvalidArgument

ENVIRONMENT_VARIABLE = "TERROIR_ENDPOINTS"
_FILE_NAME = "endpoints.json"


def default_data_dir() -> Path:
    """Folder that `terroir up` uses unless told otherwise: TERROIR_DATA_DIR, else `~/.terroir`."""
    return Path(os.environ.get("TERROIR_DATA_DIR", "~/.terroir")).expanduser()


@dataclass(frozen=True)
class Endpoints:
    """gRPC targets, `host:port` each."""

    dataset: str = "127.0.0.1:7101"
    training: str = "127.0.0.1:7102"
    registry: str = "127.0.0.1:7103"
    inference: str = "127.0.0.1:7104"
    """Of several replicas all, separated by commas: requests go where their styles are warm."""

    @classmethod
    def discover(cls, data_dir: Path | None = None) -> Endpoints:
        """Targets of the `terroir up` on `data_dir`, or where none is named of the first of these that there is.

        TERROIR_ENDPOINTS (`dataset=host:port,…`, `inference` once a replica), a `terroir up` on the default folder, the
        default ports.
        Raises FailedPrecondition (NOT_RUNNING, ENDPOINTS_UNREADABLE) and InvalidArgument (BAD_ENDPOINTS).
        """
        stated = os.environ.get(ENVIRONMENT_VARIABLE)
        if stated and data_dir is None:
            return cls._parse(stated)
        path = (data_dir or default_data_dir()) / _FILE_NAME
        if data_dir is not None and not path.exists():
            raise FailedPrecondition(
                f"no terroir runs on {data_dir} (start one: terroir up --data-dir {data_dir})", reason="NOT_RUNNING"
            )
        return cls._read(path) if path.exists() else cls()

    @classmethod
    def _read(cls, path: Path) -> Endpoints:
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise FailedPrecondition(
                f"cannot read {path} ({error}); remove it, or start a terroir there again",
                reason="ENDPOINTS_UNREADABLE",
            ) from error

    @classmethod
    def _parse(cls, stated: str) -> Endpoints:
        targets: dict[str, str] = {}
        for part in filter(None, (part.strip() for part in stated.split(","))):
            name, _, target = part.partition("=")
            if name not in cls.__dataclass_fields__ or not target:
                raise InvalidArgument(
                    f"{ENVIRONMENT_VARIABLE} holds {part!r}; write SERVICE=HOST:PORT with a service of "
                    f"{', '.join(cls.__dataclass_fields__)}",
                    reason="BAD_ENDPOINTS",
                )
            if name in targets and name != "inference":
                message = f"{ENVIRONMENT_VARIABLE} names {name} twice; only inference has several replicas"
                raise InvalidArgument(message, reason="BAD_ENDPOINTS")
            targets[name] = f"{targets[name]},{target}" if name in targets else target
        return cls(**targets)

    def save(self, data_dir: Path) -> None:
        """Leave the targets where `discover` finds them; atomic."""
        partial = data_dir / f"{_FILE_NAME}.partial"
        partial.write_text(json.dumps(asdict(self), indent=2))
        partial.replace(data_dir / _FILE_NAME)

    @staticmethod
    def forget(data_dir: Path) -> None:
        """Remove what `save` left."""
        (data_dir / _FILE_NAME).unlink(missing_ok=True)
