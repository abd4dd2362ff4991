"""Where the services are: said by a folder, by the environment, or by default."""

from __future__ import annotations

import pytest

from terroir.client import Endpoints
from terroir.common.errors import FailedPrecondition, InvalidArgument

HERE = Endpoints("h:1", "h:2", "h:3", "h:4")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("TERROIR_ENDPOINTS", raising=False)
    monkeypatch.setenv("TERROIR_DATA_DIR", str(tmp_path / "default"))


def test_a_running_terroir_is_found_by_its_folder(tmp_path):
    HERE.save(tmp_path)
    assert Endpoints.discover(tmp_path) == HERE


def test_a_folder_that_was_named_goes_before_the_environment(monkeypatch, tmp_path):
    HERE.save(tmp_path)
    monkeypatch.setenv("TERROIR_ENDPOINTS", "dataset=elsewhere:9")
    assert Endpoints.discover(tmp_path) == HERE


def test_the_environment_goes_before_the_default_folder(monkeypatch, tmp_path):
    (tmp_path / "default").mkdir()
    HERE.save(tmp_path / "default")
    assert Endpoints.discover() == HERE
    monkeypatch.setenv("TERROIR_ENDPOINTS", " dataset=elsewhere:9, inference=other:8,")
    assert Endpoints.discover() == Endpoints(dataset="elsewhere:9", inference="other:8")


def test_inference_may_be_named_once_a_replica_and_nothing_else_twice(monkeypatch):
    monkeypatch.setenv("TERROIR_ENDPOINTS", "inference=a:1,registry=r:3,inference=b:2")
    assert Endpoints.discover() == Endpoints(registry="r:3", inference="a:1,b:2")
    monkeypatch.setenv("TERROIR_ENDPOINTS", "registry=a:1,registry=b:2")
    with pytest.raises(InvalidArgument, match="twice"):
        Endpoints.discover()


def test_without_anything_the_default_ports_are_dialled():
    assert Endpoints.discover() == Endpoints()


def test_a_folder_where_nothing_runs_says_how_to_start(tmp_path):
    HERE.save(tmp_path)
    Endpoints.forget(tmp_path)
    Endpoints.forget(tmp_path)
    with pytest.raises(FailedPrecondition, match="terroir up --data-dir") as refused:
        Endpoints.discover(tmp_path)
    assert refused.value.reason == "NOT_RUNNING"


@pytest.mark.parametrize("stated", ["datasets=h:1", "dataset", "dataset=", "h:7101", "dataset=h:1,=h:2"])
def test_a_part_that_says_nothing_is_refused(monkeypatch, stated):
    """Parts without '=' were once left out in silence, and the client dialled the default ports."""
    monkeypatch.setenv("TERROIR_ENDPOINTS", stated)
    with pytest.raises(InvalidArgument, match="dataset, training, registry, inference") as refused:
        Endpoints.discover()
    assert refused.value.reason == "BAD_ENDPOINTS"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"data": 1}'])
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / "endpoints.json").write_text(text)
    with pytest.raises(FailedPrecondition, match=r"endpoints\.json") as refused:
        Endpoints.discover(tmp_path)
    assert refused.value.reason == "ENDPOINTS_UNREADABLE"
