"""What diffusers' own pipelines draw for a job's fields, and PEFT's adapters injected directly into their modules."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from terroir.inference.engine.pipeline.model import Model
from terroir.inference.engine.pipeline.samplers import build_sampler
from terroir.lora.adapter import Adapter, LoraModule

TOLERANCE: Final = 2
"""Of 255."""
PROMPTS: Final[Mapping[str, Any]] = {
    "prompt": "a red cat on a hill", "negative_prompt": "grey", "width": 64, "height": 48, "steps": 4,
    "guidance_scale": 4.0, "seeds": (11, 5), "sampler": "ddim",
}  # fmt: skip

Pixels = np.ndarray[Any, np.dtype[np.int16]]
Changes = Mapping[str, Tensor]
"""By `<component>.<layer path>`, what is added to a weight."""


class Peer:
    """A diffusers pipeline over the folder of one of our models, in fp32; its components may be dressed and bared."""

    def __init__(self, model: Model) -> None:
        folder: Path = model.folder
        if "XL" in json.loads((folder / "model_index.json").read_text(encoding="utf-8"))["_class_name"]:
            self.pipe: Any = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)
        else:
            self.pipe = StableDiffusionPipeline.from_pretrained(
                folder, safety_checker=None, requires_safety_checker=False
            )
        self.pipe.set_progress_bar_config(disable=True)
        self._schedule = dict(self.pipe.scheduler.config)
        modules = model.layers()
        components = {"unet": model.unet, **model.text_encoders}
        names = {id(module): name for component in components.values() for name, module in component.named_modules()}
        self._paths = {layer: names[id(module)] for layer, module in modules.items()}
        self._pristine = {name: getattr(self.pipe, name) for name in components}

    def draw(self, **changes: Any) -> Pixels:
        """Pictures `[n, height, width, 3]` of `PROMPTS` with changes."""
        job = {**PROMPTS, **changes}
        self.pipe.scheduler = build_sampler(job["sampler"], self._schedule)
        made = self.pipe(
            job["prompt"], negative_prompt=job["negative_prompt"], width=job["width"], height=job["height"],
            num_inference_steps=job["steps"], guidance_scale=job["guidance_scale"],
            num_images_per_prompt=len(job["seeds"]), output_type="np",
            generator=[torch.Generator("cpu").manual_seed(seed) for seed in job["seeds"]],
        )  # fmt: skip
        return np.asarray((made.images * 255).round().astype(np.int16))

    def bare(self) -> None:
        """Back to the base."""
        for name, module in self._pristine.items():
            setattr(self.pipe, name, module)

    def inject(self, adapter: Adapter, components: tuple[str, ...]) -> dict[str, LoraLayer]:
        """Dress copies of components in one adapter at weight 1 by PEFT alone; what became of each layer."""
        injected: dict[str, LoraLayer] = {}
        for component in components:
            dressed = copy.deepcopy(self._pristine[component])
            found = {layer: module for layer, module in adapter.modules.items() if layer.startswith(f"{component}.")}
            paths = {layer: self._paths[layer] for layer in found}
            inject_adapter_in_model(_config(found, paths), dressed, "style")
            for layer, module in found.items():
                assert isinstance(module, LoraModule)
                injected[layer] = _fill(dressed.get_submodule(paths[layer]), module)
            setattr(self.pipe, component, dressed.eval())
        return injected

    def changes(self, adapter: Adapter) -> dict[str, Tensor]:
        """What PEFT's own merge adds to each of the base's weights at weight 1."""
        changes = {}
        for layer, peft in self.inject(adapter, tuple({layer.split(".")[0] for layer in adapter.modules})).items():
            before = peft.get_base_layer().weight.detach().clone()
            peft.merge()
            changes[layer] = peft.get_base_layer().weight.detach() - before
        self.bare()
        return changes

    def add(self, terms: list[tuple[float, Changes]]) -> None:
        """Dress copies of components in sums of changes, all against the base."""
        for component, pristine in self._pristine.items():
            dressed = copy.deepcopy(pristine)
            with torch.no_grad():
                for weight, changes in terms:
                    for layer, change in changes.items():
                        if layer.startswith(f"{component}."):
                            dressed.get_submodule(self._paths[layer]).weight.add_(change, alpha=weight)
            setattr(self.pipe, component, dressed)


def _config(modules: Mapping[str, Any], paths: Mapping[str, str]) -> LoraConfig:
    return LoraConfig(
        target_modules=sorted(paths.values()),
        rank_pattern={paths[layer]: module.rank for layer, module in modules.items()},
        alpha_pattern={paths[layer]: module.alpha for layer, module in modules.items()},
        use_dora=any(module.needs_base for module in modules.values()),
        init_lora_weights=False,
    )


def _fill(layer: nn.Module, module: LoraModule) -> LoraLayer:
    assert isinstance(layer, LoraLayer)
    assert layer.scaling["style"] == module.scale
    parts = [(layer.lora_A["style"].weight, module.down), (layer.lora_B["style"].weight, module.up)]
    if module.magnitude is not None:
        parts.append((layer.lora_magnitude_vector["style"].weight, module.magnitude))
    with torch.no_grad():
        for parameter, values in parts:
            parameter.copy_(torch.from_numpy(values).reshape(parameter.shape))
    return layer
