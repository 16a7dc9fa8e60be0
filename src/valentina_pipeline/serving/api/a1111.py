"""A1111's WebUI: the calls that its clients make, and what they read in the answers."""

import base64
import json
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import psutil
from fastapi import Body, Depends, FastAPI, Query, Request

from valentina_pipeline.serving.api import a1111_fields as fields
from valentina_pipeline.serving.api.service import GenerationService
from valentina_pipeline.serving.api.third_party import Caller, generate_images
from valentina_pipeline.serving.inference.input_images import LARGEST_PICTURE
from valentina_pipeline.serving.jobs.job import Job

NOTHING = ("sd-vae", "hypernetworks", "face-restorers", "realesrgan-models", "latent-upscale-modes")
"""Lists that clients ask for and that are empty here."""


class Watched:
    """The jobs that each caller of these calls waits for: what `progress` and `interrupt` are about."""

    def __init__(self, server: GenerationService) -> None:
        self._server = server
        self._jobs: dict[str, list[str]] = defaultdict(list)

    @contextmanager
    def waiting(self, owner: str, job: str) -> Iterator[None]:
        """Have a job among its caller's, and previews made of it."""
        self._jobs[owner].append(job)
        try:
            with self._server.desk.watching(job):
                yield
        finally:
            self._jobs[owner].remove(job)

    def progress(self, owner: str, picture: bool) -> dict[str, Any]:
        """Return how far a caller's first job is that is being drawn, as A1111 says it."""
        jobs = list(self._jobs[owner])
        drawing = [(job, found) for job in jobs if (found := self._server.desk.progress(job))]
        job, now = drawing[0] if drawing else (jobs[0] if jobs else "", None)
        done, total = (now.done, now.total) if now else (0, 0)
        preview = base64.b64encode(now.preview).decode() if now and now.preview and picture else None
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
            "eta_relative": (now.seconds_left if now else None) or 0.0,
            "state": state,
            "current_image": preview,
            "textinfo": None,
        }

    def interrupt(self, owner: str) -> None:
        """Cancel a caller's jobs that are being drawn, or all that wait where none is."""
        jobs = list(self._jobs[owner])
        for job in [job for job in jobs if self._server.desk.progress(job)] or jobs:
            self._server.desk.cancel(job)


def add_a1111(app: FastAPI, server: GenerationService, owner: Caller) -> None:
    """Add the calls to an app; txt2img and img2img answer when the images are there."""
    watched = Watched(server)
    _add_drawing(app, server, owner, watched)
    _add_control(app, server, owner, watched)
    _add_lists(app, server, owner)


def _add_drawing(app: FastAPI, server: GenerationService, owner: Caller, watched: Watched) -> None:
    Owner = Annotated[str, Depends(owner)]

    async def answer(body: fields.Txt2Img, owner: str, request: Request) -> dict[str, Any]:
        wanted, warnings = fields.parse_request(body, server.about)
        job, more = await generate_images(server, request, owner, wanted, fields.names(body), watched.waiting)
        kept = [each for each in job.images if each.file]
        said = [*warnings, *more]
        return {
            "images": [server.image_base64(each) for each in kept] if body.send_images else [],
            "parameters": body.model_dump(exclude={"init_images", "mask"}, exclude_none=True),
            "info": json.dumps(_info(job, server, body, said)),
            **({"warnings": said} if said else {}),
        }

    @app.post("/sdapi/v1/txt2img", tags=["compatible"])
    async def txt2img(body: fields.Txt2Img, owner: Owner, request: Request) -> dict[str, Any]:
        """Draw as A1111's WebUI does."""
        return await answer(body, owner, request)

    @app.post("/sdapi/v1/img2img", tags=["compatible"], max_body_size=LARGEST_PICTURE)
    async def img2img(body: fields.Img2Img, owner: Owner, request: Request) -> dict[str, Any]:
        """Begin from a picture as A1111's WebUI does; with a mask, draw its white part anew."""
        return await answer(body, owner, request)


