"""Byte-level BPE tokenizer of the tiny base, learned from the captions of the drawn world.

Words of the world are single tokens; anything else, trigger words included, falls back to pieces and at last to bytes.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from terroir.tiny.architecture import MAX_TOKENS
from terroir.tiny.world.scene import all_scenes, caption

_START: Final = "<|startoftext|>"
_END: Final = "<|endoftext|>"
_STYLE_WORDS: Final = (
    "style ink wash paper neon glow watercolour sketch line poster print night light lamp stone water town tea brand "
    "cover picture photo drawing painting warm cold soft bright dark old new spring summer autumn winter"
)


def build_tokenizer() -> CLIPTokenizer:
    """Train the vocabulary (deterministic) and wrap it as the CLIP tokenizer that diffusers loads."""
    rng = np.random.default_rng(3)
    scenes = all_scenes(held_out=False)
    captions = [caption(scenes[int(rng.integers(len(scenes)))], rng) for _ in range(4000)]
    bpe = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    bpe.normalizer = normalizers.Lowercase()
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=1100, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False, min_frequency=1
    )
    bpe.train_from_iterator([*captions, *([_STYLE_WORDS] * 50)], trainer)
    merges = json.loads(bpe.to_str())["model"]["merges"]
    pairs = [" ".join(pair) if isinstance(pair, list) else pair for pair in merges]
    pieces = [
        *alphabet,
        *(letter + "</w>" for letter in alphabet),
        *("".join(p.split(" ")) for p in pairs),
        _START,
        _END,
    ]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
        (root / "merges.txt").write_text("#version: 0.2\n" + "\n".join(pairs) + "\n", encoding="utf-8")
        return CLIPTokenizer(
            str(root / "vocab.json"), str(root / "merges.txt"), model_max_length=MAX_TOKENS, pad_token=_END
        )
