"""Parameters of the stage `evaluate`."""

from pydantic import Field

from valentina_pipeline.config.validation import StrictConfig


class EvaluateConfig(StrictConfig):
    """Number and settings of the images that measure a LoRA."""

    num_images_per_prompt: int = Field(
        ge=1, le=64, description="number of images for each prompt and variant"
    )
    num_inference_steps: int = Field(ge=1, le=1000, description="sampler steps")
    guidance_scale: float = Field(ge=0, le=30, description="scale of classifier-free guidance")
    attribute_model: str = Field(
        default="",
        description="vision-language model, as a hub id or folder, that reads attributes from images of any "
        "base model, a yes/no question each; empty: only the tiny base's own judges",
    )
    bootstrap_resamples: int = Field(
        default=1000, ge=100, le=100_000, description="resamples of each confidence interval"
    )
