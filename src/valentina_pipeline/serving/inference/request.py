"""What people ask for, checked in one place for the command line, MLflow and the API."""

import json
import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from pydantic import Field, ValidationError

from valentina_pipeline.domain.artifacts import sha256
from valentina_pipeline.image.generate.img2img import is_blank, is_idle, skipped_steps
from valentina_pipeline.image.io.decode import RejectedImageError
from valentina_pipeline.image.io.png import decode
from valentina_pipeline.image.safety.prompt_filter import refuse_words
from valentina_pipeline.serving.inference.adapters import Adapter
from valentina_pipeline.serving.inference.control_models import Network
from valentina_pipeline.serving.inference.input_images import (
    Control,
    Given,
    Inputs,
    Steer,
    UnsuitableImageError,
    content,
    fit,
    missing,
)
from valentina_pipeline.serving.inference.package import PackageInfo, Strict
from valentina_pipeline.serving.inference.prompt_notation import InvalidRequestError as BadRequest
from valentina_pipeline.serving.inference.prompt_notation import (
    read_plainly,
    refuse_loras,
    take_loras,
    with_triggers,
)

Engine = Literal["torch", "onnx", "procedural"]
"""What draws: diffusers' networks, their export for ONNX Runtime, or the renderer, which is no network."""

Scheduler = Literal["base", "euler", "euler_a", "dpm++", "dpm++_karras", "ddim", "lcm"]

SCHEDULERS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {}),
    "dpm++_karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "ddim": ("DDIMScheduler", {"clip_sample": False}),  # latents go beyond 1
    "lcm": ("LCMScheduler", {}),
}
"""diffusers' class and what it is set to; "base" is the sampler that the base ships with."""

MOST_IMAGES = 64
"""In one request: a server's worker is held for as long as they take."""

LONGEST_PROMPT = 4000
"""Characters, with triggers and the scene's words; the text encoders read all of them."""

MOST_ADAPTERS = 16
"""LoRAs of one drawing, the character's own and the scene's included."""

LCM_STEPS = 50
"""As many steps as its distillation has."""

STRENGTH = 0.6
"""Of image-to-image, where none is asked for."""

RANDOM_SEEDS = 2**32

Fitter = Callable[[Sequence[Given], tuple[int, int]], list[bytes]]
"""Reads pictures as pictures.fit does."""


class LoraUse(Strict):
    """An adapter of the server's that takes part."""

    name: str = Field(max_length=200, description="one of /v1/adapters, or the character's own trigger")
    weight: float | None = Field(default=None, ge=-2, le=2, description="null: as recommended")


class GenerationRequest(Strict):
    """Images to draw. What is null is as the preset says."""

    prompt: str = Field(
        default="",
        max_length=LONGEST_PROMPT,
        description="read to its end, with (words:1.3) and <lora:name:weight>; the trigger is put in",
    )
    scene: str = Field(
        default="", max_length=100, description="one of /v1/scenes; its words follow the prompt's"
    )
    negative_prompt: str = Field(default="", max_length=LONGEST_PROMPT, description="what it does not show")
    seed: int | None = Field(
        default=None, ge=0, lt=2**63, description="of the first image, the next ones count up; null: random"
    )
    count: int = Field(default=1, ge=1, le=MOST_IMAGES, description="how many images")
    preset: str = Field(default="", max_length=100, description="one of the package's; empty: its default")
    steps: int | None = Field(default=None, ge=1, le=150, description="of the sampler")
    guidance: float | None = Field(
        default=None, ge=0, le=30, description="scale of classifier-free guidance; 1 or less turns it off"
    )
    width: int | None = Field(default=None, ge=64, le=2048, multiple_of=8, description="pixels")
    height: int | None = Field(default=None, ge=64, le=2048, multiple_of=8, description="pixels")
    scheduler: Scheduler | None = Field(default=None, description="the sampler")
    adapters: tuple[LoraUse, ...] = Field(
        default=(), max_length=MOST_ADAPTERS, description="LoRAs, the character's and the scene's included"
    )
    image: str | None = Field(
        default=None, description="where drawing begins: base64 of a PNG, JPEG or WebP, cut to the size asked"
    )
    strength: float | None = Field(
        default=None, ge=0, le=1, description=f"how much of `image` is drawn anew; null: {STRENGTH}"
    )
    mask: str | None = Field(
        default=None, description="as large as `image`, likewise: white is drawn anew, black stays"
    )
    control: tuple[Steer, ...] = Field(default=(), max_length=4, description="pictures that it keeps to")


