"""Prompt notation: LoRA tags in A1111's syntax, prompt weights and trigger words."""

import re
from collections.abc import Iterable

from valentina_pipeline.image.generate.prompt_weights import InvalidPromptWeightError, plain

LORA_TAG = re.compile(r"\s*,?\s*<\s*([a-z]+)\s*:([^<>]*)>", re.IGNORECASE)
LORA_KINDS = ("lora", "lyco")
MAX_LORA_WEIGHT = 2.0


class InvalidRequestError(ValueError):
    """A request is invalid; the message names the field and the allowed values.

    Attributes:
        field: the field of the request, such as "steps".
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field


def take_loras(prompt: str) -> tuple[str, list[tuple[str, float | None]]]:
    """Return the prompt without <lora:name:weight> tags, and their names and weights.

    A weight of None means the recommended one.

    Raises:
        InvalidRequestError: a weight is not a number in [-2, 2], or a tag is not a LoRA.
    """
    loras: list[tuple[str, float | None]] = []
    rest = prompt
    while tag := LORA_TAG.search(rest):
        kind, inside = tag.groups()
        name, *weights = (part.strip() for part in inside.split(":"))
        text = f"<{kind}:{inside}>"
        if kind.lower() not in LORA_KINDS:
            raise InvalidRequestError("prompt", f"{text} is not supported: use <lora:name:weight>")
        if len(weights) > 1:
            raise InvalidRequestError(
                "prompt", f"{text} has {len(weights)} weights: must have one for the whole LoRA"
            )
        loras.append((name, _parse_weight(weights[0], text) if weights else None))
        rest = f"{rest[: tag.start()]}{rest[tag.end() :]}".strip(" ,")
    return rest, loras


def refuse_loras(negative_prompt: str) -> None:
    """Raise InvalidRequestError where the negative prompt names a LoRA."""
    if LORA_TAG.search(negative_prompt):
        raise InvalidRequestError(
            "negative_prompt", "must not name a LoRA: put it into the prompt, with a weight below 0"
        )


def read_plainly(field: str, text: str) -> str:
    """Return the text without weight notation.

    Raises:
        InvalidRequestError: a weight is out of range; see `prompt_weights`.
    """
    try:
        return plain(text)
    except InvalidPromptWeightError as err:
        raise InvalidRequestError(field, str(err)) from err


def says(prompt: str, words: str) -> bool:
    """Return whether the prompt contains these words as whole words."""
    return re.search(rf"(?<!\w){re.escape(words)}(?!\w)", prompt) is not None


def with_triggers(prompt: str, triggers: Iterable[str]) -> str:
    """Return the prompt with missing triggers appended."""
    for word in triggers:
        if word and not says(prompt, word):
            prompt = f"{prompt}, {word}"
    return prompt


def _parse_weight(weight_text: str, tag_text: str) -> float:
    try:
        weight = float(weight_text)
    except ValueError:
        weight = float("nan")
    if not -MAX_LORA_WEIGHT <= weight <= MAX_LORA_WEIGHT:
        raise InvalidRequestError(
            "prompt", f"{tag_text}: weight must be from {-MAX_LORA_WEIGHT:g} to {MAX_LORA_WEIGHT:g}"
        )
    return weight
