"""OpenAI's images API: its calls, its fields and their refusal, and links that end."""

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
from valentina_pipeline.serving.inference.input_images import LARGEST_PICTURE
from valentina_pipeline.serving.inference.prompt_notation import InvalidRequestError

QUALITY = {
    "low": "draft",
    "medium": "standard",
    "high": "high",
    "standard": "standard",
    "hd": "high",
    "auto": "",
}
"""OpenAI's word -> preset."""

NAMES = {
    "count": "n", "width": "size", "height": "size", "preset": "quality", "strength": "image",
    "adapters": "prompt",
}  # fmt: skip
"""Our field -> OpenAI's."""

THEIRS = ("dall-e", "gpt-image", "chatgpt-image")
"""Models that OpenAI's clients name by themselves."""

ONLY: Mapping[str, tuple[tuple[Any, ...], str]] = {
    "stream": ((False,), "the answer comes whole, jobs of /v1/generations stream"),
    "partial_images": ((0,), "the answer comes whole, jobs of /v1/generations have previews"),
    "output_format": (("png",), "images are PNG files, whose marks other formats would lose"),
    "output_compression": ((100,), "PNG files lose nothing"),
    "background": (("auto", "opaque"), "the background is drawn"),
    "moderation": (("auto",), "one policy is for all"),
    "input_fidelity": (("low",), "the picture is begun from"),
}
"""Fields that are taken at these values alone, and why."""

SAID = {
    "style": "the prompt alone decides on the style",
    "user": "the API key tells who asks",
    "safety_identifier": "the API key tells who asks",
}
"""Fields that change nothing here, and why: the answer says so."""


class Images(ClientModel):
    """POST /v1/images/generations of OpenAI. A field that it does not have is refused."""

    prompt: str
    model: str = Field(default="", description="the character's trigger; OpenAI's own names draw it too")
    n: int = 1
    size: str = Field(default="auto", description="WIDTHxHEIGHT or auto")
    quality: str = Field(default="auto", description=f"one of {', '.join(QUALITY)}")
    response_format: str = Field(default="b64_json", description="b64_json, or url: a link that ends")
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
    seed: int | None = Field(default=None, description="beyond OpenAI's: of the first image")
    negative_prompt: str = Field(default="", description="beyond OpenAI's: what it does not show")


def add_openai(app: FastAPI, server: GenerationService, owner: Caller) -> None:
    """Add the calls to an app; they answer when the images are there."""
    Owner = Annotated[str, Depends(owner)]

    async def answer(body: Images, owner: str, request: Request, **given: Any) -> dict[str, Any]:
        warnings = _checked(body, server)
        job, more = await generate_images(server, request, owner, _wanted(body, given), NAMES)
        settings = job.order.settings

        def one(image: Any) -> dict[str, str]:
            if body.response_format == "url":
                return {"url": f"{str(request.base_url).rstrip('/')}{server.link(job.id, image.seed)}"}
            return {"b64_json": server.image_base64(image)}

        return {
            "created": int(time.time()),
            "data": [{**one(each), "revised_prompt": job.order.prompt} for each in job.images if each.file],
            "output_format": "png",
            "size": f"{settings.width}x{settings.height}",
            "background": "opaque",
            **({"warnings": said} if (said := [*warnings, *more]) else {}),
        }

    @app.post("/v1/images/generations", tags=["compatible"])
    async def images(body: Images, owner: Owner, request: Request) -> dict[str, Any]:
        """Draw as OpenAI's images API does: `client.images.generate(prompt=..., n=2)`."""
        return await answer(body, owner, request)

    @app.post(
        "/v1/images/edits", tags=["compatible"], max_body_size=LARGEST_PICTURE, openapi_extra=_described()
    )
    async def edits(owner: Owner, request: Request) -> dict[str, Any]:
        """Begin from a picture as OpenAI's API does; with a mask, draw its transparent part anew.

        A form of `image` (a PNG, JPEG or WebP file), `mask` (a PNG file) and the fields of generations.
        """
        async with request.form(max_files=4, max_fields=40, max_part_size=LARGEST_PICTURE) as form:
            fields, given = await _edit(form)
        return await answer(fields, owner, request, **given)

    @app.get("/v1/models", tags=["compatible"])
    def models(owner: Owner) -> dict[str, Any]:
        """Say which model there is: the character."""
        return {"object": "list", "data": [_model(server)]}

    @app.get("/v1/models/{model}", tags=["compatible"])
    def model(model: str, owner: Owner) -> dict[str, Any]:
        """Say whether there is this model."""
        if model != server.about.trigger:
            raise HTTPException(404, f"there is no model {model!r}: {server.about.trigger}")
        return _model(server)


