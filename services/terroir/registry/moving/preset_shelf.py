"""What an adapter's state keeps of how it is best used: presets, and the sample pictures that show it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from terroir.registry.moving.presets import Preset
from terroir.registry.moving.samples import MAX_SAMPLES, Sample


@dataclass(frozen=True)
class PresetShelf:
    """Presets and samples of one adapter; a part of its state document."""

    presets: tuple[Preset, ...] = ()
    """The first is the default."""
    samples: tuple[Sample, ...] = ()
    """Newest first, each digest once."""

    def with_presets(self, presets: Sequence[Preset]) -> PresetShelf:
        """With other presets; the samples stay."""
        return replace(self, presets=tuple(presets))

    def with_sample(self, sample: Sample) -> PresetShelf:
        """With a sample in front; the same picture moves there, and beyond MAX_SAMPLES the oldest gives way."""
        others = (other for other in self.samples if other.digest != sample.digest)
        return replace(self, samples=(sample, *others)[:MAX_SAMPLES])

    def sample(self, digest: str) -> Sample | None:
        """The sample with this digest, if it is kept."""
        return next((sample for sample in self.samples if sample.digest == digest), None)

    def to_body(self) -> dict[str, Any]:
        """As a JSON-able value."""
        return {
            "presets": [preset.to_body() for preset in self.presets],
            "samples": [sample.to_body() for sample in self.samples],
        }

    @staticmethod
    def from_body(body: Mapping[str, Any]) -> PresetShelf:
        """Inverse of `to_body`."""
        return PresetShelf(tuple(map(Preset.from_body, body["presets"])), tuple(map(Sample.from_body, body["samples"])))
