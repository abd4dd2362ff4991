"""What could never run is refused at once, with the limit that it exceeds; teams are for their members."""

from __future__ import annotations

import pytest

from terroir.common.errors import PermissionDenied
from terroir.common.principal import Principal, Role
from terroir.training.config.scheduling_keys import Priority
from terroir.training.errors import DemandImpossible
from terroir.training.jobs.admission import QueueAdmission
from terroir.training.main import queue_limits
from terroir.training.scheduling.model import Quota
from terroir.training.scheduling.wishes import Wish
from terroir.training.settings import TeamQuota, TrainingSettings

SETTINGS = TrainingSettings(
    team_quotas={"tea": TeamQuota(gpus=4, weight=2), "guests": TeamQuota(jobs=0)},
    default_quota=TeamQuota(gpus=32),
    max_gpus=16,
    gpus_per_job=1,
    team_members={"tea": ("local:ana", "oidc:https://login.example.com#tea-*")},
    high_priority_members=("local:ana", "cert:*"),
)
ADMISSION = QueueAdmission(queue_limits(SETTINGS), SETTINGS.team_members, SETTINGS.high_priority_members)


@pytest.mark.parametrize(
    ("wish", "reason", "told"),
    [
        (Wish(gpus=1.5), "GPUS_NOT_WHOLE", "gpus 1.5"),
        (Wish("tea", gpus=8), "QUOTA_TOO_SMALL", "gpus 8, and the quota of team tea is 4 GPUs"),
        (Wish("tea", workers=3, gpus=2), "QUOTA_TOO_SMALL", "gpus 2 of each of 3 workers"),
        (Wish("guests", gpus=0), "QUOTA_TOO_SMALL", "the quota of team guests is no job"),
        (Wish(gpus=20), "CLUSTER_TOO_SMALL", "may hold 16 GPUs"),
    ],
    ids=["a share of two", "over the quota", "a gang over the quota", "a team without jobs", "over the cluster"],
)
def test_what_would_wait_for_ever_is_refused(wish: Wish, reason: str, told: str) -> None:
    with pytest.raises(DemandImpossible) as refused:
        ADMISSION.ensure_possible(wish)
    assert (refused.value.reason, refused.value.field) == (reason, "gpus")
    assert told in str(refused.value)


@pytest.mark.parametrize("wish", [Wish("tea"), Wish("tea", gpus=0.25), Wish("rice", gpus=16), Wish("rice", 4, gpus=4)])
def test_what_could_run_is_taken(wish: Wish) -> None:
    ADMISSION.ensure_possible(wish)


@pytest.mark.parametrize("name", ["local:ana", "oidc:https://login.example.com#tea-lin"])
def test_members_submit_for_their_team_and_everyone_for_one_without_members(name: str) -> None:
    for team in ("tea", "rice"):
        ADMISSION.ensure_allowed(Wish(team), Principal(name, frozenset()))


def test_others_do_not(team: str = "tea") -> None:
    with pytest.raises(PermissionDenied, match="none of its members") as refused:
        ADMISSION.ensure_allowed(Wish(team), Principal("local:bob", frozenset()))
    assert refused.value.reason == "NOT_OF_THE_TEAM"


HIGH = Wish("rice", Priority.HIGH)


@pytest.mark.parametrize("name", ["local:ana", "cert:nightly"])
def test_the_named_submit_jobs_of_priority_high(name: str) -> None:
    ADMISSION.ensure_allowed(HIGH, Principal(name, frozenset()))


def test_others_are_told_to_leave_the_priority_out() -> None:
    bob = Principal("local:bob", frozenset({Role.OPERATOR}))
    with pytest.raises(PermissionDenied, match="leave out `priority`") as refused:
        ADMISSION.ensure_allowed(HIGH, bob)
    assert refused.value.reason == "HIGH_PRIORITY_DENIED"
    for priority in (Priority.LOW, Priority.NORMAL):
        ADMISSION.ensure_allowed(Wish("rice", priority), bob)


def test_without_the_setting_everybody_submits_jobs_of_priority_high() -> None:
    plain = TrainingSettings()
    QueueAdmission(queue_limits(plain), plain.team_members, plain.high_priority_members).ensure_allowed(
        HIGH, Principal("local:bob", frozenset())
    )


def test_settings_of_the_environment_are_the_queue_s(monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = "TERROIR_TRAINING_"
    monkeypatch.setenv(f"{prefix}TEAM_QUOTAS", '{"tea": {"gpus": 8, "weight": 2}}')
    monkeypatch.setenv(f"{prefix}DEFAULT_QUOTA", '{"jobs": 3}')
    for name, value in {"MAX_GPUS": "64", "AGING_SECONDS": "60", "RESERVE_AFTER_SECONDS": "61", "MIN_RUN_SECONDS": "62",
                        "USAGE_HALF_LIFE_SECONDS": "63", "MAX_RETRIES": "4", "RETRY_BACKOFF_SECONDS": "65",
                        "RETRY_BACKOFF_LIMIT_SECONDS": "66", "MAKE_ROOM_SECONDS": "67",
                        "MAX_RUNNING_JOBS": "68"}.items():  # fmt: skip
        monkeypatch.setenv(f"{prefix}{name}", value)
    limits = queue_limits(TrainingSettings.load())
    assert limits.quotas.of("tea") == Quota(8, None, 2) and limits.quotas.of("rice") == Quota(None, 3, 1)
    assert (limits.capacity.max_gpus, limits.capacity.max_jobs) == (64, 68)
    rules = limits.rules
    assert (rules.aging_seconds, rules.reserve_after_seconds, rules.min_run_seconds) == (60, 61, 62)
    assert (limits.half_life_seconds, limits.max_retries, limits.make_room_seconds) == (63, 4, 67)
    assert (limits.retry_backoff_seconds, limits.retry_backoff_limit_seconds) == (65, 66)
