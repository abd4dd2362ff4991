"""One object for all four services."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from terroir._proto.inference.v1 import inference_pb2
from terroir._proto.registry.v1 import registry_pb2
from terroir.client.bases import Bases
from terroir.client.covers import Covers
from terroir.client.datasets import Datasets
from terroir.client.endpoints import Endpoints
from terroir.client.lineage import lineage
from terroir.client.pictures import ASPECT_RATIOS, PRIORITIES, Generated, Pictures, adapter_weights
from terroir.client.presets import Presets
from terroir.client.ratings import Ratings
from terroir.client.regions import Recipes, Regions
from terroir.client.registry import Registry
from terroir.client.styles import Styles
from terroir.client.training import Training
from terroir.common.credentials import CallerCredentials
from terroir.common.grpc_client import channel


class Client:
    """Connections to the services of one Terroir; connects lazily, is safe to share between threads.

    Every method raises terroir.common.errors.TerroirError with the server's reason code.
    """

    def __init__(self, endpoints: Endpoints | None = None, credentials: CallerCredentials | None = None) -> None:
        """`credentials` are those of the environment unless given (TERROIR_TLS_DIR, TERROIR_TOKEN_PATH)."""
        self.endpoints = endpoints or Endpoints.discover()
        shown = credentials or CallerCredentials.of_environment()
        targets = {name: channel(getattr(self.endpoints, name), shown) for name in ("dataset", "training", "registry")}
        replicas = {target: channel(target, shown) for target in self.endpoints.inference.split(",")}
        # Late calls to the only replica are made again over a connection of their own.
        spare = channel(next(iter(replicas)), shown, own_connection=True) if len(replicas) == 1 else None
        self._channels = [*targets.values(), *replicas.values(), *([spare] if spare is not None else [])]
        self.datasets = Datasets(targets["dataset"])
        self.training = Training(targets["training"])
        self.styles = Styles(targets["training"], self.datasets)
        self.ratings = Ratings(targets["training"])
        self.registry = Registry(targets["registry"])
        self.bases = Bases(targets["registry"])
        self.regions = Regions(targets["registry"])
        self.recipes = Recipes(targets["registry"])
        self.presets = Presets(targets["registry"])
        self.pictures = Pictures(replicas)
        self.covers = Covers(replicas, self.pictures.router, spare)

    def generate(
        self,
        prompt: str,
        *,
        adapters: Mapping[str, float] | None = None,
        region: str = "",
        seeds: Sequence[int] = (),
        negative_prompt: str = "",
        variants: int = 0,
        aspect: str = "",
        width: int = 0,
        height: int = 0,
        steps: int = 0,
        guidance_scale: float | None = None,
        priority: str = "normal",
        timeout: float = 300.0,
    ) -> Generated:
        """Draw `prompt` once a seed; `adapters` are weights by name (`jiangnan@production`), `region` a code.

        `aspect` is `1:1`, `16:9` or `3:4`, `priority` `high`, `normal` or `background`; KeyError for others. What else
        a request may ask for is had by `pictures.generate` with a GenerateRequest.
        """
        request = inference_pb2.GenerateRequest(
            prompt=prompt,
            negative_prompt=negative_prompt,
            adapters=adapter_weights(adapters or {}),
            region=f"regions/{region}" if region and not region.startswith("regions/") else region,
            seeds=seeds,
            variants=variants,
            aspect_ratio=ASPECT_RATIOS[aspect],
            priority=PRIORITIES[priority],
            width=width,
            height=height,
            steps=steps,
            guidance_scale=guidance_scale,
        )
        return self.pictures.generate(request, timeout=timeout)

    def lineage(self, name: str, *, pictures: bool = False) -> registry_pb2.GetLineageResponse:
        """Where a version came from and what came of it; `pictures` adds those that it was trained on."""
        return lineage(self.registry, self.datasets, name, pictures=pictures)

    def close(self) -> None:
        """Close all connections."""
        for open_channel in self._channels:
            open_channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
