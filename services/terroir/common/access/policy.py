"""What the contracts say of each method: the option `terroir.access.v1.policy`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FieldDescriptor

from terroir._proto.access.v1 import access_pb2
from terroir.common.principal import Role

_ROLES: Final = {
    access_pb2.ROLE_VIEWER: Role.VIEWER,
    access_pb2.ROLE_STYLIST: Role.STYLIST,
    access_pb2.ROLE_PUBLISHER: Role.PUBLISHER,
    access_pb2.ROLE_OPERATOR: Role.OPERATOR,
    access_pb2.ROLE_SERVICE: Role.SERVICE,
}


@dataclass(frozen=True)
class Policy:
    """Who may call a method. Without roles nobody may: so is a method that states no policy."""

    roles: tuple[Role, ...] = ()
    scope: tuple[str, ...] = ()
    """Paths of request fields that name a region or something that lies in one."""
    any_region: bool = False


@lru_cache(maxsize=1024)
def policy_of(method: str) -> Policy:
    """The policy of `/package.Service/Method`; one without roles for a method that states none."""
    try:
        described = descriptor_pool.Default().FindMethodByName(method.strip("/").replace("/", "."))
    except KeyError:
        return Policy()
    stated = described.GetOptions().Extensions[access_pb2.policy]
    return Policy(tuple(_ROLES[role] for role in stated.roles), tuple(stated.scope), stated.any_region)


def scoped_names(policy: Policy, message: Any) -> Iterator[str]:
    """What a request message names in its policy's fields; nothing of a branch that the message does not have."""
    for path in policy.scope:
        *parents, last = path.split(".")
        here = message
        for parent in parents:
            if not here.HasField(parent):
                break
            here = getattr(here, parent)
        else:
            field: FieldDescriptor = here.DESCRIPTOR.fields_by_name[last]
            if field.containing_oneof is None or here.HasField(last):
                yield getattr(here, last)
