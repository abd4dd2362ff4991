"""Where a base model's weights are: a folder, or a pinned revision on the Hugging Face hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from terroir.common.errors import FailedPrecondition, InvalidArgument, Unavailable

HUB_PREFIX: Final = "hub:"
_PINNED: Final = re.compile(r"hub:([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})@([0-9a-f]{40})")
_READ: Final = (
    "model_index.json",
    "*/config.json",
    "scheduler/scheduler_config.json",
    *(
        f"{component}/{name}.safetensors"
        for component in ("unet", "text_encoder", "text_encoder_2", "vae")
        for name in ("diffusion_pytorch_model", "model")
    ),
)
"""All that the registration reads: no pickled file, no second precision of the weights."""


@dataclass(frozen=True)
class BaseSource:
    """A diffusers folder on this machine."""

    folder: Path
    origin: str
    """`{owner}/{name}@{revision}` of the hub, or empty for a folder of one's own."""


def find_base(source: str) -> BaseSource:
    """The folder behind `/models/sd15` or `hub:{owner}/{name}@{40 hexadecimal digits}`.

    A hub revision comes from the local cache of huggingface_hub, which fetches what is missing unless HF_HUB_OFFLINE is
    set. A branch or tag is refused: it can move, and adapters are bound to one content. Raises InvalidArgument
    (BASE_NOT_PINNED), FailedPrecondition (HUB_CLIENT_MISSING) or Unavailable (HUB_UNAVAILABLE).
    """
    if not source.startswith(HUB_PREFIX):
        return BaseSource(Path(source).expanduser(), "")
    pinned = _PINNED.fullmatch(source)
    if pinned is None:
        raise InvalidArgument(
            f"{source[:200]!r} does not pin a revision: write hub:OWNER/NAME@ and the 40 hexadecimal digits of a "
            "commit, as the model's page shows under 'Files and versions' → 'History'",
            reason="BASE_NOT_PINNED",
        )
    name, revision = pinned.groups()
    return BaseSource(_snapshot(name, revision), f"{name}@{revision}")


def _snapshot(name: str, revision: str) -> Path:
    try:
        from huggingface_hub import snapshot_download  # only who registers from the hub needs it
    except ModuleNotFoundError as error:
        raise FailedPrecondition(
            "huggingface_hub is not installed (pip install huggingface_hub), or give a folder instead",
            reason="HUB_CLIENT_MISSING",
        ) from error
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(_READ)))
    except Exception as error:  # the library raises errors of its own, of its HTTP client and of the file system
        told = str(error).strip().partition("\n")[0]
        raise Unavailable(
            f"{name}@{revision[:12]} could not be had from the hub or its local cache: {type(error).__name__}: {told} "
            "(offline, HF_HUB_OFFLINE=1, the revision must be in the cache)",
            reason="HUB_UNAVAILABLE",
        ) from error
