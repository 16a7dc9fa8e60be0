"""A concept: what one LoRA learns, and the rights it stands on."""

from datetime import date
from fnmatch import fnmatchcase
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

STAGE_NAMES = ("ingest", "align", "caption", "train_lora", "evaluate", "register", "publish")
"""The stages, in order: the same names in Kedro, DVC, params.yaml and a concept's overrides."""

Use = Literal["training", "generation", "publication"]


class RightsRecord(BaseModel):
    """Who allows which use of which images, until when."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,99}$")
    holder: str = Field(min_length=1)
    covers: str = Field(description="a shell pattern over file names")
    uses: tuple[Use, ...]
    licence: str = Field(min_length=1)
    synthetic: bool
    expires: date | None = None
    evidence: str = Field(min_length=1)


class Concept(BaseModel):
    """One file of conf/base/concepts/."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["character"]
    name: str = Field(min_length=1, max_length=100)
    trigger: str = Field(pattern=r"^[a-z0-9][a-z0-9_]{1,63}$")
    class_word: str = Field(pattern=r"^[a-z][a-z ]{0,39}$")
    adult: Literal[True]
    source: str = Field(min_length=1, description="renderer, a folder or an s3:// prefix")
    fixed_traits: tuple[str, ...]
    variable_traits: tuple[str, ...]
    description: str = Field(min_length=1, description="her fixed traits in words, for the bare base")
    identity: dict[str, str | float] = Field(description="the renderer's parameters; {} for other sources")
    rights: tuple[RightsRecord, ...]
    overrides: dict[str, dict[str, Any]]

    @field_validator("overrides")
    @classmethod
    def _one_entry_a_stage(cls, overrides: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        # DVC ties each stage to its own key, so that each key has to be there
        if set(overrides) != set(STAGE_NAMES):
            raise ValueError(f"needs exactly these keys: {', '.join(STAGE_NAMES)}")
        return overrides


def record_for(rights: tuple[RightsRecord, ...], file_name: str, use: Use) -> RightsRecord | None:
    """Return the first record that covers `file_name` for `use`, or None.

    Expiry is checked by the caller, who knows the day: a tracked output must not depend on it.
    """
    return next((r for r in rights if fnmatchcase(file_name, r.covers) and use in r.uses), None)
