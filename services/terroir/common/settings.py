"""Settings that every service has. A service's own settings extend them; the environment is read nowhere else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from terroir.common.errors import InvalidArgument
from terroir.common.validation import did_you_mean


class ServiceSettings(BaseSettings):
    """Common settings; variables are TERROIR_<SERVICE>_<NAME>."""

    model_config = SettingsConfigDict(env_prefix="TERROIR_", extra="forbid")

    host: str = Field(default="127.0.0.1", description="Address to listen on; anything but loopback needs insecure_listen.")
    port: int = Field(default=0, ge=0, le=65535, description="TCP port; 0 takes a free one.")
    insecure_listen: bool = Field(
        default=False, description="Allow listening beyond loopback without TLS and authentication."
    )
    metrics_port: int = Field(default=0, ge=0, le=65535, description="TCP port of /metrics; 0 turns it off.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level logged.")
    drain_timeout_seconds: float = Field(
        default=15.0, ge=0, le=3600, description="Seconds that running calls may take to finish at shutdown."
    )
    announce_path: Path | None = Field(
        default=None, description="File that receives pid and bound ports as JSON once the service listens."
    )
    data_dir: Path = Field(default=Path("~/.terroir"), description="Root of the local object store.")

    @classmethod
    def load(cls) -> Self:
        """Read the environment; raises InvalidArgument (UNKNOWN_SETTING, INVALID_SETTING) that names the variable."""
        prefix = cls.model_config.get("env_prefix", "")
        known = [f"{prefix}{name}".upper() for name in cls.model_fields]
        delimiter = cls.model_config.get("env_nested_delimiter")
        for variable in sorted(os.environ):
            plain = variable.split(delimiter)[0] if delimiter else variable
            if variable.startswith(prefix) and plain not in known:
                raise InvalidArgument(
                    f"unknown setting {variable}{did_you_mean(variable, known)}", reason="UNKNOWN_SETTING"
                )
        try:
            settings = cls()
        except ValidationError as error:
            first = error.errors()[0]
            where = "__".join(str(part) for part in first["loc"])
            raise InvalidArgument(
                f"setting {prefix}{where.upper()} is wrong: {first['msg']} (got {first.get('input')!r})",
                reason="INVALID_SETTING",
            ) from error
        return settings.model_copy(update={"data_dir": settings.data_dir.expanduser()})


@dataclass(frozen=True)
class SettingRow:
    """One setting as the reference documents it."""

    name: str
    variable: str
    type: str
    default: str
    description: str


def describe(settings: type[ServiceSettings]) -> Iterator[SettingRow]:
    """Rows of the generated settings reference, in order of declaration."""
    prefix = settings.model_config.get("env_prefix", "")
    for name, field in settings.model_fields.items():
        yield SettingRow(
            name=name,
            variable=f"{prefix}{name}".upper(),
            type=_type_name(field.annotation),
            default=_default(field.default),
            description=field.description or "",
        )


def _type_name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def _default(value: Any) -> str:
    return "" if value is None else str(value)
