"""A profile as the lines of YAML that it stands for."""

from __future__ import annotations

from terroir.training.config.profiles import Profile
from terroir.training.config.yaml_text import dump_keys


def profile_yaml(profile: Profile) -> str:
    """Its keys and values, each with its reason as a comment; reads as a configuration of its own."""
    lines = [f"# {profile.name}, by {profile.kind}: {profile.summary}"]
    for setting in profile.settings:
        line = dump_keys({setting.key: setting.value}).rstrip()
        lines.append(f"{line}  # {setting.reason}")
    return "\n".join([*lines, ""])
