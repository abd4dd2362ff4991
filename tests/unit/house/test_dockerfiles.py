"""What the Dockerfiles promise, read from their text: no engine and no network is needed."""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts import lock
from scripts.images_build import IMAGES

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILES = ("Dockerfile.inference", "Dockerfile.trainer")
LABELS = ("created", "revision", "source", "version")
IMAGE_LOCKS = tuple(lock.IMAGES)


@dataclass(frozen=True)
class Stage:
    """One FROM with the instructions below it."""

    name: str
    source: str
    instructions: tuple[str, ...]

    def those(self, keyword: str) -> list[str]:
        return [line.removeprefix(keyword).strip() for line in self.instructions if line.startswith(f"{keyword} ")]


def instructions(name: str) -> list[str]:
    """Instructions of a Dockerfile, continued lines joined, comments left out."""
    text = "\n".join(line for line in (ROOT / name).read_text().splitlines() if not line.lstrip().startswith("#"))
    return [line.strip() for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def stages(name: str) -> dict[str, Stage]:
    found: dict[str, Stage] = {}
    lines = instructions(name)
    starts = [number for number, line in enumerate(lines) if line.startswith("FROM ")]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        _, source, _, stage = lines[start].split()
        found[stage] = Stage(stage, source, tuple(lines[start + 1 : end]))
    return found


def ancestry(name: str, stage: str) -> list[Stage]:
    """A stage and those that it stands on, the lowest first."""
    known = stages(name)
    chain = [known[stage]]
    while chain[0].source in known:
        chain.insert(0, known[chain[0].source])
    return chain


def images() -> list[tuple[str, str]]:
    """Dockerfile and stage of each image."""
    return [(image.dockerfile, image.target or list(stages(image.dockerfile))[-1]) for image in IMAGES]


@pytest.mark.parametrize("name", DOCKERFILES)
def test_everything_stands_on_the_two_images_that_are_arguments(name: str) -> None:
    known = stages(name)
    for stage in known.values():
        assert stage.source in ("${BASE_IMAGE}", "${BUILD_IMAGE}", *known), stage.name
    head = instructions(name)[:2]
    assert head == ["ARG BASE_IMAGE=docker.io/library/python:3.11-slim", "ARG BUILD_IMAGE=${BASE_IMAGE}"]


@pytest.mark.parametrize(("dockerfile", "stage"), images())
def test_an_image_runs_as_a_user_without_rights_and_ends_by_a_signal(dockerfile: str, stage: str) -> None:
    chain = ancestry(dockerfile, stage)
    assert [user for part in chain for user in part.those("USER")] == ["10001:10001"]
    assert [signal for part in chain for signal in part.those("STOPSIGNAL")] == ["SIGTERM"]
    assert re.fullmatch(r'\["python", "-m", "terroir\.\w+\.main"\]', chain[-1].those("CMD")[0])


@pytest.mark.parametrize(("dockerfile", "stage"), images())
def test_an_image_is_made_of_finished_parts_alone(dockerfile: str, stage: str) -> None:
    """Nothing is installed in it: a RUN in the last stage would need what the image must not hold."""
    last = stages(dockerfile)[stage]
    assert not last.those("RUN")
    assert all(copy.startswith("--from=") for copy in last.those("COPY"))
    assert ancestry(dockerfile, stage)[0].source == "${BASE_IMAGE}"


@pytest.mark.parametrize(("dockerfile", "stage"), images())
def test_an_image_says_what_it_was_built_from(dockerfile: str, stage: str) -> None:
    last = stages(dockerfile)[stage]
    labels = " ".join(last.those("LABEL"))
    for label in LABELS:
        assert f'org.opencontainers.image.{label}="${{{label.upper()}}}"' in labels
        assert f"{label.upper()}=" in last.those("ARG")


@pytest.mark.parametrize("name", DOCKERFILES)
def test_packages_come_by_hash_locks_alone(name: str) -> None:
    """Our own wheel is the exception: it is built here, and installed without any index."""
    for stage in stages(name).values():
        for run in stage.those("RUN"):
            for step in run.split("&&"):
                if re.search(r"\b(install|sync|curl|wget)\b", step.replace("images_install", "")):
                    assert re.search(r"uv pip install .*--offline .*--no-deps .*/wheel/\*\.whl", step), step
    script = (ROOT / "scripts" / "images_install.sh").read_text().replace("\\\n", "")
    installs = [line for line in script.splitlines() if " pip install " in line and not line.startswith("#")]
    assert len(installs) == 2
    for line in installs:
        assert "--require-hashes" in line
        assert "--no-deps" in line
        assert "--only-binary :all:" in line or "--no-build" in line


@pytest.mark.parametrize("name", DOCKERFILES)
def test_locks_that_are_installed_exist(name: str) -> None:
    copied = [word for stage in stages(name).values() for copy in stage.those("COPY") for word in copy.split()[:-1]]
    defaults = [arg.removeprefix("TORCH_LOCK=") for stage in stages(name).values() for arg in stage.those("ARG")]
    for path in (*copied, *defaults):
        if path.startswith("requirements/"):
            assert (ROOT / path).is_file(), path


@pytest.mark.parametrize("name", DOCKERFILES)
def test_old_builders_understand_it(name: str) -> None:
    for line in instructions(name):
        assert "<<" not in line
        assert "--link" not in line
        assert not line.startswith("ADD ")


@pytest.mark.parametrize("name", [*DOCKERFILES, "scripts/images_install.sh", "compose.yaml", ".dockerignore"])
def test_no_address_and_no_secret_stands_in_it(name: str) -> None:
    text = (ROOT / name).read_text()
    assert re.findall(r"https?://(?!127\.0\.0\.1|minio:)\S+", text) == []
    assert not re.search(r"(?i)\b(ARG|ENV)\b.*(password|secret|token|credential)", text)


def test_layers_that_images_share_are_made_by_the_same_lines() -> None:
    """Equal lines give equal layers, so a node that has one image pulls 3 GB less of the other."""
    parts = []
    for name in DOCKERFILES:
        known = stages(name)
        parts.append([known[stage] for stage in ("tools", "application", "runtime", "torch")])
        last = list(known.values())[-1]
        assert last.source == "runtime"
        assert last.those("COPY")[0] == "--from=torch /opt/terroir /opt/terroir"
    assert parts[0] == parts[1]


def test_the_control_image_never_meets_torch() -> None:
    order = list(stages("Dockerfile.inference"))
    assert order.index("control") < order.index("torch"), "a builder that builds in order would build torch for it"
    sources = {stage.source for stage in ancestry("Dockerfile.inference", "control")}
    copied = " ".join(stages("Dockerfile.inference")["control"].those("COPY"))
    assert "torch" not in f"{sources} {copied}"


def test_what_is_copied_is_let_through_and_nothing_else() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    copied = {
        word
        for name in DOCKERFILES
        for stage in stages(name).values()
        for copy in stage.those("COPY")
        if not copy.startswith("--from=") and "$" not in copy
        for word in copy.split()[:-1]
    }
    roots = {path if path in allowed else path.split("/")[0] for path in copied}
    assert roots == allowed
    assert not any(fnmatch.fnmatch(hidden, rule) for hidden in (".git", ".venv", ".env") for rule in allowed)


@pytest.mark.parametrize("image", IMAGE_LOCKS)
def test_an_images_lock_was_made_from_todays_requirements(image: str) -> None:
    """Run `python scripts/lock.py --images` when this fails."""
    path = lock.FOLDER / "images" / f"{image}.txt"
    assert lock.recorded_digest(path) == lock.inputs_digest()
    assert "://" not in path.read_text()


def pins(path: Path) -> dict[str, str]:
    """Pinned package with its marker → its hashes."""
    found = re.findall(r"^(\S.*?) \\\n((?:\s+--hash=\S+(?: \\)?\n)+)", path.read_text(), re.MULTILINE)
    return {package: " ".join(hashes.replace("\\", "").split()) for package, hashes in found}


@pytest.mark.parametrize("image", IMAGE_LOCKS)
def test_an_image_has_the_versions_that_tests_ran_with(image: str) -> None:
    tested = pins(lock.FOLDER / "all.txt")
    locked = pins(lock.FOLDER / "images" / f"{image}.txt")
    assert len(locked) > 50
    hashes = {package.split(" ;")[0]: hashed for package, hashed in tested.items()}
    assert {package: hashes.get(package.split(" ;")[0]) for package in locked} == locked


@pytest.mark.parametrize("image", IMAGE_LOCKS)
def test_no_lock_of_an_image_brings_torch_or_tools_of_developers(image: str) -> None:
    names = {package.split("==")[0] for package in pins(lock.FOLDER / "images" / f"{image}.txt")}
    assert not [
        name for name in names if re.match(r"(torch|triton|nvidia-.*|cuda-.*|pytest.*|mypy|ruff|uv|pip)$", name)
    ]
    if image == "control":
        assert not names & {"diffusers", "transformers", "ray", "accelerate", "peft"}
