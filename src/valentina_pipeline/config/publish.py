"""Parameters of the stage `publish`."""

from typing import Literal

from pydantic import Field

from valentina_pipeline.config.validation import StrictConfig


class PublishConfig(StrictConfig):
    """Default preset of the package, and the engines besides torch that it contains."""

    default_preset: Literal["draft", "standard", "high", "ultra"] = Field(
        default="standard", description="preset of requests that name none"
    )
    engines: tuple[Literal["onnx", "sd_cpp"], ...] = Field(
        default=(), description="onnx: for ONNX Runtime; sd_cpp: a single file for stable-diffusion.cpp"
    )