@dataclass(frozen=True)
class Settings:
    """How an image is drawn: what is drawn in one batch has these in common.

    Attributes:
        steps: of the sampler.
        guidance: scale of classifier-free guidance.
        width: pixels.
        height: pixels.
        scheduler: a `Scheduler`.
        adapters: (name, weight) of each LoRA, the character's own included, sorted.
        inputs: pictures that it is given.
    """

    steps: int
    guidance: float
    width: int
    height: int
    scheduler: str
    adapters: tuple[tuple[str, float], ...]
    inputs: Inputs = field(default_factory=Inputs)

    @property
    def steps_done(self) -> int:
        """The sampler's steps without those that a start image leaves out."""
        return self.steps - skipped_steps(self.steps, self.inputs.strength)


@dataclass(frozen=True)
class ResolvedRequest:
    """A request in full: nothing is left to defaults or to chance.

    Attributes:
        prompt: as drawn, with the triggers.
        negative_prompt: "" for none.
        seeds: one an image.
        preset: what was not asked for is taken from.
        settings: how they are drawn.
        pictures: the PNG files that its inputs name, by sha256.
    """

    prompt: str
    negative_prompt: str
    seeds: tuple[int, ...]
    preset: str
    settings: Settings
    pictures: Mapping[str, bytes] = field(default_factory=dict, compare=False, repr=False)


def parse_request(values: Mapping[str, Any]) -> GenerationRequest:
    """Return the request that these values make.

    Raises:
        BadRequest: a field is unknown, missing or out of range.
    """
    try:
        return GenerationRequest.model_validate(values)
    except ValidationError as err:
        first = err.errors(include_url=False)[0]
        raise BadRequest(".".join(map(str, first["loc"])), first["msg"]) from err


def resolve_request(
    request: GenerationRequest,
    about: PackageInfo,
    shelf: Mapping[str, Adapter] | None = None,
    engine: Engine = "torch",
    controls: Mapping[str, Network] | None = None,
    fitted: Fitter = fit,
) -> ResolvedRequest:
    """Return what is drawn for a request; needs no network.

    Args:
        request: checked by itself.
        about: the package.
        shelf: the adapters there are beside the character's own.
        engine: what is to draw it.
        controls: the networks that have a drawing keep to a picture, by kind.
        fitted: reads its pictures, after everything else was found to be right.

    Raises:
        UnsafePrompt: by the policy for prompts.
        BadRequest: this package cannot do it.
    """
    prompt, tagged = _worded(request, about)
    written = prompt, request.negative_prompt
    plainly = read_plainly("prompt", prompt), read_plainly("negative_prompt", request.negative_prompt)
    for asked_for, kept_out in dict.fromkeys((written, plainly)):  # the same without weights
        refuse_words(asked_for, about.name, kept_out)
    refuse_loras(request.negative_prompt)
    preset = about.presets.get(request.preset or about.default_preset)
    if preset is None:
        raise BadRequest("preset", f"there is no {request.preset!r}: {', '.join(sorted(about.presets))}")
    uses = _uses(request, about, shelf or {}, engine, tagged)
    settings = Settings(
        steps=preset.steps if request.steps is None else request.steps,
        guidance=preset.guidance if request.guidance is None else request.guidance,
        width=request.width or preset.size,
        height=request.height or preset.size,
        scheduler=request.scheduler or preset.scheduler,
        adapters=tuple(sorted(uses.items())),
    )
    refuse_beyond(settings, about, engine)
    if settings.scheduler not in get_args(Scheduler):
        raise BadRequest("preset", f"{preset.scheduler!r} is a sampler that this version does not know")
    if settings.scheduler == "lcm" and settings.steps > LCM_STEPS:
        raise BadRequest("steps", f"the sampler lcm takes up to {LCM_STEPS}, not {settings.steps}")
    largest = 4 * about.base.resolution**2
    if settings.width * settings.height > largest:
        side = math.isqrt(largest)
        raise BadRequest("width", f"width times height is at most {side} x {side} with this base")
    first = secrets.randbelow(RANDOM_SEEDS) if request.seed is None else request.seed
    if first + request.count > 2**63:
        raise BadRequest("seed", f"the last of {request.count} images would have a seed beyond 2**63 - 1")
    inputs, pictures = _inputs(request, settings, controls or {}, fitted)
    order = ResolvedRequest(
        prompt=with_triggers(
            about.subject(prompt), (shelf[n].trigger for n in uses if shelf and n in shelf and uses[n])
        ),
        negative_prompt=request.negative_prompt.strip(),
        seeds=tuple(range(first, first + request.count)),
        preset=request.preset or about.default_preset,
        settings=replace(settings, inputs=inputs),
        pictures=pictures,
    )
    _refuse_unrepeatable(order)
    return order


