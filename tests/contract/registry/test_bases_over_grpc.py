"""RegisterBase as a client meets it: what it refuses, what it keeps, and that adapters bind to what was registered."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.client.registry import Registry
from terroir.common.base_digest import base_digest
from terroir.common.grpc_client import channel
from terroir.common.principal import Role
from terroir.lora.base_folder import read_base_folder
from terroir.registry.settings import RegistrySettings
from tests.contract.registry.running import Running, refused, running_registry
from tests.unit.lora.published import family_of, file_of, key_table, layout
from tests.unit.registry.adapter_kit import adapter_bytes
from tests.unit.registry.base_kit import write_base_folder

LAYER = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
TEXT_LAYER = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"
DIGESTS = {"unet": "1" * 64, "text_encoder": "2" * 64, "vae": "3" * 64}


def wish(name: str = "bases/mine", **fields: Any) -> pb.RegisterBaseRequest:
    """A right request, with fields replaced; `layers` as a list of pairs."""
    layers = fields.pop("layers", [(LAYER, (8, 8)), (TEXT_LAYER, (6, 6))])
    right = {
        "family": "sd15",
        "prediction_type": "epsilon",
        "component_digests": DIGESTS,
        "native_resolution": 512,
        "layers": [pb.LayerShape(layer=layer, shape=shape) for layer, shape in layers],
        "request_id": "r1",
    }
    return pb.RegisterBaseRequest(name=name, **{**right, **fields})


def test_a_registered_base_is_listed_with_who_registered_it_and_takes_adapters_of_its_shapes(
    registry: Running,
) -> None:
    base = registry.api.RegisterBase(wish(source="owner/name@" + "a" * 40))
    assert base.digest == base_digest(DIGESTS)
    assert (base.actor, base.source) == (f"local:{getpass.getuser()}", "owner/name@" + "a" * 40)
    assert (base.family, base.adaptable_layers, base.native_resolution) == ("sd15", 2, 512)
    assert registry.api.GetBase(pb.GetBaseRequest(name="bases/mine")) == base
    listed = registry.api.ListBases(pb.ListBasesRequest()).bases
    assert [found.name for found in listed] == ["bases/mine", "bases/other", "bases/tiny"]
    assert listed[2].actor == "settings:base_sources"
    version = registry.publish("adapters/a", adapter_bytes(rank=1, layers={LAYER: (8, 8)}), base="bases/mine")
    assert version.base_digest == base.digest
    with refused() as error:
        registry.publish("adapters/a", adapter_bytes(rank=1, layers={LAYER: (4, 4)}), base="bases/mine")
    assert error.reason == "ADAPTER_WRONG_SHAPE"


def test_registering_again_confirms_and_neither_source_nor_request_id_matter(registry: Running) -> None:
    first = registry.api.RegisterBase(wish())
    assert registry.api.RegisterBase(wish(request_id="r2", source="elsewhere")) == first
    assert registry.api.RegisterBase(wish(layers=[(TEXT_LAYER, (6, 6)), (LAYER, (8, 8))])) == first


def test_sdxl_has_a_second_text_encoder(registry: Running) -> None:
    second = "text_encoder_2.text_projection"
    base = registry.api.RegisterBase(
        wish(
            family="sdxl",
            component_digests={**DIGESTS, "text_encoder_2": "4" * 64},
            layers=[(LAYER, (8, 8)), (TEXT_LAYER, (6, 6)), (second, (6, 6))],
        )
    )
    assert base.family == "sdxl"
    version = registry.publish("adapters/xl", adapter_bytes(rank=1, layers={LAYER: (8, 8)}), base="bases/mine")
    assert version.coverage.matched_layers == 1


@pytest.mark.parametrize(("name", "layers_matched"), [("kohya_sd15", 264), ("kohya_sdxl_sgm", 986)])
def test_bases_of_full_width_take_published_layouts(registry: Running, name: str, layers_matched: int) -> None:
    """sd-scripts counts 192 + 72 modules of SD 1.5 and 722 + 72 + 192 of SDXL."""
    family = family_of(name)
    components = {**DIGESTS, **({"text_encoder_2": "4" * 64} if family == "sdxl" else {})}
    table = key_table(family)
    base = registry.api.RegisterBase(
        wish(f"bases/{family}", family=family, component_digests=components, layers=list(table.items()))
    )
    assert base.adaptable_layers == len(table)
    with channel(f"127.0.0.1:{registry.port}") as opened:
        header = pb.PublishHeader(adapter=f"adapters/{family}", base=base.name)
        version = Registry(opened).publish(header, file_of(layout(name)))
    assert version.coverage.matched_layers == layers_matched
    assert not version.coverage.ignored


def test_a_folder_read_by_the_client_is_what_the_server_registers_from_its_own(
    registry: Running, tmp_path: Path
) -> None:
    content = read_base_folder(tmp_path / "tiny")
    told = wish(
        "bases/tiny",
        family=content.family,
        prediction_type=content.prediction_type,
        component_digests=content.component_digests,
        native_resolution=content.native_resolution,
        layers=list(content.layers.items()),
    )
    assert registry.api.RegisterBase(told) == registry.api.GetBase(pb.GetBaseRequest(name="bases/tiny"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"component_digests": {**DIGESTS, "vae": "9" * 64}}, "digest"),
        ({"prediction_type": "v_prediction"}, "prediction_type epsilon, now v_prediction"),
        ({"native_resolution": 768}, "native_resolution 512, now 768"),
        ({"layers": [(LAYER, (8, 9)), (TEXT_LAYER, (6, 6))]}, "of shape [8, 8], not [8, 9]"),
    ],
    ids=["weights", "prediction", "resolution", "shapes"],
)
def test_other_content_under_a_known_id_is_refused_by_what_differs(
    registry: Running, change: dict[str, Any], says: str
) -> None:
    first = registry.api.RegisterBase(wish())
    with refused() as error:
        registry.api.RegisterBase(wish(**change))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "BASE_CONTENT_CHANGED")
    assert says in error.message
    assert registry.api.GetBase(pb.GetBaseRequest(name="bases/mine")) == first


def layers(*entries: tuple[str, tuple[int, ...]]) -> dict[str, Any]:
    """A change of the layers, the text encoder's kept."""
    return {"layers": [*entries, (TEXT_LAYER, (6, 6))]}


