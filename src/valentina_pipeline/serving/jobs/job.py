"""A job of the queue, its images, and the row of the database that both are kept in."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import TypeAdapter
from sqlalchemy import Row

from valentina_pipeline.serving.inference.input_images import Inputs
from valentina_pipeline.serving.inference.request import Engine, ResolvedRequest, Settings, again

logger = logging.getLogger(__name__)

State = Literal["queued", "running", "done", "failed", "cancelled"]


@dataclass(frozen=True)
class Image:
    """One image of a job.

    Attributes:
        seed: that it was drawn from.
        file: its name in the folder of images; "" where there is none.
        refused: why there is none, else "".
        identity: see studio/engine.py's Drawn.
        engine: what drew it.
        warnings: what the drawing left out of the request, a sentence each.
    """

    seed: int
    file: str
    refused: str
    identity: float | None = None
    engine: Engine = "torch"
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """An accepted order.

    Attributes:
        id: 32 hexadecimal digits, not to be guessed.
        owner: whose key it came with.
        order: what is drawn.
        wanted: how many images it is of.
        state: where it is; one of several batches is queued between them.
        tries: how often a process died while it drew this.
        accepted: when, in seconds since 1970, as the next two.
        begun: when its drawing began last, if it did.
        ended: when it ended, if it did.
        error: why it failed, else "".
        images: what there is of it so far.
    """

    id: str
    owner: str
    order: ResolvedRequest
    wanted: int
    state: State
    tries: int
    accepted: float
    begun: float | None
    ended: float | None
    error: str
    images: tuple[Image, ...] = field(default=())


IMAGES = TypeAdapter(tuple[Image, ...])
STATE: TypeAdapter[State] = TypeAdapter(State)


def readable(row: Row) -> Job | None:
    """Return a row's job, or None where the row is broken: that costs this job and no other."""
    try:
        return job_of(row)
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as err:
        logger.error("the row of job %s in the database cannot be read: %s", row.id, type(err).__name__)
        return None


def job_of(row: Row) -> Job:
    """Return a row's job.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: the row is broken.
    """
    order = _order(row.made_from)
    again(order)  # as it is shown
    return Job(
        id=row.id,
        owner=row.owner,
        order=order,
        wanted=row.wanted,
        state=STATE.validate_python(row.state),
        tries=row.tries,
        accepted=row.accepted,
        begun=row.begun,
        ended=row.ended,
        error=row.error,
        images=IMAGES.validate_json(row.images),
    )


def _order(text: str) -> ResolvedRequest:
    values: Mapping[str, Any] = json.loads(text)
    settings = values["settings"]
    adapters = tuple((name, weight) for name, weight in settings["adapters"])
    inputs = Inputs.of(settings.get("inputs", {}))  # an earlier version's jobs have none
    return ResolvedRequest(
        **{
            **values,
            "seeds": tuple(values["seeds"]),
            "settings": Settings(**{**settings, "adapters": adapters, "inputs": inputs}),
        }
    )
