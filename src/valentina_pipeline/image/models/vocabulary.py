"""CLIP's vocabulary: words that every Stable Diffusion base knows."""

import gzip
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from valentina_pipeline.domain.concept import is_coined

COMMON = 47_000
"""Merges of CLIP's byte-pair encoding, the most frequent first; behind them are ohwx, sks and the like."""


def warn_of_word(trigger: str) -> str:
    """Return what to know of a trigger that is an everyday word, "" where it is none."""
    if is_coined(trigger) or not is_known_word(trigger):
        return ""
    return (
        f"trigger {trigger!r} is a word that the base knows: images also show what it means, prompts say it "
        f"of other things. Choose one that is not a word, such as {trigger}_01"
    )


def is_known_word(word: str) -> bool:
    """Return whether CLIP reads a word as one token of its own, and has met it often."""
    return word in _words()


@cache
def _words() -> frozenset[str]:
    spec = find_spec("open_clip")  # found, not imported, which would take seconds
    if spec is None or spec.origin is None:
        return frozenset()
    file = Path(spec.origin).with_name("bpe_simple_vocab_16e6.txt.gz")
    lines = gzip.decompress(file.read_bytes()).decode("utf-8").split("\n")[1 : COMMON + 1]
    pairs = ("".join(line.split()) for line in lines)
    return frozenset(joined.removesuffix("</w>") for joined in pairs if joined.endswith("</w>"))
