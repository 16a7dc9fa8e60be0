"""Worker process: loads the networks and generates batches. A crash leaves the server running."""

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
from valentina_pipeline.serving.inference.identity import AttributeReading
from valentina_pipeline.serving.inference.request import Engine, ResolvedRequest
from valentina_pipeline.serving.jobs.disk import DISK_ERRORS, no_room
from valentina_pipeline.serving.marks.c2pa import Signer

if TYPE_CHECKING:
    from torch import Tensor

    from valentina_pipeline.serving.inference.engine import InferenceEngine

logger = logging.getLogger(__name__)

PHASES = ("torch", "diffusers", "networks")
"""Phases of a start: two imports, then the checks and networks of the package."""

MAX_MEASURED_CORES = 4
"""With more cores the last one is a small share, which noise would hide."""

NUM_PREVIEWS = 4
"""Previews of a generation, where a client watches it."""

PREVIEW_PIXELS = 512
"""Maximum side; larger previews are shrunk."""


@dataclass(frozen=True)
class WorkerConfig:
    """Configuration of the worker process: arguments of `InferenceEngine.open` and the signing folder.

    With `fallback_renderer`, the renderer is used where the networks cannot be loaded. With `compile`, torch
    compiles the blocks of the U-Net. `num_threads` is the number of CPU threads; None chooses it by
    measurement.
    """

    package: Path
    signing: Path
    base: str | None = None
    root: Path | None = None
    lora_dir: Path | None = None
    engine: Engine = "torch"
    fallback_renderer: bool = False
    compile: bool = False
    num_threads: int | None = None


@dataclass(frozen=True)
class Ready:
    """The networks are loaded.

    Attributes:
        device: of the engine, such as "cpu".
        engine: in use.
        spent: seconds by phase of the start.
        measures: True where identity similarity to the portraits is measured.
        memory: "offload", "tiled" and "why": see image/models/offload.py.
    """

    device: str
    engine: Engine
    spent: dict[str, float]
    measures: bool
    memory: dict[str, Any]


@dataclass(frozen=True)
class WorkerFailed:
    """The networks cannot be loaded; `why` is the reason."""

    why: str


@dataclass(frozen=True)
class Step:
    """Progress of a batch: steps done and in all, and previews (JPEG) of each job's first image, by job."""

    done: int
    total: int
    previews: dict[str, bytes]


