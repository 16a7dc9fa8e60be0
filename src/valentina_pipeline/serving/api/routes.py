"""Routes of the API: jobs, their events and images, verification, discovery and operation."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from typing import Annotated, Any, Literal

import psutil
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response, WebSocket, WebSocketDisconnect
from fastapi import Path as InPath
from fastapi.responses import FileResponse, PlainTextResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field
from starlette.websockets import WebSocketState

from valentina_pipeline.image.io.decode import RejectedImageError
from valentina_pipeline.integrations.bounded import ConcurrencyLimit
from valentina_pipeline.serving.api.errors import http_error_response, unavailable_response
from valentina_pipeline.serving.api.http_auth import identify
from valentina_pipeline.serving.api.service import GenerationService, Status, without_folders
from valentina_pipeline.serving.api.third_party import Caller
from valentina_pipeline.serving.inference.input_images import LARGEST_PICTURE, content
from valentina_pipeline.serving.inference.prompt_notation import InvalidRequestError
from valentina_pipeline.serving.inference.request import GenerationRequest, from_png_text
from valentina_pipeline.serving.jobs.database import UnavailableError
from valentina_pipeline.serving.jobs.decoders import Decoders
from valentina_pipeline.serving.jobs.job import Job
from valentina_pipeline.serving.marks.detect import InvalidImageError, detect_marks

MAX_STREAMS, MAX_STREAMS_PER_KEY = 128, 64
"""Event streams open at once: in all, and of one key."""

JobId = Annotated[str, InPath(pattern=r"^[0-9a-f]{32}$")]


class VerifyRequest(BaseModel):
    """An image file to check for provenance marks."""

    image: str = Field(description="a PNG, JPEG or WebP file as base64, or as a data: URL of it")


class VerifyResponse(BaseModel):
    """The marks of a file. Their absence proves nothing."""

    marks: list[str] = Field(description="one line per mark")
    request: GenerationRequest | None = Field(description="request of the image, if its PNG texts remain")


def owned_job_dependency(server: GenerationService, owner: Caller) -> Callable[..., Job]:
    """Return the dependency that gives the job in the path, 404 where it is not the caller's."""
    Owner = Annotated[str, Depends(owner)]

    def owned_job(job: JobId, owner: Owner) -> Job:
        found = server.desk.jobs.get(job)
        if found is None or found.owner != owner:
            raise HTTPException(404, f"job {job} not found")
        return found

    return owned_job


