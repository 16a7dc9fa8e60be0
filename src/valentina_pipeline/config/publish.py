"""Parameters of the stage `publish`."""

from typing import Literal

from pydantic import Field

from valentina_pipeline.config.validation import StrictConfig


class PublishConfig(StrictConfig):
    """What the package says by default, and for which engines beside torch it has what draws."""

    default_preset: Literal["draft", "standard", "high", "ultra"] = Field(
        default="standard", description="of requests that name none"
    )
    engines: tuple[Literal["onnx", "native"], ...] = Field(
        default=(), description="onnx: for ONNX Runtime; native: one file for stable-diffusion.cpp"
    )
