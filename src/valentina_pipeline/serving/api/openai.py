"""API of OpenAI's images: calls, fields, unsupported values, and links that expire."""

import base64
import io
import time
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from PIL import Image
from pydantic import Field, ValidationError
from starlette.datastructures import FormData, UploadFile

from valentina_pipeline.serving.api.service import GenerationService
from valentina_pipeline.serving.api.third_party import Caller, ClientModel, generate_images, refuse, translate
from valentina_pipeline.serving.inference.input_images import LARGEST_PICTURE, MAX_SIDE
from valentina_pipeline.serving.inference.prompt_notation import InvalidRequestError

QUALITY = {
    "low": "draft",
    "medium": "standard",
    "high": "high",
    "standard": "standard",
    "hd": "high",
    "auto": "",
}
"""OpenAI's quality -> preset."""

NAMES = {
    "num_images": "n", "width": "size", "height": "size", "preset": "quality", "strength": "image",
    "loras": "prompt",
}  # fmt: skip
"""Our field -> OpenAI's field."""

OPENAI_MODELS = ("dall-e", "gpt-image", "chatgpt-image")
"""Prefixes of the models that OpenAI's clients request by default."""

ALLOWED_VALUES: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "stream": ((False,), "responses are not streamed: use the events of a /v1/generations job"),
    "partial_images": ((0,), "responses have no previews: use the events of a /v1/generations job"),
    "output_format": (("png",), "images are PNG files: other formats would lose their provenance marks"),
    "output_compression": ((100,), "PNG files are lossless"),
    "background": (("auto", "opaque"), "transparency is not supported"),
    "moderation": (("auto",), "the policy is not configurable"),
    "input_fidelity": (("low",), "the image is only the start of generation"),
}
"""Field -> its only accepted values, and the reason."""

IGNORED_FIELDS = {
    "style": "ignored, only the prompt sets the style",
    "user": "ignored, the API key identifies the user",
    "safety_identifier": "ignored, the API key identifies the user",
}
"""Fields without effect -> the warning of the response."""


class Images(ClientModel):
    """POST /v1/images/generations of OpenAI. Unknown fields are rejected."""

    prompt: str
    model: str = Field(default="", description="the character's trigger; OpenAI's model names select it too")
    n: int = 1
    size: str = Field(default="auto", description="WIDTHxHEIGHT or auto")
    quality: str = Field(default="auto", description=f"one of {', '.join(QUALITY)}")
    response_format: str = Field(default="b64_json", description="b64_json, or url: a link that expires")
    stream: bool = False
    partial_images: int = 0
    output_format: str = "png"
    output_compression: int = 100
    background: str = "auto"
    moderation: str = "auto"
    input_fidelity: str = "low"
    style: str = ""
    user: str = ""
    safety_identifier: str = ""
    seed: int | None = Field(default=None, description="extension: seed of the first image")
    negative_prompt: str = Field(default="", description="extension: what the image must not show")


def add_openai(app: FastAPI, server: GenerationService, owner: Caller) -> None:
    """Add the calls to an app; they answer once the images are ready."""
    Owner = Annotated[str, Depends(owner)]

    async def answer(body: Images, owner: str, request: Request, **given: Any) -> dict[str, Any]:
        warnings = _checked(body, server)
        job, more = await generate_images(server, request, owner, _to_request(body, given), NAMES)
        settings = job.order.settings

        def content_of(image: Any) -> dict[str, str]:
            if body.response_format == "url":
                return {"url": f"{str(request.base_url).rstrip('/')}{server.link(job.id, image.seed)}"}
            return {"b64_json": server.image_base64(image)}

        return {
            "created": int(time.time()),
            "data": [
                {**content_of(image), "revised_prompt": job.order.prompt}
                for image in job.images
                if image.file
            ],
            "output_format": "png",
            "size": f"{settings.width}x{settings.height}",
            "background": "opaque",
            **({"warnings": combined} if (combined := [*warnings, *more]) else {}),
        }

    @app.post("/v1/images/generations", tags=["compatible"])
    async def images(body: Images, owner: Owner, request: Request) -> dict[str, Any]:
        """Generate images as OpenAI's API does: `client.images.generate(prompt=..., n=2)`."""
        return await answer(body, owner, request)

    @app.post(
        "/v1/images/edits", tags=["compatible"], max_body_size=LARGEST_PICTURE, openapi_extra=_edit_schema()
    )
    async def edits(owner: Owner, request: Request) -> dict[str, Any]:
        """Generate from an init image as OpenAI's API does; with a mask, regenerate its transparent part.

        The form has `image` (a PNG, JPEG or WebP file), `mask` (a PNG file) and the fields of generations.
        """
        async with request.form(max_files=4, max_fields=40, max_part_size=LARGEST_PICTURE) as form:
            fields, given = await _edit(form)
        return await answer(fields, owner, request, **given)

    @app.get("/v1/models", tags=["compatible"])
    def models(owner: Owner) -> dict[str, Any]:
        """List the only model, the character."""
        return {"object": "list", "data": [_model(server)]}

    @app.get("/v1/models/{model}", tags=["compatible"])
    def model(model: str, owner: Owner) -> dict[str, Any]:
        """Return a model, 404 where it is not the character."""
        if model != server.about.trigger:
            raise HTTPException(404, f"model {model!r} not found; the only model is {server.about.trigger}")
        return _model(server)


