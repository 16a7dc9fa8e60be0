"""Generation requests: validate and resolve them for the command line, MLflow and the API."""

import json
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from pydantic import Field, ValidationError

from valentina_pipeline.domain.artifacts import sha256
from valentina_pipeline.domain.samplers import MAX_LCM_STEPS, SAMPLERS, SamplerName
from valentina_pipeline.image.generate.img2img import is_blank, is_idle, skipped_steps
from valentina_pipeline.image.io.decode import RejectedImageError
from valentina_pipeline.image.io.png import decode
from valentina_pipeline.image.safety.prompt_filter import refuse_words
from valentina_pipeline.serving.inference.adapters import Adapter
from valentina_pipeline.serving.inference.control_models import Network
from valentina_pipeline.serving.inference.input_images import (
    Control,
    Fitted,
    Given,
    Inputs,
    Steer,
    UnsuitableImageError,
    content,
    fit,
    missing,
)
from valentina_pipeline.serving.inference.package import PackageInfo, Strict
from valentina_pipeline.serving.inference.prompt_notation import (
    InvalidRequestError,
    read_plainly,
    refuse_loras,
    take_loras,
    with_triggers,
)

Engine = Literal["torch", "onnx", "renderer"]
"""Backend: diffusers' networks, their export for ONNX Runtime, or the renderer, which needs no network."""

MAX_IMAGES = 64
"""Limit of one request: the worker process is busy until all of its images are done."""

MAX_PROMPT_CHARS = 4000
"""Limit with triggers and the scene's words; the text encoders read all of the prompt."""

MAX_LORAS = 16
"""Limit of one request, including the LoRAs of the character and of the scene."""

DEFAULT_STRENGTH = 0.6
"""Strength of image-to-image where the request has none."""

NUM_RANDOM_SEEDS = 2**32

Fitter = Callable[[Sequence[Given], tuple[int, int]], list[Fitted]]
"""Decodes and resizes input images, like `input_images.fit`."""


class LoraUse(Strict):
    """A LoRA of the server to use for this request."""

    name: str = Field(max_length=200, description="one of /v1/loras, or the character's own trigger")
    weight: float | None = Field(default=None, ge=-2, le=2, description="null: the recommended weight")


class GenerationRequest(Strict):
    """Images to generate. Fields that are null take the preset's values."""

    prompt: str = Field(
        default="",
        max_length=MAX_PROMPT_CHARS,
        description="of any length, with (words:1.3) and <lora:name:weight>; the trigger is added if absent",
    )
    scene: str = Field(
        default="", max_length=100, description="one of /v1/scenes; its words follow the prompt"
    )
    negative_prompt: str = Field(default="", max_length=MAX_PROMPT_CHARS, description="what must not appear")
    seed: int | None = Field(
        default=None, ge=0, lt=2**63, description="seed of the first image; later ones add 1; null: random"
    )
    num_images: int = Field(default=1, ge=1, le=MAX_IMAGES, description="number of images")
    preset: str = Field(default="", max_length=100, description="a preset of the package; empty: its default")
    steps: int | None = Field(default=None, ge=1, le=150, description="sampler steps")
    guidance_scale: float | None = Field(
        default=None, ge=0, le=30, description="scale of classifier-free guidance; 1 or less turns it off"
    )
    width: int | None = Field(default=None, ge=64, le=2048, multiple_of=8, description="pixels")
    height: int | None = Field(default=None, ge=64, le=2048, multiple_of=8, description="pixels")
    scheduler: SamplerName | None = Field(default=None, description="the sampler")
    loras: tuple[LoraUse, ...] = Field(
        default=(), max_length=MAX_LORAS, description="LoRAs, including the character's and the scene's"
    )
    image: str | None = Field(
        default=None,
        description="initial image: base64 of a PNG, JPEG or WebP; cropped to the requested size",
    )
    strength: float | None = Field(
        default=None, ge=0, le=1, description=f"how strongly `image` is changed; null: {DEFAULT_STRENGTH}"
    )
    mask: str | None = Field(
        default=None, description="base64, as large as `image`: white is regenerated, black is kept"
    )
    controls: tuple[Steer, ...] = Field(default=(), max_length=4, description="control images")


