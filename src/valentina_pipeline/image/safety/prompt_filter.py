"""Prompt filter: the word policy and the list of public figures together."""

from valentina_pipeline.domain.concept import Concept, photo_of
from valentina_pipeline.image.safety.policy.judge import UnsafePromptError, refuse_negative, refuse_prompt
from valentina_pipeline.image.safety.public_figures import refuse_real_person


def refuse_words(text: str, own: str = "", negative: str = "") -> None:
    """Raise UnsafePromptError if the word policy or the list of real people rejects a text.

    Args:
        text: a prompt, a scene, a caption or a description.
        own: the character's name, which is allowed.
        negative: the negative prompt of `text`.
    """
    refuse_prompt(text)
    refuse_real_person(text, own)
    if negative:
        refuse_negative(negative)
        refuse_real_person(negative, own)


def refuse_concept(person: Concept) -> None:
    """Raise UnsafePromptError if class word or description make the character a minor or are not allowed."""
    try:
        refuse_words(f"{photo_of(person.class_word)}, {person.description}", person.name)
    except UnsafePromptError as err:
        raise UnsafePromptError(f"class_word and description of {person.trigger}: {err.reason}") from err
