"""What a file's header tells other programs: sd-scripts' `ss_*` keys and Stability's ModelSpec 1.0.1.

A1111 tells the family by `ss_base_model_version` (an SDXL file without it is listed as SD1 and hidden), model sites by
`modelspec.architecture`. Left out on purpose: dates, so that equal adapters are equal files; the author, captions and
folder names, which are nobody else's business.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

BASE_DIGEST_KEY: Final = "terroir.base_digest"
"""Entry that ties a file to its base also outside the registry."""
_FAMILIES: Final = {
    "sd15": {
        "ss_base_model_version": "sd_v1",
        "ss_v2": "False",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.implementation": "diffusers",
    },
    "sdxl": {
        "ss_base_model_version": "sdxl_base_v1-0",
        "ss_v2": "False",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
    },
}
"""As sd-scripts writes them (library/sai_model_spec.py, train_network.py)."""
_PREDICTIONS: Final = {"epsilon": "epsilon", "v_prediction": "v"}
_PRIVATE: Final = frozenset({
    "ss_base_model_version", "ss_v2", "ss_network_module", "ss_network_dim", "ss_network_alpha", "ss_network_args",
    "ss_output_name", "sshs_model_hash", "modelspec.sai_model_spec", "modelspec.architecture",
    "modelspec.implementation", "modelspec.title", "modelspec.resolution", "modelspec.prediction_type",
    "modelspec.trigger_phrase", "modelspec.hash_sha256", "format", "lora_adapter_metadata",
})  # fmt: skip


class HeaderProfile(StrEnum):
    """How much a header tells."""

    PUBLIC = "public"
    """All that `describe` writes."""
    PRIVATE = "private"
    """What programs need to load and list the file; nothing of where it comes from: base digest and name, description,
    tags."""


@dataclass(frozen=True)
class Description:
    """What is worth telling of an adapter."""

    title: str
    family: str
    """`sd15` or `sdxl`."""
    resolution: int
    """Side of the square pictures that the base was trained on, in pixels."""
    prediction_type: str
    """`epsilon` or `v_prediction`."""
    base_name: str = ""
    base_digest: str = ""
    trigger_word: str = ""
    text: str = ""
    tags: tuple[str, ...] = ()


def describe(description: Description) -> dict[str, str]:
    """Header entries for `to_kohya`, which adds the network's own and the hashes."""
    side = description.resolution
    entries = {
        **_FAMILIES[description.family],
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.title": description.title,
        "modelspec.resolution": f"{side}x{side}",
        "modelspec.prediction_type": _PREDICTIONS[description.prediction_type],
        "modelspec.trigger_phrase": description.trigger_word,
        "modelspec.description": description.text,
        "modelspec.tags": ", ".join(description.tags),
        "ss_output_name": description.title,
        "ss_sd_model_name": description.base_name,
        "ss_resolution": f"({side}, {side})",
        BASE_DIGEST_KEY: description.base_digest,
    }
    return {key: value for key, value in entries.items() if value}


def network_entries(rank: int, alphas: set[float], *, kinds: frozenset[str], dora: bool) -> dict[str, str]:
    """The network's part of sd-scripts' minimum (`SS_METADATA_MINIMUM_KEYS`).

    LoHa and LoKr are LyCORIS' (`lycoris.kohya`), which names its algorithm; layers of several kinds have none.
    """
    arguments = {"use_dora": "True"} if dora else {}
    if kinds - {"lora"} and len(kinds) == 1:
        arguments["algo"] = min(kinds)
    return {
        "ss_network_module": "lycoris.kohya" if kinds - {"lora"} else "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(next(iter(alphas))) if len(alphas) == 1 else "Dynamic",
        "ss_network_args": json.dumps(arguments),
    }


def of_profile(metadata: Mapping[str, str], profile: HeaderProfile) -> dict[str, str]:
    """The entries that a profile keeps."""
    return {key: value for key, value in metadata.items() if profile is HeaderProfile.PUBLIC or key in _PRIVATE}
