"""How well pictures show what their prompts ask for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from PIL import Image

from terroir.scoring.embedding import TextEmbedder

_CHANCE: Final = 0.5
"""Of a model that ignores its prompt, half of all texts fit worse than the one that was asked for."""


class PromptRuler:
    """Agreement by CLIP: how far up the own prompt stands among all texts that a picture could be told by.

    The plain cosine (CLIPScore, Hessel et al., arXiv 2104.08718) does not suit a share of the base's: a large CLIP
    gives a picture about 0.2 with any text and 0.3 with its own, and a style that CLIP does not know lowers all of
    them, so that a good adapter falls as far as one that ignores its prompt. The order of the texts stays.
    """

    def __init__(self, scorer: TextEmbedder, prompts: Sequence[str], others: Sequence[str] = ()) -> None:
        """`others` are further texts to set the prompts apart from; ValueError if there is nothing to set apart."""
        self._scorer = scorer
        self._prompts = list(dict.fromkeys(prompts))
        known = {prompt.casefold() for prompt in self._prompts}
        further = [text for text in dict.fromkeys(others) if text.casefold() not in known]
        if len(self._prompts) + len(further) < 2:
            raise ValueError("agreement needs a second prompt or caption to set the only one apart from")
        self._texts = scorer.texts([*self._prompts, *further])

    def agreement(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> float:
        """0 where prompts are ignored, 1 where each picture fits its own best; below 0 where others fit better.

        Each picture has the prompt at its position, one of those given at first.
        """
        cosines = self._scorer.pictures(pictures) @ self._texts.T
        own = np.array([self._prompts.index(prompt) for prompt in prompts])
        below = cosines < cosines[np.arange(len(pictures)), own][:, None]
        share = float(below.sum(1).mean()) / (cosines.shape[1] - 1)
        return (share - _CHANCE) / (1 - _CHANCE)
