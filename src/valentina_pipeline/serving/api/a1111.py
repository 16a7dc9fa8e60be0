"""API of A1111's WebUI: the calls that its clients use, and the responses that they read."""

import base64
import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import psutil
from fastapi import Body, Depends, FastAPI, Query, Request

from valentina_pipeline.domain.samplers import SAMPLERS
from valentina_pipeline.serving.api import a1111_fields as fields
from valentina_pipeline.serving.api.service import GenerationService
from valentina_pipeline.serving.api.third_party import Caller, generate_images
from valentina_pipeline.serving.inference.input_images import LARGEST_PICTURE
from valentina_pipeline.serving.jobs.job import Job

EMPTY_LISTS = ("sd-vae", "hypernetworks", "face-restorers", "realesrgan-models", "latent-upscale-modes")
"""Lists that clients request and that are always empty."""


class WaitingJobs:
    """Jobs with a waiting client, by owner: `progress` and `interrupt` act on them."""

    def __init__(self, server: GenerationService) -> None:
        self._server = server
        self._jobs: dict[str, list[str]] = defaultdict(list)

    @contextmanager
    def waiting(self, owner: str, job: str) -> Iterator[None]:
        """Register a job of an owner inside the block and generate previews of it."""
        self._jobs[owner].append(job)
        try:
            with self._server.desk.watching(job):
                yield
        finally:
            self._jobs[owner].remove(job)

    def progress(self, owner: str, with_preview: bool) -> dict[str, Any]:
        """Return the progress of an owner's first running job, in A1111's form."""
        jobs = list(self._jobs[owner])
        running = [(job, progress) for job in jobs if (progress := self._server.desk.progress(job))]
        job, now = running[0] if running else (jobs[0] if jobs else "", None)
        done, total = (now.done, now.total) if now else (0, 0)
        preview = base64.b64encode(now.preview).decode() if now and now.preview and with_preview else None
        state = {
            "skipped": False,
            "interrupted": False,
            "stopping_generation": False,
            "job": job,
            "job_count": len(jobs),
            "job_timestamp": "0",
            "job_no": 0,
            "sampling_step": done,
            "sampling_steps": total,
        }
        return {
            "progress": done / total if total else 0.0,
            "eta_relative": (now.eta_seconds if now else None) or 0.0,
            "state": state,
            "current_image": preview,
            "textinfo": None,
        }

    def interrupt(self, owner: str) -> None:
        """Cancel an owner's running jobs, or all waiting ones where none is running."""
        jobs = list(self._jobs[owner])
        for job in [job for job in jobs if self._server.desk.progress(job)] or jobs:
            self._server.desk.cancel(job)


def add_a1111(app: FastAPI, server: GenerationService, owner: Caller) -> None:
    """Add the calls to an app; txt2img and img2img answer once the images are ready."""
    watched = WaitingJobs(server)
    _add_generation(app, server, owner, watched)
    _add_control(app, server, owner, watched)
    _add_lists(app, server, owner)


def _add_generation(app: FastAPI, server: GenerationService, owner: Caller, watched: WaitingJobs) -> None:
    Owner = Annotated[str, Depends(owner)]

    async def answer(body: fields.Txt2Img, owner: str, request: Request) -> dict[str, Any]:
        generation, warnings = fields.parse_request(body, server.about)
        job, more = await generate_images(
            server, request, owner, generation, fields.names(body), watched.waiting
        )
        images = [image for image in job.images if image.file]
        all_warnings = [*warnings, *more]
        return {
            "images": [server.image_base64(image) for image in images] if body.send_images else [],
            "parameters": body.model_dump(exclude={"init_images", "mask"}, exclude_none=True),
            "info": json.dumps(_info(job, server, body, all_warnings)),
            **({"warnings": all_warnings} if all_warnings else {}),
        }

    @app.post("/sdapi/v1/txt2img", tags=["compatible"])
    async def txt2img(body: fields.Txt2Img, owner: Owner, request: Request) -> dict[str, Any]:
        """Generate images as A1111's WebUI does."""
        return await answer(body, owner, request)

    @app.post("/sdapi/v1/img2img", tags=["compatible"], max_body_size=LARGEST_PICTURE)
    async def img2img(body: fields.Img2Img, owner: Owner, request: Request) -> dict[str, Any]:
        """Generate from an init image as A1111's WebUI does; with a mask, regenerate its white part."""
        return await answer(body, owner, request)


def _add_control(app: FastAPI, server: GenerationService, owner: Caller, watched: WaitingJobs) -> None:
    Owner = Annotated[str, Depends(owner)]

    @app.get("/sdapi/v1/progress", tags=["compatible"])
    def progress(owner: Owner, skip_current_image: Annotated[bool, Query()] = False) -> dict[str, Any]:
        """Return the progress of your txt2img or img2img."""
        return watched.progress(owner, not skip_current_image)

    @app.post("/sdapi/v1/interrupt", tags=["compatible"])
    def interrupt(owner: Owner) -> dict[str, Any]:
        """Cancel your running txt2img or img2img."""
        watched.interrupt(owner)
        return {}

    @app.get("/sdapi/v1/options", tags=["compatible"])
    def options(owner: Owner) -> dict[str, Any]:
        """Return the values of A1111's settings."""
        return fields.options(server.about)

    @app.post("/sdapi/v1/options", tags=["compatible"])
    def set_options(owner: Owner, given: Annotated[dict[str, Any], Body()]) -> None:
        """Accept settings with their current values; reject all others."""
        fields.refuse_other_options(given, server.about)

    @app.post("/sdapi/v1/refresh-checkpoints", tags=["compatible"])
    @app.post("/sdapi/v1/refresh-loras", tags=["compatible"])
    def refresh(owner: Owner) -> None:
        """Do nothing: checkpoints and LoRAs are read at startup only."""

    @app.get("/sdapi/v1/cmd-flags", tags=["compatible"])
    def flags(owner: Owner) -> dict[str, Any]:
        """Return A1111's command-line flags that match this server."""
        return {"api": True, "nowebui": True}

    @app.get("/sdapi/v1/memory", tags=["compatible"])
    def memory(owner: Owner) -> dict[str, Any]:
        """Return the machine's memory in bytes. /v1/capabilities describes that of the worker process."""
        ram = psutil.virtual_memory()
        return {
            "ram": {"free": ram.available, "used": ram.total - ram.available, "total": ram.total},
            "cuda": {"error": "see /v1/capabilities"},
        }