@dataclass(frozen=True)
class GeneratedImage:
    """Image of a job: a PNG file, or the reason why it was blocked. Sent in lists, one per micro-batch."""

    job: str
    seed: int
    png: bytes
    blocked_reason: str
    identity: float | None
    engine: Engine
    attributes: tuple[AttributeReading, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class BatchDone:
    """A batch has ended, after `seconds`.

    `error` says why it failed, `waits` why it must be retried later, else "".
    """

    seconds: float
    error: str = ""
    waits: str = ""


@dataclass(frozen=True)
class Batch:
    """Batch to generate: jobs with equal settings."""

    orders: dict[str, ResolvedRequest]


@dataclass(frozen=True)
class Cancelled:
    """A job of the running batch was cancelled."""

    job: str


@dataclass(frozen=True)
class Watched:
    """A client watches a job of the running batch."""

    job: str


@dataclass(frozen=True)
class Ping:
    """Question whether the idle process answers; it sends the same back."""


class _AllCancelledError(Exception):
    pass


def work(server: Connection, opening: WorkerConfig) -> None:
    """Generate batches until the server is gone or sends None.

    Receives a `Batch`, and while it runs `Cancelled` and `Watched` for its jobs. Sends `Ready` or
    `WorkerFailed`; then for each batch `Step`s, lists of `GeneratedImage`s and finally `BatchDone`. Returns a
    `Ping`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes: the server stops this one
    logs.configure()
    try:
        times = [time.monotonic()]
        import torch

        num_cores = torch.get_num_threads()
        torch.set_num_threads(opening.num_threads or max(1, num_cores - 1))
        times.append(time.monotonic())
        if opening.engine == "torch":
            import diffusers

            diffusers.StableDiffusionXLPipeline  # noqa: B018  the access imports it, transformers and peft
        if opening.engine != "renderer":
            logs.silence_prompts()
        times.append(time.monotonic())
        signer = Signer(opening.signing)
        engine = _open_engine(opening)
        if opening.num_threads is None and engine.device == "cpu" and engine.engine == "torch":
            torch.set_num_threads(_choose_num_threads(engine, num_cores))
        times.append(time.monotonic())
        spent = dict(zip(PHASES, (after - before for before, after in pairwise(times)), strict=True))
        server.send(Ready(engine.device, engine.engine, spent, engine.measures, engine.memory))
    except ConnectionError:
        return  # the server is gone
    except Exception as err:  # the server reports every error
        server.send(WorkerFailed(f"{type(err).__name__}: {err}"))
        return
    try:
        while (message := server.recv()) is not None:
            if isinstance(message, Batch):
                server.send(_run_batch(server, engine, signer, message))
            elif isinstance(message, Ping):  # else a notice that came too late
                server.send(message)
    except (EOFError, OSError):
        return  # the server is gone


def _open_engine(opening: WorkerConfig) -> "InferenceEngine":
    from valentina_pipeline.serving.inference.engine import InferenceEngine
    from valentina_pipeline.serving.inference.package import InvalidPackageError

    def open_with(engine: Engine) -> InferenceEngine:
        return InferenceEngine.open(
            opening.package, opening.base, opening.root, opening.lora_dir, engine, opening.compile
        )

    try:
        return open_with(opening.engine)
    except InvalidPackageError:
        raise  # the package is damaged or its rights are revoked: no engine may use it
    except Exception:
        if not opening.fallback_renderer:
            raise
        logger.exception("the networks cannot be loaded: the renderer is used")
        return open_with("renderer")


def _choose_num_threads(engine: "InferenceEngine", num_cores: int) -> int:
    """Return all cores if the last one makes the networks faster, else leave it to the API.

    Small networks gain nothing from it, because their threads mostly wait for each other.
    """
    import torch

    if not 1 < num_cores <= MAX_MEASURED_CORES:
        return max(1, num_cores - 1)
    seconds = {}
    for count in (num_cores - 1, num_cores):
        torch.set_num_threads(count)
        seconds[count] = min(engine.time_text_encoding() for _ in range(3))
    ideal = (num_cores - 1) / num_cores
    gains = seconds[num_cores] < seconds[num_cores - 1] * (1 + ideal) / 2
    logger.info(
        "text encoding takes %.0f ms with %d threads, %.0f ms with %d",
        *(value for count in sorted(seconds) for value in (1000 * seconds[count], count)),
    )
    return num_cores if gains else num_cores - 1


def _run_batch(server: Connection, engine: "InferenceEngine", signer: Signer, batch: Batch) -> BatchDone:
    started, error, waits = time.monotonic(), "", ""
    try:
        _generate(server, engine, signer, batch)
    except _AllCancelledError:
        pass
    except (EOFError, ConnectionError):
        raise
    except Exception as err:  # such as an incompatible LoRA: the next batch may succeed
        logger.exception("a batch failed")
        if isinstance(err, OSError) and err.errno in DISK_ERRORS:
            waits = no_room("temporary files", err)
        else:
            error = f"{type(err).__name__}: {err}"
    return BatchDone(time.monotonic() - started, error, waits)


def _generate(server: Connection, engine: "InferenceEngine", signer: Signer, batch: Batch) -> None:
    parts, cancelled, watched = list(_micro_batches(batch.orders)), set[str](), set[str]()
    steps = next(iter(batch.orders.values())).settings.steps_done  # equal for all orders
    for number, part in enumerate(parts):
        active = [(job, order) for job, order in part if job not in cancelled]
        if not active:
            continue

        def on_step(
            done: int, latents: "Tensor", before: int = number * steps, rows: Sequence[Any] = active
        ) -> None:
            while server.poll():
                notice = server.recv()
                (cancelled if isinstance(notice, Cancelled) else watched).add(notice.job)
            if cancelled >= batch.orders.keys():
                raise _AllCancelledError
            previews: dict[str, bytes] = {}
            if done % max(1, steps // NUM_PREVIEWS) == 0 and done < steps:
                for row, (job, _) in enumerate(rows):
                    needed = job in watched and job not in previews
                    if needed and (image := engine.preview(latents[row])):
                        previews[job] = _jpeg(image)
            server.send(Step(before + done, len(parts) * steps, previews))

        results = engine.draw([order for _, order in active], on_step)
        server.send(
            [
                GeneratedImage(
                    job,
                    result.seed,
                    signer.encode(result.image) if result.image else b"",
                    result.blocked_reason,
                    result.identity,
                    engine.engine,
                    result.attributes,
                    result.warnings,
                )
                for (job, _), (result,) in zip(active, results, strict=True)
            ]
        )


def _micro_batches(orders: dict[str, ResolvedRequest]) -> Iterator[list[tuple[str, ResolvedRequest]]]:
    """Yield micro-batches: orders of one image each, with their jobs.

    Orders with and without a negative prompt are separated, as in `image/provenance/metadata.py`.
    """
    from valentina_pipeline.serving.inference.engine import batch_size

    for negative in (False, True):
        single = [
            (job, replace(order, seeds=(seed,)))
            for job, order in orders.items()
            for seed in order.seeds
            if bool(order.negative_prompt) == negative
        ]
        size = batch_size(single[0][1].settings) if single else 1
        for start in range(0, len(single), size):
            yield single[start : start + size]


def _jpeg(image: Any) -> bytes:
    image.thumbnail((PREVIEW_PIXELS, PREVIEW_PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=70)
    return buffer.getvalue()