@dataclass(frozen=True)
class Settings:
    """Generation settings that all images of a batch share.

    Attributes:
        steps: sampler steps.
        guidance_scale: scale of classifier-free guidance.
        width: pixels.
        height: pixels.
        scheduler: name of the sampler.
        loras: (name, weight) of each LoRA, the character's own included, sorted.
        inputs: the input images and how they are used.
    """

    steps: int
    guidance_scale: float
    width: int
    height: int
    scheduler: str
    loras: tuple[tuple[str, float], ...]
    inputs: Inputs = field(default_factory=Inputs)

    @property
    def steps_done(self) -> int:
        """The number of sampler steps that run: an initial image skips the first ones."""
        return self.steps - skipped_steps(self.steps, self.inputs.strength)


@dataclass(frozen=True)
class ResolvedRequest:
    """A complete request: no default and no random value is left open.

    Attributes:
        prompt: the final prompt, with the triggers.
        negative_prompt: "" for none.
        seeds: one per image.
        preset: the source of the values that the request leaves out.
        settings: the generation settings.
        pictures: sha256 -> the PNG file, for all images that `settings.inputs` names.
    """

    prompt: str
    negative_prompt: str
    seeds: tuple[int, ...]
    preset: str
    settings: Settings
    pictures: Mapping[str, bytes] = field(default_factory=dict, compare=False, repr=False)


def parse_request(values: Mapping[str, Any]) -> GenerationRequest:
    """Return the validated request.

    Raises:
        InvalidRequestError: a field is unknown, missing or out of range.
    """
    try:
        return GenerationRequest.model_validate(values)
    except ValidationError as err:
        first = err.errors(include_url=False)[0]
        raise InvalidRequestError(".".join(map(str, first["loc"])), first["msg"]) from err


def resolve_request(
    request: GenerationRequest,
    about: PackageInfo,
    shelf: Mapping[str, Adapter] | None = None,
    engine: Engine = "torch",
    controls: Mapping[str, Network] | None = None,
    fitted: Fitter = fit,
) -> ResolvedRequest:
    """Return the resolved request; loads no network.

    Args:
        request: a validated request.
        about: the package.
        shelf: further adapters by name, without the character's own.
        engine: the backend that will generate the images.
        controls: the control networks by kind.
        fitted: decodes and resizes the input images; called only after all other checks have passed.

    Raises:
        UnsafePromptError: the prompt policy refuses a prompt.
        InvalidRequestError: this package or engine does not support the request.
    """
    prompt, prompt_loras = _with_scene(request, about)
    as_written = prompt, request.negative_prompt
    without_weights = read_plainly("prompt", prompt), read_plainly("negative_prompt", request.negative_prompt)
    # weight notation could hide a word from the policy
    for positive, negative in dict.fromkeys((as_written, without_weights)):
        refuse_words(positive, about.name, negative)
    refuse_loras(request.negative_prompt)
    preset = about.presets.get(request.preset or about.default_preset)
    if preset is None:
        available = ", ".join(sorted(about.presets))
        raise InvalidRequestError("preset", f"unknown preset {request.preset!r}; available: {available}")
    weights = _lora_weights(request, about, shelf or {}, engine, prompt_loras)
    settings = Settings(
        steps=preset.steps if request.steps is None else request.steps,
        guidance_scale=preset.guidance_scale if request.guidance_scale is None else request.guidance_scale,
        width=request.width or preset.size,
        height=request.height or preset.size,
        scheduler=request.scheduler or preset.scheduler,
        loras=tuple(sorted(weights.items())),
    )
    refuse_beyond(settings, about, engine)
    if settings.scheduler not in SAMPLERS:
        raise InvalidRequestError("preset", f"this version does not support the sampler {preset.scheduler!r}")
    if settings.scheduler == "lcm" and settings.steps > MAX_LCM_STEPS:
        raise InvalidRequestError("steps", f"must be at most {MAX_LCM_STEPS} with lcm (got {settings.steps})")
    max_pixels = 4 * about.base.resolution**2
    if settings.width * settings.height > max_pixels:
        side = math.isqrt(max_pixels)
        raise InvalidRequestError("width", f"width times height must be at most {side} x {side}")
    first = secrets.randbelow(NUM_RANDOM_SEEDS) if request.seed is None else request.seed
    if first + request.num_images > 2**63:
        raise InvalidRequestError(
            "seed", f"must be at most 2**63 - {request.num_images} for {request.num_images} images"
        )
    inputs, pictures = _resolve_inputs(request, settings, controls or {}, fitted)
    order = ResolvedRequest(
        prompt=with_triggers(
            about.subject(prompt), (shelf[n].trigger for n in weights if shelf and n in shelf and weights[n])
        ),
        negative_prompt=request.negative_prompt.strip(),
        seeds=tuple(range(first, first + request.num_images)),
        preset=request.preset or about.default_preset,
        settings=replace(settings, inputs=inputs),
        pictures=pictures,
    )
    _refuse_unrepeatable(order)
    return order


