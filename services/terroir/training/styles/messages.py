"""Registrations as messages of the contract."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from terroir._proto.training.v1 import style_pb2 as pb
from terroir._proto.training.v1 import training_pb2
from terroir.training.styles.admission import StyleRequest
from terroir.training.styles.live import Live
from terroir.training.styles.model import Phase, PhaseBegin, Registration, State, Wish

_STATES = {
    State.RUNNING: pb.REGISTRATION_STATE_RUNNING,
    State.SUCCEEDED: pb.REGISTRATION_STATE_SUCCEEDED,
    State.FAILED: pb.REGISTRATION_STATE_FAILED,
    State.CANCELLED: pb.REGISTRATION_STATE_CANCELLED,
}
_PHASES = {
    Phase.IMPORTING: pb.REGISTRATION_PHASE_IMPORTING,
    Phase.CAPTIONING: pb.REGISTRATION_PHASE_CAPTIONING,
    Phase.FREEZING: pb.REGISTRATION_PHASE_FREEZING,
    Phase.QUEUED: pb.REGISTRATION_PHASE_QUEUED,
    Phase.TRAINING: pb.REGISTRATION_PHASE_TRAINING,
    Phase.JUDGING: pb.REGISTRATION_PHASE_JUDGING,
    Phase.PUBLISHING: pb.REGISTRATION_PHASE_PUBLISHING,
    Phase.STAGING: pb.REGISTRATION_PHASE_STAGING,
}


def style_request(message: pb.RegisterStyleRequest) -> StyleRequest:
    """What a request asks for."""
    return StyleRequest(
        style=message.style_id,
        region=message.region,
        config_yaml=message.config_yaml,
        dataset=message.dataset,
        import_source=message.import_source,
        rights_statement=message.rights_statement,
        trigger_word=message.trigger_word,
        license=message.license,
        assign_region=message.assign_region,
        new_version=message.new_version,
    )


def wish_message(wish: Wish) -> pb.StyleRegistration:
    """A registration that was checked and not begun."""
    return pb.StyleRegistration(
        region=f"regions/{wish.region}",
        dataset=f"datasets/{wish.dataset}",
        adapter=f"adapters/{wish.style}",
        config_yaml=wish.config_yaml,
        assign_region=wish.assign_region,
        creator=wish.creator,
        import_source=f"importSources/{wish.import_source}" if wish.import_source else "",
    )


def registration_message(registration: Registration, job: training_pb2.Job | None, live: Live) -> pb.StyleRegistration:
    """A registration with its job and what it does at this moment."""
    message = wish_message(registration.wish)
    failure = registration.failure
    message.MergeFrom(
        pb.StyleRegistration(
            name=registration.name,
            state=_STATES[registration.state],
            phase=_PHASES[registration.phase],
            dataset_version=registration.dataset_version,
            job=job,
            adapter_version=registration.adapter_version,
            metrics=registration.metrics,
            error=pb.RegistrationError(reason=failure.reason, message=failure.message) if failure else None,
            cancel_requested=registration.cancel_requested,
            pictures=pb.PictureCount(done=live.done, total=live.total) if live.total else None,
            waiting_for=live.waiting_for,
            phases=map(_begin, registration.phases),
            create_time=_timestamp(registration.created_at),
            end_time=_timestamp(registration.ended_at) if registration.ended_at else None,
            etag=registration.etag,
        )
    )
    return message


def _begin(begun: PhaseBegin) -> pb.PhaseBegin:
    return pb.PhaseBegin(phase=_PHASES[begun.phase], time=_timestamp(begun.time))


def _timestamp(text: str) -> Timestamp:
    stamp = Timestamp()
    stamp.FromJsonString(text)
    return stamp
