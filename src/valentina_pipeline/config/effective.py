"""Effective parameters of one concept, resolved from all configuration files.

Defaults of the models in this package are overridden by the base model's entry (conf/base/bases.yml), by the
concept's `overrides` and by the user's choices (params.yaml, `-S`, `--params`). `auto` overrides nothing.
The base model is the concept's `base`, or without it the `base` of params.yaml.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from valentina_pipeline.config.align import AlignConfig
from valentina_pipeline.config.base_model import BaseConfig
from valentina_pipeline.config.caption import CaptionConfig
from valentina_pipeline.config.evaluate import EvaluateConfig
from valentina_pipeline.config.ingest import IngestConfig
from valentina_pipeline.config.publish import PublishConfig
from valentina_pipeline.config.register import RegisterConfig
from valentina_pipeline.config.train_lora import NEW_TOKENS, TrainConfig
from valentina_pipeline.config.validation import InvalidParameterError, StrictConfig, parse_config
from valentina_pipeline.domain.concept import Concept

STAGES: dict[str, type[StrictConfig]] = {
    "ingest": IngestConfig,
    "align": AlignConfig,
    "caption": CaptionConfig,
    "train_lora": TrainConfig,
    "evaluate": EvaluateConfig,
    "register": RegisterConfig,
    "publish": PublishConfig,
}


class Params(StrictConfig):
    """Structure of params.yaml; each stage's keys are checked by the stage's model."""

    concepts: list[str] = Field(min_length=1)
    base: str
    seed: int = Field(ge=0, lt=2**32)
    num_threads: int = Field(ge=1, le=256)
    ingest: dict[str, Any] = Field(default={})
    align: dict[str, Any] = Field(default={})
    caption: dict[str, Any] = Field(default={})
    train_lora: dict[str, Any] = Field(default={})
    evaluate: dict[str, Any] = Field(default={})
    register_: dict[str, Any] = Field(default={}, alias="register")
    publish: dict[str, Any] = Field(default={})

    @model_validator(mode="after")
    def _no_concept_twice(self) -> "Params":
        if len(set(self.concepts)) != len(self.concepts):
            raise ValueError("concepts must not list a name twice")
        return self


def resolve_params(
    params: Mapping[str, Any], bases: Mapping[str, Any], concept: Mapping[str, Any]
) -> dict[str, Any]:
    """Overlay base, concept and user choices, validate them, and return plain parameters.

    Returns:
        `concept`, `base_name`, `base`, `seed`, `num_threads` and a dict for each stage of `STAGES`.

    Raises:
        InvalidParameterError: a key is unknown, missing or out of range.
    """
    choice = parse_config(Params, params, "")
    character = parse_config(Concept, concept, "concept")
    base_name = _find_base(choice, character, bases)
    implied = bases[base_name]
    if set(implied) != {"model", *STAGES}:  # DVC follows each of these sections
        raise InvalidParameterError(
            f"bases.{base_name}: needs exactly these keys: model, {', '.join(STAGES)}"
        )
    base = parse_config(BaseConfig, implied["model"], f"bases.{base_name}.model")
    stages = {}
    for stage, model in STAGES.items():
        layers = (implied[stage], character.overrides.get(stage, {}), chosen(params.get(stage, {})))
        stages[stage] = parse_config(model, overlay(*layers), stage).model_dump(mode="json")
    if character.asymmetric and stages["train_lora"]["flip_aug"]:
        raise InvalidParameterError(
            f"train_lora.flip_aug: must be false because {character.name} is marked asymmetric"
        )
    if "sd_cpp" in stages["publish"]["engines"] and stages["train_lora"]["method"] in NEW_TOKENS:
        raise InvalidParameterError(
            "publish.engines: sd_cpp does not support new tokens: remove it, or train a LoRA"
        )
    return {
        "concept": character.model_dump(mode="json"),
        "base_name": base_name,
        "base": base.model_dump(),
        "seed": choice.seed,
        "num_threads": choice.num_threads,
        **stages,
    }


def overlay(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of all layers; later ones win, a mapping such as `gates` adds to earlier ones."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            known = merged.get(key)
            if isinstance(known, Mapping) and isinstance(value, Mapping):
                merged[key] = {**known, **value}
            else:
                merged[key] = value
    return merged


def _find_base(choice: Params, concept: Concept, bases: Mapping[str, Any]) -> str:
    """Return the name of the concept's base model; raise InvalidParameterError if bases.yml lacks it."""
    name = concept.base or choice.base
    if name not in bases:
        file = f"{concept.trigger}.yml" if concept.base else "params.yaml"
        raise InvalidParameterError(
            f"base: {name!r} in {file} is not one of {', '.join(sorted(bases))}: choose an entry of "
            "conf/base/bases.yml, or add one"
        )
    return name


def chosen(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a section of params.yaml whose value is not `auto`."""
    return {key: value for key, value in section.items() if value != "auto"}


def first_concept(root: Path) -> str:
    """Return the first concept of params.yaml.

    Raises:
        ValueError: the file is missing or lists no concept.
    """
    import yaml

    file = root / "params.yaml"
    if not file.is_file():
        raise ValueError(f"{file} is missing: run this in the project's folder")
    match yaml.safe_load(file.read_text("utf-8")):
        case {"concepts": [str(first), *_]}:
            return first
    raise ValueError(f"{file} lists no concepts: name one with --concept")
