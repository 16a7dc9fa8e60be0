"""The words of a request: LoRAs in A1111's notation, and the words that call what was learned."""

import re
from collections.abc import Iterable

from valentina_pipeline.image.generate.prompt_weights import InvalidPromptWeightError, plain

TAG = re.compile(r"\s*,?\s*<\s*([a-z]+)\s*:([^<>]*)>", re.IGNORECASE)
LORAS = ("lora", "lyco")
HEAVIEST = 2.0


class InvalidRequestError(ValueError):
    """What is asked for is not drawn; the message names the field and what it may be.

    Attributes:
        field: such as "steps".
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field


def take_loras(prompt: str) -> tuple[str, list[tuple[str, float | None]]]:
    """Return a prompt without its <lora:name:weight>, and names and weights; None is the weight recommended.

    Raises:
        InvalidRequestError: a weight is no number in [-2, 2], or it names a hypernetwork or the like.
    """
    found: list[tuple[str, float | None]] = []
    rest = prompt
    while tag := TAG.search(rest):
        kind, inside = tag.groups()
        name, *weights = (part.strip() for part in inside.split(":"))
        shown = f"<{kind}:{inside}>"
        if kind.lower() not in LORAS:
            raise InvalidRequestError("prompt", f"{shown} is not done here: <lora:name:weight> is")
        if len(weights) > 1:
            raise InvalidRequestError(
                "prompt", f"{shown} has {len(weights)} weights, and one is for the whole LoRA"
            )
        found.append((name, _weight(weights[0], shown) if weights else None))
        rest = f"{rest[: tag.start()]}{rest[tag.end() :]}".strip(" ,")
    return rest, found


def refuse_loras(negative_prompt: str) -> None:
    """Raise InvalidRequestError where a negative prompt names a LoRA."""
    if TAG.search(negative_prompt):
        raise InvalidRequestError(
            "negative_prompt", "names a LoRA, which belongs into the prompt, with a weight below 0"
        )


def read_plainly(field: str, text: str) -> str:
    """Return a text as it is read, its weights taken out.

    Raises:
        InvalidRequestError: a weight is out of range; see `emphasis.parse`.
    """
    try:
        return plain(text)
    except InvalidPromptWeightError as err:
        raise InvalidRequestError(field, str(err)) from err


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
        raise InvalidRequestError("prompt", f"{shown} has no weight from {-HEAVIEST:g} to {HEAVIEST:g}")
    return weight
