"""Settings that every service has. A service's own settings extend them; the environment is read nowhere else."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Final, Literal, Self, get_type_hints

from pydantic import BaseModel, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from terroir.common.errors import InvalidArgument
from terroir.common.principal import Role
from terroir.common.validation import did_you_mean

_USER_IN_ADDRESS: Final = re.compile(r"//[^/@\s]*@")


class ServiceSettings(BaseSettings):
    """Common settings; variables are TERROIR_<SERVICE>_<NAME>."""

    model_config = SettingsConfigDict(env_prefix="TERROIR_", extra="forbid", hide_input_in_errors=True)

    host: str = Field(
        default="127.0.0.1",
        description="Address to listen on; beyond loopback tls_dir and access_path are needed, or insecure_listen.",
    )
    port: int = Field(default=0, ge=0, le=65535, description="TCP port; 0 takes a free one.")
    insecure_listen: bool = Field(
        default=False, description="Allow listening beyond loopback without TLS and authentication."
    )
    metrics_host: str = Field(default="", description="Address of the metrics port; empty: that of `host`.")
    metrics_port: int = Field(
        default=0, ge=0, le=65535, description="TCP port of /metrics, /healthz and /readyz, plain HTTP; 0 turns it off."
    )
    tls_dir: Path | None = Field(
        default=None,
        description="Folder with tls.crt, tls.key and ca.crt, as a Kubernetes TLS secret mounts them: the service's "
        "identity, also in its calls to others. Read again when they change.",
    )
    tls_require_client_certificate: bool = Field(
        default=True, description="Refuse connections without a certificate that ca.crt vouches for."
    )
    access_path: Path | None = Field(
        default=None, description="YAML file of issuers and grants: who may do what. Read again when it changes."
    )
    token_path: Path | None = Field(
        default=None, description="File with a bearer token to show to other services. Read again when it changes."
    )
    local_roles: frozenset[Role] = Field(
        default=frozenset({Role.OPERATOR}),
        description="Roles of every caller while there is no access file: a JSON list of viewer, stylist, publisher, "
        "operator.",
    )
    rate_limit_calls_per_second: float = Field(
        default=0, ge=0, le=1e6, description="Calls that one principal may make a second, in each replica; 0: any."
    )
    rate_limit_burst_calls: int = Field(
        default=50, ge=1, le=1_000_000, description="Calls that one principal may make at once."
    )
    max_connection_age_seconds: float = Field(
        default=0,
        ge=0,
        le=86_400,
        description="Seconds after which callers are asked to dial anew, so that new replicas get work; 0: never.",
    )
    otlp_endpoint: str = Field(
        default="", description="OpenTelemetry collector, `http://host:4317` (OTLP over gRPC); empty: no traces."
    )
    trace_sample_ratio: float = Field(
        default=1.0, ge=0, le=1, description="Share of the requests traced that come without a trace of their own."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="Least level logged.")
    drain_timeout_seconds: float = Field(
        default=15.0, ge=0, le=3600, description="Seconds that running calls may take to finish at shutdown."
    )
    drain_delay_seconds: float = Field(
        default=0.0,
        ge=0,
        le=600,
        description="Seconds at shutdown in which health says NOT_SERVING and calls are still taken: what callers need "
        "to look elsewhere.",
    )
    announce_path: Path | None = Field(
        default=None, description="File that receives pid and bound ports as JSON once the service listens."
    )
    data_dir: Path = Field(
        default=Path("~/.terroir"),
        description="Local folder: caches and run files, and the object store unless `store` is set.",
    )
    store: str = Field(default="", description="Object store, `s3://bucket/prefix`; empty: the folder data_dir.")
    store_endpoint: str = Field(
        default="",
        description="Address of the S3 service, `https://host:port`; empty: AWS. Plain http needs store_insecure_http.",
    )
    store_region: str = Field(
        default="", description="Region of the bucket; empty: AWS_REGION, AWS_DEFAULT_REGION or us-east-1."
    )
    store_access_key_id: SecretStr = Field(
        default=SecretStr(""), description="Access key; empty: AWS_ACCESS_KEY_ID or the machine's own role."
    )
    store_secret_access_key: SecretStr = Field(default=SecretStr(""), description="Secret of the access key.")
    store_timeout_seconds: float = Field(
        default=30.0, gt=0, le=3600, description="Seconds that one request to the object store may take, body included."
    )
    store_retry_seconds: float = Field(
        default=3.0, ge=0, le=600, description="Seconds for which a failed request is repeated before it is an error."
    )
    store_silence_seconds: float = Field(
        default=5.0,
        gt=0,
        le=3600,
        description="Seconds that the object store may send nothing before a request counts as failed.",
    )
    store_insecure_http: bool = Field(default=False, description="Allow an S3 endpoint without TLS beyond loopback.")
    store_create_bucket: bool = Field(default=True, description="Create the bucket at start if it is missing.")

    @classmethod
    def load(cls) -> Self:
        """Read the environment; raises InvalidArgument that names the variable, never the value of a secret.

        UNKNOWN_SETTING, INVALID_SETTING, or SECRET_IN_ADDRESS for a user or password in an address: those are shown in
        logs, errors and command lines.
        """
        prefix = cls.model_config.get("env_prefix", "")
        known = set(_variables(cls, prefix, cls.model_config.get("env_nested_delimiter")))
        for variable in sorted(os.environ):
            if variable.upper().startswith(prefix) and variable.upper() not in known:
                raise InvalidArgument(
                    f"unknown setting {variable}{did_you_mean(variable.upper(), sorted(known))}",
                    reason="UNKNOWN_SETTING",
                )
        try:
            settings = cls()
        except ValidationError as error:
            first = error.errors()[0]
            where = "__".join(str(part) for part in first["loc"]).upper()
            raise InvalidArgument(
                f"setting {prefix}{where} is wrong: {first['msg']} ({_given(cls, first)})",
                reason="INVALID_SETTING",
            ) from error
        except SettingsError as error:  # a value of several parts that is no JSON; it names the field alone
            raise InvalidArgument(
                f"a setting {prefix}… is not JSON: {error}: {error.__cause__}", reason="INVALID_SETTING"
            ) from error
        for name in cls.model_fields:
            if isinstance(value := getattr(settings, name), str) and _USER_IN_ADDRESS.search(value):
                raise InvalidArgument(
                    f"setting {prefix}{name.upper()} holds a user or password before its @, where logs would show it; "
                    "leave it out and use the settings for keys and tokens",
                    reason="SECRET_IN_ADDRESS",
                )
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


def _given(model: type[BaseSettings], error: Mapping[str, Any]) -> str:
    """The value that was refused, as far as it may be shown."""
    field = model.model_fields.get(str(error["loc"][0])) if error["loc"] else None
    if field is not None and "Secret" in _type_name(field.annotation):
        return "its value is a secret and not shown"
    return _USER_IN_ADDRESS.sub("//…@", f"got {error.get('input')!r}")


def _variables(model: type, prefix: str, delimiter: str | None) -> Iterator[str]:
    """Every environment variable that a model reads: its fields, and with a delimiter those of the models within it."""
    for name, annotation in get_type_hints(model).items():
        if name not in _field_names(model):
            continue
        variable = f"{prefix}{name}".upper()
        yield variable
        if delimiter and isinstance(annotation, type):
            yield from _variables(annotation, f"{variable}{delimiter}", delimiter)


def _field_names(model: type) -> Collection[str]:
    if issubclass(model, BaseModel):
        return model.model_fields
    return {field.name for field in fields(model)} if is_dataclass(model) else ()


def _type_name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def _default(value: Any) -> str:
    return "" if value is None else str(value)
