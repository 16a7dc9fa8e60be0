"""The process that draws: it has the networks, and may die without taking the server with it."""

import io
import logging
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.serving import logs
from valentina_pipeline.serving.inference.request import Engine, ResolvedRequest
from valentina_pipeline.serving.jobs.disk import REFUSALS, no_room
from valentina_pipeline.serving.marks.c2pa import Signer

if TYPE_CHECKING:
    from torch import Tensor

    from valentina_pipeline.serving.inference.engine import InferenceEngine

logger = logging.getLogger(__name__)

PHASES = ("torch", "diffusers", "networks")
"""Of a start: two imports, then the package's checks and its networks."""

PREVIEWS = 4
"""In the course of a drawing, where somebody watches."""

PREVIEW_SIDE = 512
"""Pixels: larger ones are made smaller."""


@dataclass(frozen=True)
class WorkerConfig:
    """Configuration of the worker process: see `InferenceEngine.open`; and the folder of the signing key.

    With `or_renderer` the renderer draws where the engine's networks cannot be loaded; with `compile`
    torch compiles the U-Net's blocks. `threads` of the processor draw; without, all but one.
    """

    package: Path
    signing: Path
    base: str | None = None
    root: Path | None = None
    adapters: Path | None = None
    engine: Engine = "torch"
    or_renderer: bool = False
    compile: bool = False
    threads: int | None = None


@dataclass(frozen=True)
class Ready:
    """The networks are loaded.

    Attributes:
        device: where it draws.
        engine: what draws there.
        spent: seconds by what they went to.
        measures: whether images are compared with the character's portraits.
        memory: "offload", "tiled" and "why": see image/models/offload.py.
    """

    device: str
    engine: Engine
    spent: dict[str, float]
    measures: bool
    memory: dict[str, Any]


@dataclass(frozen=True)
class WorkerFailed:
    """The networks cannot be loaded, and why."""

    why: str


@dataclass(frozen=True)
class Step:
    """How far a batch is: steps done and in all, and small JPEG files of its jobs' first pictures, by job."""

    done: int
    total: int
    previews: dict[str, bytes]


@dataclass(frozen=True)
class GeneratedImage:
    """An image of a job: a PNG file, or why there is none. They come in lists, of what was drawn at once."""

    job: str
    seed: int
    png: bytes
    refused: str
    identity: float | None
    engine: Engine
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class BatchDone:
    """A batch has ended, after so many seconds.

    `error` says why nothing more comes of it, `waits` why it is to be drawn later, else "".
    """

    seconds: float
    error: str = ""
    waits: str = ""


@dataclass(frozen=True)
class Batch:
    """What is to be drawn: jobs with equal settings."""

    orders: dict[str, ResolvedRequest]


@dataclass(frozen=True)
class Cancelled:
    """A job of the batch that is being drawn is no longer wanted."""

    job: str


@dataclass(frozen=True)
class Watched:
    """Somebody looks at a job of the batch that is being drawn."""

    job: str


class _AllCancelledError(Exception):
    pass


