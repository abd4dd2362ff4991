"""The access file: which issuers' tokens are believed, and which roles named principals have."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

import structlog
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from terroir.common.clock import Clock
from terroir.common.errors import InvalidArgument
from terroir.common.principal import Principal, Role
from terroir.common.validation import did_you_mean

_LOOK_SECONDS: Final = 1.0
_log = structlog.get_logger()

Algorithm: TypeAlias = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]  # fmt: skip
"""Asymmetric ones alone: with HS256 whoever may read the public keys could sign, and `none` is no signature."""
RegionCode: TypeAlias = Annotated[str, Field(pattern=r"^[A-Z0-9]([A-Za-z0-9-]{0,62})$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Issuer(_Part):
    """An identity provider whose tokens are believed."""

    issuer: str = Field(min_length=1, max_length=512)
    """The claim `iss`, exactly."""
    audience: str = Field(min_length=1, max_length=512)
    """What `aud` must hold: a token for another service is not one for us."""
    jwks: str = Field(min_length=1)
    """Where its public keys are: an https address, or a file."""
    algorithms: tuple[Algorithm, ...] = Field(default=("RS256", "ES256"), min_length=1)
    roles_claim: str = ""
    """Claim that lists role names; what is no role of ours in it is ignored. Empty: roles come from grants alone."""
    regions_claim: str = ""
    """Claim that lists region codes that the principal is limited to."""

    @field_validator("jwks")
    @classmethod
    def _safe(cls, value: str) -> str:
        if value.startswith("http://") and not value.startswith(("http://127.0.0.1", "http://localhost")):
            raise ValueError("keys over plain http could be anybody's; use https or a file")
        return value


class Grant(_Part):
    """Roles of named principals."""

    principals: tuple[str, ...] = Field(min_length=1)
    """`cert:<SAN or CN>` or `oidc:<issuer>#<subject>`."""
    roles: tuple[Role, ...] = Field(min_length=1)
    regions: tuple[RegionCode, ...] | None = None
    """Limits what they change to these regions and those below; absent: everywhere."""

    @field_validator("principals")
    @classmethod
    def _named(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not name.startswith(("cert:", "oidc:")):
                raise ValueError(f"{name!r} is no principal: write cert:NAME or oidc:ISSUER#SUBJECT")
        return value


class AccessRules(_Part):
    """The whole file."""

    issuers: tuple[Issuer, ...] = ()
    grants: tuple[Grant, ...] = ()

    def principal(
        self, name: str, roles: frozenset[Role] = frozenset(), regions: frozenset[str] | None = None
    ) -> Principal:
        """The principal of this name with the roles that its credentials state and those that grants add.

        Grants are added up; one without regions lifts the limit of others, and so does a token without a limit.
        """
        granted = [grant for grant in self.grants if name in grant.principals]
        limits = [regions] if roles else []
        limits += [None if grant.regions is None else frozenset(grant.regions) for grant in granted]
        together: frozenset[str] = frozenset().union(*(limit for limit in limits if limit is not None))
        return Principal(
            name,
            roles.union(*(grant.roles for grant in granted)),
            None if not limits or any(limit is None for limit in limits) else together,
        )

    def grants_for(self, name: str) -> bool:
        """Whether any grant names this principal."""
        return any(name in grant.principals for grant in self.grants)


def read_rules(path: Path) -> AccessRules:
    """The rules of a file; raises InvalidArgument (ACCESS_FILE_UNREADABLE, ACCESS_FILE_INVALID) that says where."""
    try:
        stated: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(
            f"cannot read the access file {path}: {error}", reason="ACCESS_FILE_UNREADABLE"
        ) from error
    except yaml.YAMLError as error:
        raise InvalidArgument(f"{path} is not YAML: {error}", reason="ACCESS_FILE_INVALID") from error
    if stated is None:
        stated = {}
    if not isinstance(stated, Mapping):
        raise InvalidArgument(
            f"{path} holds {type(stated).__name__}; write a mapping with `issuers` and `grants`",
            reason="ACCESS_FILE_INVALID",
        )
    try:
        return AccessRules.model_validate(stated)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        known = sorted({*AccessRules.model_fields, *Issuer.model_fields, *Grant.model_fields})
        hint = did_you_mean(str(first["loc"][-1]), known) if first["type"] == "extra_forbidden" else ""
        raise InvalidArgument(f"{path}: {where}: {first['msg']}{hint}", reason="ACCESS_FILE_INVALID") from error


class AccessFile:
    """The rules of a file, read again when it changes. A changed file that is wrong leaves the rules as they were."""

    def __init__(self, path: Path, clock: Clock, on_failure: Callable[[], None] = lambda: None) -> None:
        """`on_failure` hears of each change that could not be read. Raises as `read_rules` does."""
        self._path = path
        self._clock = clock
        self._on_failure = on_failure
        self._looked = clock.monotonic()
        self._seen = self._mark()
        self._rules = read_rules(path)

    @property
    def rules(self) -> AccessRules:
        """As of the last second."""
        now = self._clock.monotonic()
        if now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            if (mark := self._mark()) != self._seen:
                self._seen = mark
                self._read_again()
        return self._rules

    def _read_again(self) -> None:
        try:
            self._rules = read_rules(self._path)
        except InvalidArgument as error:
            _log.error("access file not taken; the rules stay as they were", reason=error.reason, error=str(error))
            self._on_failure()
        else:
            _log.info("access file read again", issuers=len(self._rules.issuers), grants=len(self._rules.grants))

    def _mark(self) -> tuple[int, int, int] | None:
        """What changes with the file; a ConfigMap is replaced by moving a link, which the inode tells."""
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size
