"""Between the queue and the process that draws: hands out batches, hears of progress, replaces what dies."""

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
from valentina_pipeline.serving.jobs.worker_process import DrawingProcess

if TYPE_CHECKING:
    from valentina_pipeline.serving.inference.request import ResolvedRequest

logger = logging.getLogger(__name__)

REST = 2.0
"""Seconds before what failed for want of a network, a database or a disk is tried again."""

TIDY = 60.0
"""Seconds between looks for what may be forgotten."""

KEPT = 24 * 3600.0
"""Seconds for which jobs and images are kept after their end."""


class Dispatcher:
    """The thread that has jobs drawn by a process, which it starts, watches and replaces.

    Args:
        jobs: the queue.
        about: the package.
        opening: what the process draws with.
        folder: where images go.
        metrics: is told.
        batching: draw like jobs together.
        fallback: the package that draws once the other's images are no longer like her.

    Attributes:
        about: the package that draws.
        note: why it is not the one that was meant, else "".
        ready: where the process draws, such as "cpu"; "" while it cannot.
        engine: what draws there, once it is ready.
        broken: why it cannot.
        trouble: why neither drawing nor accepting is possible for now, "" where both are.
        memory: how the process uses it: see image/models/offload.py.
        batch_seconds: how long the last batch took, a guess before the first.
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
        self.broken = "the networks are being loaded"
        self.trouble = ""
        self.memory: dict[str, Any] = {}
        self.batch_seconds = 5.0
        self._opening = opening
        self._gallery = ImageStore(folder)
        self._metrics = metrics
        self._most_images = batch_size if batching else lambda settings: 1
        self._fallback = fallback
        self._watch = QualityMonitor(about)
        self._measures = False
        self._progress: dict[str, Progress] = {}
        self._watched: dict[str, int] = {}
        self._cancelled: set[str] = set()
        self._in_hand = frozenset[str]()
        self._reclaimed = 0.0
        self._called = threading.Event()
        self._ending = threading.Event()
        self._ended = threading.Event()
        self._process: DrawingProcess | None = None
        self._tidied = 0.0
        self._thread = threading.Thread(target=self._run, name="desk", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()
        threading.Thread(target=self._renew, name="lease", daemon=True).start()

    def stop(self, seconds: float = 30.0) -> None:
        """Let the batch that is being drawn end, if it does within so many seconds; the rest stays queued."""
        self._ending.set()
        self._called.set()
        self._thread.join(seconds)
        self._dismiss(kill=self._thread.is_alive())
        self._thread.join(5)
        self._ended.set()
        self._release()

    def submit(self, owner: str, order: "ResolvedRequest", images_per_day: int | None = None) -> Job:
        """Accept an order.

        Raises:
            Full: too many are waiting.
            TooOften: the owner's images of a day are used up.
            UnavailableError: what is drawn could not be kept for now.
        """
        if self.trouble:
            raise UnavailableError(self.trouble)
        job = self.jobs.add(owner, order, images_per_day)
        self._called.set()
        return job

    def cancel(self, job: str) -> bool:
        """End a job within a step; return whether it had not ended yet."""
        cancelled = self.jobs.end([job], "cancelled") > 0
        if cancelled:
            self._cancelled.add(job)
            self._metrics.jobs.labels("cancelled").inc()
        return cancelled

    def progress(self, job: str) -> Progress | None:
        """Return how far a job is that is being drawn, or None."""
        return self._progress.get(job)

    def picture(self, image: Image) -> Path:
        """Return where an image is."""
        return self._gallery.path(image.file)

    def steps(self, job: Job) -> tuple[int, int]:
        """Return how many steps of a job's batches are done, and how many there are in all."""
        each, at_once = job.order.settings.steps_done, self._most_images(job.order.settings)
        total = -(-job.wanted // at_once) * each
        return min(total, -(-len(job.images) // at_once) * each), total

    @contextmanager
    def watching(self, job: str) -> Iterator[None]:
        """Have previews made of a job."""
        self._watched[job] = self._watched.get(job, 0) + 1
        try:
            yield
        finally:
            self._watched[job] -= 1
            if not self._watched[job]:
                del self._watched[job]

    def _run(self) -> None:
        failed = False
        while not self._ending.is_set():
            try:
                self._gallery.probe()
                if failed:  # maybe of what was being drawn
                    self._retry(self._in_hand)
                self.jobs.release()
                self._in_hand = frozenset()
                failed, self.trouble = False, ""
                self._serve()
            except UnavailableError as err:
                self._release()
                if self.trouble != str(err):
                    why, _, _ = str(err.__cause__ or "").partition("\n")  # more may quote what was stored
                    logger.error("%s %s", err, why)
                self.trouble = str(err)
                self._ending.wait(REST)
            except Exception:  # the desk has to outlive whatever happens
                logger.exception("the desk starts again")
                failed = True
                self._dismiss(kill=True)
                self._progress.clear()
                self._ending.wait(REST)

    def _release(self) -> None:
        """Put back what is in hand, if the database can be written."""
        try:
            self.jobs.release()
            self._in_hand = frozenset()
        except UnavailableError as err:
            logger.error("what was being drawn waits until its lease is over: %s", err)

    def _renew(self) -> None:
        """Say again and again that this server lives, and find out what others took or cancelled."""
        while not self._ended.wait(self.jobs.lease / 5):
            in_hand = self._in_hand
            try:
                lost = in_hand - self.jobs.renew() if in_hand else in_hand
            except UnavailableError as err:
                logger.warning("the lease of what is being drawn is not renewed: %s", err)
            else:
                if in_hand is self._in_hand:
                    self._cancelled |= lost

    def _serve(self) -> None:
        """Draw what is in the queue, until the process dies or the server ends."""
        if not self._open():
            self._dismiss(kill=True)
            self._ending.wait(REST)
            return
        while not self._ending.is_set():
            self._called.clear()
            self._tidy()
            if self._falls_back():
                return
            taken = self.jobs.take(self._most_images)
            if taken:
                if not self._have_drawn(taken):
                    return
            else:
                self._called.wait(1.0)
                if self._process is None or not self._process.alive:
                    return

    def _open(self) -> bool:
        """Have a process that is ready; return whether there is one."""
        if self._process is not None and self._process.alive:
            return True
        self._dismiss(kill=True)
        self.ready = ""
        began = time.monotonic()
        process = self._process = DrawingProcess(self._opening)
        match told := process.hear(self._ending.is_set):  # nobody waits for it at the end
            case Ready():
                self.ready, self.engine, self.broken = told.device, told.engine, ""
                self._measures, self.memory = told.measures, told.memory
                took = time.monotonic() - began
                spent = {"process": took - sum(told.spent.values()), **told.spent}
                for phase, seconds in spent.items():
                    self._metrics.loading.labels(phase).set(seconds)
                each = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in spent.items())
                said = (told.engine, told.device, took, each, told.memory)
                logger.info("%s is ready on %s after %.1f s (%s), memory: %s", *said)
                return True
            case WorkerFailed():
                self.broken = told.why
            case _ if self._ending.is_set():
                return False
            case _:
                self.broken = f"the process that draws {process.end_of_it} while it loaded the networks"
        logger.error("%s", self.broken)
        return False

    def _have_drawn(self, taken: list[Job]) -> bool:
        """Have a batch drawn; return whether the process is still there.

        Raises:
            UnavailableError: what was drawn could not be kept: it waits.
        """
        began, waiting = time.monotonic(), {job.id for job in taken}
        self._in_hand = frozenset(waiting)
        for job in taken:
            done, total = self.steps(job)
            self._progress[job.id] = Progress("running", done, total, begun=began, before=done)
            if not job.images:
                self._metrics.seconds.labels("queued").observe(max(0.0, (job.begun or 0) - job.accepted))
        settings, wanted = taken[0].order.settings, sum(len(job.order.seeds) for job in taken)
        process = self._process
        assert process is not None  # `_open` has it
        process.patience.begin((settings, wanted))
        process.tell(Batch({job.id: job.order for job in taken}))
        images, trouble = 0, ""
        while True:
            known = waiting, self._cancelled, self._watched
            match told := process.hear(lambda: self._process is None, *known):
                case Step():
                    process.patience.heard("stepping" if told.done % settings.steps_done else "finishing")
                    self._step(told, taken)
                case list():
                    process.patience.heard("beginning")
                    images += len(told)
                    try:
                        self._keep(told, {job.id: job.order for job in taken})
                    except UnavailableError as err:
                        trouble = str(err)
                        self._cancelled |= waiting  # the rest is drawn once it can be kept
                case BatchDone():
                    self._metrics.count_images(images, told.seconds)
                    self.batch_seconds = told.seconds
                    self._end(waiting, told.error, trouble or told.waits)
                    return True
                case _:
                    return self._died(waiting, process)

    def _step(self, told: Step, taken: list[Job]) -> None:
        for job in taken:
            before = self._progress[job.id]
            done = before.before + told.done * job.order.settings.steps_done // told.total
            preview = told.previews.get(job.id, before.preview)
            self._progress[job.id] = replace(before, done=min(done, before.total), preview=preview)

    def _keep(self, drawn: list[GeneratedImage], orders: "Mapping[str, ResolvedRequest]") -> None:
        """Write images, then say that they are there, be it of some only.

        Raises:
            UnavailableError: an image cannot be kept.
        """
        kept = []
        try:
            for each in drawn:
                if each.job in self._cancelled:
                    continue
                name = f"{each.job}-{each.seed}.png" if each.png else ""
                if name:
                    self._gallery.keep(name, each.png)
                more = each.identity, each.engine, each.warnings
                kept.append((each.job, Image(each.seed, name, each.refused, *more)))
                self._metrics.images.labels("refused" if each.refused else "drawn").inc()
                if each.png and self._measures:
                    self._look(orders[each.job], each.identity)
        finally:
            self.jobs.pictures(kept)

    def _look(self, order: "ResolvedRequest", identity: float | None) -> None:
        """Take note of how like her an image is."""
        self._watch.add(order, [identity])
        self._metrics.faces.labels("missing" if identity is None else "found").inc()
        if identity is not None:
            self._metrics.identity.observe(identity)
        for figure in ("identity", "face_found"):
            self._metrics.recent.labels(figure).set(getattr(self._watch, figure) or 0.0)

    def _falls_back(self) -> bool:
        """Have another process draw with the fallback where quality is below its gate; return whether."""
        if self._fallback is None or not (why := self._watch.failing):
            return False
        self.note = f"{why}: {self._fallback.name} is drawn by {self._fallback.lora_hash[:12]} instead"
        logger.error("%s", self.note)
        self.about, self._fallback = self._fallback, None
        self._opening = replace(self._opening, package=self.about.folder)
        self._watch = QualityMonitor(self.about)
        self._metrics.fallen_back.set(1)
        self._dismiss(kill=False)
        return True

    def _end(self, jobs: set[str], error: str, waits: str) -> None:
        """Say what became of a batch.

        Raises:
            UnavailableError: it `waits` for this.
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

    def _died(self, waiting: set[str], process: DrawingProcess) -> bool:
        if self._ending.is_set():
            return False  # `stop` puts them back
        logger.error("the process that draws %s: another takes over", process.end_of_it)
        self.ready, self.broken = "", "the process that draws is being replaced"
        self._metrics.replaced.inc()
        self._dismiss(kill=True)
        for job in waiting:
            self._progress.pop(job, None)
        self._retry(waiting)
        return False

    def _retry(self, jobs: Collection[str]) -> None:
        """Put back what the process died of, or what was drawn beside that."""
        self._metrics.jobs.labels("failed").inc(self.jobs.retry(jobs))
        self._in_hand = frozenset()

    def _dismiss(self, kill: bool) -> None:
        """Have no process."""
        process, self._process = self._process, None
        if process is not None:
            process.dismiss(kill)

    def _tidy(self) -> None:
        """Take over from servers that are gone, and forget what ended long ago. Between two batches."""
        self._cancelled.clear()  # of jobs that were never begun
        now = time.monotonic()
        if now >= self._reclaimed + self.jobs.lease / 5:
            self._reclaimed = now
            self._metrics.jobs.labels("failed").inc(self.jobs.reclaim())
        if now >= self._tidied + TIDY:
            self._tidied = now
            for image in self.jobs.forget(KEPT):
                if image.file:
                    self._gallery.remove(image.file)
