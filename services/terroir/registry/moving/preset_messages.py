"""Between the contract's messages of presets and samples and the domain's values."""

from __future__ import annotations

from terroir._proto.registry.v1 import registry_pb2 as pb
from terroir.registry.moving.adapter_presets import AdapterPresets
from terroir.registry.moving.presets import Preset
from terroir.registry.moving.samples import Sample
from terroir.registry.names import adapter_name, version_name


def presets_message(presets: AdapterPresets) -> pb.AdapterPresets:
    """Presets and samples of an adapter as the contract shows them."""
    return pb.AdapterPresets(
        adapter=adapter_name(presets.adapter),
        presets=[
            pb.Preset(
                display_name=preset.display_name,
                trigger_words=preset.trigger_words,
                prompt_template=preset.prompt_template,
                negative_prompt=preset.negative_prompt,
                weight=preset.weight,
            )
            for preset in presets.presets
        ],
        samples=[sample_message(presets.adapter, sample) for sample in presets.samples],
        etag=presets.etag,
    )


def preset_values(message: pb.AdapterPresets) -> tuple[Preset, ...]:
    """The presets in a message."""
    return tuple(
        Preset(
            display_name=preset.display_name,
            trigger_words=tuple(preset.trigger_words),
            prompt_template=preset.prompt_template,
            negative_prompt=preset.negative_prompt,
            weight=preset.weight,
        )
        for preset in message.presets
    )


def sample_message(adapter: str, sample: Sample) -> pb.Sample:
    """A sample as the contract shows it."""
    return pb.Sample(
        digest=sample.digest,
        media_type=sample.media_type,
        caption=sample.caption,
        version=version_name(adapter, sample.version) if sample.version is not None else "",
        width=sample.width,
        height=sample.height,
    )
