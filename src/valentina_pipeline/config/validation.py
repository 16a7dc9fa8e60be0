"""Validation: frozen models, and errors that name the parameter."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from valentina_pipeline.domain.renamed_keys import describe_error

Model = TypeVar("Model", bound=BaseModel)


class InvalidParameterError(ValueError):
    """A parameter is unknown, missing or out of range; the message names its key."""


class StrictConfig(BaseModel):
    """Immutable model that rejects unknown keys by name."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def parse_config(model: type[Model], values: Mapping[str, Any], where: str) -> Model:
    """Return `values` as `model`; raise InvalidParameterError, which names each wrong key as `where.key`.

    For a former key it says `renamed to` and the present key.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as err:
        # bases.NAME.model: its former keys are listed under "base"
        section = "base" if where.endswith(".model") else where
        problems = "; ".join(
            f"{'.'.join([where, *map(str, error['loc'])]).strip('.')}: {describe_error(section, error)}"
            for error in err.errors()
        )
        raise InvalidParameterError(problems) from err