def _refuse_unrepeatable(order: ResolvedRequest) -> None:
    """Raise BadRequest for an order that no request could ask for again: texts and presets added too much."""
    try:
        again(order)
    except ValidationError as err:
        first = err.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise BadRequest(field, f"as drawn, with triggers, scene and preset: {first['msg']}") from err


def refuse_beyond(settings: Settings, about: PackageInfo, engine: Engine) -> None:
    """Raise BadRequest where more is asked for than an engine has; torch has all."""
    if engine == "torch":
        return
    if any(use != (about.trigger, 1.0) for use in settings.adapters):
        raise BadRequest(
            "adapters",
            f"the engine {engine} draws {about.trigger} at weight 1 and nothing beside; torch does",
        )
    for name, given in (("image", settings.inputs.image), ("control", settings.inputs.controls)):
        if given:
            raise BadRequest(name, f"the engine {engine} draws from words alone; torch takes pictures")


def _worded(request: GenerationRequest, about: PackageInfo) -> tuple[str, list[tuple[str, float | None]]]:
    """Return the words of the prompt and of its scene, and the LoRAs that the prompt names."""
    if request.scene and request.scene not in about.scenes:
        raise BadRequest("scene", f"there is no {request.scene!r}: {', '.join(about.scenes)}")
    prompt, tagged = take_loras(request.prompt.strip())
    words = [prompt, about.scenes[request.scene].words if request.scene else ""]
    if not any(words):
        raise BadRequest("prompt", "has no words, and no scene is named")
    return ", ".join(filter(None, words)), tagged


def _inputs(
    request: GenerationRequest, settings: Settings, networks: Mapping[str, Network], fitted: Fitter
) -> tuple[Inputs, dict[str, bytes]]:
    """Return what a drawing with these settings is given, and the pictures by their sha256."""
    given = []
    strength = STRENGTH if request.strength is None else request.strength
    if request.image is None:
        for name in ("strength", "mask"):
            if getattr(request, name) is not None:
                raise BadRequest(name, "needs `image`, which it is about")
    else:
        if is_idle(settings.steps, strength):
            least = math.ceil(50 / settings.steps) / 100
            passed = f"{strength:g} of {settings.steps} steps is none, which would pass the picture through"
            raise BadRequest("strength", f"{passed}: {least:g} and more draws")
        given.append(_given("image", request.image))
    if request.mask is not None:
        given.append(_given("mask", request.mask)._replace(mode="L"))
    for place, each in enumerate(request.control):
        if each.kind not in networks:
            there_are = ", ".join(sorted(networks)) or "there are none"
            raise BadRequest(f"control.{place}.kind", f"nothing here keeps to {each.kind!r}: {there_are}")
        given.append(_given(f"control.{place}.image", each.image))
    try:
        fits = fitted(given, (settings.width, settings.height)) if given else []
    except UnsuitableImageError as err:
        raise BadRequest(err.field, err.why) from err
    files = {sha256(content): content for content in fits}
    names = {each.field: sha256(content) for each, content in zip(given, fits, strict=True)}
    controls = []
    for place, each in enumerate(request.control):
        scale = networks[each.kind].scale if each.scale is None else each.scale
        controls.append(Control(each.kind, scale, each.preprocess, names[f"control.{place}.image"]))
    image, mask = names.get("image", ""), names.get("mask", "")
    if mask and is_blank(decode(files[mask]).convert("L")):
        raise BadRequest("mask", "has no white area, which is what is drawn anew; black stays")
    return Inputs(image, strength if image else 1.0, mask, tuple(controls)), files


