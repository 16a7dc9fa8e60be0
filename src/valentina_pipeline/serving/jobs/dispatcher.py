"""Dispatcher: sends batches to the worker process, receives progress, restarts it after a crash."""

import logging
import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valentina_pipeline.serving.inference.engine import batch_size
from valentina_pipeline.serving.inference.package import PackageInfo
from valentina_pipeline.serving.jobs.database import UnavailableError
from valentina_pipeline.serving.jobs.image_store import ImageStore
from valentina_pipeline.serving.jobs.job import Image, Job
from valentina_pipeline.serving.jobs.metrics import Metrics
from valentina_pipeline.serving.jobs.progress import Progress
from valentina_pipeline.serving.jobs.quality_monitor import QualityMonitor
from valentina_pipeline.serving.jobs.retention import Retention
from valentina_pipeline.serving.jobs.store import JobStore
from valentina_pipeline.serving.jobs.worker import (
    Batch,
    BatchDone,
    GeneratedImage,
    Ready,
    Step,
    WorkerConfig,
    WorkerFailed,
)
from valentina_pipeline.serving.jobs.worker_process import WorkerProcess

if TYPE_CHECKING:
    from valentina_pipeline.serving.inference.request import ResolvedRequest

logger = logging.getLogger(__name__)

RETRY_SECONDS = 2.0
"""Seconds before a retry where the networks, the database or the disk failed."""