def add_jobs(app: FastAPI, server: GenerationService, owner: Caller, owned_job: Callable[..., Job]) -> None:
    """Add the calls that create, list, read and cancel jobs."""
    Owner = Annotated[str, Depends(owner)]
    Mine = Annotated[Job, Depends(owned_job)]

    @app.post("/v1/generations", status_code=202, tags=["jobs"], max_body_size=LARGEST_PICTURE)
    def generate(generation: GenerationRequest, owner: Owner, answer: Response) -> Status:
        """Queue a request and answer at once with the job's id and its position in the queue."""
        job = server.submit(owner, generation)
        answer.headers["location"] = f"/v1/jobs/{job.id}"
        return server.status(job)

    @app.get("/v1/jobs", tags=["jobs"])
    def jobs(owner: Owner, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> list[Status]:
        """List your jobs, the newest first. Jobs are kept for a day."""
        return [server.status(job) for job in server.desk.jobs.of(owner, limit)]

    @app.get("/v1/jobs/{job}", tags=["jobs"])
    def status(
        job: Mine,
        images: Annotated[Literal["url", "base64"], Query(description="URLs, or files as base64")] = "url",
    ) -> Status:
        """Return the status of a job."""
        return server.status(job, images == "base64")

    @app.delete("/v1/jobs/{job}", tags=["jobs"])
    def cancel(job: Mine) -> Status:
        """Cancel a job. A running one stops within one sampler step."""
        server.desk.cancel(job.id)
        return server.status(server.desk.jobs.get(job.id) or job)


def add_events(app: FastAPI, server: GenerationService, owned_job: Callable[..., Job]) -> None:
    """Add the streams of a job's events: server-sent events and WebSocket."""
    Mine = Annotated[Job, Depends(owned_job)]
    streams = ConcurrencyLimit(MAX_STREAMS, MAX_STREAMS_PER_KEY, "event streams are open")

    async def owned_stream(job: Mine) -> AsyncIterator[Job]:
        with streams.taken(job.owner):
            yield job

    @app.get("/v1/jobs/{job}/events", response_class=EventSourceResponse, tags=["jobs"])
    async def events(job: Annotated[Job, Depends(owned_stream)]) -> AsyncIterator[ServerSentEvent]:
        """Stream a job's progress and previews until it has ended: events `status` and `preview`."""
        async for kind, data in server.events(job.id):
            yield ServerSentEvent(event=kind, data=data)

    @app.websocket("/v1/jobs/{job}/ws")
    async def socket(websocket: WebSocket, job: JobId) -> None:
        """Stream the same events by WebSocket, as JSON texts with `event` and `data`."""
        try:
            caller = identify(server.gate, websocket)
            found = await asyncio.to_thread(server.desk.jobs.get, job)
            if found is None or found.owner != caller:
                raise HTTPException(404, "job not found")
            with streams.taken(caller):
                await websocket.accept()
                await _send_events(websocket, server.events(job))
        except HTTPException as err:
            await websocket.send_denial_response(http_error_response(err))
        except UnavailableError as err:
            if websocket.application_state == WebSocketState.CONNECTING:
                await websocket.send_denial_response(unavailable_response(err))
            else:
                await websocket.close(code=1013, reason="try again later")


def add_images(app: FastAPI, server: GenerationService, owner: Caller) -> None:
    """Add the call that returns a job's image, by key or by a signed link."""

    @app.get("/v1/jobs/{job}/images/{seed}.png", response_class=FileResponse, tags=["jobs"])
    async def image(
        job: JobId, seed: int, request: Request, expires: int | None = None, signature: str = ""
    ) -> FileResponse:
        """Return an image as a PNG file with its request in the metadata. A signed link needs no key."""
        found = await asyncio.to_thread(server.desk.jobs.get, job)
        if expires is not None:
            if not server.is_valid_link(request.url.path, expires, signature):
                raise HTTPException(403, "the link has expired or its signature is invalid")
        elif found is None or found.owner != await owner(request):
            found = None
        for candidate in found.images if found else ():
            if candidate.seed == seed and candidate.file and server.desk.picture(candidate).is_file():
                return FileResponse(server.desk.picture(candidate), media_type="image/png")
        raise HTTPException(404, f"job {job} has no image of seed {seed}")


def add_verification(app: FastAPI, server: GenerationService, owner: Caller) -> None:
    """Add the call that looks for provenance marks in an image."""
    Owner = Annotated[str, Depends(owner)]

    @app.post("/v1/verify", tags=["provenance"], max_body_size=LARGEST_PICTURE)
    async def verify(body: VerifyRequest, owner: Owner) -> VerifyResponse:
        """Return the provenance marks that a file still has, and the request that generated it."""
        return await asyncio.to_thread(_verify, server.decoders, owner, body.image)


def add_discovery(app: FastAPI, server: GenerationService, owner: Caller) -> None:
    """Add the calls that list the character, the scenes and the LoRAs."""
    Owner = Annotated[str, Depends(owner)]

    @app.get("/v1/characters", tags=["discovery"])
    def characters(owner: Owner) -> list[dict[str, Any]]:
        """Return the character of the package."""
        about = server.about
        return [
            {
                "name": about.name,
                "trigger": about.trigger,
                "class_word": about.class_word,
                "lora_sha256": about.lora_hash,
                "base_sha256": about.base_hash,
                "rights_records": about.records,
                "identity": about.identity
                and {"gate": about.identity.gate, "ceiling": about.identity.ceiling},
            }
        ]

    @app.get("/v1/scenes", tags=["discovery"])
    def scenes(owner: Owner) -> list[dict[str, str]]:
        """List the scenes of the library."""
        return [{"name": name, **vars(scene)} for name, scene in server.about.scenes.items()]

    @app.get("/v1/loras", tags=["discovery"])
    def loras(owner: Owner) -> list[dict[str, Any]]:
        """List the LoRAs besides the character's."""
        return [
            {"name": name, **adapter.model_dump(exclude={"file"})} for name, adapter in server.shelf.items()
        ]


def add_capabilities(app: FastAPI, server: GenerationService, owner: Caller) -> None:
    """Add the call that says which requests the server can serve."""
    Owner = Annotated[str, Depends(owner)]

    @app.get("/v1/capabilities", tags=["discovery"])
    def capabilities(owner: Owner) -> dict[str, Any]:
        """Return the presets, the bounds of each request field, and the engine."""
        about = server.about
        return {
            "presets": {name: vars(preset) for name, preset in about.presets.items()},
            "default_preset": about.default_preset,
            "request": GenerationRequest.model_json_schema(),
            "controls": sorted(server.controls),
            "max_pixels": 4 * about.base.resolution**2,
            "device": server.desk.ready,
            "engine": server.desk.engine,
            "memory": server.desk.memory,
        }


def add_operation(app: FastAPI, server: GenerationService) -> None:
    """Add the calls for operation: health, readiness and metrics. They need no key."""

    @app.get("/healthz", tags=["operation"])
    async def alive() -> dict[str, str]:
        """Report that the server answers."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["operation"])
    async def ready(answer: Response) -> dict[str, str]:
        """Report whether requests are accepted and processed; 503 with the reason where they are not."""
        if server.desk.ready and not server.desk.trouble:
            state = {"status": "ready", "device": server.desk.ready, "engine": server.desk.engine}
            return {**state, "note": server.desk.note} if server.desk.note else state
        answer.status_code = 503
        return {"status": "not ready", "reason": without_folders(server.desk.trouble or server.desk.broken)}

    @app.get("/metrics", response_class=PlainTextResponse, tags=["operation"])
    def metrics() -> Response:
        """Return the metrics for Prometheus."""
        with suppress(UnavailableError):  # the other metrics matter all the more
            server.metrics.queue_depth.set(server.desk.jobs.waiting())
        process = psutil.Process()
        server.metrics.memory.set(sum(map(_resident_bytes, (process, *process.children(recursive=True)))))
        return Response(generate_latest(server.metrics.registry), media_type=CONTENT_TYPE_LATEST)


async def _send_events(websocket: WebSocket, events: AsyncGenerator[tuple[str, Any]]) -> None:
    """Send events until they end or the client disconnects; without events only listening shows that."""

    async def send() -> None:
        with suppress(WebSocketDisconnect):
            async for kind, data in events:
                payload = data.model_dump() if isinstance(data, BaseModel) else data
                await websocket.send_json({"event": kind, "data": payload})
            await websocket.close()

    async def listen() -> None:
        while (await websocket.receive())["type"] != "websocket.disconnect":
            pass  # clients send nothing

    async with aclosing(events):
        tasks = [asyncio.ensure_future(work()) for work in (send, listen)]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def _verify(decoders: Decoders, owner: str, image: str) -> VerifyResponse:
    try:
        detected = decoders.run(owner, "image", detect_marks, content(image))
    except (RejectedImageError, InvalidImageError) as err:
        raise InvalidRequestError("image", str(err)) from err
    try:
        request = from_png_text(detected.texts)
    except InvalidRequestError:
        request = None
    return VerifyResponse(marks=detected.marks, request=request)


def _resident_bytes(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0
