"""A1111's fields as its clients send them: what each one asks for here, or why it is not done."""

import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, UnidentifiedImageError
from pydantic import Field

from valentina_pipeline.image.io.decode import RejectedImageError
from valentina_pipeline.serving.api.third_party import ClientModel, refuse, translate
from valentina_pipeline.serving.inference.input_images import content
from valentina_pipeline.serving.inference.package import PackageInfo
from valentina_pipeline.serving.inference.prompt_notation import InvalidRequestError
from valentina_pipeline.serving.inference.request import GenerationRequest as Wanted

SAMPLERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "Euler": ("euler", ("k_euler",)),
    "Euler a": ("euler_a", ("k_euler_a", "k_euler_ancestral", "Euler ancestral")),
    "DPM++ 2M": ("dpm++", ("k_dpmpp_2m", "dpmpp_2m")),
    "DPM++ 2M Karras": ("dpm++_karras", ("k_dpmpp_2m_ka", "dpmpp_2m_karras")),
    "DDIM": ("ddim", ("k_ddim",)),
    "LCM": ("lcm", ("k_lcm",)),
    "Automatic": ("base", ("automatic",)),
}
"""A1111's name -> ours, and further names of it; each in any case."""

SCHEDULERS = {"automatic": "Automatic", "uniform": "Uniform", "karras": "Karras"}
"""A1111's name -> its label; the samplers here have uniform steps but for those of Karras."""

NAMES = {
    "count": "batch_size", "guidance": "cfg_scale", "image": "init_images", "strength": "denoising_strength",
    "scheduler": "sampler_name", "scene": "styles", "adapters": "prompt",
}  # fmt: skip
"""Our field -> A1111's."""

ONLY: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "enable_hr": ((False,), "no second pass is done: ask for the size itself"),
    "restore_faces": ((False,), "faces are not drawn over"),
    "tiling": ((False,), "pictures have edges"),
    "subseed_strength": ((0,), "a seed is one seed"),
    "seed_resize_from_w": ((0, -1), "a seed belongs to one size"),
    "seed_resize_from_h": ((0, -1), "a seed belongs to one size"),
    "firstphase_width": ((0,), "no second pass is done"),
    "firstphase_height": ((0,), "no second pass is done"),
    "s_churn": ((0,), "the samplers are as they are"),
    "s_noise": ((1,), "the samplers are as they are"),
    "s_min_uncond": ((0,), "the samplers are as they are"),
    "initial_noise_multiplier": ((1,), "noise is as the sampler wants it"),
    "inpainting_mask_invert": ((0, False), "white is drawn anew: send the mask the other way round"),
    "include_init_images": ((False,), "pictures are not sent back"),
    "refiner_checkpoint": (("", "None"), "there is one model"),
    "hr_checkpoint_name": (("", "None", "Use same checkpoint"), "there is one model"),
    "script_name": (("", "None"), "there are no scripts"),
    "infotext": (("",), "send the fields themselves"),
    "disable_extra_networks": ((False,), "leave <lora:...> out of the prompt"),
}
"""Fields that are taken at these values alone, and why."""

