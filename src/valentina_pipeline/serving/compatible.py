"""Calls that clients of OpenAI's images API and of A1111's WebUI make, answered with their own words."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel, Field

from valentina_pipeline.serving.job import Job
from valentina_pipeline.serving.server import Server, without_folders
from valentina_pipeline.serving.studio.pictures import LARGEST_PICTURE
from valentina_pipeline.serving.studio.request import LONGEST_PROMPT, BadRequest, asked
from valentina_pipeline.serving.studio.request import Request as Wanted

QUALITY = {
    "low": "draft",
    "medium": "standard",
    "high": "high",
    "standard": "standard",
    "hd": "high",
    "auto": "",
}
"""OpenAI's word -> preset."""

SAMPLERS = {
    "Euler": "euler",
    "Euler a": "euler_a",
    "DPM++ 2M": "dpm++",
    "DPM++ 2M Karras": "dpm++_karras",
    "DDIM": "ddim",
    "LCM": "lcm",
    "Automatic": "base",
}
"""A1111's name -> ours."""


class ImagesRequest(BaseModel):
    """POST /v1/images/generations of OpenAI; what it has beside these is ignored."""

    prompt: str
    n: int | None = 1
    size: str | None = Field(default=None, description="WIDTHxHEIGHT or auto")
    quality: str | None = None
    response_format: Literal["url", "b64_json"] | None = None
    seed: int | None = Field(default=None, description="beyond OpenAI's: of the first image")


class Txt2Img(BaseModel):
    """POST /sdapi/v1/txt2img of A1111; what it has beside these is ignored."""

    prompt: str = Field(max_length=LONGEST_PROMPT)
    negative_prompt: str = ""
    seed: int = Field(default=-1, description="-1: random")
    steps: int | None = None
    cfg_scale: float | None = None
    width: int | None = None
    height: int | None = None
    sampler_name: str | None = None
    scheduler: str | None = None
    batch_size: int = 1
    n_iter: int = 1


class Img2Img(Txt2Img):
    """POST /sdapi/v1/img2img of A1111; what it has beside these is ignored."""

    init_images: list[str] = Field(min_length=1, description="base64; the first one is begun from")
    mask: str | None = None
    denoising_strength: float = 0.75


def add_compatible(app: FastAPI, server: Server, owner: Callable[..., Awaitable[str]]) -> None:
    """Add the calls to an app; they answer when the images are there."""
    Owner = Annotated[str, Depends(owner)]

    @app.post("/v1/images/generations", tags=["compatible"])
    async def images(body: ImagesRequest, owner: Owner, request: Request) -> dict[str, Any]:
        """Draw as OpenAI's images API does: `client.images.generate(prompt=..., n=2)`."""
        job = await _ended(server, request, owner, _of_openai(body))
        links = body.response_format == "url"
        data = [
            {"url": f"{request.base_url}v1/jobs/{job.id}/images/{each.seed}.png"}
            if links
            else {"b64_json": server.embedded(each)}
            for each in job.images
            if each.file
        ]
        return {
            "created": int(time.time()),
            "data": [{**each, "revised_prompt": job.order.prompt} for each in data],
        }

    @app.post("/sdapi/v1/txt2img", tags=["compatible"])
    async def txt2img(body: Txt2Img, owner: Owner, request: Request) -> dict[str, Any]:
        """Draw as A1111's WebUI does."""
        return await a1111(body, owner, request)

    @app.post("/sdapi/v1/img2img", tags=["compatible"], max_body_size=LARGEST_PICTURE)
    async def img2img(body: Img2Img, owner: Owner, request: Request) -> dict[str, Any]:
        """Begin from a picture as A1111's WebUI does; with a mask, draw its white part anew."""
        given = {"image": body.init_images[0], "mask": body.mask, "strength": body.denoising_strength}
        return await a1111(body, owner, request, **given)

    async def a1111(body: Txt2Img, owner: str, request: Request, **given: Any) -> dict[str, Any]:
        job = await _ended(server, request, owner, _of_a1111(body, **given))
        drawn = [each for each in job.images if each.file]
        info = {
            "prompt": job.order.prompt,
            "negative_prompt": job.order.negative_prompt,
            "seed": job.order.seeds[0],
            "all_seeds": [each.seed for each in drawn],
            "steps": job.order.settings.steps,
            "cfg_scale": job.order.settings.guidance,
            "width": job.order.settings.width,
            "height": job.order.settings.height,
        }
        return {
            "images": [server.embedded(each) for each in drawn],
            "parameters": body.model_dump(exclude={"init_images", "mask"}),
            "info": json.dumps(info),
        }

    @app.get("/sdapi/v1/samplers", tags=["compatible"])
    def samplers(owner: Owner) -> list[dict[str, Any]]:
        """Say which samplers there are."""
        return [{"name": name, "aliases": [ours], "options": {}} for name, ours in SAMPLERS.items()]

    @app.get("/sdapi/v1/sd-models", tags=["compatible"])
    def models(owner: Owner) -> list[dict[str, Any]]:
        """Say which model there is."""
        about = server.about
        return [
            {
                "title": about.name,
                "model_name": about.trigger,
                "sha256": about.base_hash,
                "hash": about.base_hash[:10],
            }
        ]


async def _ended(server: Server, request: Request, owner: str, wanted: Wanted) -> Job:
    """Return the job of a request once it is done.

    Raises:
        HTTPException: it failed, or nothing of it may be shown.
    """
    accepted = await asyncio.to_thread(server.submit, owner, wanted)  # it writes to the database
    job = await server.ended(accepted, request.is_disconnected)
    if job.state == "failed":
        raise HTTPException(500, without_folders(job.error))
    if not any(each.file for each in job.images):
        said = "; ".join(sorted({each.refused for each in job.images})) or "it was cancelled"
        raise HTTPException(400, f"there is no image to show: {said}")
    return job


def _of_openai(body: ImagesRequest) -> Wanted:
    if body.quality and body.quality not in QUALITY:
        raise BadRequest("quality", f"{body.quality!r} is not one of {', '.join(QUALITY)}")
    size: dict[str, Any] = {}
    if body.size and body.size != "auto":
        width, _, height = body.size.partition("x")
        size = {"width": width, "height": height}
    return asked(
        {
            "prompt": body.prompt,
            "count": 1 if body.n is None else body.n,
            "seed": body.seed,
            "preset": QUALITY[body.quality] if body.quality else "",
            **size,
        }
    )


def _of_a1111(body: Txt2Img, **given: Any) -> Wanted:
    name = body.sampler_name
    if name and body.scheduler and body.scheduler.casefold() == "karras":
        name = f"{name} Karras"
    if name and name not in SAMPLERS:
        raise BadRequest("sampler_name", f"{name!r} is not one of {', '.join(SAMPLERS)}")
    return asked(
        {
            "prompt": body.prompt,
            "negative_prompt": body.negative_prompt,
            "seed": None if body.seed == -1 else body.seed,
            "steps": body.steps,
            "guidance": body.cfg_scale,
            "width": body.width,
            "height": body.height,
            "scheduler": SAMPLERS[name] if name else None,
            "count": body.batch_size * body.n_iter,
            **given,
        }
    )
