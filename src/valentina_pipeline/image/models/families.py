"""Families of base models: SDXL and SD 1.5."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

Family = Literal["sdxl", "sd15"]

Precision = Literal["fp32", "bf16", "fp16"]

Quantize = Literal["none", "int8", "nf4"]

PIPELINES: dict[Family, str] = {"sdxl": "StableDiffusionXLPipeline", "sd15": "StableDiffusionPipeline"}

SAVED_AS: dict[Family, re.Pattern[str]] = {
    family: re.compile(name.removesuffix("Pipeline") + r"(ControlNet)?(Img2Img|Inpaint)?Pipeline")
    for family, name in PIPELINES.items()
}
"""Pipeline classes that a base model may have been saved from; their networks are the same."""

CONFIG_REPOS: dict[Family, str] = {
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
    "sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5",
}
"""Default repositories of a single-file base model's configuration and tokenizers."""

ORIGINAL_TEXT: dict[Family, str] = {"sdxl": "conditioner.embedders.1.", "sd15": "cond_stage_model."}
"""Prefixes of the text encoder's tensor names in a single-file base model."""

TEXT_ENCODERS: dict[Family, tuple[str, ...]] = {
    "sdxl": ("text_encoder", "text_encoder_2"),
    "sd15": ("text_encoder",),
}

PIPELINE_KWARGS: dict[Family, dict[str, Any]] = {
    # image/provenance/metadata.py marks every image and image/safety/content_filter.py filters it
    "sdxl": {"add_watermarker": False},
    "sd15": {"safety_checker": None, "requires_safety_checker": False},
}


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Hide the progress bars of pipeline components inside the block, because loading takes only seconds."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in (diffusers_logging, transformers_logging):
            library.enable_progress_bar()
