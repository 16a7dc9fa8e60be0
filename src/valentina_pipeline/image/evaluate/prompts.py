"""What is drawn to measure a LoRA: scenes never trained on, worded for each variant of the model."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from valentina_pipeline.domain.concept import Concept
from valentina_pipeline.image.renderer.wording import caption_from_traits

SUBJECT = "{subject}"

VARIANTS: Mapping[str, str] = {
    "lora": "LoRA, prompted with trigger and class word",
    "bare": "bare base, prompted with the full description",
    "bare_trigger": "bare base, prompted with trigger and class word",
    "floor": "bare base, prompted with the class word alone: somebody else",
}
"""What is compared, in the order in which it is drawn and shown."""

MAIN_VARIANTS = ("lora", "bare")
"""The variants drawn with every seed; the others only give the scale, and get each prompt's first seed."""


class InvalidPromptsError(ValueError):
    """The evaluation's prompts cannot be used; the message says which and why."""


@dataclass(frozen=True)
class Prompt:
    """One scene to draw.

    Attributes:
        number: its place in the file, from 1; seeds follow from it.
        template: with `{subject}` where the subject goes, its article included.
    """

    number: int
    template: str

    def text(self, subject: str) -> str:
        """Return the prompt for a subject without article, such as "woman, oval face"."""
        # wording's own article, so that a prompt begins like the captions of training
        return self.template.replace(SUBJECT, caption_from_traits({}, subject).removeprefix("photo of "))

    @property
    def scene(self) -> str:
        """What the prompt says besides the subject: "smiling, wearing a red dress, beach background"."""
        return self.template.removeprefix(f"photo of {SUBJECT}").lstrip(", ").replace(SUBJECT, "…")

    @property
    def label(self) -> str:
        """The scene in as few words as tell it from the others: "01 smiling, red dress, beach"."""
        phrases = (re.sub(r"^wearing an? | background$", "", phrase) for phrase in self.scene.split(", "))
        return f"{self.number:02d} {', '.join(phrases)}"


@dataclass(frozen=True)
class PlannedImage:
    """One image to draw.

    Attributes:
        name: where it goes, such as "lora/0003"; the number is the same for one prompt and seed in
            all variants.
        variant: a key of VARIANTS.
        prompt: the scene.
        text: the prompt as the model gets it.
        seed: of the noise that it is drawn from.
    """

    name: str
    variant: str
    prompt: Prompt
    text: str
    seed: int


def parse(templates: object) -> list[Prompt]:
    """Return the prompts of a list of templates.

    Raises:
        InvalidPromptsError: it is no list of different texts, each with `{subject}` once.
    """
    if not isinstance(templates, list) or not templates:
        raise InvalidPromptsError(
            f'the prompts have to be a list of texts such as "photo of {SUBJECT}, smiling"'
        )
    prompts = []
    for number, template in enumerate(templates, start=1):
        if not isinstance(template, str) or template.count(SUBJECT) != 1 or "\n" in template.strip():
            raise InvalidPromptsError(
                f"prompt {number} has to be one line with {SUBJECT} once, not {template!r}"
            )
        prompts.append(Prompt(number, " ".join(template.split())))
    scenes = [prompt.scene.casefold() for prompt in prompts]
    for prompt in prompts:
        if scenes.count(prompt.scene.casefold()) > 1:
            raise InvalidPromptsError(f"prompt {prompt.number} is there twice: {prompt.template!r}")
    return prompts


def subjects(person: Concept) -> dict[str, str]:
    """Return what goes for `{subject}` in each variant, without article."""
    trained = f"{person.trigger} {person.class_word}"
    described = f"{person.class_word}, {person.description}"
    return {"lora": trained, "bare": described, "bare_trigger": trained, "floor": person.class_word}


def split_seen(
    prompts: Iterable[Prompt], captions: Iterable[str], subject: str
) -> tuple[list[Prompt], list[Prompt]]:
    """Tell prompts that no training caption says from those that one does.

    Compared as sets of phrases in lower case: another order is the same scene.

    Args:
        prompts: any number.
        captions: the training captions.
        subject: who the captions are about, such as "valentina_moreau woman".

    Returns:
        (never trained on, trained on).
    """
    said = {_phrases(caption) for caption in captions}
    new: list[Prompt] = []
    seen: list[Prompt] = []
    for prompt in prompts:
        (seen if _phrases(prompt.text(subject)) in said else new).append(prompt)
    return new, seen


def plan_images(
    prompts: Iterable[Prompt], person: Concept, images_per_prompt: int, seed: int
) -> list[PlannedImage]:
    """Return every image to draw, variant by variant: the same seeds in each.

    Args:
        prompts: the scenes.
        person: whose trigger, class word and description make the subjects.
        images_per_prompt: seeds a prompt, for the variants in MAIN_VARIANTS.
        seed: of the first prompt's first image; a prompt's seeds do not depend on the other prompts.
    """
    planned = []
    for variant, subject in subjects(person).items():
        count = images_per_prompt if variant in MAIN_VARIANTS else 1
        for prompt in prompts:
            for index in range(count):
                name = f"{variant}/{(prompt.number - 1) * images_per_prompt + index:04d}"
                own = (seed + 1000 * prompt.number + index) % 2**32
                planned.append(PlannedImage(name, variant, prompt, prompt.text(subject), own))
    return planned


def _phrases(text: str) -> frozenset[str]:
    return frozenset(" ".join(phrase.split()) for phrase in text.casefold().split(","))
