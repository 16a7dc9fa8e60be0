"""Fields of A1111's API: translate them to request fields, reject unsupported values with a reason."""

import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, UnidentifiedImageError
from pydantic import Field

from valentina_pipeline.domain.samplers import SAMPLERS
from valentina_pipeline.image.io.decode import RejectedImageError
from valentina_pipeline.serving.api.third_party import ClientModel, refuse, translate
from valentina_pipeline.serving.inference.input_images import content
from valentina_pipeline.serving.inference.package import PackageInfo
from valentina_pipeline.serving.inference.prompt_notation import InvalidRequestError
from valentina_pipeline.serving.inference.request import GenerationRequest

SCHEDULERS = {"automatic": "Automatic", "uniform": "Uniform", "karras": "Karras"}
"""A1111's scheduler -> its label; all samplers use uniform steps except the Karras ones."""

NAMES = {
    "num_images": "batch_size", "guidance_scale": "cfg_scale", "image": "init_images",
    "strength": "denoising_strength", "scheduler": "sampler_name", "scene": "styles", "loras": "prompt",
}  # fmt: skip
"""Our field -> A1111's field."""

ALLOWED_VALUES: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "enable_hr": ((False,), "a second pass is not supported: request the final size"),
    "restore_faces": ((False,), "faces are not restored"),
    "tiling": ((False,), "seamless images are not supported"),
    "subseed_strength": ((0,), "seed variations are not supported"),
    "seed_resize_from_w": ((0, -1), "seeds are not resized"),
    "seed_resize_from_h": ((0, -1), "seeds are not resized"),
    "firstphase_width": ((0,), "a second pass is not supported"),
    "firstphase_height": ((0,), "a second pass is not supported"),
    "s_churn": ((0,), "the samplers are not configurable"),
    "s_noise": ((1,), "the samplers are not configurable"),
    "s_min_uncond": ((0,), "the samplers are not configurable"),
    "initial_noise_multiplier": ((1,), "the sampler sets the noise"),
    "inpainting_mask_invert": ((0, False), "white is regenerated: send the inverted mask"),
    "include_init_images": ((False,), "init images are not returned"),
    "refiner_checkpoint": (("", "None"), "only one model is available"),
    "hr_checkpoint_name": (("", "None", "Use same checkpoint"), "only one model is available"),
    "script_name": (("", "None"), "scripts are not supported"),
    "infotext": (("",), "send the separate fields"),
    "disable_extra_networks": ((False,), "leave <lora:...> out of the prompt"),
}
"""Field -> its only accepted values, and the reason."""

NO_EFFECT = frozenset(
    [
        "hr_scale",
        "hr_upscaler",
        "hr_second_pass_steps",
        "hr_resize_x",
        "hr_resize_y",
        "hr_sampler_name",
        "hr_scheduler",
        "hr_prompt",
        "hr_negative_prompt",
        "subseed",
        "s_tmin",
        "s_tmax",
        "image_cfg_scale",
        "script_args",
        "refiner_switch_at",
        "comments",
        "inpaint_full_res_padding",
        "mask_blur_x",
        "mask_blur_y",
        "override_settings_restore_afterwards",
        "do_not_save_samples",
        "do_not_save_grid",
        "seed_enable_extras",
    ]
)
"""A1111's fields without effect unless a field of `ALLOWED_VALUES` is set or A1111 writes files."""


class Txt2Img(ClientModel):
    """POST /sdapi/v1/txt2img of A1111. Null counts as absent.

    A field with an unsupported value is rejected; `warnings` of the response name fields without effect.
    """

    prompt: str = Field(default="", description="with (words:1.3) and <lora:name:weight>")
    negative_prompt: str = ""
    styles: list[str] = Field(default=[], description="at most one of prompt-styles: a scene")
    seed: int = Field(default=-1, description="-1: random")
    steps: int | None = None
    cfg_scale: float | None = None
    width: int | None = None
    height: int | None = None
    sampler_name: str = Field(default="", description="one of samplers, or an alias, in any case")
    sampler_index: str = Field(default="", description="used where sampler_name is empty")
    scheduler: str = Field(default="", description="one of schedulers")
    batch_size: int = Field(default=1, ge=1)
    n_iter: int = Field(default=1, ge=1)
    send_images: bool = True
    save_images: bool = False
    eta: float | None = None
    clip_skip: int | None = None
    override_settings: dict[str, Any] = Field(
        default_factory=dict, description="only with the values of options"
    )
    alwayson_scripts: dict[str, Any] = Field(default_factory=dict, description="only disabled ones")