IDLE = frozenset(
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
"""A1111's fields that do nothing by themselves, only with one of `ONLY` or with files on its own disk."""


class Txt2Img(ClientModel):
    """POST /sdapi/v1/txt2img of A1111. Null is as if a field was left out.

    A field that asks for what is not done here is refused; one that changes nothing is named in the answer's
    `warnings`.
    """

    prompt: str = Field(default="", description="with (words:1.3) and <lora:name:weight>")
    negative_prompt: str = ""
    styles: list[str] = Field(default=[], description="one of prompt-styles, which are the scenes")
    seed: int = Field(default=-1, description="-1: random")
    steps: int | None = None
    cfg_scale: float | None = None
    width: int | None = None
    height: int | None = None
    sampler_name: str = Field(default="", description="one of samplers, or an alias, in any case")
    sampler_index: str = Field(default="", description="the same, where sampler_name is not given")
    scheduler: str = Field(default="", description="one of schedulers")
    batch_size: int = Field(default=1, ge=1)
    n_iter: int = Field(default=1, ge=1)
    send_images: bool = True
    save_images: bool = False
    eta: float | None = None
    clip_skip: int | None = None
    override_settings: dict[str, Any] = Field(default_factory=dict, description="as options has them")
    alwayson_scripts: dict[str, Any] = Field(default_factory=dict, description="those that are off")


class Img2Img(Txt2Img):
    """POST /sdapi/v1/img2img of A1111: as txt2img, from a picture."""

    init_images: list[str] = Field(min_length=1, max_length=1, description="base64: where drawing begins")
    mask: str | None = Field(default=None, description="base64: white is drawn anew")
    denoising_strength: float = 0.75
    resize_mode: int = Field(default=1, description="1: cut to the size; others draw so too, and say it")
    mask_blur: float = 0
    inpainting_fill: int = 1
    inpaint_full_res: bool = False


def sampler(name: str, scheduler: str, field: str = "sampler_name") -> str | None:
    """Return our sampler by A1111's two names, None where neither is given.

    Raises:
        InvalidRequestError: there is no such sampler, or not with that scheduler.
    """
    known = {_alike(each): ours for full, (ours, more) in SAMPLERS.items() for each in (full, ours, *more)}
    labels = {_alike(each): _alike(short) for short, label in SCHEDULERS.items() for each in (short, label)}
    if scheduler and _alike(scheduler) not in labels:
        raise InvalidRequestError(
            "scheduler", f"{scheduler!r} is not one of {', '.join(SCHEDULERS.values())}"
        )
    if name and _alike(name) not in known:
        raise InvalidRequestError(field, f"{name!r} is not one of {', '.join(SAMPLERS)}")
    ours = known[_alike(name)] if name else None
    asked_for = labels.get(_alike(scheduler), "automatic")
    if asked_for == "karras" and ours not in ("dpm++", "dpm++_karras"):
        raise InvalidRequestError(
            "scheduler", f"{scheduler!r} goes with DPM++ 2M, not with {name or 'no sampler'}"
        )
    if asked_for == "uniform" and ours == "dpm++_karras":
        raise InvalidRequestError("scheduler", f"{scheduler!r} and {name} are two schedules")
    return "dpm++_karras" if asked_for == "karras" else ours


def options(about: PackageInfo) -> dict[str, Any]:
    """Return what A1111's settings are here; none of them can be set to something else."""
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
    """Raise InvalidRequestError where settings ask for other models; null and an empty text ask for none."""
    there = options(about)
    same: dict[str, tuple[Any, ...]] = {
        "sd_model_checkpoint": (about.name, about.trigger, about.base_hash, about.base_hash[:10]),
        "sd_vae": ("Automatic", "None"),
    }
    for name, value in given.items():
        if value is None or value == "":
            continue
        if name not in there:
            raise InvalidRequestError(f"{prefix}{name}", f"is no setting here: {', '.join(there)}")
        if value not in same.get(name, (there[name],)):
            raise InvalidRequestError(f"{prefix}{name}", f"is {there[name]!r} here and cannot be {value!r}")


def parse_request(body: Txt2Img, about: PackageInfo) -> tuple[Wanted, list[str]]:
    """Return what a request asks for, and what its caller should know.

    Raises:
        InvalidRequestError: a field asks for what is not done here, in A1111's words.
    """
    warnings = _checked(body, about)
    if len(body.styles) > 1:
        raise refuse("styles", f"{len(body.styles)} styles, and one scene is drawn")
    if body.styles and body.styles[0] not in about.scenes:
        raise InvalidRequestError("styles", f"there is no {body.styles[0]!r}: {', '.join(about.scenes)}")
    field = "sampler_name" if body.sampler_name else "sampler_index"
    ours = sampler(body.sampler_name or body.sampler_index, body.scheduler, field)
    if body.eta is not None and ((ours, body.eta) == ("euler_a", 0) or (ours == "ddim" and body.eta)):
        warnings.append(f"eta: {'Euler a draws with 1' if body.eta == 0 else 'DDIM draws with 0'}")
    given: dict[str, Any] = {}
    if isinstance(body, Img2Img):
        given = {"image": body.init_images[0], "mask": body.mask, "strength": body.denoising_strength}
        warnings += _of_pictures(body)
    values = {
        "prompt": body.prompt,
        "negative_prompt": body.negative_prompt,
        "scene": body.styles[0] if body.styles else None,
        "seed": None if body.seed < 0 else body.seed,
        "steps": body.steps,
        "guidance": body.cfg_scale,
        "width": body.width,
        "height": body.height,
        "scheduler": ours,
        "count": body.batch_size * body.n_iter,
    }
    return translate({**values, **given}, names(body)), warnings


def names(body: Txt2Img) -> dict[str, str]:
    """Return what this request calls our fields, where that differs."""
    several = {"count": "n_iter"} if body.n_iter > body.batch_size else {}
    older = {"scheduler": "sampler_index"} if body.sampler_index and not body.sampler_name else {}
    return {**NAMES, **several, **older}


def infotext(order: Any, seed: int, about: PackageInfo) -> str:
    """Return how an image was drawn, as A1111 writes it below its images."""
    settings = order.settings
    negative = f"\nNegative prompt: {order.negative_prompt}" if order.negative_prompt else ""
    return (
        f"{order.prompt}{negative}\nSteps: {settings.steps}, Sampler: {name_of(settings.scheduler)}, "
        f"CFG scale: {settings.guidance:g}, Seed: {seed}, Size: {settings.width}x{settings.height}, "
        f"Model hash: {about.base_hash[:10]}, Model: {about.trigger}"
    )


def name_of(ours: str) -> str:
    """Return A1111's name of our sampler."""
    return next(name for name, (each, _) in SAMPLERS.items() if each == ours)


def _checked(body: Txt2Img, about: PackageInfo) -> list[str]:
    more = body.model_extra or {}
    for field, (values, why) in ONLY.items():
        if field in more and more[field] not in values and str(more[field]) not in map(str, values):
            raise InvalidRequestError(field, f"{_brief(more[field])} is not done here, {why}")
    refuse_other_options(body.override_settings, about, "override_settings.")
    for name, script in body.alwayson_scripts.items():
        if not _is_off(script):
            raise InvalidRequestError(f"alwayson_scripts.{name}", "there are no scripts here")
    if body.clip_skip not in (None, 0, 1):
        raise InvalidRequestError(
            "clip_skip", f"{body.clip_skip} is not done here: the encoders are read as the base's are"
        )
    warnings = []
    if body.save_images:
        warnings.append("save_images: every image is kept for a day, and no longer")
    idle = (
        IDLE if isinstance(body, Img2Img) else {*IDLE, *Img2Img.model_fields}
    )  # one class of A1111's has both
    unknown = [name for name in body.unknown_fields() if name not in idle and name not in ONLY]
    return warnings + [f"{name}: is no field of this call, nothing was done with it" for name in unknown]


def _of_pictures(body: Img2Img) -> list[str]:
    """Return what is done otherwise than a request for a drawing from a picture asks."""
    said: list[tuple[bool, str]] = [
        (
            body.resize_mode != 1 and _is_cut(body),
            f"resize_mode: {body.resize_mode} was drawn as 1, the picture is cut to the size",
        ),
        (bool(body.mask) and body.mask_blur > 0, "mask_blur: the mask was taken as it is"),
        (
            bool(body.mask) and body.inpainting_fill != 1,
            "inpainting_fill: drawn as 1, from the picture itself",
        ),
        (bool(body.mask) and body.inpaint_full_res, "inpaint_full_res: the whole picture was drawn"),
    ]
    return [text for holds, text in said if holds]


def _is_cut(body: Img2Img) -> bool:
    """Return whether a picture has another shape than is asked for; what cannot be read is refused later."""
    try:
        with Image.open(io.BytesIO(content(body.init_images[0]))) as opened:
            width, height = opened.size
    except (RejectedImageError, OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError):
        return False
    return bool(body.width and body.height) and width * (body.height or 0) != height * (body.width or 0)


def _is_off(script: Any) -> bool:
    """Return whether a script of A1111's is sent, and asks for nothing."""
    arguments = script.get("args") if isinstance(script, Mapping) else script
    if not arguments:
        return True
    first: Any = arguments[0] if isinstance(arguments, Sequence) else arguments
    units = [each for each in arguments if isinstance(each, Mapping)] if isinstance(arguments, list) else []
    return first is False or bool(units and not any(each.get("enabled", True) for each in units))


def _alike(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.strip().casefold())


def _brief(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 60 else f"{text[:60]}…"