def _edit_schema() -> dict[str, Any]:
    """Return the OpenAPI schema of the form of edits."""
    file = {"type": "string", "format": "binary"}
    fields = Images.model_json_schema()["properties"]
    schema = {
        "type": "object",
        "required": ["image", "prompt"],
        "properties": {**fields, "image": file, "mask": file},
    }
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def _model(server: GenerationService) -> dict[str, Any]:
    about = server.about
    created = int((about.folder / "concept.json").stat().st_mtime)
    return {"id": about.trigger, "object": "model", "created": created, "owned_by": "valentina-pipeline"}


def _checked(body: Images, server: GenerationService) -> list[str]:
    """Return warnings for the caller.

    Raises:
        InvalidRequestError: a field is unknown or has an unsupported value.
    """
    if unknown := body.unknown_fields():
        raise InvalidRequestError(unknown[0], f"unknown field; known are {', '.join(Images.model_fields)}")
    for field, (values, reason) in ALLOWED_VALUES.items():
        if getattr(body, field) not in values:
            raise InvalidRequestError(
                field,
                f"{getattr(body, field)!r} is not supported, {reason}: send {values[0]!r} or leave it out",
            )
    if body.response_format not in ("url", "b64_json"):
        raise InvalidRequestError(
            "response_format", f"must be url or b64_json (got {body.response_format!r})"
        )
    warnings = [f"{field}: {reason}" for field, reason in IGNORED_FIELDS.items() if getattr(body, field)]
    about = server.about
    if body.model not in ("", about.trigger, about.name):
        if not body.model.startswith(OPENAI_MODELS):
            raise InvalidRequestError("model", f"{body.model!r} not found; the only model is {about.trigger}")
        warnings.append(f"model: {body.model} is not available, {about.trigger} was used")
    return warnings


def _to_request(body: Images, given: Mapping[str, Any]) -> Any:
    if body.quality and body.quality not in QUALITY:
        raise InvalidRequestError("quality", f"{body.quality!r} is not one of {', '.join(QUALITY)}")
    size: dict[str, str] = {}
    if body.size and body.size != "auto":
        width, cross, height = body.size.lower().partition("x")
        if not (cross and width.isdecimal() and height.isdecimal()):
            raise InvalidRequestError("size", f"must be WIDTHxHEIGHT or auto (got {body.size!r})")
        size = {"width": width, "height": height}
    values = {
        "prompt": body.prompt,
        "negative_prompt": body.negative_prompt,
        "num_images": body.n,
        "seed": body.seed,
    }
    return translate({**values, "preset": QUALITY.get(body.quality, ""), **size, **given}, NAMES)


async def _edit(form: FormData) -> tuple[Images, dict[str, Any]]:
    """Return the fields of a form, and its images as values of `GenerationRequest`."""
    fields: dict[str, Any] = {}
    images: dict[str, list[bytes]] = {}
    for name, value in form.multi_items():
        name = name.removesuffix("[]")
        if isinstance(value, UploadFile):
            images.setdefault(name, []).append(await value.read())
        elif name in fields:
            raise InvalidRequestError(name, "sent twice: send it once")
        else:
            fields[name] = value
    for name, files in images.items():
        if name not in ("image", "mask"):
            raise InvalidRequestError(name, "unknown file; known are image and mask")
        if len(files) > 1:
            raise refuse(name, f"only one file is allowed (got {len(files)})")
    if "image" not in images:
        raise InvalidRequestError("image", "missing: send the init image as a file")
    given: dict[str, Any] = {"image": base64.b64encode(images["image"][0]).decode()}
    if "mask" in images:
        given |= {"mask": _invert_mask(images["mask"][0]), "strength": 1.0}
    try:
        return Images.model_validate(fields), given
    except ValidationError as err:
        first = err.errors(include_url=False)[0]
        raise InvalidRequestError(".".join(map(str, first["loc"])), first["msg"]) from err


def _invert_mask(content: bytes) -> str:
    """Return OpenAI's mask (transparent: regenerate) as ours (white: regenerate), in base64."""
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as mask:
            if mask.width * mask.height > MAX_SIDE**2:
                size = f"{mask.width} x {mask.height}"
                raise InvalidRequestError(
                    "mask", f"must have at most {MAX_SIDE} x {MAX_SIDE} pixels (got {size})"
                )
            if not mask.has_transparency_data:
                raise InvalidRequestError(
                    "mask", "has no transparent part: make the part to regenerate transparent"
                )
            alpha = mask.convert("RGBA").getchannel("A")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as err:
        if isinstance(err, InvalidRequestError):
            raise
        raise InvalidRequestError("mask", f"cannot be read as a PNG file: {err}"[:200]) from err
    white = io.BytesIO()
    alpha.point(lambda level: 255 - level).save(white, "PNG")
    return base64.b64encode(white.getvalue()).decode()
