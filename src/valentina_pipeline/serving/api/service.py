"""Service behind all APIs: turn requests into jobs, and jobs into responses."""

import asyncio
import base64
import functools
import hmac
import logging
import re
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from fastapi import HTTPException
from pydantic import BaseModel, Field

from valentina_pipeline.serving.api.auth import ApiKeyAuth
from valentina_pipeline.serving.inference.adapters import Adapter
from valentina_pipeline.serving.inference.control_models import Network
from valentina_pipeline.serving.inference.input_images import fit
from valentina_pipeline.serving.inference.package import PackageInfo, check_rights
from valentina_pipeline.serving.inference.request import Engine, GenerationRequest, again, resolve_request
from valentina_pipeline.serving.jobs.database import UnavailableError
from valentina_pipeline.serving.jobs.decoders import Decoders
from valentina_pipeline.serving.jobs.dispatcher import Dispatcher
from valentina_pipeline.serving.jobs.job import Image, Job, State
from valentina_pipeline.serving.jobs.metrics import Metrics
from valentina_pipeline.serving.marks.c2pa import is_own, read_chain

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.05
"""Seconds between checks of the progress of a job with a waiting client."""

DATABASE_POLL_SECONDS = 0.5
"""Seconds between reads of the job from the database while its progress does not change."""

FOLDERS = re.compile(r"(?<![\w/:.~])~?(?:/(?:[^\s/'\"]+/)*|(?:[\w.@-]+/){2,})(?=[^\s/])")
"""Folders of a file path in a text; URLs and hub ids do not match."""

LINK_SECONDS = 3600
"""Lifetime of a link to an image that needs no key."""

ENDED = ("done", "failed", "cancelled")


def without_folders(text: str) -> str:
    """Return a message without folders, so that clients do not learn the server's file layout."""
    return FOLDERS.sub("", text)


class Attribute(BaseModel):
    """An attribute that the prompt names."""

    name: str = Field(description="such as `color of the clothes`")
    requested: str
    seen: str = Field(description="what a judge reads from the image; equal to `requested` where it is shown")


class Picture(BaseModel):
    """An image of a job."""

    seed: int
    url: str | None = Field(description="URL of the PNG file; null where the filter blocked the image")
    base64: str | None = Field(default=None, description="the PNG file, if requested")
    blocked_reason: str = Field(description="reason why the image was blocked, or empty")
    engine: Engine = Field(description="engine of the image; renderer uses no network and no LoRA")
    identity: float | None = Field(
        description="similarity of the face to the character's portraits, -1 to 1; null: no face"
    )
    attributes: list[Attribute] = Field(description="empty where the base model has no judges of attributes")


class Status(BaseModel):
    """Status of a job."""

    id: str
    state: State
    position: int | None = Field(description="number of jobs before it, while it is queued")
    step: int = Field(description="steps done over all its batches; other jobs run between them")
    steps: int
    eta_seconds: float | None
    created_at: float = Field(description="seconds since 1970")
    request: GenerationRequest = Field(description="as resolved; sent again, it generates the same images")
    images: list[Picture]
    warnings: list[str] = Field(description="parts of the request that had no effect, a sentence each")
    error: str


