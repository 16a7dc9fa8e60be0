"""Captions from attributes: the order and phrasing for the renderer and the tiny base's training."""

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
    """Return the caption of the kept attributes.

    Args:
        attributes: trait -> word, such as {"expression": "smiling"}; missing traits are omitted.
        subject: subject of the caption, such as "woman" or "valentina_moreau woman".
        keep: allowed traits in any order; the caption uses the order of ALL_TRAITS.

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