INVALID = "INVALID_ARGUMENT"
CASES: list[tuple[str, dict[str, Any], str]] = [
    ("name", {"name": "bases/../x"}, "INVALID_NAME"),
    ("family", {"family": "flux"}, "BASE_FAMILY_UNKNOWN"),
    ("no family", {"family": ""}, "BASE_FAMILY_UNKNOWN"),
    ("prediction", {"prediction_type": "sample"}, "BASE_PREDICTION_UNKNOWN"),
    ("side too small", {"native_resolution": 31}, "OUT_OF_RANGE"),
    ("side too large", {"native_resolution": 4097}, "OUT_OF_RANGE"),
    ("component missing", {"component_digests": {"unet": "1" * 64}}, "BASE_COMPONENTS"),
    ("component too many", {"component_digests": {**DIGESTS, "text_encoder_2": "4" * 64}}, "BASE_COMPONENTS"),
    ("sdxl as sd15", {"family": "sdxl"}, "BASE_COMPONENTS"),
    ("digest", {"component_digests": {**DIGESTS, "vae": "../x"}}, "INVALID_DIGEST"),
    ("no layers", {"layers": []}, "BASE_LAYERS"),
    ("too many layers", {"layers": [(f"unet.a{n}", (1, 1)) for n in range(20_001)]}, "BASE_LAYERS"),
    ("no text layers", {"layers": [(LAYER, (8, 8))]}, "BASE_LAYERS"),
    ("layer twice", layers((LAYER, (8, 8)), (LAYER, (8, 8))), "BASE_LAYER_TWICE"),
    ("layer of the autoencoder", layers((LAYER, (8, 8)), ("vae.decoder", (8, 8))), "BASE_LAYER_NAME"),
    ("second encoder of sd15", layers((LAYER, (8, 8)), ("text_encoder_2.x", (8, 8))), "BASE_LAYER_NAME"),
    ("layer without a component", layers(("to_q", (8, 8))), "BASE_LAYER_NAME"),
    ("layer with a folder", layers(("unet.a/../b", (8, 8))), "BASE_LAYER_NAME"),
    ("layer with an empty part", layers(("unet.a..b", (8, 8))), "BASE_LAYER_NAME"),
    ("endless layer", layers((f"unet.{'a' * 300}", (8, 8))), "BASE_LAYER_NAME"),
    ("three axes", layers((LAYER, (8, 8, 3))), "BASE_LAYER_SHAPE"),
    ("no axes", layers((LAYER, ())), "BASE_LAYER_SHAPE"),
    ("an empty axis", layers((LAYER, (8, 0))), "BASE_LAYER_SHAPE"),
    ("a negative axis", layers((LAYER, (8, -8))), "BASE_LAYER_SHAPE"),
    ("an endless axis", layers((LAYER, (8, 1 << 21))), "BASE_LAYER_SHAPE"),
    ("too many elements", layers((LAYER, (1 << 20, 1 << 20))), "BASE_LAYER_SHAPE"),
    ("endless source", {"source": "x" * 257}, "TEXT_TOO_LONG"),
    ("endless request_id", {"request_id": "x" * 129}, "TEXT_TOO_LONG"),
]


@pytest.mark.parametrize(("change", "reason"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_bad_registrations_are_refused_with_their_reason_and_leave_nothing(
    module_registry: Running, change: dict[str, Any], reason: str
) -> None:
    with refused() as error:
        module_registry.api.RegisterBase(wish(**change))
    assert (error.code, error.reason) == (INVALID, reason)
    assert error.message
    assert len(module_registry.api.ListBases(pb.ListBasesRequest()).bases) == 2


@pytest.fixture
def of_publishers(tmp_path: Path) -> Iterator[Running]:
    """A registry whose callers are publishers."""
    settings = RegistrySettings(
        data_dir=tmp_path / "data",
        port=0,
        base_sources={"tiny": write_base_folder(tmp_path / "tiny")},
        local_roles=frozenset({Role.PUBLISHER}),
    )
    with running_registry(settings) as running:
        yield running


def test_only_operators_register_bases(of_publishers: Running) -> None:
    with refused() as error:
        of_publishers.api.RegisterBase(wish())
    assert (error.code, error.reason) == ("PERMISSION_DENIED", "ROLE_MISSING")
    assert "operator" in error.message
    with refused() as error:
        of_publishers.api.GetBase(pb.GetBaseRequest(name="bases/mine"))
    assert error.reason == "BASE_NOT_FOUND"
