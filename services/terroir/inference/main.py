"""Entry point of the inference service: `python -m terroir.inference.main`."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from terroir._proto.inference.v1 import inference_pb2_grpc
from terroir.common.clock import SystemClock
from terroir.common.credentials import CallerCredentials
from terroir.common.grpc_client import aio_channel
from terroir.common.server import Server
from terroir.common.service import run_service
from terroir.inference.adapters.hot_load import hot_load
from terroir.inference.adapters.registry_gateway import RegistryGateway
from terroir.inference.admission.admission import Admission
from terroir.inference.admission.cost_model import Capacity, CostModel
from terroir.inference.admission.metrics import AdmissionMetrics
from terroir.inference.api import InferenceServicer
from terroir.inference.covers.assembly import serve_covers
from terroir.inference.delivery.picture_pool import PicturePool
from terroir.inference.delivery.provenance import ProvenanceProfile
from terroir.inference.engine.messages import EngineConfig
from terroir.inference.engine_host import EngineHost
from terroir.inference.generation import Generator
from terroir.inference.metrics import InferenceMetrics
from terroir.inference.request.safety import Safety, load_safety_check
from terroir.inference.settings import InferenceSettings

INFERENCE_SERVICE: Final = "terroir.inference.v1.InferenceService"


@asynccontextmanager
async def build(settings: InferenceSettings, server: Server) -> AsyncIterator[None]:
    """Add the servicer, NOT_SERVING until the engine has its model; end the engine when the server has stopped."""
    safety_check = load_safety_check(settings.safety_check, settings.blocked_words, settings.blocked_words_file)
    clock, metrics = SystemClock(), InferenceMetrics(server.registry)

    async def announce(serving: bool) -> None:
        if serving:
            hot.engine_ready(generator.base())
        else:
            hot.engine_lost()
        await server.set_serving(INFERENCE_SERVICE, serving=serving)

    engine = EngineHost(_engine_config(settings), metrics, announce)
    capacity = Capacity(settings.max_active_requests, settings.max_active_rows, settings.max_batch_rows)
    admitting = AdmissionMetrics(server.registry)
    admission = Admission(capacity, settings.max_queue_size, CostModel(), clock, admitting)
    metrics.watch(admission)
    admitting.watch(lambda: engine.jobs)
    pictures = PicturePool()
    async with (
        aio_channel(settings.registry_target, CallerCredentials.of_settings(settings), server.tracing) as channel,
        hot_load(
            settings, RegistryGateway(channel, settings.load_timeout_seconds), engine, clock, metrics.tiers
        ) as hot,
    ):
        generator = Generator(
            engine, hot.stylist, admission, pictures, clock, device=hot.device,
            safety=Safety(safety_check, pictures, metrics.refused),
            base=settings.base, max_pixels=settings.max_pixels, default_guidance_scale=settings.default_guidance_scale,
            profile=ProvenanceProfile(settings.provenance_profile),
        )  # fmt: skip
        servicer = InferenceServicer(generator, hot, engine, settings)
        add_to_server = inference_pb2_grpc.add_InferenceServiceServicer_to_server
        server.add(servicer, add_to_server, INFERENCE_SERVICE, serving=False)
        try:
            async with serve_covers(settings, server, generator, hot, clock):
                engine.start()
                yield
        finally:
            await engine.close()
            pictures.close()


def _engine_config(settings: InferenceSettings) -> EngineConfig:
    return EngineConfig(
        base_model=settings.base_model,
        threads=settings.threads,
        device=settings.device,
        dtype=settings.dtype,
        plan=settings.plan,
        compiled=settings.compiled,
        preview_decoder=settings.preview_decoder,
        merged_budget_bytes=settings.merged_memory_bytes,
        max_batch_rows=settings.max_batch_rows,
        spare_tick_seconds=settings.spare_tick_seconds,
        niceness=settings.engine_niceness,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run until told to stop; configured by TERROIR_INFERENCE_… alone, so arguments are refused."""
    ArgumentParser(description=__doc__).parse_args(argv)
    run_service("inference", InferenceSettings, build)


if __name__ == "__main__":
    main()