class GenerationService:
    """Submits requests, and reports on jobs and their images.

    Args:
        shelf: the LoRAs besides the package's, by name.
        desk: dispatcher of the jobs.
        gate: API keys and their rates.
        metrics: for Prometheus.
        log_prompts: write prompts to the log.
        engine: that generates images.
        controls: ControlNets, by kind.
        root: the project with the ledgers and the registry; None is the working directory.
        signing: folder of the key that signs the images; images with its signature count as own ones.
    """

    def __init__(
        self,
        shelf: dict[str, Adapter],
        desk: Dispatcher,
        gate: ApiKeyAuth,
        metrics: Metrics,
        log_prompts: bool = False,
        engine: Engine = "torch",
        controls: Mapping[str, Network] | None = None,
        root: Path | None = None,
        signing: Path | None = None,
    ) -> None:
        self.shelf = shelf
        self.desk = desk
        self.gate = gate
        self.metrics = metrics
        self.log_prompts = log_prompts
        self.engine = engine
        self.controls = dict(controls or {})
        self._link_key = secrets.token_bytes(32)
        self.decoders = Decoders()
        self._root = root
        self._signing = signing

    @property
    def about(self) -> PackageInfo:
        """The package in use."""
        return self.desk.about

    def submit(self, owner: str, request: GenerationRequest) -> Job:
        """Queue a request and return its job.

        Raises:
            UnsafePromptError: the prompt policy rejects it.
            InvalidRequestError: the package cannot serve it.
            RateLimitError: the key's quota is exceeded.
            QueueFullError: too many jobs are waiting.
            UnavailableError: images can be neither generated nor stored now.
            HTTPException: too many requests with images wait to be decoded.
            InvalidPackageError: rights that the package depends on have expired or were revoked.
        """
        check_rights(self.about, self._root)
        quota = self.gate.images_per_day(owner)
        self.desk.jobs.refuse_beyond(owner, request.num_images, quota)  # before images are decoded
        chain = read_chain(self._signing) if self._signing else b""
        work = functools.partial(fit, is_own=functools.partial(is_own, chain=chain))
        fitted = functools.partial(self.decoders.run, owner, "image", work)
        order = resolve_request(request, self.about, self.shelf, self.engine, self.controls, fitted)
        job = self.desk.submit(owner, order, quota)
        logger.info("job %s of %s%s", job.id, owner, f": {order.prompt!r}" if self.log_prompts else "")
        return job

    def status(self, job: Job, embed: bool = False) -> Status:
        """Return the status of a job; `embed` includes its images as base64."""
        position = self.desk.jobs.position(job.id) if job.state == "queued" else None
        if job.state == "queued" and position is None:  # left the queue since it was read
            job = self.desk.jobs.get(job.id) or job
        progress = self.desk.progress(job.id)
        done, total = (progress.done, progress.total) if progress else self.desk.steps(job)
        return Status(
            id=job.id,
            state=job.state,
            position=position,
            step=done,
            steps=total,
            eta_seconds=progress.eta_seconds if progress else None,
            created_at=job.created_at,
            request=again(job.order),
            images=[
                Picture(
                    seed=image.seed,
                    url=f"/v1/jobs/{job.id}/images/{image.seed}.png" if image.file else None,
                    base64=self.image_base64(image) if embed and image.file else None,
                    blocked_reason=image.blocked_reason,
                    engine=image.engine,
                    identity=image.identity,
                    attributes=[Attribute(**asdict(reading)) for reading in image.attributes],
                )
                for image in job.images
            ],
            warnings=sorted({warning for image in job.images for warning in image.warnings}),
            error=without_folders(job.error),
        )

    def link(self, job: str, seed: int) -> str:
        """Return an image path that needs no key; it expires after `LINK_SECONDS` or with this process."""
        ends = int(time.time() + LINK_SECONDS)
        path = f"/v1/jobs/{job}/images/{seed}.png"
        return f"{path}?expires={ends}&signature={self._signature(path, ends)}"

    def is_valid_link(self, path: str, expires: int, signature: str) -> bool:
        """Return whether `link` issued a path and it has not expired."""
        good = hmac.compare_digest(self._signature(path, expires).encode(), signature.encode())
        return good and time.time() < expires

    def _signature(self, path: str, expires: int) -> str:
        return hmac.new(self._link_key, f"{path} {expires}".encode(), "sha256").hexdigest()

    def image_base64(self, image: Image) -> str:
        """Return an image's PNG file as base64.

        Raises:
            UnavailableError: the file cannot be read.
        """
        try:
            return base64.b64encode(self.desk.picture(image).read_bytes()).decode()
        except OSError as err:
            raise UnavailableError(f"the image of seed {image.seed} cannot be read on this server") from err

    async def wait_until_done(self, job: Job, gone: Callable[[], Awaitable[bool]]) -> Job:
        """Return a job once it has ended; cancel it if its client is `gone`.

        Raises:
            HTTPException: the job was deleted.
        """
        last = job
        async for found in self._poll(job.id):
            last = found
            if await gone():
                with suppress(UnavailableError):  # the next poll retries
                    await asyncio.to_thread(self.desk.cancel, job.id)
        if last.state not in ENDED:
            raise HTTPException(404, "this job was deleted")
        return last

    async def events(self, job: str) -> "AsyncGenerator[tuple[Literal['status', 'preview'], Any]]":
        """Yield a job's status whenever it changes, and its previews, until it has ended."""
        last: Status | None = None
        sent = b""
        with self.desk.watching(job):
            async for found in self._poll(job):
                try:
                    status = await asyncio.to_thread(self.status, found)
                except UnavailableError:  # as in `_poll`
                    continue
                unchanged = last and last.model_copy(update={"eta_seconds": status.eta_seconds})
                if status != unchanged:
                    last = status
                    yield "status", status
                progress = self.desk.progress(job)
                if progress and progress.preview and progress.preview is not sent:
                    sent = progress.preview
                    yield "preview", {"jpeg": base64.b64encode(sent).decode()}

    async def _poll(self, job: str) -> AsyncIterator[Job]:
        """Yield a job whenever it may have changed, until it has ended or was deleted."""
        before, read_at = None, -DATABASE_POLL_SECONDS
        while True:
            progress, now = self.desk.progress(job), time.monotonic()
            if progress is not before or now - read_at >= DATABASE_POLL_SECONDS:
                before, read_at = progress, now
                try:
                    found = await asyncio.to_thread(self.desk.jobs.get, job)
                except UnavailableError:  # the client waits until the database answers
                    continue
                if found is None:
                    return
                yield found
                if found.state in ENDED:
                    return
            await asyncio.sleep(POLL_SECONDS)
