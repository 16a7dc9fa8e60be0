"""Parameters of the stage `register`."""

from typing import Any

from pydantic import Field, field_validator

from valentina_pipeline.config.gates import DEFAULT_GATES, GateConfig
from valentina_pipeline.config.validation import StrictConfig


class RegisterConfig(StrictConfig):
    """Gates that a candidate must pass to become champion."""

    gates: dict[str, GateConfig] = Field(
        default={},
        validate_default=True,
        description="thresholds by the metric's path in metrics.json; they change or add to the default: "
        + ", ".join(
            f"{name} {side} {value}" for name, gate in DEFAULT_GATES.items() for side, value in gate.items()
        )
        + "; {} as a threshold removes a gate",
    )

    @field_validator("gates", mode="before")
    @classmethod
    def _add_defaults(cls, given: Any) -> Any:
        return {**DEFAULT_GATES, **given} if isinstance(given, dict) else given
