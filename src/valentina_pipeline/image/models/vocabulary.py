"""CLIP's vocabulary: words that every Stable Diffusion base model knows."""

import gzip
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from valentina_pipeline.domain.concept import is_coined

NUM_COMMON_MERGES = 47_000
"""Most frequent merges of CLIP's byte-pair encoding; rare words such as ohwx and sks come after them."""


def warn_of_word(trigger: str) -> str:
    """Return a warning if the trigger is a common word, else ""."""
    if is_coined(trigger) or not is_known_word(trigger):
        return ""
    return (
        f"trigger {trigger!r} is a common word: images may show its meaning, and prompts may use it in that "
        f"meaning. Choose a made-up word, such as {trigger}_01"
    )


def is_known_word(word: str) -> bool:
    """Return True if CLIP encodes the word as a single, common token."""
    return word in _words()


@cache
def _words() -> frozenset[str]:
    spec = find_spec("open_clip")  # without the import, which would take seconds
    if spec is None or spec.origin is None:
        return frozenset()
    file = Path(spec.origin).with_name("bpe_simple_vocab_16e6.txt.gz")
    lines = gzip.decompress(file.read_bytes()).decode("utf-8").split("\n")[1 : NUM_COMMON_MERGES + 1]
    pairs = ("".join(line.split()) for line in lines)
    return frozenset(joined.removesuffix("</w>") for joined in pairs if joined.endswith("</w>"))
