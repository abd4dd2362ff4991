"""Training end to end: the real services over TCP, a real local Ray, a real dataset, a real registry."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import psutil
import pytest
from PIL import Image
from services_kit import CONFIG, Services, trained_services

from terroir._proto.training.v1 import training_pb2 as pb
from terroir.common.errors import InvalidArgument, NotFound, TerroirError
from terroir.scoring.clip import ClipScorer
from terroir.scoring.copies import TrainingSet
from terroir.scoring.training_print import TrainingPrint
from terroir.tiny import CLIP_DIR
from terroir.tiny.random_pipeline import build

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    folder = tmp_path_factory.mktemp("services")
    extra = {"TERROIR_TRAINING_RETRY_BACKOFF_SECONDS": "1", "TERROIR_TRAINING_JUDGE_MODEL": str(CLIP_DIR)}
    with trained_services(folder, build(folder / "base"), extra) as services:
        yield services


def test_two_jobs_train_side_by_side_survive_the_death_of_the_service_and_publish(services: Services) -> None:
    with services.training() as training:
        names = [training.create(f"adapters/{a}", f"{CONFIG}max_train_steps: 24\n").name for a in ("one", "two")]
        firsts = [services.until_step(name, 1) for name in names]
    service_pids = {services.processes["training"].pid}
    services.kill("training")
    services.start("training")
    service_pids.add(services.processes["training"].pid)
    with services.training() as training:
        jobs = [list(training.watch(name))[-1] for name in names]
        lines = list(training.logs(names[0]))
        checkpoints = training.checkpoints(names[0])
    assert [job.state for job in jobs] == [pb.JOB_STATE_SUCCEEDED] * 2, jobs
    assert all(first.state == pb.JOB_STATE_RUNNING for first in firsts)
    pids = {job.attempt.worker_pid for job in jobs}
    assert (
        len(pids) == 2 and services.processes["training"].pid not in pids and all(job.attempt.node_id for job in jobs)
    )
    assert max(j.create_time.ToNanoseconds() for j in jobs) < min(j.end_time.ToNanoseconds() for j in jobs)
    assert [c.step for c in checkpoints] == list(range(24, 0, -4)) and checkpoints[0].size_bytes > 0
    assert any("published adapters/one/versions/1" in line for line in lines) and "attempt 1" in lines[0]
    assert jobs[0].progress.phase == "done" and jobs[0].progress.step == 24 == jobs[0].progress.total_steps
    assert list((services.data_dir / jobs[0].name / "attempts" / "1" / "tensorboard").iterdir())
    with services.registry() as registry:
        version = registry.version(jobs[0].adapter_version)
    assert version.lineage.job == names[0] and version.trigger_word == "ink style" and version.rank == 2
    assert version.lineage.dataset_version == "datasets/ink/versions/1"
    assert version.lineage.checkpoint == checkpoints[0].name


def test_a_killed_worker_is_replaced_by_an_attempt_that_goes_on_from_the_checkpoint(services: Services) -> None:
    with services.training() as training:
        name = training.create("adapters/four", f"{CONFIG}max_train_steps: 36\n").name
        job = services.until_step(name, 9)
        psutil.Process(job.attempt.worker_pid).kill()
        ended = list(training.watch(name))[-1]
        lines = list(training.logs(name))
    assert ended.state == pb.JOB_STATE_SUCCEEDED and ended.attempt.number == 2, ended
    resumed = next(line for line in lines if "resumed at step" in line)
    assert "bit-exact" in resumed
    assert int(resumed.split("resumed at step ")[1].split()[0]) > job.progress.step - 4, "at most one interval is lost"


def test_a_cancelled_job_stops_at_its_next_step_and_keeps_its_checkpoint(services: Services) -> None:
    with services.training() as training:
        name = training.create("adapters/five", f"{CONFIG}max_train_steps: 100000\n").name
        services.until_step(name, 3)
        training.cancel(name)
        asked = time.monotonic()
        ended = list(training.watch(name))[-1]
        assert ended.state == pb.JOB_STATE_CANCELLED and time.monotonic() - asked < 10
        assert training.checkpoints(name)[0].step >= ended.progress.step > 0
        assert training.cancel(name).state == pb.JOB_STATE_CANCELLED


def test_a_request_repeated_with_its_identifier_makes_one_job(services: Services) -> None:
    config = f"{CONFIG}max_train_steps: 1\n"
    with services.training() as training:
        first = training.create("adapters/six", config, request_id="the-same")
        assert training.create("adapters/six", config, request_id="the-same").name == first.name
        training.cancel(first.name)
        assert [job.name for job in training.list()].count(first.name) == 1


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("dataset: datasets/ink\nlora_rnk: 4\n", "CONFIG_KEY_UNKNOWN"),
        ("dataset: datasets/ink\nlora_rank: 0\n", "CONFIG_VALUE"),
        ("train_data_dir: pictures\n", "DATASET_MISSING"),
        ("dataset: datasets/nothing\n", "DATASET_NOT_FOUND"),
        ("dataset: datasets/ink\nbase_model: unknown\n", "BASE_NOT_FOUND"),
    ],
)
def test_a_wrong_request_makes_no_job_and_says_why(services: Services, config: str, reason: str) -> None:
    with services.training() as training:
        before = len(list(training.list()))
        with pytest.raises(TerroirError) as error:
            training.create("adapters/wrong", config)
        assert error.value.reason == reason
        assert len(list(training.list())) == before


def test_an_unknown_job_and_a_bad_name_are_told_apart(services: Services) -> None:
    with services.training() as training:
        with pytest.raises(NotFound):
            training.get("jobs/job-0")
        with pytest.raises(InvalidArgument):
            training.get("jobs/../x")


JUDGED = (
    f"{CONFIG}max_train_steps: 8\njudge_seeds: 2\njudge_checkpoints: 1\njudge_prompts: [a lake, a hill]\n"
    "min_prompt_agreement: 0\nmin_diversity: 0\n"
)
REFUSED = "publish_gate: enforce\nmin_style_gain: 1\nmax_memorisation: 1\n"


def test_a_judged_job_publishes_with_its_figures_or_is_refused_with_evidence(services: Services) -> None:
    """Nothing good comes of eight steps on random weights: `warn` publishes it all the same, a bound refuses it."""
    with services.training() as training:
        names = [
            training.create(f"adapters/{adapter}", f"{JUDGED}{gate}").name
            for adapter, gate in (("warned", "publish_gate: warn\n"), ("refused", REFUSED))
        ]
        seen = list(training.watch(names[0]))
        refused = list(training.watch(names[1]))[-1]
        verdict, page = training.verdict(names[1]), training.report(names[1]).decode()
    published = seen[-1]
    assert published.state == pb.JOB_STATE_SUCCEEDED and published.verdict.chosen_step == 8, published
    assert any(job.progress.phase == "judging" and job.progress.to_draw for job in seen)
    with services.registry() as registry:
        version = registry.version(published.adapter_version)
        training_print = registry.training_print(published.adapter_version)
    assert version.metrics["judge_recalled"] >= 20 and version.lineage.checkpoint == f"{names[0]}/checkpoints/8"
    assert training_print is not None
    known = TrainingSet(ClipScorer(CLIP_DIR), TrainingPrint.from_bytes(training_print))
    pictures = [Image.open(path).convert("RGB") for path in sorted((services.data_dir / "pictures").glob("*.png"))]
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8))
    assert [one.is_copy for one in known.nearest([*pictures, noise])] == [True] * 5 + [False]
    assert (refused.state, refused.error.reason) == (pb.JOB_STATE_FAILED, "STYLE_REFUSED"), refused
    assert "min_style_gain" in refused.error.message and not refused.adapter_version
    (checkpoint,) = verdict.checkpoints
    assert checkpoint.missed == ["min_style_gain"] and len(checkpoint.nearest) == 6 and verdict.advice
    assert not refused.verdict.checkpoints[0].nearest and checkpoint.nearest[0].training_picture.endswith(".png")
    assert "STYLE_REFUSED" in page and page.count("data:image/") >= 7 and "<polyline" in page
