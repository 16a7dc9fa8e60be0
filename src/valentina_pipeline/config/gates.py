"""Gates of the stage `register`: metrics and their thresholds, such as identity and memorization."""

from pydantic import Field, model_serializer, model_validator

from valentina_pipeline.config.validation import StrictConfig

DEFAULT_GATES: dict[str, dict[str, float]] = {
    "identity.gain_over_base": {"min": 0.3},
    "identity.ratio_to_ceiling": {"min": 0.8},
    "face_detection_rate.lora.mean": {"min": 0.9},
    "clip_t.relative_drop": {"max": 0.1},
    "memorization.rate": {"max": 0.1},
}
"""Default threshold of each metric, by its path in metrics.json."""


class GateConfig(StrictConfig):
    """Threshold of a metric; neither min nor max removes the gate."""

    min: float | None = Field(default=None, description="smallest value that passes")
    max: float | None = Field(default=None, description="largest value that passes")

    @model_validator(mode="after")
    def _one_side(self) -> "GateConfig":
        if self.min is not None and self.max is not None:
            raise ValueError("needs min or max, not both")
        return self

    @model_serializer
    def _given(self) -> dict[str, float]:
        sides = {"min": self.min, "max": self.max}
        return {side: value for side, value in sides.items() if value is not None}
