"""How the processes of an attempt reach the store and the services: by the order, and by what their machine knows."""

from __future__ import annotations

from pathlib import Path

from terroir.common.credentials import CallerCredentials
from terroir.store.interface import ObjectStore
from terroir.store.opening import location_of, open_store
from terroir.store.patient import PatientStore
from terroir.training.attempt.order import DriverOrder
from terroir.training.settings import TrainingSettings


def store_of(order: DriverOrder) -> ObjectStore:
    """The service's store; where it is comes with the order, its keys from TERROIR_TRAINING_STORE_… on this machine."""
    own = TrainingSettings.load()
    told = {"data_dir": Path(order.data_dir), "store": order.store, "store_endpoint": order.store_endpoint}
    # An attempt waits while the store is away: giving up would cost it everything since its last checkpoint.
    return PatientStore(open_store(location_of(own.model_copy(update={**told, "store_region": order.store_region}))))


def credentials_of_node() -> CallerCredentials:
    """What drivers and workers show to the services: files of this machine, told by its environment."""
    own = CallerCredentials.of_settings(TrainingSettings.load())
    return own if own.tls_dir is not None else CallerCredentials.of_environment()
