"""Jobs and their images: data classes, read from rows of the database."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import TypeAdapter
from sqlalchemy import Row

from valentina_pipeline.serving.inference.identity import AttributeReading
from valentina_pipeline.serving.inference.input_images import Inputs
from valentina_pipeline.serving.inference.request import Engine, ResolvedRequest, Settings, again

logger = logging.getLogger(__name__)

State = Literal["queued", "running", "done", "failed", "cancelled"]


@dataclass(frozen=True)
class Image:
    """One image of a job.

    Attributes:
        seed: of its noise.
        file: its name in the image folder; "" where it was blocked.
        blocked_reason: why it was blocked, else "".
        identity: similarity to the portraits, see serving/inference/engine.py.
        engine: that generated it.
        attributes: see serving/inference/engine.py.
        warnings: parts of the request without effect, a sentence each.
    """

    seed: int
    file: str
    blocked_reason: str
    identity: float | None = None
    engine: Engine = "torch"
    attributes: tuple[AttributeReading, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """An accepted request.

    Attributes:
        id: 32 random hexadecimal digits.
        owner: of the request's key.
        order: the resolved request.
        num_images: number of images.
        state: a job of several batches is queued between them.
        attempts: number of crashes while it ran.
        created_at: time in seconds since 1970, as the next two.
        started_at: time of its last start, if any.
        finished_at: time of its end, if any.
        error: why it failed, else "".
        images: finished so far.
    """

    id: str
    owner: str
    order: ResolvedRequest
    num_images: int
    state: State
    attempts: int
    created_at: float
    started_at: float | None
    finished_at: float | None
    error: str
    images: tuple[Image, ...] = field(default=())


IMAGES = TypeAdapter(tuple[Image, ...])
STATE: TypeAdapter[State] = TypeAdapter(State)


def readable(row: Row) -> Job | None:
    """Return the job of a row, or None where the row is invalid, so that only this job is lost."""
    try:
        return job_of(row)
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as err:
        logger.error("the row of job %s in the database cannot be read: %s", row.id, type(err).__name__)
        return None


def job_of(row: Row) -> Job:
    """Return the job of a row.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: the row is invalid.
    """
    order = _order(row.request_json)
    again(order)  # raises where the status could not be shown
    return Job(
        id=row.id,
        owner=row.owner,
        order=order,
        num_images=row.num_images,
        state=STATE.validate_python(row.state),
        attempts=row.attempts,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        error=row.error,
        images=IMAGES.validate_json(row.images),
    )


def _order(text: str) -> ResolvedRequest:
    values: Mapping[str, Any] = json.loads(text)
    settings = values["settings"]
    loras = tuple((name, weight) for name, weight in settings["loras"])
    inputs = Inputs.of(settings["inputs"])
    return ResolvedRequest(
        **{
            **values,
            "seeds": tuple(values["seeds"]),
            "settings": Settings(**{**settings, "loras": loras, "inputs": inputs}),
        }
    )
