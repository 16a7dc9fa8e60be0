"""What the calls of other programs share: a request is drawn while they wait, errors are in their words."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from fastapi import HTTPException, Request
from pydantic import BaseModel, ConfigDict, model_validator

from valentina_pipeline.serving.api.service import GenerationService, without_folders
from valentina_pipeline.serving.inference.prompt_notation import InvalidRequestError
from valentina_pipeline.serving.inference.request import GenerationRequest as Wanted
from valentina_pipeline.serving.inference.request import parse_request
from valentina_pipeline.serving.jobs.job import Job

Caller = Callable[..., Awaitable[str]]
"""The dependency that tells who asks."""


class ClientModel(BaseModel):
    """A request in another program's words: null is as if the field was left out, more fields are kept."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            return {name: value for name, value in values.items() if value is not None}
        return values

    def unknown_fields(self) -> list[str]:
        """Return the names of fields that the program's interface does not have."""
        return sorted(self.model_extra or {})


def translate(values: Mapping[str, Any], names: Mapping[str, str]) -> Wanted:
    """Return the request that these values make.

    Args:
        values: of `Request`'s fields; None is left out.
        names: a field -> what the caller calls it, where that differs.

    Raises:
        InvalidRequestError: in the caller's words.
    """
    try:
        return parse_request({name: value for name, value in values.items() if value is not None})
    except InvalidRequestError as err:
        raise rename_fields(err, names) from err


def rename_fields(err: InvalidRequestError, names: Mapping[str, str]) -> InvalidRequestError:
    """Return an error about a field in the caller's words."""
    said = str(err).removeprefix(f"{err.field}: ")
    return InvalidRequestError(names.get(err.field.split(".")[0], err.field), said)


def refuse(field: str, why: str) -> InvalidRequestError:
    """Return the error that a field asks for what is not done here."""
    return InvalidRequestError(field, f"{why}: leave it out")


async def generate_images(
    server: GenerationService,
    request: Request,
    owner: str,
    wanted: Wanted,
    names: Mapping[str, str],
    waiting: Callable[[str, str], AbstractContextManager[None]] = lambda owner, job: nullcontext(),
) -> tuple[Job, Sequence[str]]:
    """Return the job of a request once it is done, and what its caller should know.

    Args:
        server: draws it.
        request: whose caller may hang up: then it is cancelled.
        owner: who asks.
        wanted: what is asked for.
        names: see `translate`.
        waiting: entered with owner and job while it is drawn.

    Raises:
        InvalidRequestError: this package cannot do it, in the caller's words.
        HTTPException: it failed, or nothing of it may be shown.
    """
    try:
        job = await asyncio.to_thread(server.submit, owner, wanted)  # it writes to the database
    except InvalidRequestError as err:
        raise rename_fields(err, names) from err
    with waiting(owner, job.id):
        job = await server.wait_until_done(job, request.is_disconnected)
    if job.state == "failed":
        raise HTTPException(500, without_folders(job.error))
    if not any(each.file for each in job.images):
        said = "; ".join(sorted({each.refused for each in job.images})) or "it was cancelled"
        raise HTTPException(400, f"there is no image to show: {said}")
    refused = [f"image of seed {each.seed}: {each.refused}" for each in job.images if each.refused]
    return job, [*refused, *sorted({warning for each in job.images for warning in each.warnings})]
