"""Families of base models: SDXL and SD 1.5."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    pass

Family = Literal["sdxl", "sd15"]

Precision = Literal["fp32", "bf16", "fp16"]

Quantize = Literal["none", "int8", "nf4"]

PIPELINES: dict[Family, str] = {"sdxl": "StableDiffusionXLPipeline", "sd15": "StableDiffusionPipeline"}

SAVED_AS: dict[Family, re.Pattern[str]] = {
    family: re.compile(name.removesuffix("Pipeline") + r"(ControlNet)?(Img2Img|Inpaint)?Pipeline")
    for family, name in PIPELINES.items()
}
"""The pipelines that a base's networks may have been saved from: the same ones serve them all."""

CONFIG_REPOS: dict[Family, str] = {
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
    "sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5",
}
"""Whose configuration and tokenizers a base in one file has, where it names no other."""

ORIGINAL_TEXT: dict[Family, str] = {"sdxl": "conditioner.embedders.1.", "sd15": "cond_stage_model."}
"""How the names of the text encoder's tensors begin in a base of one file."""

TEXT_ENCODERS: dict[Family, tuple[str, ...]] = {
    "sdxl": ("text_encoder", "text_encoder_2"),
    "sd15": ("text_encoder",),
}

PIPELINE_KWARGS: dict[Family, dict[str, Any]] = {
    # every image is marked by image/provenance/metadata.py and looked at by image/safety/content_filter.py
    "sdxl": {"add_watermarker": False},
    "sd15": {"safety_checker": None, "requires_safety_checker": False},
}


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Show no progress bar for each component: loading takes seconds."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    for library in (of_diffusers, of_transformers):
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in (of_diffusers, of_transformers):
            library.enable_progress_bar()