class Img2Img(Txt2Img):
    """POST /sdapi/v1/img2img of A1111: txt2img from an init image."""

    init_images: list[str] = Field(min_length=1, max_length=1, description="base64: the init image")
    mask: str | None = Field(default=None, description="base64: white is regenerated")
    denoising_strength: float = 0.75
    resize_mode: int = Field(default=1, description="1: crop to the size; others do the same with a warning")
    mask_blur: float = 0
    inpainting_fill: int = 1
    inpaint_full_res: bool = False


def sampler(name: str, scheduler: str, field: str = "sampler_name") -> str | None:
    """Return our sampler by A1111's sampler and scheduler, None where neither is given.

    Raises:
        InvalidRequestError: the sampler is unknown, or does not support the scheduler.
    """
    known = {
        _normalize_name(alias): ours for ours, sampler in SAMPLERS.items() for alias in (ours, *sampler.a1111)
    }
    labels = {
        _normalize_name(alias): _normalize_name(short)
        for short, label in SCHEDULERS.items()
        for alias in (short, label)
    }
    if scheduler and _normalize_name(scheduler) not in labels:
        raise InvalidRequestError(
            "scheduler", f"{scheduler!r} is not one of {', '.join(SCHEDULERS.values())}"
        )
    if name and _normalize_name(name) not in known:
        allowed = ", ".join(sampler.a1111[0] for sampler in SAMPLERS.values())
        raise InvalidRequestError(field, f"{name!r} is not one of {allowed}")
    ours = known[_normalize_name(name)] if name else None
    schedule = labels.get(_normalize_name(scheduler), "automatic")
    if schedule == "karras" and ours not in ("dpm++_2m", "dpm++_2m_karras"):
        raise InvalidRequestError("scheduler", f"{scheduler!r} requires DPM++ 2M, not {name or 'no sampler'}")
    if schedule == "uniform" and ours == "dpm++_2m_karras":
        raise InvalidRequestError("scheduler", f"{scheduler!r} contradicts {name}")
    return "dpm++_2m_karras" if schedule == "karras" else ours


def options(about: PackageInfo) -> dict[str, Any]:
    """Return the values of A1111's settings; none can be changed."""
    return {
        "sd_model_checkpoint": about.name,
        "sd_checkpoint_hash": about.base_hash,
        "sd_vae": "Automatic",
        "CLIP_stop_at_last_layers": 1,
        "samples_format": "png",
        "inpainting_mask_weight": 1.0,
        "eta_noise_seed_delta": 0,
        "sd_lora": "None",
    }


def refuse_other_options(given: Mapping[str, Any], about: PackageInfo, prefix: str = "") -> None:
    """Raise InvalidRequestError where a setting differs from `options`; null and "" count as absent."""
    current = options(about)
    aliases: dict[str, tuple[Any, ...]] = {
        "sd_model_checkpoint": (about.name, about.trigger, about.base_hash, about.base_hash[:10]),
        "sd_vae": ("Automatic", "None"),
    }
    for name, value in given.items():
        if value is None or value == "":
            continue
        if name not in current:
            raise InvalidRequestError(f"{prefix}{name}", f"unknown setting; known are {', '.join(current)}")
        if value not in aliases.get(name, (current[name],)):
            raise InvalidRequestError(f"{prefix}{name}", f"must be {current[name]!r} (got {value!r})")


def parse_request(body: Txt2Img, about: PackageInfo) -> tuple[GenerationRequest, list[str]]:
    """Return the request in our fields, and warnings for its caller.

    Raises:
        InvalidRequestError: a value is unsupported; it names A1111's field.
    """
    warnings = _checked(body, about)
    if len(body.styles) > 1:
        raise refuse("styles", f"only one scene is allowed (got {len(body.styles)} styles)")
    if body.styles and body.styles[0] not in about.scenes:
        raise InvalidRequestError(
            "styles", f"{body.styles[0]!r} not found; known are {', '.join(about.scenes)}"
        )
    field = "sampler_name" if body.sampler_name else "sampler_index"
    ours = sampler(body.sampler_name or body.sampler_index, body.scheduler, field)
    if body.eta is not None and ((ours, body.eta) == ("euler_a", 0) or (ours == "ddim" and body.eta)):
        warnings.append(f"eta: {'Euler a uses 1' if body.eta == 0 else 'DDIM uses 0'}")
    given: dict[str, Any] = {}
    if isinstance(body, Img2Img):
        given = {"image": body.init_images[0], "mask": body.mask, "strength": body.denoising_strength}
        warnings += _init_image_warnings(body)
    values = {
        "prompt": body.prompt,
        "negative_prompt": body.negative_prompt,
        "scene": body.styles[0] if body.styles else None,
        "seed": None if body.seed < 0 else body.seed,
        "steps": body.steps,
        "guidance_scale": body.cfg_scale,
        "width": body.width,
        "height": body.height,
        "scheduler": ours,
        "num_images": body.batch_size * body.n_iter,
    }
    return translate({**values, **given}, names(body)), warnings


