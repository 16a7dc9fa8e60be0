"""Parameters of the stage `evaluate`."""

from pydantic import Field

from valentina_pipeline.config.validation import StrictConfig


class EvaluateConfig(StrictConfig):
    """Number and settings of the images that measure a LoRA."""

    images_per_prompt: int = Field(ge=1, le=64, description="number of images for each prompt and variant")
    steps: int = Field(ge=1, le=1000, description="sampler steps")
    guidance: float = Field(ge=0, le=30, description="scale of classifier-free guidance")
    bootstrap: int = Field(
        default=1000, ge=100, le=100_000, description="resamples of each confidence interval"
    )