def _given(field: str, text: str) -> Given:
    try:
        return Given(field, content(text))
    except RejectedImageError as err:
        raise BadRequest(field, str(err)) from err


def _uses(
    request: GenerationRequest,
    about: PackageInfo,
    shelf: Mapping[str, Adapter],
    engine: Engine,
    tagged: Sequence[tuple[str, float | None]],
) -> dict[str, float]:
    """Return the weight of each LoRA that takes part: the character's own, the scene's, those asked for."""
    uses = {about.trigger: 1.0} if about.has_lora else {}
    known = {**{name: adapter.weight for name, adapter in shelf.items()}, **uses}
    if request.scene and engine == "torch":
        scene = {request.scene, about.scenes[request.scene].category}
        uses |= {name: adapter.weight for name, adapter in shelf.items() if scene & {*adapter.scenes}}
    named = [("adapters", use.name, use.weight) for use in request.adapters]
    named += [("prompt", name, weight) for name, weight in tagged]
    for where, name, weight in named:
        if name not in known:
            there_are = ", ".join(sorted(known)) or "this server has none"
            raise BadRequest(where, f"there is no {name!r}: {there_are}")
        uses[name] = known[name] if weight is None else weight
    if len({name for _, name, _ in named}) < len(named):
        raise BadRequest(named[-1][0], "one of them is named twice")
    return uses


def again(order: ResolvedRequest) -> GenerationRequest:
    """Return the request that this order is drawn by once more, but for its pictures, which are not kept."""
    settings, inputs = order.settings, order.settings.inputs
    return GenerationRequest(
        prompt=order.prompt,
        negative_prompt=order.negative_prompt,
        seed=order.seeds[0],
        count=len(order.seeds),
        preset=order.preset,
        steps=settings.steps,
        guidance=settings.guidance,
        width=settings.width,
        height=settings.height,
        scheduler=settings.scheduler,
        adapters=tuple(LoraUse(name=name, weight=weight) for name, weight in settings.adapters),
        strength=inputs.strength if inputs.image else None,
        control=tuple(
            Steer(kind=each.kind, image="", scale=each.scale, preprocess=each.preprocess)
            for each in inputs.controls
        ),
    )


def from_png_text(texts: Mapping[str, str], given: frozenset[str] = frozenset()) -> GenerationRequest:
    """Return the request for one image as the texts of its PNG file tell it: drawn again, it is the same.

    Args:
        texts: of the file.
        given: the fields with pictures that the caller puts in itself: a file names its pictures only.

    Raises:
        BadRequest: the texts are not those of an image of this project, or it takes a picture.
    """
    try:
        lacks = missing(texts, given)
        values = {
            "prompt": texts["prompt"],
            "negative_prompt": texts.get("negative_prompt", ""),
            **{name: json.loads(texts[name]) for name in ("seed", "steps", "guidance", "width", "height")},
            "preset": texts["preset"],
            "scheduler": texts["scheduler"],
            "adapters": [{"name": n, "weight": w} for n, w in json.loads(texts["adapters"])],
            "strength": json.loads(texts.get("strength", "null")),
        }
    except (KeyError, TypeError, ValueError, RecursionError) as err:
        raise BadRequest("", f"this file does not tell how it was drawn: {err}") from err
    if lacks:
        raise BadRequest(lacks[0], f"it was drawn with a picture that has to be given again: {lacks[1]}")
    return parse_request(values)
