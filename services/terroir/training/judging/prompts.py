"""What a judgement has drawn: held-out prompts, and texts that the adapter was trained with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from terroir.tiny.world.scene import all_scenes, caption
from terroir.training.engine.data.captions import with_trigger
from terroir.training.judging.errors import PromptsUnreadable
from terroir.training.judging.models import tiny_digest

PROMPTS_FILE: Final = "judge_prompts.txt"
"""In a base's folder: its own held-out prompts, one a line."""
_HELD_OUT: Final = 6
_RECALLED: Final = 4
_MOST_CHARACTERS: Final = 500
_SINCE: Final = 11
"""Steps through the tiny world's held-out scenes, so that subjects, colours and places all change."""
_ANY_BASE: Final = (
    "a teapot on a wooden table",
    "an old bridge over a river at sunset",
    "a cat asleep on a window sill",
    "a bowl of noodles with steam rising",
    "a street with lanterns at night",
    "a mountain in the snow in daylight",
    "a portrait of an old man with a hat",
    "a boat on a calm lake in the morning",
)
"""For bases without prompts of their own: things, animals, people and places that any of them can draw."""


@dataclass(frozen=True)
class Base:
    """A base's folder, and the digest of its weights."""

    folder: Path
    digest: str

    @property
    def is_tiny(self) -> bool:
        """Whether it is the embedded one."""
        return self.digest == tiny_digest()


@dataclass(frozen=True)
class Texts:
    """Prompts of one judgement."""

    held_out: tuple[str, ...]
    """Without the trigger word; none of them is a caption."""
    recalled: tuple[str, ...]
    """Most likely to bring training pictures back: the trigger word alone, and captions as they were trained on."""
    captions: tuple[str, ...]
    """All captions without the trigger word: texts that agreement is told apart from."""
    trigger: str

    def worn(self, prompt: str) -> str:
        """A held-out prompt as it is drawn with the adapter."""
        return with_trigger(prompt, self.trigger)


def texts_of(base: Base, chosen: Sequence[str], captions: Sequence[str], trigger: str) -> Texts:
    """The texts for a run on a base; `chosen` are its own held-out prompts, if it names any.

    Raises PromptsUnreadable for a base's file that is no text, or whose prompts are all captions.
    """
    known = {text.strip().casefold() for text in captions}
    prompts = [prompt for prompt in (chosen or _own_prompts(base)) if prompt.strip().casefold() not in known]
    if not prompts:
        raise PromptsUnreadable(
            "every judge_prompt is also a caption of the training pictures, so none is held out (name others)",
            field="judge_prompts",
        )
    return Texts(
        held_out=tuple(prompts if chosen else prompts[:_HELD_OUT]),
        recalled=_recalled(captions, trigger),
        captions=tuple(dict.fromkeys(text.strip() for text in captions if text.strip())),
        trigger=trigger,
    )


def _own_prompts(base: Base) -> list[str]:
    path = base.folder / PROMPTS_FILE
    if path.is_file():
        try:
            lines = [line.strip()[:_MOST_CHARACTERS] for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            raise PromptsUnreadable(f"{path} cannot be read ({error}); write one prompt a line, UTF-8") from error
        return [line for line in lines if line]
    if base.is_tiny:
        scenes = all_scenes(held_out=True)
        return [caption(scenes[number * _SINCE % len(scenes)]) for number in range(len(scenes) // _SINCE)]
    return list(_ANY_BASE)


def _recalled(captions: Sequence[str], trigger: str) -> tuple[str, ...]:
    """The trigger word, then captions: those of several pictures first, the others from all over the set."""
    counts = Counter(text for text in (with_trigger(caption, trigger) for caption in captions) if text)
    alone = [trigger] if trigger else []
    often = [text for text, count in counts.most_common() if count > 1 and text != trigger]
    rest = [text for text, count in counts.items() if count == 1 and text != trigger]
    wanted = max(0, _RECALLED - len(alone) - len(often))
    spread = [rest[number * len(rest) // wanted] for number in range(min(wanted, len(rest)))]
    return tuple([*alone, *often, *spread][:_RECALLED])
