"""The words of a request: LoRAs in A1111's notation, and the words that call what was learned."""

import re
from collections.abc import Iterable

from valentina_pipeline.image.emphasis import BadEmphasis

TAG = re.compile(r"\s*,?\s*<\s*([a-z]+)\s*:([^<>]*)>", re.IGNORECASE)
LORAS = ("lora", "lyco")
HEAVIEST = 2.0


def take_loras(prompt: str) -> tuple[str, list[tuple[str, float | None]]]:
    """Return a prompt without its <lora:name:weight>, and names and weights; None is the weight recommended.

    Raises:
        BadEmphasis: a weight is no number in [-2, 2], or it names no LoRA but a hypernetwork or the like.
    """
    found: list[tuple[str, float | None]] = []
    for kind, inside in TAG.findall(prompt):
        name, *weights = (part.strip() for part in inside.split(":"))
        shown = f"<{kind}:{inside}>"
        if kind.lower() not in LORAS:
            raise BadEmphasis(f"{shown} is not done here: <lora:name:weight> is")
        if len(weights) > 1:
            raise BadEmphasis(f"{shown} has {len(weights)} weights, and one is for the whole LoRA")
        found.append((name, _weight(weights[0], shown) if weights else None))
    return (TAG.sub("", prompt).strip(" ,") if found else prompt), found


def says(prompt: str, words: str) -> bool:
    """Return whether words stand in a prompt as they are, not within others."""
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", prompt) is not None


def with_triggers(prompt: str, triggers: Iterable[str]) -> str:
    """Return a prompt with those triggers at its end that it does not say."""
    for word in triggers:
        if word and not says(prompt, word):
            prompt = f"{prompt}, {word}"
    return prompt


def _weight(text: str, shown: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = float("nan")
    if not -HEAVIEST <= weight <= HEAVIEST:
        raise BadEmphasis(f"{shown} has no weight from {-HEAVIEST:g} to {HEAVIEST:g}")
    return weight