class Dispatcher:
    """Thread that runs jobs in a worker process, which it starts, watches and restarts.

    Args:
        jobs: the queue.
        about: the package.
        opening: configuration of the worker process.
        folder: of the images.
        metrics: for Prometheus.
        batching: generate jobs with equal settings together.
        fallback: the package to switch to once image quality falls below its thresholds.

    Attributes:
        about: the package in use.
        note: why the fallback is in use, else "".
        ready: device of the worker process, such as "cpu"; "" while it is not ready.
        engine: of the worker process, once it is ready.
        broken: why the worker process is not ready.
        trouble: why jobs can be neither run nor accepted now, else "".
        memory: memory use of the worker process: see image/models/offload.py.
        batch_seconds: duration of the last batch; an estimate before the first.
    """

    def __init__(
        self,
        jobs: JobStore,
        about: PackageInfo,
        opening: WorkerConfig,
        folder: Path,
        metrics: Metrics,
        batching: bool = True,
        fallback: PackageInfo | None = None,
    ) -> None:
        self.jobs = jobs
        self.about = about
        self.note = ""
        self.ready = ""
        self.engine = opening.engine
        self.broken = "the worker process is loading the networks"
        self.trouble = ""
        self.memory: dict[str, Any] = {}
        self.batch_seconds = 5.0
        self._opening = opening
        self._gallery = ImageStore(folder)
        self._retention = Retention(jobs, self._gallery)
        self._metrics = metrics
        self._max_images = batch_size if batching else lambda settings: 1
        self._fallback = fallback
        self._monitor = QualityMonitor(about)
        self._measures = False
        self._progress: dict[str, Progress] = {}
        self._watched: dict[str, int] = {}
        self._cancelled: set[str] = set()
        self._in_hand = frozenset[str]()
        self._reclaimed = 0.0
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._stopped = threading.Event()
        self._process: WorkerProcess | None = None
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)

    def start(self) -> None:
        """Start the threads."""
        self._thread.start()
        threading.Thread(target=self._renew, name="lease", daemon=True).start()

    def stop(self, seconds: float = 30.0) -> None:
        """Stop after the running batch, or after so many seconds; other jobs stay queued."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(seconds)
        self._stop_worker(kill=self._thread.is_alive())
        self._thread.join(5)
        self._stopped.set()
        self._release()

    def submit(self, owner: str, order: "ResolvedRequest", images_per_day: int | None = None) -> Job:
        """Queue a resolved request and return its job.

        Raises:
            QueueFullError: too many jobs are waiting.
            RateLimitError: the owner's daily quota is exceeded.
            UnavailableError: images cannot be stored now.
        """
        if self.trouble:
            raise UnavailableError(self.trouble)
        job = self.jobs.add(owner, order, images_per_day)
        self._wake.set()
        return job

    def cancel(self, job: str) -> bool:
        """Cancel a job within one sampler step; return whether it was still active."""
        cancelled = self.jobs.end([job], "cancelled") > 0
        if cancelled:
            self._cancelled.add(job)
            self._metrics.jobs.labels("cancelled").inc()
        return cancelled

    def progress(self, job: str) -> Progress | None:
        """Return the progress of a running job, else None."""
        return self._progress.get(job)

    def picture(self, image: Image) -> Path:
        """Return the path of an image."""
        return self._gallery.path(image.file)

    def steps(self, job: Job) -> tuple[int, int]:
        """Return the steps done and the total steps over all batches of a job."""
        steps, batch = job.order.settings.steps_done, self._max_images(job.order.settings)
        total = -(-job.num_images // batch) * steps
        return min(total, -(-len(job.images) // batch) * steps), total

    @contextmanager
    def watching(self, job: str) -> Iterator[None]:
        """Generate previews of a job inside the block."""
        self._watched[job] = self._watched.get(job, 0) + 1
        try:
            yield
        finally:
            self._watched[job] -= 1
            if not self._watched[job]:
                del self._watched[job]

    def _run(self) -> None:
        failed = False
        while not self._stopping.is_set():
            try:
                self._gallery.probe()
                if failed:  # the batch in hand may be the cause
                    self._retry(self._in_hand)
                self.jobs.release()
                self._in_hand = frozenset()
                failed, self.trouble = False, ""
                self._serve()
            except UnavailableError as err:
                self._release()
                if self.trouble != str(err):
                    # later lines may quote stored prompts
                    cause, _, _ = str(err.__cause__ or "").partition("\n")
                    logger.error("%s %s", err, cause)
                self.trouble = str(err)
                self._stopping.wait(RETRY_SECONDS)
            except Exception:  # the dispatcher must survive every error
                logger.exception("the dispatcher restarts")
                failed = True
                self._stop_worker(kill=True)
                self._progress.clear()
                self._stopping.wait(RETRY_SECONDS)

    def _release(self) -> None:
        """Requeue the batch in hand, if the database is writable."""
        try:
            self.jobs.release()
            self._in_hand = frozenset()
        except UnavailableError as err:
            logger.error("the running jobs wait until their lease expires: %s", err)

    def _renew(self) -> None:
        """Renew the lease periodically, and cancel the jobs that other servers took or cancelled."""
        while not self._stopped.wait(self.jobs.lease / 5):
            in_hand = self._in_hand
            try:
                lost = in_hand - self.jobs.renew() if in_hand else in_hand
            except UnavailableError as err:
                logger.warning("the lease of the running jobs was not renewed: %s", err)
            else:
                if in_hand is self._in_hand:
                    self._cancelled |= lost

    def _serve(self) -> None:
        """Run jobs from the queue until the worker process crashes or the server stops."""
        if not self._ensure_worker():
            self._stop_worker(kill=True)
            self._stopping.wait(RETRY_SECONDS)
            return
        while not self._stopping.is_set():
            self._wake.clear()
            self._clean_up()
            if self._switch_to_fallback():
                return
            batch = self.jobs.take(self._max_images)
            if batch:
                if not self._run_batch(batch):
                    return
            else:
                self._wake.wait(1.0)
                process = self._process
                if process is None or not process.alive:
                    return
                if not process.answers(self._stopping.is_set):
                    self._recover(set(), process)
                    return

    def _ensure_worker(self) -> bool:
        """Start a worker process unless one runs; return whether one is ready."""
        if self._process is not None and self._process.alive:
            return True
        self._stop_worker(kill=True)
        self.ready = ""
        began = time.monotonic()
        process = self._process = WorkerProcess(self._opening)
        match message := process.receive(self._stopping.is_set):
            case Ready():
                self.ready, self.engine, self.broken = message.device, message.engine, ""
                self._measures, self.memory = message.measures, message.memory
                took = time.monotonic() - began
                phases = {"process": took - sum(message.spent.values()), **message.spent}
                for phase, seconds in phases.items():
                    self._metrics.loading.labels(phase).set(seconds)
                parts = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in phases.items())
                values = (message.engine, message.device, took, parts, message.memory)
                logger.info("%s is ready on %s after %.1f s (%s), memory: %s", *values)
                return True
            case WorkerFailed():
                self.broken = message.why
            case _ if self._stopping.is_set():
                return False
            case _:
                self.broken = f"the worker process {process.fate} while it loaded the networks"
        logger.error("%s", self.broken)
        return False

    def _run_batch(self, batch: list[Job]) -> bool:
        """Run a batch in the worker process; return whether the process survived.

        Raises:
            UnavailableError: images could not be stored; their jobs wait.
        """
        began, waiting = time.monotonic(), {job.id for job in batch}
        self._in_hand = frozenset(waiting)
        for job in batch:
            done, total = self.steps(job)
            self._progress[job.id] = Progress("running", done, total, begun=began, before=done)
            if not job.images:
                self._metrics.phase_duration.labels("queued").observe(
                    max(0.0, (job.started_at or 0) - job.created_at)
                )
        settings, num_images = batch[0].order.settings, sum(len(job.order.seeds) for job in batch)
        process = self._process
        assert process is not None  # `_ensure_worker` started it
        process.patience.begin((settings, num_images))
        process.send(Batch({job.id: job.order for job in batch}))
        images, trouble = 0, ""
        while True:
            states = waiting, self._cancelled, self._watched
            match message := process.receive(lambda: self._process is None, *states):
                case Step():
                    process.patience.end_phase(
                        "stepping" if message.done % settings.steps_done else "finishing"
                    )
                    self._update_progress(message, batch)
                case list():
                    process.patience.end_phase("beginning")
                    images += len(message)
                    try:
                        self._store(message, {job.id: job.order for job in batch})
                    except UnavailableError as err:
                        trouble = str(err)
                        self._cancelled |= waiting  # the rest runs once images can be stored
                case BatchDone():
                    self._metrics.count_images(images, message.seconds)
                    self.batch_seconds = message.seconds
                    self._finish(waiting, message.error, trouble or message.waits)
                    return True
                case _:
                    return self._recover(waiting, process)

    def _update_progress(self, step: Step, batch: list[Job]) -> None:
        for job in batch:
            before = self._progress[job.id]
            done = before.before + step.done * job.order.settings.steps_done // step.total
            preview = step.previews.get(job.id, before.preview)
            self._progress[job.id] = replace(before, done=min(done, before.total), preview=preview)

    def _store(self, generated: list[GeneratedImage], orders: "Mapping[str, ResolvedRequest]") -> None:
        """Write images and add them to their jobs. If writing fails, add those already written.

        Raises:
            UnavailableError: an image cannot be written.
        """
        stored = []
        try:
            for image in generated:
                if image.job in self._cancelled:
                    continue
                name = f"{image.job}-{image.seed}.png" if image.png else ""
                if name:
                    self._gallery.keep(name, image.png)
                details = image.identity, image.engine, image.attributes, image.warnings
                stored.append((image.job, Image(image.seed, name, image.blocked_reason, *details)))
                self._metrics.images.labels("blocked" if image.blocked_reason else "generated").inc()
                if image.png and self._measures:
                    self._record_quality(orders[image.job], image.identity)
        finally:
            self.jobs.pictures(stored)

    def _record_quality(self, order: "ResolvedRequest", identity: float | None) -> None:
        """Record the identity similarity of an image; None is an image without a face."""
        self._monitor.add(order, [identity])
        self._metrics.faces.labels("missing" if identity is None else "found").inc()
        if identity is not None:
            self._metrics.identity.observe(identity)
        self._metrics.rolling_identity.set(self._monitor.identity or 0.0)
        self._metrics.rolling_face_detection_rate.set(self._monitor.face_detection_rate or 0.0)

    def _switch_to_fallback(self) -> bool:
        """Switch to the fallback package where quality is below its thresholds; return whether it did."""
        if self._fallback is None or not (why := self._monitor.failing):
            return False
        self.note = f"{why}: fallback LoRA {self._fallback.lora_hash[:12]} of {self._fallback.name} is in use"
        logger.error("%s", self.note)
        self.about, self._fallback = self._fallback, None
        self._opening = replace(self._opening, package=self.about.folder)
        self._monitor = QualityMonitor(self.about)
        self._metrics.fallback_active.set(1)
        self._stop_worker(kill=False)
        return True

    def _finish(self, jobs: set[str], error: str, waits: str) -> None:
        """Record the result of a batch.

        Raises:
            UnavailableError: the batch must wait; `waits` is the reason.
        """
        for job in jobs:
            self._progress.pop(job, None)
        self._cancelled -= jobs
        if waits:
            raise UnavailableError(waits)
        if error:
            self._metrics.jobs.labels("failed").inc(self.jobs.end(jobs, "failed", error))
        else:
            self._metrics.jobs.labels("done").inc(self.jobs.turn(jobs))
        self._in_hand = frozenset()

    def _recover(self, waiting: set[str], process: WorkerProcess) -> bool:
        if self._stopping.is_set():
            return False  # `stop` requeues them
        logger.error("the worker process %s; restarting it", process.fate)
        self.ready, self.broken = "", "the worker process is being restarted"
        self._metrics.worker_restarts.inc()
        self._stop_worker(kill=True)
        for job in waiting:
            self._progress.pop(job, None)
        self._retry(waiting)
        return False

    def _retry(self, jobs: Collection[str]) -> None:
        """Requeue the jobs of a batch after a crash; fail those out of attempts."""
        self._metrics.jobs.labels("failed").inc(self.jobs.retry(jobs))
        self._in_hand = frozenset()

    def _stop_worker(self, kill: bool) -> None:
        """Stop the worker process, if any."""
        process, self._process = self._process, None
        if process is not None:
            process.stop(kill)

    def _clean_up(self) -> None:
        """Reclaim jobs of lost servers and delete old jobs. Call it between two batches."""
        self._cancelled.clear()  # jobs that never started
        now = time.monotonic()
        if now >= self._reclaimed + self.jobs.lease / 5:
            self._reclaimed = now
            self._metrics.jobs.labels("failed").inc(self.jobs.reclaim())
        self._retention.delete_old_jobs()
