"""Every method of every contract states who may call it, and its fields of scope exist."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor, MethodDescriptor

from terroir._proto.dataset.v1 import dataset_pb2
from terroir._proto.inference.v1 import cover_pb2, inference_pb2
from terroir._proto.registry.v1 import region_pb2, registry_pb2
from terroir._proto.training.v1 import rating_pb2, style_pb2, training_pb2
from terroir.common.access.policy import Policy, policy_of, scoped_names
from terroir.common.errors import PermissionDenied
from terroir.common.principal import Principal, Role

FILES = (cover_pb2, dataset_pb2, inference_pb2, rating_pb2, region_pb2, registry_pb2, style_pb2, training_pb2)


def methods() -> Iterator[MethodDescriptor]:
    for file in FILES:
        for service in file.DESCRIPTOR.services_by_name.values():
            yield from service.methods


def path(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


METHODS = {path(method): method for method in methods()}
READS = ("Get", "Read", "List", "Find", "Check", "Download", "Watch", "Tail", "Resolve", "Validate")


def test_there_are_methods() -> None:
    assert len(METHODS) > 50


@pytest.mark.parametrize("name", METHODS)
def test_states_who_may_call_it(name: str) -> None:
    policy = policy_of(name)
    assert policy.roles, "a method without a policy is refused: add option (terroir.access.v1.policy)"
    reads = name.rpartition("/")[2].startswith(READS)
    assert (Role.VIEWER in policy.roles) == reads, "who only reads needs the role viewer, who changes more"
    if reads:
        assert policy.any_region


@pytest.mark.parametrize("name", [name for name in METHODS if policy_of(name).scope])
def test_its_scope_names_fields_of_the_request(name: str) -> None:
    for field in policy_of(name).scope:
        here: Descriptor = METHODS[name].input_type
        *parents, last = field.split(".")
        for parent in parents:
            here = here.fields_by_name[parent].message_type
        assert here.fields_by_name[last].type == here.fields_by_name[last].TYPE_STRING


def test_a_method_that_nobody_knows_is_nobodys() -> None:
    assert policy_of("/terroir.registry.v1.RegistryService/Invented") == Policy()
    assert policy_of("/other.Service/Method") == Policy()


def test_a_branch_that_a_message_does_not_have_names_nothing() -> None:
    policy = Policy((Role.STYLIST,), ("start.dataset",))
    offer = dataset_pb2.ImportImagesRequest(offer=dataset_pb2.ImageOffer(digest="d"))
    start = dataset_pb2.ImportImagesRequest(start=dataset_pb2.ImportStart(dataset="datasets/ink"))
    assert list(scoped_names(policy, offer)) == []
    assert list(scoped_names(policy, start)) == ["datasets/ink"]


@pytest.mark.parametrize(
    ("limits", "region", "within"),
    [
        (None, "", True),
        (None, "CN-ZJ", True),
        ({"CN"}, "CN-ZJ", True),
        ({"CN-ZJ"}, "CN-ZJ", True),
        ({"CN-ZJ"}, "CN", False),
        ({"CN-ZJ"}, "CN-ZJX", False),
        ({"CN-ZJ", "JP"}, "JP-13", True),
        ({"CN"}, "", False),
        (set(), "CN", False),
    ],
)
def test_regions_limit_by_code_and_what_lies_below(limits: set[str] | None, region: str, within: bool) -> None:
    principal = Principal("cert:a", frozenset({Role.STYLIST}), None if limits is None else frozenset(limits))
    if within:
        principal.require_region(region, "draw")
        return
    with pytest.raises(PermissionDenied, match="the caller is limited to") as refused:
        principal.require_region(region, "draw")
    assert refused.value.reason == "REGION_OUT_OF_SCOPE"