def _add_control(app: FastAPI, server: GenerationService, owner: Caller, watched: Watched) -> None:
    Owner = Annotated[str, Depends(owner)]

    @app.get("/sdapi/v1/progress", tags=["compatible"])
    def progress(owner: Owner, skip_current_image: Annotated[bool, Query()] = False) -> dict[str, Any]:
        """Say how far your txt2img or img2img is."""
        return watched.progress(owner, not skip_current_image)

    @app.post("/sdapi/v1/interrupt", tags=["compatible"])
    def interrupt(owner: Owner) -> dict[str, Any]:
        """Cancel your txt2img or img2img that is being drawn."""
        watched.interrupt(owner)
        return {}

    @app.get("/sdapi/v1/options", tags=["compatible"])
    def options(owner: Owner) -> dict[str, Any]:
        """Say what A1111's settings are here."""
        return fields.options(server.about)

    @app.post("/sdapi/v1/options", tags=["compatible"])
    def set_options(owner: Owner, given: Annotated[dict[str, Any], Body()]) -> None:
        """Take settings that are as they are here; others are refused."""
        fields.refuse_other_options(given, server.about)

    @app.post("/sdapi/v1/refresh-checkpoints", tags=["compatible"])
    @app.post("/sdapi/v1/refresh-loras", tags=["compatible"])
    def refresh(owner: Owner) -> None:
        """Do nothing: what there is was read at the start and stays."""

    @app.get("/sdapi/v1/cmd-flags", tags=["compatible"])
    def flags(owner: Owner) -> dict[str, Any]:
        """Say how A1111 would have been started to be this."""
        return {"api": True, "nowebui": True}

    @app.get("/sdapi/v1/memory", tags=["compatible"])
    def memory(owner: Owner) -> dict[str, Any]:
        """Say how much memory there is, in bytes; the process that draws says of its own in capabilities."""
        ram = psutil.virtual_memory()
        return {
            "ram": {"free": ram.available, "used": ram.total - ram.available, "total": ram.total},
            "cuda": {"error": "see /v1/capabilities"},
        }


def _add_lists(app: FastAPI, server: GenerationService, owner: Caller) -> None:
    Owner = Annotated[str, Depends(owner)]

    @app.get("/sdapi/v1/samplers", tags=["compatible"])
    def samplers(owner: Owner) -> list[dict[str, Any]]:
        """Say which samplers there are."""
        return [
            {"name": name, "aliases": [ours, *more], "options": {}}
            for name, (ours, more) in fields.SAMPLERS.items()
        ]

    @app.get("/sdapi/v1/schedulers", tags=["compatible"])
    def schedulers(owner: Owner) -> list[dict[str, Any]]:
        """Say which schedules of steps there are; Karras's goes with DPM++ 2M."""
        more = {"aliases": None, "default_rho": -1, "need_inner_model": False}
        return [{"name": name, "label": label, **more} for name, label in fields.SCHEDULERS.items()]

    @app.get("/sdapi/v1/sd-models", tags=["compatible"])
    def models(owner: Owner) -> list[dict[str, Any]]:
        """Say which model there is."""
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
        """Say which LoRAs a prompt may name as <lora:name:weight>."""
        own = {server.about.trigger: server.about.trigger} if server.about.has_lora else {}
        names = {**own, **{name: adapter.trigger or name for name, adapter in server.shelf.items()}}
        return [
            {"name": name, "alias": alias, "path": f"{name}.safetensors", "metadata": {}}
            for name, alias in names.items()
        ]

    @app.get("/sdapi/v1/prompt-styles", tags=["compatible"])
    def styles(owner: Owner) -> list[dict[str, Any]]:
        """Say which scenes the library has."""
        scenes = server.about.scenes.items()
        return [{"name": name, "prompt": scene.words, "negative_prompt": ""} for name, scene in scenes]

    @app.get("/sdapi/v1/upscalers", tags=["compatible"])
    def upscalers(owner: Owner) -> list[dict[str, Any]]:
        """Say that there is no upscaler."""
        return [{"name": "None", "model_name": None, "model_path": None, "model_url": None, "scale": 1}]

    @app.get("/sdapi/v1/embeddings", tags=["compatible"])
    def embeddings(owner: Owner) -> dict[str, Any]:
        """Say which embeddings a prompt may name: the character's own is put in by its trigger."""
        return {"loaded": {}, "skipped": {}}

    @app.get("/sdapi/v1/scripts", tags=["compatible"])
    def scripts(owner: Owner) -> dict[str, Any]:
        """Say that there are no scripts."""
        return {"txt2img": [], "img2img": []}

    def nothing(owner: Owner) -> list[Any]:
        """Say that there are none."""
        return []

    for name in NOTHING:
        app.add_api_route(f"/sdapi/v1/{name}", nothing, tags=["compatible"], operation_id=f"list_{name}")


def _info(job: Job, server: GenerationService, body: fields.Txt2Img, warnings: list[str]) -> dict[str, Any]:
    """Return what A1111's clients read in `info`."""
    order, about = job.order, server.about
    settings, seeds = order.settings, [each.seed for each in job.images if each.file]
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
        "sampler_name": fields.name_of(settings.scheduler),
        "cfg_scale": settings.guidance,
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
