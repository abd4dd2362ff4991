"""Keys from several places, one over the other: profiles, the file, fields of a request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

RIVALS: Final = (("epochs", "max_train_steps"),)
"""Keys of which a run has one: setting it in an upper layer takes the other out of the lower ones."""
FOLLOWERS: Final[Mapping[str, tuple[str, ...]]] = {
    "text_encoder_lr": ("text_encoder_lr_scheduler", "text_encoder_stop_step"),
    "conv_rank": ("conv_alpha",),
}
"""Keys that mean nothing without another: where an upper layer unsets it, they go too."""


def merged(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The keys of all layers, the lowest first; an upper one overrules."""
    result: dict[str, Any] = {}
    for layer in layers:
        for key in tuple(result):
            if _displaced(key, layer):
                del result[key]
        result.update(layer)
    return result


def _displaced(key: str, layer: Mapping[str, Any]) -> bool:
    rivals = [other for group in RIVALS if key in group for other in group if other != key]
    leaders = [leader for leader, followers in FOLLOWERS.items() if key in followers]
    return any(layer.get(rival) is not None for rival in rivals) or any(
        leader in layer and layer[leader] is None for leader in leaders
    )
