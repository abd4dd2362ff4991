"""Inference over TCP with a real engine process and a real registry."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from PIL import Image

from terroir._proto.inference.v1 import inference_pb2 as pb
from terroir._proto.registry.v1 import recipe_pb2, region_pb2, region_pb2_grpc, registry_pb2_grpc
from terroir.common.grpc_client import channel, error_from_rpc
from terroir.inference.settings import InferenceSettings
from terroir.lora.adapter import Adapter, LoraModule
from terroir.lora.base_folder import read_base_folder
from terroir.lora.formats import to_kohya
from terroir.registry.main import build as build_registry
from terroir.registry.settings import RegistrySettings
from tests.contract.registry.running import Running
from tests.integration.inference.inference_server import (
    Answer,
    RunningInference,
    running_inference,
    running_server,
    small_request,
    until,
)

_LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


@dataclass
class Rig:
    """Both services."""

    inference: RunningInference
    registry: Running
    settings: InferenceSettings

    def publish(self, adapter: str, data: bytes) -> str:
        """Name of the new version."""
        return str(self.registry.publish(f"adapters/{adapter}", data).name)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    from terroir.tiny.random_pipeline import build  # deferred: imports torch

    folder = tmp_path_factory.mktemp("inference")
    base, other = build(folder / "base", seed=3), build(folder / "other", seed=4)
    registry_settings = RegistrySettings(data_dir=folder / "data", port=0, base_sources={"tiny": base, "other": other})
    with running_server("registry", registry_settings, build_registry) as target, channel(target) as opened:
        registry = Running(
            registry_pb2_grpc.RegistryServiceStub(opened), region_pb2_grpc.RegionServiceStub(opened), folder / "data"
        )
        settings = InferenceSettings(
            data_dir=folder / "data", port=0, base="tiny", base_model=str(base), registry_target=target, threads=1,
            max_active_requests=1, max_queue_size=1, max_pixels=128 * 128, blocked_words=["forbidden"],
        )  # fmt: skip
        with running_inference(settings) as inference:
            loading = inference.refusal()
            assert (loading.code, loading.reason) == ("UNAVAILABLE", "MODEL_LOADING")
            assert loading.retry_after_seconds and not inference.serving()
            inference.wait_until_serving()
            yield Rig(inference, registry, settings)


def adapter_file(seed: int, strength: float = 0.5) -> bytes:
    """An adapter of the middle block's attention."""
    rng = np.random.default_rng(seed)
    down = rng.standard_normal((4, 160), dtype=np.float32) * strength
    up = rng.standard_normal((160, 4), dtype=np.float32) * strength
    return to_kohya(Adapter({_LAYER: LoraModule(down, up, alpha=4.0)}), {})


