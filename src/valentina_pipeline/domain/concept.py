"""Concept: a character that a LoRA is trained on."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

STAGE_NAMES = (
    "ingest", "align", "describe", "caption", "train_lora", "evaluate", "report", "register", "publish",
)  # fmt: skip
"""Stages in order, under the same names in Kedro, DVC and MLflow."""

SECTIONS = tuple(name for name in STAGE_NAMES if name not in ("describe", "report"))
"""Stages with settings, under the same names in params.yaml, bases.yml and a concept's overrides."""


def with_article(subject: str) -> str:
    """Return a subject with its article, such as "a woman" or "an ada woman"."""
    return f"{'an' if subject[:1].lower() in 'aeiou' else 'a'} {subject}"


def photo_of(subject: str) -> str:
    """Return the start of a caption or prompt, such as "photo of a woman" or "photo of an ada woman"."""
    return f"photo of {with_article(subject)}"


def is_coined(trigger: str) -> bool:
    """Return True if a trigger has a digit or an underscore, so that it cannot be a word of a sentence."""
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
        description="renderer, or a location of images, or several by labels that prefix image names",
    )
    caption_excluded_words: tuple[str, ...] = Field(
        description="lower case; captions omit phrases that contain one, so that the trigger absorbs them"
    )
    asymmetric: bool = Field(description="a parting, scar or mole: the mirror image would be another person")
    description: str = Field(
        min_length=1, description="the fixed traits in words, as a prompt for the base model"
    )
    renderer_parameters: dict[str, str | float] = Field(
        description="the renderer's parameters; {} for other sources"
    )
    base: str | None = Field(
        default=None,
        min_length=1,
        exclude=True,  # the effective parameters hold it as `base_name`
        description="the concept's entry of bases.yml; without it, the `base` of params.yaml",
    )
    overrides: dict[str, dict[str, Any]]

    @field_validator("overrides")
    @classmethod
    def _one_entry_a_stage(cls, overrides: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        # DVC tracks each stage's own key, so each key must exist
        if set(overrides) != set(SECTIONS):
            raise ValueError(f"needs exactly these keys: {', '.join(SECTIONS)}")
        return overrides