def names(body: Txt2Img) -> dict[str, str]:
    """Return our field -> the request's field, where they differ."""
    several = {"num_images": "n_iter"} if body.n_iter > body.batch_size else {}
    older = {"scheduler": "sampler_index"} if body.sampler_index and not body.sampler_name else {}
    return {**NAMES, **several, **older}


def infotext(order: Any, seed: int, about: PackageInfo) -> str:
    """Return the generation parameters of an image as a text in A1111's format."""
    settings = order.settings
    negative = f"\nNegative prompt: {order.negative_prompt}" if order.negative_prompt else ""
    sampler_name = SAMPLERS[settings.scheduler].a1111[0]
    return (
        f"{order.prompt}{negative}\nSteps: {settings.steps}, Sampler: {sampler_name}, "
        f"CFG scale: {settings.guidance_scale:g}, Seed: {seed}, Size: {settings.width}x{settings.height}, "
        f"Model hash: {about.base_hash[:10]}, Model: {about.trigger}"
    )


def _checked(body: Txt2Img, about: PackageInfo) -> list[str]:
    more = body.model_extra or {}
    for field, (values, reason) in ALLOWED_VALUES.items():
        if field in more and more[field] not in values and str(more[field]) not in map(str, values):
            raise InvalidRequestError(field, f"{_truncate(more[field])} is not supported: {reason}")
    refuse_other_options(body.override_settings, about, "override_settings.")
    for name, script in body.alwayson_scripts.items():
        if not _is_off(script):
            raise InvalidRequestError(f"alwayson_scripts.{name}", "scripts are not supported")
    if body.clip_skip not in (None, 0, 1):
        raise InvalidRequestError(
            "clip_skip", f"{body.clip_skip} is not supported: the encoders are used as in the base model"
        )
    warnings = []
    if body.save_images:
        warnings.append("save_images: every image is kept for one day only")
    idle = (
        NO_EFFECT if isinstance(body, Img2Img) else {*NO_EFFECT, *Img2Img.model_fields}
    )  # A1111 declares both calls' fields in one class
    unknown = [name for name in body.unknown_fields() if name not in idle and name not in ALLOWED_VALUES]
    return warnings + [f"{name}: unknown field, ignored" for name in unknown]


def _init_image_warnings(body: Img2Img) -> list[str]:
    """Return warnings about img2img fields that are handled differently."""
    cases: list[tuple[bool, str]] = [
        (
            body.resize_mode != 1 and _is_cropped(body),
            f"resize_mode: {body.resize_mode} was handled as 1, the image is cropped to the size",
        ),
        (bool(body.mask) and body.mask_blur > 0, "mask_blur: ignored, the mask was not blurred"),
        (
            bool(body.mask) and body.inpainting_fill != 1,
            "inpainting_fill: handled as 1, from the original image",
        ),
        (
            bool(body.mask) and body.inpaint_full_res,
            "inpaint_full_res: ignored, the whole image was generated",
        ),
    ]
    return [text for applies, text in cases if applies]


def _is_cropped(body: Img2Img) -> bool:
    """Return whether the init image has another aspect ratio than the request; unreadable ones fail later."""
    try:
        with Image.open(io.BytesIO(content(body.init_images[0]))) as opened:
            width, height = opened.size
    except (RejectedImageError, OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError):
        return False
    return bool(body.width and body.height) and width * (body.height or 0) != height * (body.width or 0)


def _is_off(script: Any) -> bool:
    """Return whether a script of A1111's is disabled."""
    arguments = script.get("args") if isinstance(script, Mapping) else script
    if not arguments:
        return True
    first: Any = arguments[0] if isinstance(arguments, Sequence) else arguments
    units = [unit for unit in arguments if isinstance(unit, Mapping)] if isinstance(arguments, list) else []
    return first is False or bool(units and not any(unit.get("enabled", True) for unit in units))


def _normalize_name(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.strip().casefold())


def _truncate(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:60]}…"
