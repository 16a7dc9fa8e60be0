"""Samples of prompts, which the word policy's tests and the classifiers' benchmarks read."""

import re
from pathlib import Path

PROMPTS = Path(__file__).parent / "image/safety/prompts"

IN_BED = {
    "en": "in bed", "pt": "na cama", "es": "en la cama", "de": "im Bett", "fr": "dans son lit",
    "it": "a letto",
}  # fmt: skip
"""Words beside which a person's age is refused, and which are innocent without one."""


def read_sample(name: str) -> list[tuple[str, str]]:
    """Return the section and the text of each line of a sample."""
    found, section = [], ""
    for line in (PROMPTS / name).read_text("utf-8").splitlines():
        if re.fullmatch(r"\[[a-z]+ [a-z]+\]", line):
            section = line.strip("[]")
        elif line and not line.startswith("# "):
            found.append((section, line))
    return found
