"""The API: jobs that are accepted at once, watched, cancelled and fetched; who asks, and how much."""

import asyncio
import base64
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from functools import partial
from typing import Annotated, Any, Literal

import psutil
from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response, WebSocket, WebSocketDisconnect
from fastapi import Path as InPath
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from fastapi.security import APIKeyHeader, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi_offline import FastAPIOffline
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketState

from valentina_pipeline.image.io.decode import RejectedImageError
from valentina_pipeline.image.safety.policy.judge import UnsafePromptError
from valentina_pipeline.integrations.bounded import BodyLimits, ConcurrencyLimit
from valentina_pipeline.serving.api.a1111 import add_a1111
from valentina_pipeline.serving.api.auth import ApiKeyAuth, RateLimitError
from valentina_pipeline.serving.api.openai import add_openai
from valentina_pipeline.serving.api.service import GenerationService, Status, without_folders
from valentina_pipeline.serving.api.web import Enclosed, add_page
from valentina_pipeline.serving.inference.input_images import LARGEST_PICTURE, content
from valentina_pipeline.serving.inference.package import InvalidPackageError, RightsUnknownError
from valentina_pipeline.serving.inference.prompt_notation import InvalidRequestError
from valentina_pipeline.serving.inference.request import GenerationRequest as Wanted
from valentina_pipeline.serving.inference.request import from_png_text
from valentina_pipeline.serving.jobs.database import UnavailableError
from valentina_pipeline.serving.jobs.decoders import Decoders
from valentina_pipeline.serving.jobs.dispatcher import REST, Dispatcher
from valentina_pipeline.serving.jobs.job import Job
from valentina_pipeline.serving.jobs.metrics import Metrics
from valentina_pipeline.serving.jobs.store import QueueFullError
from valentina_pipeline.serving.marks.detect import InvalidImageError, detect_marks

logger = logging.getLogger(__name__)

LARGEST_BODY = 1 << 20
"""Bytes of a request without pictures."""

MOST_STREAMS, MOST_STREAMS_EACH = 128, 64
"""Streams of events that are open at once: in all, and of one key."""

ASK_AGAIN = 10.0
"""Seconds until it may be known whether a package may draw, where that cannot be asked now."""

HOSTS = ["127.0.0.1", "localhost", "[::1]"]

JobId = Annotated[str, InPath(pattern=r"^[0-9a-f]{32}$")]


class VerifyRequest(BaseModel):
    """A file to look for marks in."""

    image: str = Field(description="a PNG, JPEG or WebP file as base64, or as a data: URL of it")


class VerifyResponse(BaseModel):
    """What a file says of itself; that it says nothing proves nothing."""

    marks: list[str] = Field(description="a line for each mark that is found")
    request: Wanted | None = Field(description="what it was drawn by, where its texts are left")


class LatencyMiddleware:
    """Measures how long answers take to begin; those that stream go on for as long as a job does."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI has it."""
        begun = time.perf_counter()

        async def send_timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.seconds.labels("answer").observe(time.perf_counter() - begun)
            await send(message)

        await self._app(scope, receive, send_timed)