def _refuse_unrepeatable(order: ResolvedRequest) -> None:
    """Raise InvalidRequestError where triggers, scene or preset push a field beyond a request's limits.

    Such an image could not be generated again by a request.
    """
    try:
        again(order)
    except ValidationError as err:
        first = err.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise InvalidRequestError(field, f"after adding triggers, scene and preset: {first['msg']}") from err


def refuse_beyond(settings: Settings, about: PackageInfo, engine: Engine) -> None:
    """Raise InvalidRequestError where the engine does not support the settings; torch supports all."""
    if engine == "torch":
        return
    if any(use != (about.trigger, 1.0) for use in settings.loras):
        raise InvalidRequestError(
            "loras",
            f"the engine {engine} supports only {about.trigger} at weight 1: use the engine torch",
        )
    for name, value in (("image", settings.inputs.image), ("controls", settings.inputs.controls)):
        if value:
            raise InvalidRequestError(name, f"the engine {engine} takes no input images: use torch")


def _with_scene(request: GenerationRequest, about: PackageInfo) -> tuple[str, list[tuple[str, float | None]]]:
    """Return the prompt with the scene's words, and (name, weight) of each LoRA that the prompt names."""
    if request.scene and request.scene not in about.scenes:
        available = ", ".join(about.scenes)
        raise InvalidRequestError("scene", f"unknown scene {request.scene!r}; available: {available}")
    prompt, prompt_loras = take_loras(request.prompt.strip())
    words = [prompt, about.scenes[request.scene].words if request.scene else ""]
    if not any(words):
        raise InvalidRequestError("prompt", "must have words where no scene is given")
    return ", ".join(filter(None, words)), prompt_loras


def _resolve_inputs(
    request: GenerationRequest, settings: Settings, networks: Mapping[str, Network], fitted: Fitter
) -> tuple[Inputs, dict[str, bytes]]:
    """Return the inputs for generation, and the image files by their sha256."""
    uploads = []
    strength = DEFAULT_STRENGTH if request.strength is None else request.strength
    if request.image is None:
        for name in ("strength", "mask"):
            if getattr(request, name) is not None:
                raise InvalidRequestError(name, "needs `image`")
    else:
        if is_idle(settings.steps, strength):
            min_strength = math.ceil(50 / settings.steps) / 100
            reason = f"{strength:g} of {settings.steps} steps would return the image unchanged"
            raise InvalidRequestError("strength", f"{reason}: must be at least {min_strength:g}")
        uploads.append(_decode_upload("image", request.image))
    if request.mask is not None:
        uploads.append(_decode_upload("mask", request.mask)._replace(mode="L"))
    for place, control in enumerate(request.controls):
        if control.kind not in networks:
            available = ", ".join(sorted(networks)) or "none"
            raise InvalidRequestError(
                f"controls.{place}.kind", f"no control network for {control.kind!r}; available: {available}"
            )
        uploads.append(_decode_upload(f"controls.{place}.image", control.image))
    try:
        resized = fitted(uploads, (settings.width, settings.height)) if uploads else []
    except UnsuitableImageError as err:
        raise InvalidRequestError(err.field, err.why) from err
    files = {sha256(image.content): image.content for image in resized}
    names = {upload.field: sha256(image.content) for upload, image in zip(uploads, resized, strict=True)}
    own = tuple(sorted({sha256(image.content) for image in resized if image.own}))
    controls = []
    for place, control in enumerate(request.controls):
        scale = networks[control.kind].scale if control.scale is None else control.scale
        controls.append(Control(control.kind, scale, control.preprocess, names[f"controls.{place}.image"]))
    image, mask = names.get("image", ""), names.get("mask", "")
    if mask and is_blank(decode(files[mask]).convert("L")):
        raise InvalidRequestError("mask", "has no white area: white is regenerated, black is kept")
    return Inputs(image, strength if image else 1.0, mask, tuple(controls), own), files