def _described() -> dict[str, Any]:
    """Return what the API's description says of the form of edits."""
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
    made = int((about.folder / "concept.json").stat().st_mtime)
    return {"id": about.trigger, "object": "model", "created": made, "owned_by": "valentina-pipeline"}


def _checked(body: Images, server: GenerationService) -> list[str]:
    """Return what the caller should know.

    Raises:
        InvalidRequestError: a field asks for what is not done here.
    """
    if unknown := body.unknown_fields():
        raise InvalidRequestError(unknown[0], f"is no field of this call: {', '.join(Images.model_fields)}")
    for field, (values, why) in ONLY.items():
        if getattr(body, field) not in values:
            raise InvalidRequestError(
                field, f"{getattr(body, field)!r} is not done here, {why}: {values[0]!r} or nothing"
            )
    if body.response_format not in ("url", "b64_json"):
        raise InvalidRequestError("response_format", f"{body.response_format!r} is neither url nor b64_json")
    warnings = [f"{field}: {why}" for field, why in SAID.items() if getattr(body, field)]
    about = server.about
    if body.model not in ("", about.trigger, about.name):
        if not body.model.startswith(THEIRS):
            raise InvalidRequestError("model", f"there is no {body.model!r}: {about.trigger}")
        warnings.append(f"model: {about.trigger} drew, {body.model} is not here")
    return warnings


def _wanted(body: Images, given: Mapping[str, Any]) -> Any:
    if body.quality and body.quality not in QUALITY:
        raise InvalidRequestError("quality", f"{body.quality!r} is not one of {', '.join(QUALITY)}")
    size: dict[str, str] = {}
    if body.size and body.size != "auto":
        width, cross, height = body.size.lower().partition("x")
        if not (cross and width.isdecimal() and height.isdecimal()):
            raise InvalidRequestError("size", f"{body.size!r} is neither WIDTHxHEIGHT nor auto")
        size = {"width": width, "height": height}
    values = {
        "prompt": body.prompt,
        "negative_prompt": body.negative_prompt,
        "count": body.n,
        "seed": body.seed,
    }
    return translate({**values, "preset": QUALITY.get(body.quality, ""), **size, **given}, NAMES)


async def _edit(form: FormData) -> tuple[Images, dict[str, Any]]:
    """Return the fields of a form, and its pictures as `Request` takes them."""
    fields: dict[str, Any] = {}
    pictures: dict[str, list[bytes]] = {}
    for name, value in form.multi_items():
        name = name.removesuffix("[]")
        if isinstance(value, UploadFile):
            pictures.setdefault(name, []).append(await value.read())
        elif name in fields:
            raise InvalidRequestError(name, "is there twice")
        else:
            fields[name] = value
    for name, files in pictures.items():
        if name not in ("image", "mask"):
            raise InvalidRequestError(name, "is no picture of this call: image, mask")
        if len(files) > 1:
            raise refuse(name, f"{len(files)} pictures, and one is taken")
    if "image" not in pictures:
        raise InvalidRequestError("image", "is missing: the picture to begin from, as a file")
    given: dict[str, Any] = {"image": base64.b64encode(pictures["image"][0]).decode()}
    if "mask" in pictures:
        given |= {"mask": _white_where_transparent(pictures["mask"][0]), "strength": 1.0}
    try:
        return Images.model_validate(fields), given
    except ValidationError as err:
        first = err.errors(include_url=False)[0]
        raise InvalidRequestError(".".join(map(str, first["loc"])), first["msg"]) from err


def _white_where_transparent(content: bytes) -> str:
    """Return OpenAI's mask as `Request` takes one."""
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as mask:
            if mask.width * mask.height > 4096 * 4096:
                raise InvalidRequestError(
                    "mask", f"{mask.width} x {mask.height} are more than 4096 x 4096 pixels"
                )
            if not mask.has_transparency_data:
                raise InvalidRequestError("mask", "has no transparent part: it is what is drawn anew")
            alpha = mask.convert("RGBA").getchannel("A")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as err:
        if isinstance(err, InvalidRequestError):
            raise
        raise InvalidRequestError("mask", f"cannot be read as a PNG file: {err}"[:200]) from err
    white = io.BytesIO()
    alpha.point(lambda level: 255 - level).save(white, "PNG")
    return base64.b64encode(white.getvalue()).decode()
