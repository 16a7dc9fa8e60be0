"""Handle of the worker process: start, send, receive, stop, and detect hangs."""

import logging
import multiprocessing
import time
from collections.abc import Callable, Collection

from valentina_pipeline.serving.jobs.hang_detection import HangDetector, Patience
from valentina_pipeline.serving.jobs.worker import Batch, Cancelled, Ping, Watched, WorkerConfig, work

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.02
"""Seconds between checks that the process is alive and for notices to send."""

PING_SECONDS = 10.0
"""Seconds between questions whether the idle process answers."""

Notice = Cancelled | Watched


class WorkerProcess:
    """Worker process; creating the object starts it.

    Args:
        opening: its configuration.
    """

    def __init__(self, opening: WorkerConfig) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy locks that threads hold
        self._connection, remote = context.Pipe()
        self._process = context.Process(target=work, args=(remote, opening), daemon=True)
        self._process.start()
        remote.close()
        self._hang_detector = HangDetector(self._process)
        self._sent = set[Notice]()
        self._pinged = 0.0

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid or 0

    @property
    def alive(self) -> bool:
        """True while it runs."""
        return self._process.is_alive()

    @property
    def patience(self) -> Patience:
        """Limits of the time between its messages."""
        return self._hang_detector.patience

    @property
    def fate(self) -> str:
        """Verb phrase for its end: "died", or that it hung."""
        return self._hang_detector.hung or "died"

    def kill(self) -> None:
        """Kill it."""
        self._process.kill()

    def answers(self, given_up: Callable[[], bool]) -> bool:
        """Return whether the idle process answers, which is asked once in PING_SECONDS.

        One that does not answer within its timeout is killed.
        """
        if time.monotonic() < self._pinged + PING_SECONDS:
            return True
        self.patience.begin(Ping, "idle")
        self.send(Ping())
        answer = self.receive(given_up)
        self._pinged = time.monotonic()
        return answer is not None

    def send(self, message: Batch | Ping | None) -> None:
        """Send a batch to generate, or a ping; None stops the process."""
        self._sent.clear()
        try:
            with self._hang_detector.listening():
                self._connection.send(message)
        except OSError:
            logger.debug("the worker process is gone")  # `receive` detects it, too

    def receive(
        self,
        given_up: Callable[[], bool],
        jobs: Collection[str] = (),
        cancelled: Collection[str] = (),
        watched: Collection[str] = (),
    ) -> object:
        """Return the next message of the process, None where it is gone or `given_up`.

        Args:
            given_up: returns whether to stop waiting.
            jobs: of the running batch.
            cancelled: jobs to drop; the process is notified while this waits.
            watched: jobs that need previews; likewise.
        """
        with self._hang_detector.listening():
            while not given_up():
                try:
                    for job in jobs:
                        self._notify(Cancelled(job), job in cancelled)
                        self._notify(Watched(job), job in watched)
                    if self._connection.poll(POLL_SECONDS):
                        return self._connection.recv()
                except (EOFError, OSError):
                    return None
                if not self.alive and not self._connection.poll():
                    return None
        return None

    def _notify(self, notice: Notice, applies: bool) -> None:
        """Send a notice that applies, once a batch."""
        if applies and notice not in self._sent:
            self._connection.send(notice)
            self._sent.add(notice)

    def stop(self, kill: bool) -> None:
        """Stop it, after the running batch or at once (`kill`)."""
        if kill:
            self.kill()
        else:
            self.send(None)
        self._process.join(10)
        if self.alive:
            self.kill()
            self._process.join()
        self._hang_detector.end()
        self._connection.close()
