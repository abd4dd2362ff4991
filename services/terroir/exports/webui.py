"""Files that A1111 and Forge show beside an adapter: they fill in trigger words, weight and negative prompt.

Keys of the JSON are exactly those of A1111's `extensions-builtin/Lora/ui_edit_user_metadata.py`; the preview is
`<name>.preview.png`, as its extra-networks page looks for it.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Final

from PIL import Image

from terroir.exports.staging import staged
from terroir.exports.version import ExportedPreset, ExportedRecipe, ExportedVersion

_FAMILIES: Final = {"sd15": "SD1", "sdxl": "SDXL"}


def export_webui(version: ExportedVersion, target: Path, preview: bytes | None = None) -> list[Path]:
    """Write `<name>.safetensors`, `<name>.json` and, with a `preview`, `<name>.preview.png` into a new folder."""
    with staged(target) as folder:
        (folder / f"{version.stem}.safetensors").write_bytes(version.file)
        text = json.dumps(sidecar(version), indent=4, ensure_ascii=False)
        (folder / f"{version.stem}.json").write_text(text, encoding="utf-8")
        if preview is not None:
            buffer = io.BytesIO()
            Image.open(io.BytesIO(preview)).save(buffer, "PNG")
            (folder / f"{version.stem}.preview.png").write_bytes(buffer.getvalue())
    return sorted(target.iterdir())


def sidecar(version: ExportedVersion) -> dict[str, str | float]:
    """What A1111 reads beside the file; other presets than the first, and recipes, stand in its notes."""
    first, *others = version.presets or (ExportedPreset("", (version.trigger_word,) if version.trigger_word else ()),)
    return {
        "description": version.description,
        "sd version": _FAMILIES.get(version.family, "Unknown"),
        "activation text": _activation(first),
        "preferred weight": first.weight,
        "negative text": first.negative_prompt,
        "notes": "\n".join([f"Terroir {version.name}", *map(_note, others), *map(_recipe, version.recipes)]),
    }


def _activation(preset: ExportedPreset) -> str:
    return preset.prompt_template.replace("{prompt}", "").strip(" ,") or ", ".join(preset.trigger_words)


def _note(preset: ExportedPreset) -> str:
    return f"{preset.display_name}: {_activation(preset)} (weight {preset.weight:g}{_negative(preset.negative_prompt)})"


def _recipe(recipe: ExportedRecipe) -> str:
    adapters = " + ".join(f"{adapter} at {weight:g}" for adapter, weight in recipe.adapters)
    prefix = f"; prompt: {recipe.prompt_prefix.strip(' ,')}" if recipe.prompt_prefix else ""
    return f"Recipe {recipe.display_name}: {adapters}{prefix}{_negative(recipe.negative_prompt)}"


def _negative(prompt: str) -> str:
    return f"; negative: {prompt}" if prompt else ""