def pixels(data: bytes) -> np.ndarray[Any, np.dtype[np.int16]]:
    """`[height, width, 3]`."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=np.int16)


def test_streams_queued_steps_previews_pictures_and_done(rig: Rig) -> None:
    answer = rig.inference.generate(seeds=[1, 2], preview_interval_steps=1)
    assert answer.kinds()[0] == "queued" and answer.kinds()[-1] == "done"
    assert [event.step.step for event in answer.events if event.HasField("step")] == [1, 2, 3]
    previews = [event.preview for event in answer.events if event.HasField("preview")]
    assert previews and Image.open(io.BytesIO(previews[0].jpeg)).format == "JPEG"
    assert sorted(answer.files) == [0, 1]
    assert np.abs(pixels(answer.files[0]) - pixels(answer.files[1])).max() > 0
    assert answer.done.compute_seconds > 0


def test_an_adapter_published_while_running_is_used_by_the_next_request(rig: Rig) -> None:
    first = rig.publish("fresh", adapter_file(1))
    one = rig.inference.generate(adapters=[pb.AdapterWeight(adapter="adapters/fresh")])
    second = rig.publish("fresh", adapter_file(2))
    two = rig.inference.generate(adapters=[pb.AdapterWeight(adapter="adapters/fresh")])
    tagged = rig.inference.generate(prompt="a red <lora:fresh:1> cat")
    plain = rig.inference.generate()
    assert [a.done.adapters[0].version for a in (one, two, tagged)] == [first, second, second]
    assert two.done.adapters[0].matched_layers == 1
    assert np.abs(pixels(one.files[0]) - pixels(two.files[0])).max() > 0
    assert np.abs(pixels(plain.files[0]) - pixels(two.files[0])).max() > 0
    assert (pixels(tagged.files[0]) == pixels(two.files[0])).all()
    resident = rig.inference.stub.ListResidentAdapters(pb.ListResidentAdaptersRequest(), timeout=10)
    assert {first, second} <= {adapter.version for adapter in resident.adapters}


def test_the_same_adapter_twice_adds_up_and_zero_weights_vanish(rig: Rig) -> None:
    version = rig.publish("twice", adapter_file(3))
    halves = rig.inference.generate(
        prompt="a red cat <lora:twice:0.25>", adapters=[pb.AdapterWeight(adapter=version, weight=0.5)]
    )
    whole = rig.inference.generate(adapters=[pb.AdapterWeight(adapter=version, weight=0.75)])
    none = rig.inference.generate(adapters=[pb.AdapterWeight(adapter=version, weight=0)])
    assert [adapter.weight for adapter in halves.done.adapters] == [0.75]
    assert (pixels(halves.files[0]) == pixels(whole.files[0])).all()
    assert not none.done.adapters
    assert (pixels(none.files[0]) == pixels(rig.inference.generate().files[0])).all()


def test_a_region_brings_its_recipe(rig: Rig) -> None:
    version = rig.publish("regional", adapter_file(4))
    recipe = recipe_pb2.StyleRecipe(
        adapters=[recipe_pb2.RecipeAdapter(adapter="adapters/regional", weight=0.5)],
        prompt_prefix="a misty",
        negative_prompt="photo",
    )
    region = region_pb2.Region(name="regions/CN-ZJ", display_name="Zhejiang", recipe=recipe)
    rig.registry.regions.PutRegion(region_pb2.PutRegionRequest(region=region), timeout=10)
    answer = rig.inference.generate(region="regions/CN-ZJ")
    assert [(a.version, a.weight) for a in answer.done.adapters] == [(version, 0.5)]
    assert list(answer.done.region_chain) == ["regions/CN-ZJ"]
    about = json.loads(Image.open(io.BytesIO(answer.files[0])).info["terroir"])
    assert (about["prompt"], about["negative_prompt"]) == ("a misty a red cat", "photo")
    stated = rig.inference.generate(region="regions/CN-ZJ", negative_prompt="neon")
    assert json.loads(Image.open(io.BytesIO(stated.files[0])).info["terroir"])["negative_prompt"] == "neon"
    assert rig.inference.generate(region="regions/330106").done.region_chain[-1] == "regions/CN-ZJ"


@pytest.mark.parametrize(
    ("picture_format", "name"),
    [(pb.PICTURE_FORMAT_PNG, "PNG"), (pb.PICTURE_FORMAT_JPEG, "JPEG"), (pb.PICTURE_FORMAT_WEBP, "WEBP")],
)
def test_every_file_says_how_it_was_made_and_by_a_model(rig: Rig, picture_format: int, name: str) -> None:
    data = rig.inference.generate(format=picture_format, seeds=[9]).files[0]
    image = Image.open(io.BytesIO(data))
    assert image.format == name and image.size == (32, 32)
    assert b"trainedAlgorithmicMedia" in data and b"bases/tiny" in data
    if name == "PNG":
        about = json.loads(image.info["terroir"])
        assert about["ai_generated"] is True and about["seed"] == 9 and about["prompt"] == "a red cat"


def picture(file: bytes) -> np.ndarray[Any, np.dtype[np.int16]]:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"), np.int16)


def test_variants_follow_one_seed_or_are_random(rig: Rig) -> None:
    following = rig.inference.generate(seeds=[41], variants=3)
    assert [_seed(following, index) for index in range(3)] == [41, 42, 43]
    by_name = rig.inference.generate(seeds=[41, 42, 43])
    assert all((picture(following.files[i]) == picture(by_name.files[i])).all() for i in range(3))
    drawn = rig.inference.generate(seeds=[], variants=2)
    assert len(drawn.files) == 2 and _seed(drawn, 0) != _seed(drawn, 1)


def test_a_cover_has_the_shape_that_was_asked_for(rig: Rig) -> None:
    for ratio, size in ((pb.ASPECT_RATIO_WIDE_16_9, (72, 40)), (pb.ASPECT_RATIO_TALL_3_4, (48, 64))):
        made = rig.inference.generate(aspect_ratio=ratio, width=0, height=0)
        assert Image.open(io.BytesIO(made.files[0])).size == size


def test_a_picture_to_start_from_is_left_as_far_as_its_strength_says(rig: Rig) -> None:
    source = rig.inference.generate(seeds=[5], width=64, height=64, steps=6).files[0]
    distances = []
    for strength in (0.2, 1.0):
        init = pb.InitImage(data=source, strength=strength)
        made = rig.inference.generate(seeds=[6], width=64, height=64, steps=5, init_image=init)
        assert [event.step.step for event in made.events if event.HasField("step")] == [
            *range(1, int(5 * strength) + 1)
        ]
        distances.append(np.abs(picture(made.files[0]) - picture(source)).mean())
    assert 0 < distances[0] < distances[1]


def test_a_variation_at_strength_0_is_the_picture_itself_and_at_1_another_seeds(rig: Rig) -> None:
    origin, other = (picture(rig.inference.generate(seeds=[seed]).files[0]) for seed in (3, 7))
    for strength, expected in ((0.0, origin), (1.0, other)):
        made = rig.inference.generate(seeds=[7], variation=pb.Variation(seed=3, strength=strength))
        assert (picture(made.files[0]) == expected).all()


def test_a_public_file_hides_what_the_caller_is_told(rig: Rig) -> None:
    made = rig.inference.generate(prompt="a hidden red cat", provenance_profile=pb.PROVENANCE_PROFILE_PUBLIC)
    last = next(event.picture for event in made.events if event.HasField("picture") and event.picture.last)
    told = json.loads(last.provenance)
    assert told["prompt"] == "a hidden red cat" and told["picture_id"] == last.picture_id
    assert b"hidden" not in made.files[0] and last.picture_id.encode() in made.files[0]


def _seed(answer: Answer, index: int) -> int:
    return next(e.picture.seed for e in answer.events if e.HasField("picture") and e.picture.index == index)


def test_a_cut_prompt_is_a_warning(rig: Rig) -> None:
    answer = rig.inference.generate(prompt="a red cat " * 60)
    assert any("beginning" in warning for warning in answer.done.warnings)


def test_the_tables_of_registry_and_engine_agree(rig: Rig) -> None:
    """Otherwise a version could be published for layers that the engine does not find."""
    from terroir.inference.engine.pipeline.model import Model  # deferred: imports torch

    content = read_base_folder(Path(rig.settings.base_model))
    model = Model(rig.settings.base_model)
    assert dict(model.key_table()) == dict(content.layers)
    assert model.digest == content.digest
    assert set(model.layers()) == set(model.key_table())


BAD = [
    ({"prompt": ""}, "INVALID_ARGUMENT", "TEXT_MISSING"),
    ({"prompt": "x" * 2001}, "INVALID_ARGUMENT", "TEXT_TOO_LONG"),
    ({"prompt": "a cat <lora:jiangnan:>"}, "INVALID_ARGUMENT", "PROMPT_TAG_INVALID"),
    ({"negative_prompt": "x" * 2001}, "INVALID_ARGUMENT", "TEXT_TOO_LONG"),
    ({"variants": 17}, "INVALID_ARGUMENT", "TOO_MANY_SEEDS"),
    ({"variants": -1}, "INVALID_ARGUMENT", "OUT_OF_RANGE"),
    ({"variants": 3, "seeds": [1, 2]}, "INVALID_ARGUMENT", "CONFLICTING_VARIANTS"),
    ({"aspect_ratio": 99, "width": 0, "height": 0}, "INVALID_ARGUMENT", "UNKNOWN_ASPECT_RATIO"),
    ({"aspect_ratio": pb.ASPECT_RATIO_SQUARE}, "INVALID_ARGUMENT", "CONFLICTING_SIZE"),
    ({"init_image": pb.InitImage()}, "INVALID_ARGUMENT", "INIT_IMAGE_UNREADABLE"),
    ({"init_image": pb.InitImage(data=b"text")}, "INVALID_ARGUMENT", "INIT_IMAGE_UNREADABLE"),
    ({"init_image": pb.InitImage(data=b"x" * (4 * 1024 * 1024 + 1))}, "INVALID_ARGUMENT", "INIT_IMAGE_TOO_LARGE"),
    ({"init_image": pb.InitImage(data=b"x", strength=1.5)}, "INVALID_ARGUMENT", "OUT_OF_RANGE"),
    ({"init_image": pb.InitImage(data=b"x", strength=float("nan"))}, "INVALID_ARGUMENT", "OUT_OF_RANGE"),
    ({"init_image": pb.InitImage(data=b"x"), "variation": pb.Variation()}, "INVALID_ARGUMENT", "CONFLICTING_START"),
    ({"variation": pb.Variation(seed=-1)}, "INVALID_ARGUMENT", "OUT_OF_RANGE"),
    ({"variation": pb.Variation(strength=1.1)}, "INVALID_ARGUMENT", "OUT_OF_RANGE"),
    ({"provenance_profile": 99}, "INVALID_ARGUMENT", "UNKNOWN_PROVENANCE_PROFILE"),
    ({"preview_interval_steps": -1}, "INVALID_ARGUMENT", "OUT_OF_RANGE"),
    ({"request_id": "x" * 129}, "INVALID_ARGUMENT", "TEXT_TOO_LONG"),
    ({"prompt": "a FORBIDDEN thing"}, "FAILED_PRECONDITION", "PROMPT_REFUSED"),
    ({"steps": 10_000}, "INVALID_ARGUMENT", "TOO_MANY_STEPS"),
    ({"steps": -1}, "INVALID_ARGUMENT", "OUT_OF_RANGE"),
    ({"width": 33}, "INVALID_ARGUMENT", "INVALID_SIZE"),
    ({"height": -8}, "INVALID_ARGUMENT", "INVALID_SIZE"),
    ({"width": 4096, "height": 4096}, "INVALID_ARGUMENT", "TOO_MANY_PIXELS"),
    ({"guidance_scale": float("nan")}, "INVALID_ARGUMENT", "OUT_OF_RANGE"),
    ({"sampler": "eulr"}, "INVALID_ARGUMENT", "UNKNOWN_SAMPLER"),
    ({"seeds": list(range(17))}, "INVALID_ARGUMENT", "TOO_MANY_SEEDS"),
    ({"seeds": [-1]}, "INVALID_ARGUMENT", "OUT_OF_RANGE"),
    ({"format": 99}, "INVALID_ARGUMENT", "UNKNOWN_FORMAT"),
    ({"priority": 99}, "INVALID_ARGUMENT", "UNKNOWN_PRIORITY"),
    ({"adapters": [pb.AdapterWeight(adapter="adapters/a", weight=9)]}, "INVALID_ARGUMENT", "OUT_OF_RANGE"),
    ({"adapters": [pb.AdapterWeight(adapter="adapters/a")] * 9}, "INVALID_ARGUMENT", "TOO_MANY_ADAPTERS"),
    ({"adapters": [pb.AdapterWeight(adapter="adapters/missing")]}, "NOT_FOUND", "ADAPTER_NOT_FOUND"),
    ({"prompt": "<lora:missing:1> cat"}, "NOT_FOUND", "ADAPTER_NOT_FOUND"),
    ({"adapters": [pb.AdapterWeight(adapter="../etc")]}, "INVALID_ARGUMENT", "INVALID_NAME"),
    ({"region": "regions/XX"}, "NOT_FOUND", "REGION_NOT_FOUND"),
]


@pytest.mark.parametrize(("fields", "code", "reason"), BAD)
def test_bad_input_has_a_stable_reason(rig: Rig, fields: dict[str, Any], code: str, reason: str) -> None:
    error = rig.inference.refusal(**fields)
    assert (error.code, error.reason) == (code, reason)
    assert str(error)


def test_an_adapter_for_another_base_is_refused(rig: Rig) -> None:
    rig.registry.publish("adapters/foreign", adapter_file(5), base="bases/other")
    error = rig.inference.refusal(adapters=[pb.AdapterWeight(adapter="adapters/foreign")])
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "ADAPTER_BASE_MISMATCH")


def test_prefetched_adapters_are_resident(rig: Rig) -> None:
    version = rig.publish("early", adapter_file(6))
    answer = rig.inference.stub.PrefetchAdapters(pb.PrefetchAdaptersRequest(adapters=["adapters/early"]), timeout=30)
    assert [adapter.version for adapter in answer.adapters] == [version]
    with pytest.raises(grpc.RpcError) as refused:
        rig.inference.stub.PrefetchAdapters(pb.PrefetchAdaptersRequest(adapters=["adapters/none"] * 65), timeout=30)
    assert error_from_rpc(refused.value).reason == "TOO_MANY_ADAPTERS"


def test_a_full_queue_refuses_with_a_hint_and_cancelling_frees_it(rig: Rig) -> None:
    long = {"steps": 150, "width": 128, "height": 128}
    calls = [rig.inference.stub.Generate(small_request(**long), timeout=120) for _ in range(2)]
    for call in calls:
        assert next(call).HasField("queued")
    error = rig.inference.refusal()
    assert (error.code, error.reason) == ("RESOURCE_EXHAUSTED", "QUEUE_FULL")
    assert error.retry_after_seconds and error.retry_after_seconds > 0
    for call in calls:
        call.cancel()
    until(lambda: _draws(rig))


def _draws(rig: Rig) -> bool:
    try:
        return bool(rig.inference.generate(steps=1).files)
    except grpc.RpcError as error:
        assert error_from_rpc(error).reason == "QUEUE_FULL"
        return False


def test_a_deadline_ends_a_request_and_the_next_one_draws(rig: Rig) -> None:
    """At once where costs are known, which depends on what was drawn before; else when it passes."""
    error = rig.inference.refusal(timeout=0.3, steps=150, width=128, height=128)
    assert error.reason in {"DEADLINE_EXCEEDED", "DEADLINE_UNMEETABLE"}
    until(lambda: _draws(rig))


def test_a_killed_engine_fails_what_it_drew_and_comes_back(rig: Rig) -> None:
    """Last in this file: the new engine takes seconds to load."""
    before = rig.inference.engine_pid()
    call = rig.inference.stub.Generate(small_request(steps=150, width=128, height=128), timeout=120)
    assert next(call).HasField("queued") and next(call).HasField("step")
    os.kill(before, signal.SIGKILL)
    with pytest.raises(grpc.RpcError) as refused:
        list(call)
    error = error_from_rpc(refused.value)
    assert (error.code, error.reason) == ("UNAVAILABLE", "ENGINE_RESTARTED") and error.retry_after_seconds
    until(lambda: not rig.inference.serving())
    rig.inference.wait_until_serving()
    assert rig.inference.engine_pid() != before
    assert rig.inference.generate().files
