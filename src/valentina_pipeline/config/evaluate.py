"""Parameters of the stage `evaluate`."""

from pydantic import Field

from valentina_pipeline.config.validation import StrictConfig


class EvaluateConfig(StrictConfig):
    """How much is drawn to measure a LoRA."""

    images_per_prompt: int = Field(ge=1, le=64)
    steps: int = Field(ge=1, le=1000)
    guidance: float = Field(ge=0, le=30)
    bootstrap: int = Field(ge=100, le=100_000)
