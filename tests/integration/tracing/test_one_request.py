"""Real services, a real engine and a real Ray: one trace from a recommender's call to its picture, one of a training.

And what must be nowhere in it: prompts, captions, pictures, tokens, keys.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest

from terroir._proto.dataset.v1 import dataset_pb2
from terroir._proto.inference.v1 import inference_pb2 as pb
from terroir._proto.inference.v1 import inference_pb2_grpc
from terroir._proto.registry.v1 import recipe_pb2, region_pb2
from terroir._proto.training.v1 import training_pb2
from terroir.client import Client, scan_folder
from terroir.common.grpc_client import error_from_rpc
from terroir.embedded import SERVICES, Embedded
from terroir.tiny import BASE_DIR
from tests.command_line import ROOT, base_settings, environment
from tests.integration.tracing.collector import Collector, Received, collecting

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

STYLE = ROOT / "examples" / "styles" / "jiangnan-ink"
MARK = "lotus7q"
"""Begins every text that nobody but its sender and the model may see."""
PROMPT = f"{MARK}prompt by a river, " + f"{MARK}tail of a long prompt, " * 40
BLOCKED, TAG, TOKEN, KEY, CAPTION = (f"{MARK}{name}" for name in ("blocked", "tag", "token", "key", "caption"))
CONFIG = "dataset: datasets/ink\nlora_rank: 4\nbatch_size: 4\nmax_train_steps: 4\nsave_steps: 4\n"


@dataclass
class House:
    folder: Path
    collector: Collector
    job: training_pb2.Job
    """Of the first life of the services, in which the adapter was trained."""
    embedded: Embedded
    """Their second life: inference has to fetch the adapter from the registry."""

    def log(self, service: str) -> str:
        return (self.folder / "data" / "run" / f"{service}.log").read_text()

    def lines(self, service: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log(service).splitlines() if line.startswith("{")]

    def recommend(self, name: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "tests.integration.tracing.recommender"]
        told = (self.collector.endpoint, str(self.folder / "data"), "regions/CN-ZJ", str(self.folder / name))
        done = subprocess.run(
            [*command, *told], input=PROMPT, env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("traced")
    pictures = folder / "pictures"
    pictures.mkdir()
    for number, path in enumerate(sorted(STYLE.glob("*.png"))[:4]):
        shutil.copy(path, pictures)
        (pictures / path.name).with_suffix(".txt").write_text(f"{CAPTION} {number}")
    with collecting() as collector:
        told = base_settings(BASE_DIR) | {"TERROIR_INFERENCE_BLOCKED_WORDS": json.dumps([BLOCKED])}
        for service in SERVICES:
            own = f"TERROIR_{service.upper()}"
            told |= {f"{own}_OTLP_ENDPOINT": collector.endpoint, f"{own}_LOG_LEVEL": "debug"}
            told |= {f"{own}_STORE_ACCESS_KEY_ID": KEY, f"{own}_STORE_SECRET_ACCESS_KEY": KEY}
        told |= {"TERROIR_TRAINING_RAY_AUTH_TOKEN": TOKEN, "AWS_SECRET_ACCESS_KEY": KEY}
        with Embedded(folder / "data", environment=told, inference=False) as embedded:
            job = trained(embedded, pictures)
        kept = folder / "first-life"
        shutil.copytree(folder / "data" / "run", kept, ignore=shutil.ignore_patterns("ray*"))
        shutil.rmtree(folder / "data" / "inference", ignore_errors=True)
        with Embedded(folder / "data", environment=told) as embedded:
            embedded.wait_until_serving("inference", 120)
            yield House(folder, collector, job, embedded)


def trained(embedded: Embedded, pictures: Path) -> training_pb2.Job:
    """A dataset, a short job on it, and a region that wears the result."""
    with Client(embedded.endpoints) as terroir:
        terroir.datasets.create("ink", dataset_pb2.Dataset(rights_statement="drawn by this project"))
        list(terroir.datasets.import_pictures("datasets/ink", scan_folder(pictures)))
        terroir.datasets.freeze("datasets/ink")
        *_, job = terroir.training.watch(terroir.training.create("adapters/ink", CONFIG).name)
        assert job.state == training_pb2.JOB_STATE_SUCCEEDED, job.error
        recipe = recipe_pb2.StyleRecipe(adapters=[recipe_pb2.RecipeAdapter(adapter="adapters/ink", weight=0.8)])
        terroir.regions.put(region_pb2.Region(name="regions/CN-ZJ", display_name="Zhejiang", recipe=recipe))
        return job


class Tree:
    """The spans of one trace."""

    def __init__(self, spans: list[Received]) -> None:
        self.spans = spans
        self.by_id = {span.id: span for span in spans}

    def path(self, span: Received) -> str:
        """Names from the root, `service:name` where the service changes; calls by their method alone."""
        above = self.by_id.get(span.parent)
        verb = span.name.rpartition("/")[2]
        own = f"{span.kind} {verb}" if span.kind in ("client", "server") else verb
        return own if above is None else f"{self.path(above)} > {own}"

    @property
    def paths(self) -> list[str]:
        return sorted(self.path(span) for span in self.spans)

    def the(self, name: str, kind: str = "internal") -> Received:
        found = [s for s in self.spans if s.name.rpartition("/")[2] == name and s.kind == kind]
        assert len(found) == 1, f"{len(found)} spans {name}: {self.paths}"
        return found[0]

    def ensure_within_parents(self, apart: tuple[str, ...] = ()) -> None:
        """Each part lies within its whole; `apart` are kinds that begin when their parent is over."""
        for span in self.spans:
            assert span.begun <= span.ended, span.name
            if (whole := self.by_id.get(span.parent)) is None:
                continue
            assert whole.begun <= span.begun, f"{self.path(span)} begins {whole.begun - span.begun} ns too early"
            if span.kind not in apart:
                assert span.ended <= whole.ended, f"{self.path(span)} ends {span.ended - whole.ended} ns too late"


def tree(collector: Collector, trace: str, last: str) -> Tree:
    """A trace, once this span of it has arrived and a moment has passed for the others."""
    collector.wait(lambda spans: [s for s in spans if s.trace == trace and s.name == last])
    return Tree(settled(collector, trace))


def settled(collector: Collector, trace: str) -> list[Received]:
    count = -1
    while count != (count := len(collector.of_trace(trace))):
        time.sleep(2.5)  # every service sends at least once a second
    return collector.of_trace(trace)


BEFORE = "recommend cover > client Generate > server Generate"
WAIT = f"{BEFORE} > wait for turn"


def test_a_request_is_followed_from_the_recommenders_call_to_the_picture(house: House) -> None:
    drawn = house.recommend("first.png")
    assert drawn["found"] == [pb.TIER_REGISTRY]
    found = tree(house.collector, drawn["trace"], "recommend cover")
    assert found.paths == sorted(
        [
            "recommend cover",
            "recommend cover > client Generate",
            BEFORE,
            WAIT,
            f"{WAIT} > find recipe",
            f"{WAIT} > find recipe > client ResolveRegion",
            f"{WAIT} > find recipe > client ResolveRegion > server ResolveRegion",
            f"{WAIT} > find adapters",
            f"{WAIT} > find adapters > client GetVersion",
            f"{WAIT} > find adapters > client GetVersion > server GetVersion",
            f"{WAIT} > load adapter",
            f"{WAIT} > load adapter > read disk",
            f"{WAIT} > load adapter > client DownloadVersion",
            f"{WAIT} > load adapter > client DownloadVersion > server DownloadVersion",
            f"{WAIT} > load adapter > verify and parse adapter",
            f"{WAIT} > hold adapter",
            f"{WAIT} > check prompt",
            f"{BEFORE} > prepare drawing",
            f"{BEFORE} > denoise",
            f"{BEFORE} > decode",
            f"{BEFORE} > check picture",
            f"{BEFORE} > encode picture",
        ]
    )
    found.ensure_within_parents()
    services = {span.service for span in found.spans}
    assert services == {"recommender", "terroir-inference", "terroir-registry"}
    loaded, held, denoised = (
        found.the("load adapter").about,
        found.the("hold adapter").about,
        found.the("denoise").about,
    )
    assert loaded["terroir.adapter"] == held["terroir.adapter"] == house.job.adapter_version
    assert loaded["terroir.digest"] == held["terroir.digest"]
    assert len(loaded["terroir.digest"]) == 64
    assert (loaded["terroir.tier"], held["terroir.tier"]) == ("registry", "registry")
    assert (denoised["terroir.steps"], denoised["terroir.total_steps"], denoised["terroir.adapters"]) == (4, 4, 1)
    assert denoised["terroir.batch_rows_most"] == denoised["terroir.batch_rows_mean"] == 2, "guidance doubles a picture"
    order = [found.the(name) for name in ("wait for turn", "prepare drawing", "denoise", "decode", "encode picture")]
    # One begins as the other ends; their clocks are read microseconds apart.
    assert all(abs(first.ended - then.begun) < 5_000_000 for first, then in pairwise(order[:4]))
    assert order[3].ended <= order[4].begun + 5_000_000

    # From the picture to the logs: its identifier is in the file, and in a line that names trace and request.
    assert drawn["picture_id"].encode() in (house.folder / "first.png").read_bytes()
    made = [line for line in house.lines("inference") if line.get("picture_id") == drawn["picture_id"]]
    server = found.the("Generate", "server")
    assert [(line["event"], line["trace_id"]) for line in made] == [("picture made", drawn["trace"])]
    assert made[0]["request_id"] == server.about["terroir.request_id"]
    assert made[0]["span_id"] == server.id
    told = [
        line["method"].rpartition("/")[2] for line in house.lines("registry") if line.get("trace_id") == drawn["trace"]
    ]
    assert sorted(told) == ["DownloadVersion", "GetVersion", "ResolveRegion"]


def test_the_second_request_finds_its_adapter_on_the_device(house: House) -> None:
    house.recommend("second.png")
    drawn = house.recommend("third.png")
    found = tree(house.collector, drawn["trace"], "recommend cover")
    assert found.the("hold adapter").about["terroir.tier"] == "device"
    assert "load adapter" not in {span.name for span in found.spans}


def test_a_training_is_one_trace_from_its_creation_to_the_publication(house: House) -> None:
    spans = house.collector.wait(lambda spans: [s for s in spans if s.name.endswith("/CreateJob")])
    found = Tree(settled(house.collector, spans[0].trace))
    drive = "server CreateJob > dispatch attempt > drive attempt"
    train = f"{drive} > train attempt"
    assert found.paths == sorted(
        [
            "server CreateJob",
            "server CreateJob > client GetBase",
            "server CreateJob > client GetBase > server GetBase",
            "server CreateJob > client GetVersion",
            "server CreateJob > client GetVersion > server GetVersion",
            "server CreateJob > client GetDataset",
            "server CreateJob > client GetDataset > server GetDataset",
            "server CreateJob > dispatch attempt",
            drive,
            f"{drive} > join ray",
            train,
            f"{train} > check base",
            f"{train} > check base > client GetBase",
            f"{train} > check base > client GetBase > server GetBase",
            f"{train} > fetch dataset",
            f"{train} > fetch dataset > client GetVersion",
            f"{train} > fetch dataset > client GetVersion > server GetVersion",
            f"{train} > fetch dataset > client GetDataset",
            f"{train} > fetch dataset > client GetDataset > server GetDataset",
            *[f"{train} > fetch dataset > client DownloadImage"] * 4,
            *[f"{train} > fetch dataset > client DownloadImage > server DownloadImage"] * 4,
            f"{train} > train",
            f"{train} > judge",
            f"{train} > make training print",
            f"{train} > write adapter",
            f"{drive} > client PublishVersion",
            f"{drive} > client PublishVersion > server PublishVersion",
        ]
    )
    # The queue hands over, and the driver goes on when that is over.
    found.ensure_within_parents(apart=("producer", "consumer"))
    assert {span.service for span in found.spans} == {
        "terroir-training", "terroir-dataset", "terroir-registry", "terroir-training-driver", "terroir-training-worker",
    }  # fmt: skip
    assert found.the("train").about["terroir.steps"] == 4
    for name, kind in (("dispatch attempt", "producer"), ("drive attempt", "consumer"), ("train attempt", "consumer")):
        about = found.the(name, kind).about
        assert (about["terroir.job"], about["terroir.attempt"]) == (house.job.name, 1)
    with Client(house.embedded.endpoints) as terroir:
        log = "\n".join(terroir.training.logs(house.job.name))
    assert f"trace {spans[0].trace}" in log


def test_no_prompt_caption_picture_token_or_key_is_in_logs_or_spans(house: House) -> None:
    drawn = house.recommend("marked.png")
    shown = (("authorization", f"Bearer {TOKEN}"), ("cookie", TOKEN), ("x-api-key", KEY))
    with grpc.insecure_channel(house.embedded.endpoints.inference) as opened:
        stub = inference_pb2_grpc.InferenceServiceStub(opened)
        refused = []
        for prompt, image in ((f"<lora:{TAG}:one>", b""), (BLOCKED, b""), (PROMPT, f"{MARK}no picture".encode())):
            request = pb.GenerateRequest(prompt=prompt, negative_prompt=PROMPT, width=64, height=64, steps=2, seeds=[1])
            if image:
                request.init_image.CopyFrom(pb.InitImage(data=image, strength=0.5))
            with pytest.raises(grpc.RpcError) as error:
                list(stub.Generate(request, timeout=60, metadata=shown))
            refused.append(error_from_rpc(error.value).reason)
        assert refused == ["PROMPT_TAG_INVALID", "PROMPT_REFUSED", "INIT_IMAGE_UNREADABLE"]
        plain = pb.GenerateRequest(prompt=PROMPT, negative_prompt=PROMPT, width=64, height=64, steps=2, seeds=[1])
        assert list(stub.Generate(plain, timeout=60, metadata=shown))
    settled(house.collector, drawn["trace"])
    files = [*(house.folder / "first-life").rglob("*"), *(house.folder / "data" / "run").rglob("*")]
    read = {str(path): path.read_bytes() for path in files if path.is_file()}
    assert {Path(name).name for name in read} >= {f"{service}.log" for service in SERVICES}
    read["spans"] = b"".join(house.collector.raw)
    assert b"regions/CN-ZJ" in read["spans"], "what may be told is there"
    picture = (house.folder / "marked.png").read_bytes()
    start = picture.index(b"IDAT") + 4
    for name, data in read.items():
        assert MARK.encode() not in data, f"{name}: …{data[max(0, data.index(MARK.encode()) - 300) :][:600]!r}"
        assert picture[start : start + 16] not in data, name


def test_every_line_of_a_log_is_json(house: House) -> None:
    """A plain line is one that no rule about prompts and secrets was applied to."""
    for service in SERVICES:
        plain = [line for line in house.log(service).splitlines() if not line.startswith("{")]
        assert plain == [], service
