"""The demo's calls, all over gRPC: dataset, training, registry, regions, pictures."""

from __future__ import annotations

import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

from PIL import Image

from terroir._proto.dataset.v1 import dataset_pb2
from terroir._proto.inference.v1 import inference_pb2
from terroir._proto.registry.v1 import recipe_pb2, region_pb2
from terroir._proto.training.v1 import training_pb2
from terroir.client import Client, scan_folder
from terroir.client.pictures import adapter_weights
from terroir.common.errors import AlreadyExists, FailedPrecondition
from terroir.demo.plan import PROMPTS, SEEDS, Column, Style, prompt_for

Pictures = dict[tuple[str, str, int], Image.Image]
"""Pictures by column title, prompt and seed."""


def make_dataset(client: Client, style: Style, on_picture: Callable[[], None]) -> dataset_pb2.DatasetVersion:
    """Import the style's folder and freeze it; repeating it changes nothing."""
    fields = dataset_pb2.Dataset(
        display_name=style.title, region=style.region, trigger_word=style.trigger, description=style.description,
        license=style.license, rights_statement=style.rights,
    )  # fmt: skip
    name = f"datasets/{style.adapter}"
    with suppress(AlreadyExists):  # an interrupted demo is started again on the same folder
        client.datasets.create(style.adapter, fields)
    for _ in client.datasets.import_pictures(name, scan_folder(style.folder)):
        on_picture()
    return client.datasets.freeze(name)


def train(
    client: Client, style: Style, dataset_version: str, on_change: Callable[[training_pb2.Job], None]
) -> training_pb2.Job:
    """Queue the style's job and follow it to its end; raises FailedPrecondition with the job's reason if it failed."""
    config = f"dataset: {dataset_version}\n{style.config}"
    queued = client.training.create(f"adapters/{style.adapter}", config)
    job = queued
    for job in client.training.watch(queued.name):
        on_change(job)
    if job.state != training_pb2.JOB_STATE_SUCCEEDED:
        raise FailedPrecondition(
            f"{job.name} did not succeed: {job.error.message}", reason=job.error.reason or "JOB_ENDED"
        )
    return job


def train_both(
    client: Client, versions: dict[str, str], styles: list[Style], on_change: Callable[[Style, training_pb2.Job], None]
) -> dict[str, training_pb2.Job]:
    """Train all styles side by side; the scheduler decides how many run at once."""
    with ThreadPoolExecutor(len(styles)) as pool:
        jobs = {
            style.adapter: pool.submit(train, client, style, versions[style.adapter], partial(on_change, style))
            for style in styles
        }
        return {adapter: future.result() for adapter, future in jobs.items()}


def promote(client: Client, style: Style, version: str) -> None:
    """Point `production` at the version and give the style to its region."""
    adapter = f"adapters/{style.adapter}"
    client.registry.set_alias(adapter, "production", version, reason="first version of the demo")
    recipe = recipe_pb2.StyleRecipe(
        adapters=[recipe_pb2.RecipeAdapter(adapter=f"{adapter}@production", weight=1.0)],
        prompt_prefix=style.trigger,
    )
    client.regions.put(region_pb2.Region(name=f"regions/{style.region}", display_name=style.title, recipe=recipe))


def draw(
    client: Client, columns: tuple[Column, ...], styles: dict[str, Style], on_call: Callable[[], None]
) -> Pictures:
    """Draw every prompt in every column, the same seeds everywhere."""
    pictures: Pictures = {}
    for column in columns:
        for prompt in PROMPTS:
            weights = {f"{adapter}@production": weight for adapter, weight in column.weights}
            request = inference_pb2.GenerateRequest(
                prompt=prompt_for(prompt, column, styles), seeds=SEEDS, adapters=adapter_weights(weights)
            )
            for picture in client.pictures.generate(request).pictures:
                pictures[column.title, prompt, picture.seed] = Image.open(io.BytesIO(picture.data)).convert("RGB")
            on_call()
    return pictures