def work(server: Connection, opening: WorkerConfig) -> None:
    """Draw batches until the server is gone or sends None.

    Told by the server: a `Batch`, and while it is drawn which jobs of it are `Cancelled` and `Watched`.
    Tells the server: `Ready` or `WorkerFailed`; then for each batch steps, pictures and at last `BatchDone`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes: the server decides
    logs.configure()
    try:
        marks = [time.monotonic()]
        import torch

        # a core is left to who answers
        torch.set_num_threads(opening.threads or max(1, torch.get_num_threads() - 1))
        marks.append(time.monotonic())
        if opening.engine == "torch":
            import diffusers

            diffusers.StableDiffusionXLPipeline  # noqa: B018  the access imports it, transformers and peft
        if opening.engine != "procedural":
            logs.silence_prompts()
        marks.append(time.monotonic())
        signer = Signer(opening.signing)
        studio = _opened(opening)
        marks.append(time.monotonic())
        spent = dict(zip(PHASES, (after - before for before, after in pairwise(marks)), strict=True))
        server.send(Ready(studio.device, studio.engine, spent, studio.measures, studio.memory))
    except ConnectionError:
        return  # the server is gone
    except Exception as err:  # whatever it is, the server says so
        server.send(WorkerFailed(f"{type(err).__name__}: {err}"))
        return
    try:
        while (told := server.recv()) is not None:
            if isinstance(told, Batch):  # else a word that came too late
                server.send(_drawn(server, studio, signer, told))
    except (EOFError, OSError):
        return  # the server is gone


def _opened(opening: WorkerConfig) -> "InferenceEngine":
    from valentina_pipeline.serving.inference.engine import InferenceEngine
    from valentina_pipeline.serving.inference.package import InvalidPackageError

    def by(engine: Engine) -> InferenceEngine:
        return InferenceEngine.open(
            opening.package, opening.base, opening.root, opening.adapters, engine, opening.compile
        )

    try:
        return by(opening.engine)
    except InvalidPackageError:
        raise  # nothing draws from it: it is damaged, or its rights are gone
    except Exception:
        if not opening.or_renderer:
            raise
        logger.exception("the renderer draws, as the networks cannot be loaded")
        return by("procedural")


def _drawn(server: Connection, studio: "InferenceEngine", signer: Signer, batch: Batch) -> BatchDone:
    begun, error, waits = time.monotonic(), "", ""
    try:
        _draw(server, studio, signer, batch)
    except _AllCancelledError:
        pass
    except (EOFError, ConnectionError):
        raise
    except Exception as err:  # a LoRA that does not fit, say: the next batch may well be drawn
        logger.exception("a batch is not drawn")
        if isinstance(err, OSError) and err.errno in REFUSALS:
            waits = no_room("files that drawing takes", err)
        else:
            error = f"{type(err).__name__}: {err}"
    return BatchDone(time.monotonic() - begun, error, waits)


def _draw(server: Connection, studio: "InferenceEngine", signer: Signer, batch: Batch) -> None:
    parts, cancelled, watched = list(_parts(batch.orders)), set[str](), set[str]()
    steps = next(iter(batch.orders.values())).settings.steps_done  # of all of them
    for number, part in enumerate(parts):
        wanted = [(job, order) for job, order in part if job not in cancelled]
        if not wanted:
            continue

        def on_step(
            done: int, latents: "Tensor", before: int = number * steps, rows: Sequence[Any] = wanted
        ) -> None:
            while server.poll():
                told = server.recv()
                (cancelled if isinstance(told, Cancelled) else watched).add(told.job)
            if cancelled >= batch.orders.keys():
                raise _AllCancelledError
            previews: dict[str, bytes] = {}
            if done % max(1, steps // PREVIEWS) == 0 and done < steps:
                for row, (job, _) in enumerate(rows):
                    wished = job in watched and job not in previews
                    if wished and (image := studio.preview(latents[row])):
                        previews[job] = _jpeg(image)
            server.send(Step(before + done, len(parts) * steps, previews))

        drawn = studio.draw([order for _, order in wanted], on_step)
        server.send(
            [
                GeneratedImage(
                    job,
                    one.seed,
                    signer.encode(one.image) if one.image else b"",
                    one.refused,
                    one.identity,
                    studio.engine,
                    one.warnings,
                )
                for (job, _), (one,) in zip(wanted, drawn, strict=True)
            ]
        )


def _parts(orders: dict[str, ResolvedRequest]) -> Iterator[list[tuple[str, ResolvedRequest]]]:
    """Yield what is drawn at once: orders of one image each, with their jobs.

    Those with a negative prompt and those without are drawn apart, as `image/provenance/metadata.py` does.
    """
    from valentina_pipeline.serving.inference.engine import batch_size

    for negative in (False, True):
        single = [
            (job, replace(order, seeds=(seed,)))
            for job, order in orders.items()
            for seed in order.seeds
            if bool(order.negative_prompt) == negative
        ]
        most = batch_size(single[0][1].settings) if single else 1
        for start in range(0, len(single), most):
            yield single[start : start + most]


def _jpeg(image: Any) -> bytes:
    image.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=70)
    return buffer.getvalue()
