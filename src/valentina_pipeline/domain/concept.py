"""A concept: what one LoRA learns."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

STAGE_NAMES = ("ingest", "align", "caption", "train_lora", "evaluate", "register", "publish")
"""The stages, in order: the same names in Kedro, DVC, params.yaml and a concept's overrides."""


def photo_of(subject: str) -> str:
    """Return the start of a caption or prompt, such as "photo of a woman" or "photo of an ada woman"."""
    return f"photo of {'an' if subject[:1].lower() in 'aeiou' else 'a'} {subject}"


def is_coined(trigger: str) -> bool:
    """Return whether a trigger cannot be a word of a sentence: it has a digit or an underscore."""
    return not trigger.isalpha()


class Concept(BaseModel):
    """One file of conf/base/concepts/."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["character"]
    name: str = Field(min_length=1, max_length=100)
    trigger: str = Field(pattern=r"^[a-z0-9][a-z0-9_]{1,63}$")
    class_word: str = Field(pattern=r"^[a-z][a-z ]{0,39}$")
    adult: Literal[True]
    source: str | dict[str, str] = Field(
        min_length=1,
        description="renderer, or where pictures are: a place, or several by labels that begin their names",
    )
    identity_words: tuple[str, ...] = Field(
        description="lower case: captions leave out phrases that have one, for the trigger takes them on"
    )
    asymmetric: bool = Field(description="parting, scar, mole: her mirror image is somebody else")
    description: str = Field(min_length=1, description="her fixed traits in words, for the bare base")
    identity: dict[str, str | float] = Field(description="the renderer's parameters; {} for other sources")
    overrides: dict[str, dict[str, Any]]

    @field_validator("overrides")
    @classmethod
    def _one_entry_a_stage(cls, overrides: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        # DVC ties each stage to its own key, so that each key has to be there
        if set(overrides) != set(STAGE_NAMES):
            raise ValueError(f"needs exactly these keys: {', '.join(STAGE_NAMES)}")
        return overrides
