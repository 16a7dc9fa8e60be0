"""Shared code of the compatible APIs: generate while the client waits, name fields as the client does."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from fastapi import HTTPException, Request
from pydantic import BaseModel, ConfigDict, model_validator

from valentina_pipeline.serving.api.service import GenerationService, without_folders
from valentina_pipeline.serving.inference.prompt_notation import InvalidRequestError
from valentina_pipeline.serving.inference.request import GenerationRequest, parse_request
from valentina_pipeline.serving.jobs.job import Job

Caller = Callable[..., Awaitable[str]]
"""FastAPI dependency that gives the owner of a request."""


class ClientModel(BaseModel):
    """A request of another program's API: null counts as absent, unknown fields are kept."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            return {name: value for name, value in values.items() if value is not None}
        return values

    def unknown_fields(self) -> list[str]:
        """Return the names of fields that the model does not declare."""
        return sorted(self.model_extra or {})


def translate(values: Mapping[str, Any], names: Mapping[str, str]) -> GenerationRequest:
    """Return the request with these values.

    Args:
        values: by field of `GenerationRequest`; None is left out.
        names: our field -> the client's, where they differ.

    Raises:
        InvalidRequestError: a value is invalid; it names the client's field.
    """
    try:
        return parse_request({name: value for name, value in values.items() if value is not None})
    except InvalidRequestError as err:
        raise rename_fields(err, names) from err


def rename_fields(err: InvalidRequestError, names: Mapping[str, str]) -> InvalidRequestError:
    """Return the error with the client's name of the field."""
    message = str(err).removeprefix(f"{err.field}: ")
    return InvalidRequestError(names.get(err.field.split(".")[0], err.field), message)


def refuse(field: str, reason: str) -> InvalidRequestError:
    """Return the error for a field whose feature is not supported."""
    return InvalidRequestError(field, f"{reason}: leave it out")


async def generate_images(
    server: GenerationService,
    request: Request,
    owner: str,
    generation: GenerationRequest,
    names: Mapping[str, str],
    waiting: Callable[[str, str], AbstractContextManager[None]] = lambda owner, job: nullcontext(),
) -> tuple[Job, Sequence[str]]:
    """Return the finished job of a request, and warnings for its caller.

    Args:
        server: generates the images.
        request: of the client; if it disconnects, the job is cancelled.
        owner: of the request's key.
        generation: the request to generate.
        names: see `translate`.
        waiting: context entered with owner and job id until the job ends.

    Raises:
        InvalidRequestError: the package cannot serve it; it names the client's field.
        HTTPException: the job failed, or the filter blocked every image.
    """
    try:
        job = await asyncio.to_thread(server.submit, owner, generation)  # submit writes to the database
    except InvalidRequestError as err:
        raise rename_fields(err, names) from err
    with waiting(owner, job.id):
        job = await server.wait_until_done(job, request.is_disconnected)
    if job.state == "failed":
        raise HTTPException(500, without_folders(job.error))
    if not any(image.file for image in job.images):
        reasons = "; ".join(sorted({image.blocked_reason for image in job.images})) or "the job was cancelled"
        raise HTTPException(400, f"no image can be returned: {reasons}")
    refused = [
        f"image of seed {image.seed}: {image.blocked_reason}" for image in job.images if image.blocked_reason
    ]
    return job, [*refused, *sorted({warning for image in job.images for warning in image.warnings})]
