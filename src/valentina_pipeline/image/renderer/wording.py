"""Attributes in words: the one order and phrasing of captions, here and in the tiny world's training."""

from collections.abc import Iterable, Mapping

from valentina_pipeline.domain.concept import photo_of

FIXED_TRAITS = (
    "face",
    "eyes",
    "brows",
    "nose",
    "lips",
    "hair_color",
    "hair_length",
    "parting",
    "skin",
)
VARIABLE_TRAITS = ("expression", "pose", "dress", "background", "light")
ALL_TRAITS = (*FIXED_TRAITS, *VARIABLE_TRAITS)

PHRASES = {
    "face": "{} face",
    "eyes": "{} eyes",
    "brows": "{} brows",
    "nose": "{} nose",
    "lips": "{} lips",
    "parting": "{}",
    "skin": "{} skin",
    "expression": "{}",
    "pose": "{}",
    "dress": "wearing a {}",
    "background": "{} background",
    "light": "{}",
}


def caption_from_traits(attributes: Mapping[str, str], subject: str, keep: Iterable[str] = ALL_TRAITS) -> str:
    """Word the kept attributes as a caption.

    Args:
        attributes: trait -> word, such as {"expression": "smiling"}; a missing trait is not worded.
        subject: who is in the picture, such as "woman" or "valentina_moreau woman".
        keep: the traits that may appear, in any order; the sentence has an order of its own.

    Returns:
        "photo of a woman, oval face, brown eyes, ..., smiling, wearing a red dress, beach background".
    """
    kept = {trait: word for trait, word in attributes.items() if trait in set(keep) and word}
    hair = " ".join(kept[t] for t in ("hair_length", "hair_color") if t in kept)
    phrases = []
    for trait in ALL_TRAITS:
        if trait == "hair_color" and hair:
            phrases.append(f"{hair} hair")
        elif trait in PHRASES and trait in kept:
            phrases.append(PHRASES[trait].format(kept[trait]))
    return ", ".join([photo_of(subject), *phrases])
