"""What is in the images and what is not, looked at from within and by their configuration."""

from __future__ import annotations

import hashlib
import re
import subprocess
from pathlib import Path

import pytest

from scripts.images_build import layers, project_version
from scripts.images_engine import Engine
from tests.integration.images.containers import BuiltImage

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[3]
TOOLS = ("pip", "pip3", "uv", "gcc", "cc", "g++", "clang", "make", "ld", "go", "cargo", "nvcc", "git", "curl", "wget")
INSTALLERS = ("pip", "setuptools", "wheel", "ensurepip", "uv", "hatchling", "pytest", "mypy", "grpc_tools")
SERVICES = {"control": ("registry",), "inference": ("inference",), "trainer": ("dataset", "training")}


def test_no_tool_that_builds_or_installs_is_left(image: BuiltImage) -> None:
    program = f"""
import importlib.util, json, shutil
found = [name for name in {TOOLS} if shutil.which(name)]
found += [name for name in {INSTALLERS} if importlib.util.find_spec(name)]
print(json.dumps(found))"""
    assert image.python(program) == []


def test_no_tests_headers_or_stray_files_of_a_build_are_left(image: BuiltImage) -> None:
    program = r"""
import json, pathlib
top = pathlib.Path("/opt/terroir")
packages = next(top.glob("lib/python3.*/site-packages"))
left = [str(p) for p in packages.rglob("*")
        if p.suffix in (".a", ".c", ".h", ".pyx") or p.is_dir() and p.name in ("tests", "SelfTest")]
places = ("/src", "/wheel", "/opt/tools", "/opt/uv-cache", "/root/.cache")
left += [str(p) for p in map(pathlib.Path, places) if p.exists()]
left += [str(p) for p in pathlib.Path("/run/secrets").glob("*")]
print(json.dumps(left))"""
    left = image.python(program, "--user=0")
    # numpy.testing needs one file of a folder of tests.
    assert [path for path in left if not path.endswith("/numpy/_core/tests")] == []


def test_everything_is_compiled_and_no_start_compiles(image: BuiltImage) -> None:
    program = """
import importlib.util, json, pathlib
packages = next(pathlib.Path("/opt/terroir").glob("lib/python3.*/site-packages"))
lacking = [str(p) for folder in ("terroir", "grpc", "pydantic") for p in (packages / folder).rglob("*.py")
           if not pathlib.Path(importlib.util.cache_from_source(str(p))).exists()]
library = pathlib.Path(json.__file__)
lacking += [] if pathlib.Path(importlib.util.cache_from_source(str(library))).exists() else [str(library)]
print(json.dumps(lacking))"""
    assert image.python(program) == []


def test_it_runs_as_user_10001_who_owns_nothing_but_the_data_folder(image: BuiltImage) -> None:
    assert image.described()["Config"]["User"] == "10001:10001"
    program = """
import json, os, pathlib
writable = [str(f) for f in map(pathlib.Path, ("/", "/etc", "/opt", "/opt/terroir", "/usr", "/home", "/var/lib"))
            if os.access(f, os.W_OK)]
print(json.dumps({"ids": [os.getuid(), os.getgid(), *os.getgroups()], "writable": writable,
                  "owner": os.stat("/var/lib/terroir").st_uid, "home": os.path.expanduser("~")}))"""
    told = image.python(program)
    assert told == {"ids": [10001, 10001, 10001], "writable": [], "owner": 10001, "home": "/var/lib/terroir"}


def test_the_root_file_system_may_be_read_only(image: BuiltImage) -> None:
    """Each service starts far enough to say what it lacks, with nothing but /tmp to write to."""
    for service in SERVICES[image.name]:
        variable = f"TERROIR_{service.upper()}_NO_SUCH_SETTING"
        done = image.run("python", "-m", f"terroir.{service}.main", options=(f"--env={variable}=1",))
        assert done.returncode == 1
        assert f"[UNKNOWN_SETTING] unknown setting {variable}" in done.stderr


def test_every_module_of_its_services_can_be_loaded(image: BuiltImage) -> None:
    """What was taken out of packages, and packages that are not in the lock, would show here."""
    program = f"""
import importlib, json, pkgutil
failed = {{}}
for name in {(*SERVICES[image.name], "common", "store", "lora", "client")}:
    package = importlib.import_module(f"terroir.{{name}}")
    for found in pkgutil.walk_packages(package.__path__, f"terroir.{{name}}."):
        try:
            importlib.import_module(found.name)
        except Exception as error:
            failed[found.name] = repr(error)
print(json.dumps(failed))"""
    # Buckets are made by services that prove one at their start; inference has no minio-py.
    known = {"terroir.store.bucket"} if image.name == "inference" else set()
    assert set(image.python(program)) == known


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "control"])
def test_a_pipeline_can_be_loaded(name: str, engine: Engine) -> None:
    """Diffusers and transformers load their parts when they are first asked for."""
    program = """
import json
from diffusers import StableDiffusionPipeline
from terroir.tiny import BASE_DIR
made = StableDiffusionPipeline.from_pretrained(BASE_DIR)
picture = made("a red teapot", width=64, height=64, num_inference_steps=1, output_type="np").images[0]
print(json.dumps(list(picture.shape)))"""
    assert BuiltImage.of(engine, name).python(program) == [64, 64, 3]


