"""List of all parameters: value, source, range and meaning."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from valentina_pipeline.config.effective import STAGES, Params, chosen, resolve_params

Source = Literal["params.yaml", "concept", "base", "default"]


@dataclass(frozen=True)
class Parameter:
    """One key of a stage.

    Attributes:
        stage: section of params.yaml.
        key: name in that section.
        value: the effective value.
        source: the layer that sets it; each layer overrides the next.
        allowed: type and range, in words.
        meaning: description, or "".
    """

    stage: str
    key: str
    value: Any
    source: Source
    allowed: str
    meaning: str


def list_parameters(
    params: Mapping[str, Any], bases: Mapping[str, Any], concept: Mapping[str, Any]
) -> Iterator[Parameter]:
    """Yield the parameters of every stage in the order of the stages; takes `resolve_params`' arguments.

    Raises:
        InvalidParameterError: a key is unknown, missing or out of range.
    """
    values = resolve_params(params, bases, concept)
    for stage, model in STAGES.items():
        layers: dict[Source, Mapping[str, Any]] = {
            "params.yaml": chosen(params.get(stage, {})),
            "concept": values["concept"]["overrides"].get(stage, {}),
            "base": bases[values["base_name"]][stage],
        }
        for key, field in model.model_fields.items():
            source: Source = next((name for name, layer in layers.items() if key in layer), "default")
            yield Parameter(
                stage, key, values[stage][key], source, describe_range(field), field.description or ""
            )


def describe_range(field: FieldInfo) -> str:
    """Return a field's type and bounds in words, such as `whole number, 1 to 512`."""
    bounds = {
        name: f"{value:,}"
        for constraint in field.metadata
        for name in ("ge", "gt", "le", "lt", "multiple_of")
        if (value := getattr(constraint, name, None)) is not None
    }
    lower = bounds.get("ge") or (f"above {bounds['gt']}" if "gt" in bounds else "")
    upper = bounds.get("le") or (f"below {bounds['lt']}" if "lt" in bounds else "")
    span = f"{lower} to {upper}" if lower and upper else upper or lower
    if "ge" in bounds and not upper:
        span = f"{lower} or more"
    steps = f"a multiple of {bounds['multiple_of']}" if "multiple_of" in bounds else ""
    return ", ".join(filter(None, [_describe_type(field.annotation), span, steps]))


def markdown_page() -> str:
    """Return docs/parameters.md: every key of every stage with its default, range and meaning."""
    lines = [
        "# Parameters",
        "",
        "Written by `uv run kedro params --markdown`. conf/base/bases.yml sets the keys marked `by base`.",
    ]
    for stage, model in STAGES.items():
        lines += ["", f"## {stage}", "", "| key | default | allowed | meaning |", "|---|---|---|---|"]
        for key, field in model.model_fields.items():
            default = "by base" if field.is_required() else f"`{json.dumps(field.default)}`"
            lines.append(f"| `{key}` | {default} | {describe_range(field)} | {field.description or ''} |")
    return "\n".join(lines) + "\n"


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of params.yaml, for editors."""
    schema = Params.model_json_schema(by_alias=True)
    for stage, model in STAGES.items():
        section = model.model_json_schema()
        schema.setdefault("$defs", {}).update(section.pop("$defs", {}))
        section.pop("required", None)
        properties = section["properties"]
        section["properties"] = {key: {"anyOf": [{"const": "auto"}, properties[key]]} for key in properties}
        schema["properties"][stage] = section
    return schema


def _describe_type(annotation: Any) -> str:
    names = {int: "whole number", float: "number", str: "text", bool: "true or false"}
    if annotation in names:
        return names[annotation]
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(map(str, arguments))
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"list of {_describe_type(arguments[0])}"
    if origin is tuple:
        return "[" + ", ".join(map(_describe_type, arguments)) + "]"
    if origin is dict:
        return f"{{{_describe_type(arguments[0])}: {_describe_type(arguments[1])}}}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "{" + ", ".join(annotation.model_fields) + "}"
    return " or ".join(map(_describe_type, arguments))