def create_app(server: GenerationService) -> FastAPI:
    """Return the API of a server; it starts and stops the desk with itself."""

    @asynccontextmanager
    async def living(app: FastAPI) -> AsyncIterator[None]:
        server.desk.start()
        yield
        await asyncio.to_thread(server.desk.stop)
        await asyncio.to_thread(server.decoders.close)

    # its scripts and styles come from here; ReDoc's would not all
    app = FastAPIOffline(
        redoc_url=None,
        static_url="/docs/files",
        title=f"Valentina Pipeline: {server.about.name}",
        description="Draws a published character. Every image is marked as generated.",
        lifespan=living,
        max_body_size=LARGEST_PICTURE,
        swagger_ui_parameters={"validatorUrl": None},
    )
    app.router.max_body_size = LARGEST_BODY  # of routes that do not say otherwise
    bound = {"largest": LARGEST_PICTURE, "most": 2 * LARGEST_PICTURE}
    app.add_middleware(BodyLimits, admit=partial(_asking, server.gate), refuse=_refusal, **bound)
    if server.gate.open:  # a page of another site must not reach a server that asks for no key
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)
    app.add_middleware(Enclosed)
    app.add_middleware(LatencyMiddleware, metrics=server.metrics)
    _answer_errors(app, server.desk)
    owner = _owner(server.gate)

    Owner = Annotated[str, Depends(owner)]

    def mine(job: JobId, owner: Owner) -> Job:
        found = server.desk.jobs.get(job)
        if found is None or found.owner != owner:
            raise HTTPException(404, f"there is no job {job}")
        return found

    Mine = Annotated[Job, Depends(mine)]

    @app.post("/v1/generations", status_code=202, tags=["jobs"], max_body_size=LARGEST_PICTURE)
    def generate(wanted: Wanted, owner: Owner, answer: Response) -> Status:
        """Accept a request: the answer has the job's id and its place in the queue, at once."""
        job = server.submit(owner, wanted)
        answer.headers["location"] = f"/v1/jobs/{job.id}"
        return server.status(job)

    @app.get("/v1/jobs", tags=["jobs"])
    def jobs(owner: Owner, limit: Annotated[int, Query(ge=1, le=200)] = 50) -> list[Status]:
        """Say where your jobs are, the newest first; they are kept for a day."""
        return [server.status(job) for job in server.desk.jobs.of(owner, limit)]

    @app.get("/v1/jobs/{job}", tags=["jobs"])
    def status(
        job: Mine, images: Annotated[Literal["url", "base64"], Query(description="how they come")] = "url"
    ) -> Status:
        """Say where a job is."""
        return server.status(job, images == "base64")

    @app.delete("/v1/jobs/{job}", tags=["jobs"])
    def cancel(job: Mine) -> Status:
        """Cancel a job: within a step of the sampler where it is being drawn."""
        server.desk.cancel(job.id)
        return server.status(server.desk.jobs.get(job.id) or job)

    streams = ConcurrencyLimit(MOST_STREAMS, MOST_STREAMS_EACH, "streams of events are open")

    async def owned_stream(job: Mine) -> AsyncIterator[Job]:
        with streams.taken(job.owner):
            yield job

    @app.get("/v1/jobs/{job}/events", response_class=EventSourceResponse, tags=["jobs"])
    async def events(job: Annotated[Job, Depends(owned_stream)]) -> AsyncIterator[ServerSentEvent]:
        """Stream a job's progress and previews until it has ended: events `status` and `preview`."""
        async for kind, data in server.events(job.id):
            yield ServerSentEvent(event=kind, data=data)

    @app.websocket("/v1/jobs/{job}/ws")
    async def socket(line: WebSocket, job: JobId) -> None:
        """Stream the same by WebSocket: JSON texts with `event` and `data`."""
        try:
            asking = _asking(server.gate, line)
            found = await asyncio.to_thread(server.desk.jobs.get, job)
            if found is None or found.owner != asking:
                raise HTTPException(404, "there is no such job")
            with streams.taken(asking):
                await line.accept()
                await _tell(line, server.events(job))
        except HTTPException as err:
            await line.send_denial_response(_refusal(err))
        except UnavailableError as err:
            if line.application_state == WebSocketState.CONNECTING:
                await line.send_denial_response(_unavailable(err))
            else:
                await line.close(code=1013, reason="try again later")

    @app.get("/v1/jobs/{job}/images/{seed}.png", response_class=FileResponse, tags=["jobs"])
    async def image(
        job: JobId, seed: int, request: Request, expires: int | None = None, signature: str = ""
    ) -> FileResponse:
        """Return an image: a PNG file that says how it was drawn. A signed link needs no key."""
        found = await asyncio.to_thread(server.desk.jobs.get, job)
        if expires is not None:
            if not server.is_valid_link(request.url.path, expires, signature):
                raise HTTPException(403, "this link has ended, or is none that was given out")
        elif found is None or found.owner != await owner(request):
            found = None
        for each in found.images if found else ():
            if each.seed == seed and each.file and server.desk.picture(each).is_file():
                return FileResponse(server.desk.picture(each), media_type="image/png")
        raise HTTPException(404, f"job {job} has no image of seed {seed}")

    @app.post("/v1/verify", tags=["what there is"], max_body_size=LARGEST_PICTURE)
    async def verify(body: VerifyRequest, owner: Owner) -> VerifyResponse:
        """Say which marks of a generated image a file still has, and the request that it was drawn by."""
        return await asyncio.to_thread(_marks, server.decoders, owner, body.image)

    @app.get("/v1/characters", tags=["what there is"])
    def characters(owner: Owner) -> list[dict[str, Any]]:
        """Say who is drawn."""
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

    @app.get("/v1/scenes", tags=["what there is"])
    def scenes(owner: Owner) -> list[dict[str, str]]:
        """Say which scenes the library has."""
        return [{"name": name, **vars(scene)} for name, scene in server.about.scenes.items()]

    @app.get("/v1/adapters", tags=["what there is"])
    def adapters(owner: Owner) -> list[dict[str, Any]]:
        """Say which LoRAs there are beside the character's."""
        return [
            {"name": name, **adapter.model_dump(exclude={"file"})} for name, adapter in server.shelf.items()
        ]

    @app.get("/v1/capabilities", tags=["what there is"])
    def capabilities(owner: Owner) -> dict[str, Any]:
        """Say what may be asked for: presets, and each field's bounds."""
        about = server.about
        return {
            "presets": {name: vars(preset) for name, preset in about.presets.items()},
            "default_preset": about.default_preset,
            "request": Wanted.model_json_schema(),
            "controls": sorted(server.controls),
            "most_pixels": 4 * about.base.resolution**2,
            "device": server.desk.ready,
            "engine": server.desk.engine,
            "memory": server.desk.memory,
        }

    @app.get("/healthz", tags=["operation"])
    async def alive() -> dict[str, str]:
        """Say that the server answers."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["operation"])
    async def ready(answer: Response) -> dict[str, str]:
        """Say whether requests are accepted and drawn; 503 where they are not, and why."""
        if server.desk.ready and not server.desk.trouble:
            said = {"status": "ready", "device": server.desk.ready, "engine": server.desk.engine}
            return {**said, "note": server.desk.note} if server.desk.note else said
        answer.status_code = 503
        return {"status": "not ready", "why": without_folders(server.desk.trouble or server.desk.broken)}

    @app.get("/metrics", response_class=PlainTextResponse, tags=["operation"])
    def metrics() -> Response:
        """Return the figures for Prometheus."""
        with suppress(UnavailableError):  # the other figures are wanted all the more
            server.metrics.queue.set(server.desk.jobs.waiting())
        me = psutil.Process()
        server.metrics.memory.set(sum(_resident(each) for each in (me, *me.children(recursive=True))))
        return Response(generate_latest(server.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    add_openai(app, server, owner)
    add_a1111(app, server, owner)
    add_page(app)
    return app


async def _tell(line: WebSocket, events: AsyncGenerator[tuple[str, Any]]) -> None:
    """Send events until they end or the client hangs up, which nothing else would show while none comes."""

    async def send() -> None:
        with suppress(WebSocketDisconnect):
            async for kind, data in events:
                said = data.model_dump() if isinstance(data, BaseModel) else data
                await line.send_json({"event": kind, "data": said})
            await line.close()

    async def listen() -> None:
        while (await line.receive())["type"] != "websocket.disconnect":
            pass  # nothing is expected

    async with aclosing(events):
        both = [asyncio.ensure_future(each()) for each in (send, listen)]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in both:
                each.cancel()
            await asyncio.gather(*both, return_exceptions=True)


def _marks(decoders: Decoders, owner: str, image: str) -> VerifyResponse:
    try:
        said = decoders.run(owner, "image", detect_marks, content(image))
    except (RejectedImageError, InvalidImageError) as err:
        raise InvalidRequestError("image", str(err)) from err
    try:
        request = from_png_text(said.texts)
    except InvalidRequestError:
        request = None
    return VerifyResponse(marks=said.marks, request=request)


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _asking(gate: ApiKeyAuth, asked: HTTPConnection) -> str:
    """Return who asks, and count it.

    Raises:
        HTTPException: 401 without a key that is known, 429 where its rate is used up.
    """
    found = gate.owner(given_key(asked.headers))
    if found is None:
        basic = asked.url.path.startswith("/sdapi/")  # elsewhere a browser would ask its user for it
        raise HTTPException(
            401, "this needs an API key", {"www-authenticate": "Basic" if basic else "Bearer"}
        )
    try:
        gate.request(found)
    except RateLimitError as err:
        raise HTTPException(429, str(err), {"retry-after": str(max(1, round(err.wait)))}) from err
    return found


def _owner(gate: ApiKeyAuth) -> Callable[..., Awaitable[str]]:
    """Return the dependency that tells who asks: by a key as bearer, as x-api-key, or as Basic's password."""
    bearer = HTTPBearer(auto_error=False, description="an API key; none is needed where none is configured")
    header = APIKeyHeader(name="x-api-key", auto_error=False)

    async def owner(  # the schemes are there for the API's description
        request: Request,
        _bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)] = None,
        _header: Annotated[str | None, Depends(header)] = None,
    ) -> str:
        admitted = request.scope.get("admitted")  # before its body was read, where it has one
        return _asking(gate, request) if admitted is None else str(admitted)

    return owner


