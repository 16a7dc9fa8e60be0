"""Evaluation prompts: scenes outside the training set, worded for each variant of the model."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from valentina_pipeline.domain.concept import Concept, with_article

if TYPE_CHECKING:
    import pandas as pd

SUBJECT = "{subject}"

VARIANTS: Mapping[str, str] = {
    "lora": "LoRA, prompted with trigger and class word",
    "base": "base model, prompted with the full description",
    "base_trigger": "base model, prompted with trigger and class word",
    "floor": "base model, prompted with the class word alone: an unspecified person",
}
"""Compared variants, in the order of generation and display."""

MAIN_VARIANTS = ("lora", "base")
"""Variants generated with every seed; the others only give the scale and use each prompt's first seed."""


ScoredPrompt: TypeAlias = "tuple[Prompt, list[dict[str, Any]]]"
"""A prompt and the rows of scores of its images."""


class InvalidPromptsError(ValueError):
    """The evaluation prompts are invalid; the message names the prompt and the reason."""


@dataclass(frozen=True)
class Prompt:
    """One scene to generate.

    Attributes:
        number: position in the file, from 1; seeds are derived from it.
        template: text with `{subject}` in place of the subject with its article.
    """

    number: int
    template: str

    def text(self, subject: str) -> str:
        """Return the prompt for a subject, given without article, such as "woman, oval face"."""
        return self.template.replace(SUBJECT, with_article(subject))

    @property
    def scene(self) -> str:
        """The prompt without its subject: "smiling, wearing a red dress, beach background"."""
        return self.template.removeprefix(f"photo of {SUBJECT}").lstrip(", ").replace(SUBJECT, "…")

    @property
    def label(self) -> str:
        """A short name of the scene: "01 smiling, red dress, beach"."""
        phrases = (re.sub(r"^wearing an? | background$", "", phrase) for phrase in self.scene.split(", "))
        return f"{self.number:02d} {', '.join(phrases)}"


@dataclass(frozen=True)
class PlannedImage:
    """One image to generate.

    Attributes:
        name: path of the image, such as "lora/0003"; all variants use one number for one prompt and seed.
        variant: a key of VARIANTS.
        prompt: the scene.
        text: the prompt for the model.
        seed: seed of the initial noise.
    """

    name: str
    variant: str
    prompt: Prompt
    text: str
    seed: int


def parse(templates: object) -> list[Prompt]:
    """Return the prompts of a list of templates.

    Raises:
        InvalidPromptsError: not a list of different texts that contain `{subject}` once.
    """
    if not isinstance(templates, list) or not templates:
        raise InvalidPromptsError(f'prompts must be a list of texts such as "photo of {SUBJECT}, smiling"')
    prompts = []
    for number, template in enumerate(templates, start=1):
        if not isinstance(template, str) or template.count(SUBJECT) != 1 or "\n" in template.strip():
            raise InvalidPromptsError(
                f"prompt {number} must be one line that contains {SUBJECT} once, got {template!r}"
            )
        prompts.append(Prompt(number, " ".join(template.split())))
    scenes = [prompt.scene.casefold() for prompt in prompts]
    for prompt in prompts:
        if scenes.count(prompt.scene.casefold()) > 1:
            raise InvalidPromptsError(f"prompt {prompt.number} is duplicated: {prompt.template!r}")
    return prompts


def subjects(person: Concept) -> dict[str, str]:
    """Return the subject of each variant, without article."""
    trained = f"{person.trigger} {person.class_word}"
    described = f"{person.class_word}, {person.description}"
    return {"lora": trained, "base": described, "base_trigger": trained, "floor": person.class_word}


def split_seen(
    prompts: Iterable[Prompt], captions: Iterable[str], subject: str
) -> tuple[list[Prompt], list[Prompt]]:
    """Separate prompts that equal a training caption from the others.

    Both are compared as sets of phrases in lower case: their order does not matter.

    Args:
        prompts: the prompts.
        captions: the training captions.
        subject: the subject of the captions, such as "valentina_moreau woman".

    Returns:
        (prompts outside the training set, prompts in it).
    """
    trained = {_phrases(caption) for caption in captions}
    new: list[Prompt] = []
    seen: list[Prompt] = []
    for prompt in prompts:
        (seen if _phrases(prompt.text(subject)) in trained else new).append(prompt)
    return new, seen


def plan_images(
    prompts: Iterable[Prompt], person: Concept, num_images_per_prompt: int, seed: int
) -> list[PlannedImage]:
    """Return every image to generate, variant by variant; all variants share the seeds.

    Args:
        prompts: the scenes.
        person: the concept, which gives trigger, class word and description.
        num_images_per_prompt: seeds per prompt, for the variants in MAIN_VARIANTS.
        seed: base seed; a prompt's seeds do not depend on the other prompts.
    """
    planned = []
    for variant, subject in subjects(person).items():
        count = num_images_per_prompt if variant in MAIN_VARIANTS else 1
        for prompt in prompts:
            for index in range(count):
                name = f"{variant}/{(prompt.number - 1) * num_images_per_prompt + index:04d}"
                image_seed = (seed + 1000 * prompt.number + index) % 2**32
                planned.append(PlannedImage(name, variant, prompt, prompt.text(subject), image_seed))
    return planned


def group_by_prompt(
    scores: "pd.DataFrame", prompts: Iterable[Prompt], num_images_per_prompt: int
) -> list[ScoredPrompt]:
    """Return each prompt that has images, with their rows of scores, in the order of the prompts.

    Args:
        scores: one row per image, named as `plan_images` names it.
        prompts: all prompts of the evaluation.
        num_images_per_prompt: as given to `plan_images`.
    """
    rows: dict[int, list[dict[str, Any]]] = {}
    for row in scores.to_dict("records"):
        number = int(row["name"].rpartition("/")[2]) // num_images_per_prompt + 1
        rows.setdefault(number, []).append({str(key): value for key, value in row.items()})
    return [(prompt, rows[prompt.number]) for prompt in prompts if prompt.number in rows]


def _phrases(text: str) -> frozenset[str]:
    return frozenset(" ".join(phrase.split()) for phrase in text.casefold().split(","))
