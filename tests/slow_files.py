"""Files of tests that take longest: they start first, or the last of them would run alone beside an idle worker."""

from __future__ import annotations

from typing import Final

SLOWEST_FIRST: Final = (
    "tests/integration/training/test_scheduling_on_ray.py",
    "tests/integration/training/test_training_service.py",
    "tests/integration/styles/test_register_style.py",
    "tests/robustness/rpc/test_rpc_faults.py",
    "tests/integration/embedded/test_terroir_up_on_minio.py",
    "tests/integration/embedded/test_embedded_ray.py",
    "tests/integration/embedded/test_main_job_over_mtls.py",
    "tests/integration/training/test_worker_group.py",
    "tests/integration/embedded/test_terroir_up.py",
    "tests/observability/test_running_services.py",
    "tests/integration/tracing/test_one_request.py",
    "tests/integration/cluster/test_release_lifecycle.py",
    "tests/e2e/test_main_job.py",
    "tests/observability/test_alert_rules.py",
    "tests/integration/inference/test_inference_lifecycle.py",
    "tests/integration/inference/test_rolling_restart.py",
    "tests/integration/registry/test_registry_store_faults.py",
    "tests/unit/store/test_interleavings.py",
    "tests/unit/training/test_data_parallel.py",
    "tests/unit/inference/test_engine_dora.py",
)
"""More than half a minute each, by `pytest --durations`; `-n` with `--dist loadfile` takes files as they come."""
