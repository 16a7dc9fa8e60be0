"""Samplers: their classes in diffusers, and their names in other programs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

SamplerName = Literal["default", "euler", "euler_a", "dpm++_2m", "dpm++_2m_karras", "ddim", "lcm"]
"""Name of a sampler in requests, presets and image metadata: a key of SAMPLERS."""

MAX_LCM_STEPS = 50
"""The number of steps of LCM's distillation."""


@dataclass(frozen=True)
class Sampler:
    """A sampler.

    Attributes:
        comfyui: ComfyUI's sampler and scheduler.
        sd_cpp: stable-diffusion.cpp's method and scheduler.
        a1111: A1111's name, then its aliases.
        diffusers: class in diffusers; "" for the base model's own sampler.
        settings: changes to the configuration of the base model's sampler.
    """

    comfyui: tuple[str, str]
    sd_cpp: tuple[str, str]
    a1111: tuple[str, ...]
    diffusers: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


SAMPLERS: Mapping[str, Sampler] = {
    "euler": Sampler(
        comfyui=("euler", "normal"),
        sd_cpp=("euler", "discrete"),
        a1111=("Euler", "k_euler"),
        diffusers="EulerDiscreteScheduler",
    ),
    "euler_a": Sampler(
        comfyui=("euler_ancestral", "normal"),
        sd_cpp=("euler_a", "discrete"),
        a1111=("Euler a", "k_euler_a", "k_euler_ancestral", "Euler ancestral"),
        diffusers="EulerAncestralDiscreteScheduler",
    ),
    "dpm++_2m": Sampler(
        comfyui=("dpmpp_2m", "normal"),
        sd_cpp=("dpm++2m", "discrete"),
        a1111=("DPM++ 2M", "k_dpmpp_2m", "dpmpp_2m"),
        diffusers="DPMSolverMultistepScheduler",
    ),
    "dpm++_2m_karras": Sampler(
        comfyui=("dpmpp_2m", "karras"),
        sd_cpp=("dpm++2m", "karras"),
        a1111=("DPM++ 2M Karras", "k_dpmpp_2m_ka", "dpmpp_2m_karras"),
        diffusers="DPMSolverMultistepScheduler",
        settings={"use_karras_sigmas": True},
    ),
    "ddim": Sampler(
        comfyui=("ddim", "ddim_uniform"),
        sd_cpp=("ddim_trailing", "discrete"),
        a1111=("DDIM", "k_ddim"),
        diffusers="DDIMScheduler",
        settings={"clip_sample": False},  # latents go beyond 1
    ),
    "lcm": Sampler(
        comfyui=("lcm", "sgm_uniform"),
        sd_cpp=("lcm", "lcm"),
        a1111=("LCM", "k_lcm"),
        diffusers="LCMScheduler",
    ),
    "default": Sampler(  # the base model's own; for other programs the one that SDXL ships with
        comfyui=("euler", "normal"), sd_cpp=("euler", "discrete"), a1111=("Automatic", "automatic")
    ),
}