def test_the_control_image_has_no_torch_and_no_weights_that_the_registry_need_not_know(engine: Engine) -> None:
    program = """
import importlib.util, json
from terroir.tiny import BASE_DIR, CLIP_DIR
heavy = [name for name in ("torch", "diffusers", "transformers", "ray", "triton") if importlib.util.find_spec(name)]
print(json.dumps({"heavy": heavy, "base": BASE_DIR.exists(), "clip": CLIP_DIR.exists()}))"""
    assert BuiltImage.of(engine, "control").python(program) == {"heavy": [], "base": True, "clip": False}


def test_the_code_in_it_is_that_of_this_commit(image: BuiltImage) -> None:
    program = """
import hashlib, json, pathlib
top = next(pathlib.Path("/opt/terroir").glob("lib/python3.*/site-packages")) / "terroir"
print(json.dumps({str(p.relative_to(top)): hashlib.sha256(p.read_bytes()).hexdigest() for p in top.rglob("*.py")}))"""
    committed = subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", "HEAD", "services/terroir"], cwd=ROOT, capture_output=True, check=True,
        text=True,
    ).stdout.split()  # fmt: skip
    told = image.python(program)
    assert set(told) == {path.removeprefix("services/terroir/") for path in committed if path.endswith(".py")}
    for path in ("common/settings.py", "registry/main.py"):
        shown = ["git", "show", f"HEAD:services/terroir/{path}"]
        content = subprocess.run(shown, cwd=ROOT, capture_output=True, check=True).stdout
        assert told[path] == hashlib.sha256(content).hexdigest()


def test_labels_say_what_it_is(image: BuiltImage) -> None:
    labels = image.described()["Config"]["Labels"]
    known = {name.removeprefix("org.opencontainers.image."): value for name, value in labels.items()}
    assert known["title"] == f"terroir-{image.name}"
    assert known["version"] == project_version()
    assert known["licenses"] == "Apache-2.0"
    assert known["base.name"].endswith("python:3.11-slim")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", known["created"])
    commit = known["revision"].removesuffix("-dirty")
    subprocess.run(["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=ROOT, check=True)


def test_it_ends_by_the_signal_that_services_drain_on(image: BuiltImage) -> None:
    told = image.described()["Config"]
    assert told["StopSignal"] == "SIGTERM"
    assert told["Cmd"][:2] == ["python", "-m"]
    assert not told.get("Entrypoint")


def test_neither_history_nor_configuration_tells_of_the_machine_that_built_it(image: BuiltImage) -> None:
    history = image.engine.run("history", "--no-trunc", "--format", "{{.CreatedBy}}", image.tag)
    configured = str(image.described()["Config"])
    for told in (history, configured):
        assert re.findall(r"https?://\S+", told) == []
        assert not re.search(r"(?i)(password|secret_access|api_key|credential|\btoken=)", told)
        assert str(ROOT) not in told and "terroir-context" not in told
        assert "BEGIN CERTIFICATE" not in told
    program = """
import json, pathlib
names = ("pip.conf", "uv.toml", ".netrc", ".pypirc", "uv.lock", "credentials")
roots = map(pathlib.Path, ("/etc", "/opt/terroir", "/root", "/var/lib/terroir", "/tmp"))
found = [str(p) for root in roots for p in root.rglob("*") if p.name in names and p.is_file()]
packages = next(pathlib.Path("/opt/terroir").glob("lib/python3.*/site-packages"))
urls = [p.read_text() for p in packages.glob("terroir-*.dist-info/direct_url.json")]
print(json.dumps({"files": found, "urls": urls}))"""
    told = image.python(program, "--user=0")
    assert told["files"] == []
    assert all('"file:///wheel/' in url for url in told["urls"])


def test_images_share_the_layer_that_weighs_most(engine: Engine) -> None:
    inference, trainer = (layers(engine, BuiltImage.of(engine, name).tag) for name in ("inference", "trainer"))
    assert inference[:3] == trainer[:3], "base, runtime and torch"