def _add_lists(app: FastAPI, server: GenerationService, owner: Caller) -> None:
    Owner = Annotated[str, Depends(owner)]

    @app.get("/sdapi/v1/samplers", tags=["compatible"])
    def samplers(owner: Owner) -> list[dict[str, Any]]:
        """List the samplers."""
        return [
            {"name": sampler.a1111[0], "aliases": [name, *sampler.a1111[1:]], "options": {}}
            for name, sampler in SAMPLERS.items()
        ]

    @app.get("/sdapi/v1/schedulers", tags=["compatible"])
    def schedulers(owner: Owner) -> list[dict[str, Any]]:
        """List the step schedules; Karras requires DPM++ 2M."""
        more = {"aliases": None, "default_rho": -1, "need_inner_model": False}
        return [{"name": name, "label": label, **more} for name, label in fields.SCHEDULERS.items()]

    @app.get("/sdapi/v1/sd-models", tags=["compatible"])
    def models(owner: Owner) -> list[dict[str, Any]]:
        """List the only model."""
        about = server.about
        title, digest = about.name, about.base_hash
        return [
            {
                "title": title,
                "model_name": about.trigger,
                "sha256": digest,
                "hash": digest[:10],
                "filename": about.trigger,
                "config": None,
            }
        ]

    @app.get("/sdapi/v1/loras", tags=["compatible"])
    def loras(owner: Owner) -> list[dict[str, Any]]:
        """List the LoRAs that a prompt may name as <lora:name:weight>."""
        own = {server.about.trigger: server.about.trigger} if server.about.has_lora else {}
        names = {**own, **{name: adapter.trigger or name for name, adapter in server.shelf.items()}}
        return [
            {"name": name, "alias": alias, "path": f"{name}.safetensors", "metadata": {}}
            for name, alias in names.items()
        ]

    @app.get("/sdapi/v1/prompt-styles", tags=["compatible"])
    def styles(owner: Owner) -> list[dict[str, Any]]:
        """List the scenes of the library."""
        scenes = server.about.scenes.items()
        return [{"name": name, "prompt": scene.words, "negative_prompt": ""} for name, scene in scenes]

    @app.get("/sdapi/v1/upscalers", tags=["compatible"])
    def upscalers(owner: Owner) -> list[dict[str, Any]]:
        """Return the entry "None": upscalers are not supported."""
        return [{"name": "None", "model_name": None, "model_path": None, "model_url": None, "scale": 1}]

    @app.get("/sdapi/v1/embeddings", tags=["compatible"])
    def embeddings(owner: Owner) -> dict[str, Any]:
        """Return no embeddings: the trigger inserts the character's."""
        return {"loaded": {}, "skipped": {}}

    @app.get("/sdapi/v1/scripts", tags=["compatible"])
    def scripts(owner: Owner) -> dict[str, Any]:
        """Return no scripts: they are not supported."""
        return {"txt2img": [], "img2img": []}

    def nothing(owner: Owner) -> list[Any]:
        """Return an empty list."""
        return []

    for name in EMPTY_LISTS:
        app.add_api_route(f"/sdapi/v1/{name}", nothing, tags=["compatible"], operation_id=f"list_{name}")


def _info(job: Job, server: GenerationService, body: fields.Txt2Img, warnings: list[str]) -> dict[str, Any]:
    """Return the content of `info`, which A1111's clients read."""
    order, about = job.order, server.about
    settings, seeds = order.settings, [image.seed for image in job.images if image.file]
    return {
        "prompt": order.prompt,
        "all_prompts": [order.prompt] * len(seeds),
        "negative_prompt": order.negative_prompt,
        "all_negative_prompts": [order.negative_prompt] * len(seeds),
        "seed": seeds[0],
        "all_seeds": seeds,
        "subseed": seeds[0],
        "all_subseeds": seeds,
        "subseed_strength": 0,
        "width": settings.width,
        "height": settings.height,
        "sampler_name": SAMPLERS[settings.scheduler].a1111[0],
        "cfg_scale": settings.guidance_scale,
        "steps": settings.steps,
        "batch_size": body.batch_size,
        "restore_faces": False,
        "sd_model_name": about.trigger,
        "sd_model_hash": about.base_hash[:10],
        "sd_vae_name": None,
        "denoising_strength": settings.inputs.strength if settings.inputs.image else None,
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": [fields.infotext(order, seed, about) for seed in seeds],
        "styles": body.styles,
        "clip_skip": 1,
        "warnings": warnings,
    }
