"""What every call of the API shares: requests become jobs, jobs become answers."""

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

logger = logging.getLogger(__name__)

LOOK = 0.05
"""Seconds between looks at how far a job is that somebody watches or waits for."""

SELDOM = 0.5
"""Seconds between looks into the database for it, where nothing is heard of it."""

FOLDERS = re.compile(r"(?<![\w/:.~])~?(?:/(?:[^\s/'\"]+/)*|(?:[\w.@-]+/){2,})(?=[^\s/])")
"""What of a text is a file's folders: of an address or a hub's id there are none."""

LINK_SECONDS = 3600
"""For which a link to an image needs no key."""

ENDED = ("done", "failed", "cancelled")


def without_folders(text: str) -> str:
    """Return a message for those who ask from elsewhere: where this server's files are is its own affair."""
    return FOLDERS.sub("", text)


class Picture(BaseModel):
    """An image of a job."""

    seed: int
    url: str | None = Field(description="of the PNG file; null where the filter refused the image")
    base64: str | None = Field(default=None, description="the PNG file, where it was asked for")
    refused: str = Field(description="why there is none, or empty")
    engine: Engine = Field(description="what drew it; procedural is the renderer, without the LoRA")
    identity: float | None = Field(
        description="likeness of the face to the character's portraits, -1 to 1; null: no face"
    )


class Status(BaseModel):
    """Where a job is."""

    id: str
    state: State
    position: int | None = Field(description="jobs before it, while it is queued")
    step: int = Field(description="done of all its batches; other jobs have their turns between these")
    steps: int
    seconds_left: float | None
    accepted: float = Field(description="seconds since 1970")
    request: GenerationRequest = Field(description="as drawn; sent again, it draws the same")
    images: list[Picture]
    warnings: list[str] = Field(description="what of the request counted for nothing, a sentence each")
    error: str


class GenerationService:
    """What the API's calls share.

    Args:
        shelf: the LoRAs beside it.
        desk: has jobs drawn.
        gate: who may ask.
        metrics: is told.
        log_prompts: write prompts to the log.
        engine: what is to draw.
        controls: networks that keep to pictures, by kind.
        root: the project, whose ledgers and registry are asked; None is the working directory.
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

    @property
    def about(self) -> PackageInfo:
        """The package that draws."""
        return self.desk.about

    def submit(self, owner: str, wanted: GenerationRequest) -> Job:
        """Accept a request.

        Raises:
            UnsafePrompt: by the policy for prompts.
            BadRequest: this package cannot do it.
            TooOften: the key's quota is used up.
            Full: too many are waiting.
            UnavailableError: nothing can be drawn or kept for now.
            HTTPException: too many pictures wait for being read.
            BadPackage: rights that the package stands on ended or were taken back meanwhile.
        """
        check_rights(self.about, self._root)
        quota = self.gate.images_per_day(owner)
        self.desk.jobs.refuse_beyond(owner, wanted.count, quota)  # before pictures are read
        fitted = functools.partial(self.decoders.run, owner, "image", fit)
        order = resolve_request(wanted, self.about, self.shelf, self.engine, self.controls, fitted)
        job = self.desk.submit(owner, order, quota)
        logger.info("job %s of %s%s", job.id, owner, f": {order.prompt!r}" if self.log_prompts else "")
        return job

    def status(self, job: Job, embed: bool = False) -> Status:
        """Return where a job is; `embed` has its images in it."""
        position = self.desk.jobs.position(job.id) if job.state == "queued" else None
        if job.state == "queued" and position is None:  # no longer, since it was read
            job = self.desk.jobs.get(job.id) or job
        progress = self.desk.progress(job.id)
        done, total = (progress.done, progress.total) if progress else self.desk.steps(job)
        return Status(
            id=job.id,
            state=job.state,
            position=position,
            step=done,
            steps=total,
            seconds_left=progress.seconds_left if progress else None,
            accepted=job.accepted,
            request=again(job.order),
            images=[
                Picture(
                    seed=each.seed,
                    url=f"/v1/jobs/{job.id}/images/{each.seed}.png" if each.file else None,
                    base64=self.image_base64(each) if embed and each.file else None,
                    refused=each.refused,
                    engine=each.engine,
                    identity=each.identity,
                )
                for each in job.images
            ],
            warnings=sorted({warning for each in job.images for warning in each.warnings}),
            error=without_folders(job.error),
        )

    def link(self, job: str, seed: int) -> str:
        """Return a path to an image that needs no key and ends after `LINK_SECONDS`, or with this process."""
        ends = int(time.time() + LINK_SECONDS)
        path = f"/v1/jobs/{job}/images/{seed}.png"
        return f"{path}?expires={ends}&signature={self._signature(path, ends)}"

    def is_valid_link(self, path: str, expires: int, signature: str) -> bool:
        """Return whether a path was given out by `link` and has not ended."""
        good = hmac.compare_digest(self._signature(path, expires).encode(), signature.encode())
        return good and time.time() < expires

    def _signature(self, path: str, expires: int) -> str:
        return hmac.new(self._link_key, f"{path} {expires}".encode(), "sha256").hexdigest()

    def image_base64(self, image: Image) -> str:
        """Return an image's PNG file as base64.

        Raises:
            UnavailableError: it cannot be read.
        """
        try:
            return base64.b64encode(self.desk.picture(image).read_bytes()).decode()
        except OSError as err:
            raise UnavailableError(f"the image of seed {image.seed} cannot be read on this server") from err

    async def wait_until_done(self, job: Job, gone: Callable[[], Awaitable[bool]]) -> Job:
        """Return a job once it has ended; where who waits for it is `gone`, cancel it.

        Raises:
            HTTPException: it was forgotten.
        """
        last = job
        async for found in self._looks(job.id):
            last = found
            if await gone():
                with suppress(UnavailableError):  # it is tried again at the next look
                    await asyncio.to_thread(self.desk.cancel, job.id)
        if last.state not in ENDED:
            raise HTTPException(404, "this job was forgotten")
        return last

    async def events(self, job: str) -> "AsyncGenerator[tuple[Literal['status', 'preview'], Any]]":
        """Yield a job's status whenever it changes, and its previews, until it has ended."""
        last: Status | None = None
        shown = b""
        with self.desk.watching(job):
            async for found in self._looks(job):
                try:
                    status = await asyncio.to_thread(self.status, found)
                except UnavailableError:  # as in `_looks`
                    continue
                unmoved = last and last.model_copy(update={"seconds_left": status.seconds_left})
                if status != unmoved:
                    last = status
                    yield "status", status
                progress = self.desk.progress(job)
                if progress and progress.preview and progress.preview is not shown:
                    shown = progress.preview
                    yield "preview", {"jpeg": base64.b64encode(shown).decode()}

    async def _looks(self, job: str) -> AsyncIterator[Job]:
        """Yield a job as it is whenever something may have changed, until it has ended or is forgotten."""
        before, looked = None, -SELDOM
        while True:
            progress, now = self.desk.progress(job), time.monotonic()
            if progress is not before or now - looked >= SELDOM:
                before, looked = progress, now
                try:
                    found = await asyncio.to_thread(self.desk.jobs.get, job)
                except UnavailableError:  # who waits for the job waits for the database
                    continue
                if found is None:
                    return
                yield found
                if found.state in ENDED:
                    return
            await asyncio.sleep(LOOK)