def given_key(headers: Mapping[str, str]) -> str:
    """Return the key of a request, "" where it names none.

    Basic authentication is what A1111's clients have: its password is the key, or its user where there is no
    password.
    """
    scheme, _, value = headers.get("authorization", "").partition(" ")
    match scheme.lower():
        case "bearer":
            return value.strip()
        case "basic":
            with suppress(ValueError):
                user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
                return password or user
    return headers.get("x-api-key", "")


def _answer(
    status: int, kind: str, message: str, field: str | None = None, wait: float | None = None
) -> JSONResponse:
    headers = {} if wait is None else {"retry-after": str(max(1, round(wait)))}
    error = {"message": message, "type": kind, "param": field, "code": None}
    return JSONResponse({"error": error}, status, headers)


def _refusal(err: AnyHTTPException) -> JSONResponse:
    kind = "rate_limit_error" if err.status_code == 429 else "invalid_request_error"
    said = _answer(err.status_code, kind, str(err.detail))
    said.headers.update(err.headers or {})
    return said


def _unavailable(err: UnavailableError) -> JSONResponse:
    return _answer(503, "server_error", without_folders(str(err)), wait=REST)


def _answer_errors(app: FastAPI, desk: Dispatcher) -> None:
    """Have every error answered in one form, which OpenAI's clients read."""
    answer = _answer

    @app.exception_handler(InvalidRequestError)
    async def bad(_: Request, err: InvalidRequestError) -> JSONResponse:
        return answer(422, "invalid_request_error", str(err), err.field)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, err: RequestValidationError) -> JSONResponse:
        first = err.errors()[0]
        field = ".".join(map(str, first["loc"][1:]))
        return answer(422, "invalid_request_error", f"{field}: {first['msg']}".lstrip(": "), field)

    @app.exception_handler(UnsafePromptError)
    async def unsafe(_: Request, err: UnsafePromptError) -> JSONResponse:
        return answer(400, "content_policy_violation", str(err), "prompt")

    @app.exception_handler(InvalidPackageError)
    async def revoked(_: Request, err: InvalidPackageError) -> JSONResponse:
        logger.error("%s", err)
        return answer(410, "invalid_request_error", without_folders(str(err)))

    @app.exception_handler(RightsUnknownError)
    async def unknown(_: Request, err: RightsUnknownError) -> JSONResponse:
        logger.error("%s", err)
        return answer(503, "server_error", without_folders(str(err)), wait=ASK_AGAIN)

    @app.exception_handler(RateLimitError)
    async def often(_: Request, err: RateLimitError) -> JSONResponse:
        return answer(429, "rate_limit_error", str(err), wait=err.wait)

    @app.exception_handler(QueueFullError)
    async def full(_: Request, err: QueueFullError) -> JSONResponse:
        return answer(429, "rate_limit_error", "the queue is full", wait=desk.batch_seconds)

    @app.exception_handler(UnavailableError)
    async def unavailable(_: Request, err: UnavailableError) -> JSONResponse:
        return _unavailable(err)

    @app.exception_handler(AnyHTTPException)
    async def other(_: Request, err: AnyHTTPException) -> JSONResponse:
        return _refusal(err)
