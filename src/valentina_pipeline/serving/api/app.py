"""HTTP API of a server: its middleware, its routes and its lifespan."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from valentina_pipeline.integrations.bounded import BodyLimits
from valentina_pipeline.serving.api import routes
from valentina_pipeline.serving.api.a1111 import add_a1111
from valentina_pipeline.serving.api.errors import add_error_handlers, http_error_response
from valentina_pipeline.serving.api.http_auth import identify, owner_dependency
from valentina_pipeline.serving.api.openai import add_openai
from valentina_pipeline.serving.api.service import GenerationService
from valentina_pipeline.serving.api.web import Enclosed, add_page
from valentina_pipeline.serving.inference.input_images import LARGEST_PICTURE
from valentina_pipeline.serving.jobs.metrics import Metrics

MAX_BODY_BYTES = 1 << 20
"""Bytes of a request without images."""

HOSTS = ["127.0.0.1", "localhost", "[::1]"]


class LatencyMiddleware:
    """Measures the latency until a response begins. Streams then last as long as their job."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI request."""
        started = time.perf_counter()

        async def send_timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.phase_duration.labels("response").observe(time.perf_counter() - started)
            await send(message)

        await self._app(scope, receive, send_timed)


def create_app(server: GenerationService) -> FastAPI:
    """Return the API of a server; it starts and stops the dispatcher with itself."""
    # serves its own scripts and styles; ReDoc would load some from elsewhere
    app = FastAPIOffline(
        redoc_url=None,
        static_url="/docs/files",
        title=f"Valentina Pipeline: {server.about.name}",
        description="Generates images of a published character. Every image is marked as generated.",
        lifespan=partial(_lifespan, server),
        max_body_size=LARGEST_PICTURE,
        swagger_ui_parameters={"validatorUrl": None},
    )
    app.router.max_body_size = MAX_BODY_BYTES  # of routes that do not say otherwise
    _add_middleware(app, server)
    add_error_handlers(app, server.desk)
    owner = owner_dependency(server.gate)
    owned_job = routes.owned_job_dependency(server, owner)
    routes.add_jobs(app, server, owner, owned_job)
    routes.add_events(app, server, owned_job)
    routes.add_images(app, server, owner)
    routes.add_verification(app, server, owner)
    routes.add_discovery(app, server, owner)
    routes.add_capabilities(app, server, owner)
    routes.add_operation(app, server)
    add_openai(app, server, owner)
    add_a1111(app, server, owner)
    add_page(app)
    return app


def _add_middleware(app: FastAPI, server: GenerationService) -> None:
    """Add the limits of bodies, the check of hosts, the security headers and the measurement of latency."""
    limits = {"largest": LARGEST_PICTURE, "most": 2 * LARGEST_PICTURE}
    app.add_middleware(BodyLimits, admit=partial(identify, server.gate), refuse=http_error_response, **limits)
    if server.gate.open:  # a page of another site must not reach a server without keys
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=HOSTS)
    app.add_middleware(Enclosed)
    app.add_middleware(LatencyMiddleware, metrics=server.metrics)


@asynccontextmanager
async def _lifespan(server: GenerationService, app: FastAPI) -> AsyncIterator[None]:
    """Run the dispatcher for as long as the app runs."""
    server.desk.start()
    yield
    await asyncio.to_thread(server.desk.stop)
    await asyncio.to_thread(server.decoders.close)
