"""A version as an OCI artefact: any container registry can keep it, and its tools can copy and sign it.

An image layout (github.com/opencontainers/image-spec, image-layout.md) with one manifest of the CNCF model format
(github.com/modelpack/model-spec). Push it with a tool of that world:

    oras cp --from-oci-layout OUT:v3 registry.example/styles/jiangnan:v3
    crane push OUT registry.example/styles/jiangnan:v3
"""

from __future__ import annotations

import hashlib
import json
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from terroir.exports.errors import ExportFailed
from terroir.exports.staging import staged
from terroir.exports.version import ExportedVersion
from terroir.lora.safetensors_header import read_header

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX: Final = "application/vnd.oci.image.index.v1+json"
ARTIFACT: Final = "application/vnd.cncf.model.manifest.v1+json"
CONFIG: Final = "application/vnd.cncf.model.config.v1+json"
WEIGHT: Final = "application/vnd.cncf.model.weight.v1.raw"
WEIGHT_CONFIG: Final = "application/vnd.cncf.model.weight.config.v1.raw"
_PRECISIONS: Final = {"F64": "fp64", "F32": "fp32", "F16": "fp16", "BF16": "bf16"}
"""As the model format spells them."""


def export_oci(version: ExportedVersion, target: Path, *, tar: bool = False) -> str:
    """Write an image layout into a new folder, or with `tar` into one file; returns the manifest's digest.

    Equal versions give equal bytes.
    """
    if not tar:
        with staged(target) as folder:
            return _write(version, folder)
    if target.exists():
        raise ExportFailed(f"{target} is there already; name another file", reason="EXPORT_TARGET_EXISTS")
    try:
        target.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.absolute().parent, prefix=".terroir-oci-") as scratch:
            layout, partial = Path(scratch) / "layout", Path(scratch) / "layout.tar"
            digest = _write(version, layout)
            with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as archive:
                for path in sorted(layout.rglob("*")):
                    archive.add(path, str(path.relative_to(layout)), recursive=False, filter=_plain)
            partial.rename(target)
    except OSError as error:
        raise ExportFailed(
            f"{target} cannot be written: {error.strerror or error}; free space, or choose another folder",
            reason="EXPORT_TARGET_UNUSABLE",
        ) from error
    return digest


def _write(version: ExportedVersion, folder: Path) -> str:
    facts = _json(_facts(version))
    weight = _blob(folder, version.file, WEIGHT, f"{version.stem}.safetensors")
    about = _blob(folder, facts, WEIGHT_CONFIG, f"{version.stem}.json")
    config = _blob(folder, _json(_config(version, [weight["digest"], about["digest"]])), CONFIG)
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": ARTIFACT,
        "config": config,
        "layers": [weight, about],
        "annotations": _annotations(version),
    }
    described = _blob(folder, _json(manifest), MANIFEST)
    reference = {"org.opencontainers.image.ref.name": f"v{version.number}"}
    index = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [{**described, "artifactType": ARTIFACT, "annotations": reference}],
    }
    (folder / "index.json").write_bytes(_json(index))
    (folder / "oci-layout").write_bytes(_json({"imageLayoutVersion": "1.0.0"}))
    return str(described["digest"])


def _config(version: ExportedVersion, layers: list[Any]) -> dict[str, Any]:
    return {
        "descriptor": {
            "createdAt": version.created_at,
            "family": version.family,
            "name": version.adapter,
            "version": str(version.number),
            "title": version.adapter,
            "description": version.description,
            "licenses": [version.licence] if version.licence else [],
        },
        "modelfs": {"type": "layers", "diffIds": layers},
        "config": {"architecture": "lora", "format": "safetensors", "precision": _precision(version.file)},
    }


def _precision(file: bytes) -> str:
    """Of the factors; alphas, which are scalars, are left out."""
    found = {entry.dtype for entry in read_header(file).entries.values() if entry.shape}
    return _PRECISIONS[found.pop()] if len(found) == 1 else "mixed"


def _facts(version: ExportedVersion) -> dict[str, Any]:
    return {
        "name": version.name,
        "base": version.base,
        "base_digest": version.base_digest,
        "file_digest": version.file_digest,
        "tensor_digest": version.tensor_digest,
        "rank": version.rank,
        "trigger_word": version.trigger_word,
        "region": version.region,
        "tags": list(version.tags),
        "lineage": dict(version.lineage),
    }


def _annotations(version: ExportedVersion) -> dict[str, str]:
    named = {
        "org.opencontainers.image.title": version.adapter,
        "org.opencontainers.image.version": str(version.number),
        "org.opencontainers.image.created": version.created_at,
        "org.opencontainers.image.description": version.description,
        "org.opencontainers.image.licenses": version.licence,
        "terroir.base": version.base,
        "terroir.base-digest": version.base_digest,
        "terroir.region": version.region,
        "terroir.tensor-digest": version.tensor_digest,
    }
    return {key: value for key, value in named.items() if value}


def _blob(folder: Path, data: bytes, media_type: str, title: str = "") -> dict[str, Any]:
    """Store a blob and return its descriptor."""
    digest = hashlib.sha256(data).hexdigest()
    path = folder / "blobs" / "sha256" / digest
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    described: dict[str, Any] = {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}
    if title:
        described["annotations"] = {
            "org.opencontainers.image.title": title,
            "org.cncf.model.filepath": title,
        }
    return described


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without what differs between machines."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.isdir() else 0o644
    return entry