def _decode_upload(field: str, text: str) -> Given:
    try:
        return Given(field, content(text))
    except RejectedImageError as err:
        raise InvalidRequestError(field, str(err)) from err


def _lora_weights(
    request: GenerationRequest,
    about: PackageInfo,
    shelf: Mapping[str, Adapter],
    engine: Engine,
    prompt_loras: Sequence[tuple[str, float | None]],
) -> dict[str, float]:
    """Return name -> weight of each LoRA to use: the character's own, the scene's, the requested ones."""
    weights = {about.trigger: 1.0} if about.has_lora else {}
    known = {**{name: adapter.weight for name, adapter in shelf.items()}, **weights}
    if request.scene and engine == "torch":
        scene = {request.scene, about.scenes[request.scene].category}
        weights |= {name: adapter.weight for name, adapter in shelf.items() if scene & {*adapter.scenes}}
    named = [("loras", use.name, use.weight) for use in request.loras]
    named += [("prompt", name, weight) for name, weight in prompt_loras]
    for where, name, weight in named:
        if name not in known:
            available = ", ".join(sorted(known)) or "none"
            raise InvalidRequestError(where, f"unknown LoRA {name!r}; available: {available}")
        weights[name] = known[name] if weight is None else weight
    if len({name for _, name, _ in named}) < len(named):
        raise InvalidRequestError(named[-1][0], "the same LoRA is named twice")
    return weights


def again(order: ResolvedRequest) -> GenerationRequest:
    """Return the request that generates the same images, without input images, which are not stored."""
    settings, inputs = order.settings, order.settings.inputs
    return GenerationRequest(
        prompt=order.prompt,
        negative_prompt=order.negative_prompt,
        seed=order.seeds[0],
        num_images=len(order.seeds),
        preset=order.preset,
        steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        width=settings.width,
        height=settings.height,
        scheduler=settings.scheduler,
        loras=tuple(LoraUse(name=name, weight=weight) for name, weight in settings.loras),
        strength=inputs.strength if inputs.image else None,
        controls=tuple(
            Steer(kind=control.kind, image="", scale=control.scale, preprocess=control.preprocess)
            for control in inputs.controls
        ),
    )


def from_png_text(texts: Mapping[str, str], given: frozenset[str] = frozenset()) -> GenerationRequest:
    """Return the request that generates the same image, from the texts of its PNG file.

    Args:
        texts: the PNG texts by keyword.
        given: the image fields that the caller adds itself: a file holds only the hashes of its input images.

    Raises:
        InvalidRequestError: the texts do not describe an image of this project, or an input image is missing.
    """
    try:
        missing_input = missing(texts, given)
        values = {
            "prompt": texts["prompt"],
            "negative_prompt": texts.get("negative_prompt", ""),
            **{
                name: json.loads(texts[name])
                for name in ("seed", "steps", "guidance_scale", "width", "height")
            },
            "preset": texts["preset"],
            "scheduler": texts["scheduler"],
            "loras": [{"name": n, "weight": w} for n, w in json.loads(texts["loras"])],
            "strength": json.loads(texts.get("strength", "null")),
        }
    except (KeyError, TypeError, ValueError, RecursionError) as err:
        raise InvalidRequestError("", f"this file does not say how it was generated: {err}") from err
    if missing_input:
        name, expected = missing_input
        raise InvalidRequestError(name, f"needs the input image of the original again: {expected}")
    return parse_request(values)
