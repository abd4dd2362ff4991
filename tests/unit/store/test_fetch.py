from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from terroir.store.fetch import fetch, main
from terroir.store.local import LocalStore


def stocked(folder: Path) -> LocalStore:
    store = LocalStore(folder)
    store.put("model_index.json", b"{}")
    store.put("unet/weights.safetensors", b"w" * 100_000)
    return store


def test_a_folder_arrives_as_it_is_and_a_second_run_copies_nothing(tmp_path: Path) -> None:
    store, said = stocked(tmp_path / "bucket"), list[str]()
    assert fetch(store, tmp_path / "models", said.append) == 100_002
    assert (tmp_path / "models/unet/weights.safetensors").read_bytes() == b"w" * 100_000
    assert said == ["1/2 model_index.json: 0.0 MB", "2/2 unet/weights.safetensors: 0.1 MB"]
    assert fetch(store, tmp_path / "models", said.append) == 0


def test_a_file_that_was_cut_off_is_copied_again(tmp_path: Path) -> None:
    store, target = stocked(tmp_path / "bucket"), tmp_path / "models/unet/weights.safetensors"
    fetch(store, tmp_path / "models", lambda _line: None)
    target.write_bytes(b"w" * 10)
    assert fetch(store, tmp_path / "models", lambda _line: None) == 100_000
    assert target.stat().st_size == 100_000


def test_a_copy_that_breaks_leaves_no_file_under_its_name(tmp_path: Path) -> None:
    store = stocked(tmp_path / "bucket")

    class Breaking(LocalStore):
        def get_range(self, key: str, start: int, length: int) -> bytes:
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        fetch(Breaking(tmp_path / "bucket"), tmp_path / "models", lambda _line: None)
    assert not list((tmp_path / "models").glob("*.json"))
    assert fetch(store, tmp_path / "models", lambda _line: None) == 100_002


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["models", "out"], "is no place in a bucket"),
        (["s3://models/x", "out", "--endpoint", "http://10.0.0.1:9000"], "has no TLS"),
    ],
)
def test_a_wrong_command_says_what_to_write(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2 and expected in capsys.readouterr().err


def test_the_module_is_a_command_with_help() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "terroir.store.fetch", "--help"], capture_output=True, text=True, check=True
    )
    assert "s3://models/sd15" in done.stdout
