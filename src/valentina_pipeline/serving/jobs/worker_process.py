"""The process that draws, as the desk has it: started, talked with, ended, and watched for hanging."""

import logging
import multiprocessing
from collections.abc import Callable, Collection

from valentina_pipeline.serving.jobs.hang_detection import HangDetector, Patience
from valentina_pipeline.serving.jobs.worker import Batch, Cancelled, Watched, WorkerConfig, work

logger = logging.getLogger(__name__)

BEAT = 0.02
"""Seconds: how often it is looked whether the process lives and whether there is something to tell it."""

Word = Cancelled | Watched


class DrawingProcess:
    """A process that draws, which is started with this.

    Args:
        opening: what it draws with.
    """

    def __init__(self, opening: WorkerConfig) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy locks that threads hold
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, opening), daemon=True)
        self._process.start()
        theirs.close()
        self._pulse = HangDetector(self._process)
        self._said = set[Word]()

    @property
    def pid(self) -> int:
        """Its number in the system."""
        return self._process.pid or 0

    @property
    def alive(self) -> bool:
        """It still runs."""
        return self._process.is_alive()

    @property
    def patience(self) -> Patience:
        """The silence that it may keep."""
        return self._pulse.patience

    @property
    def end_of_it(self) -> str:
        """The fate of one that is gone: "died", or that it hung."""
        return self._pulse.hung or "died"

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def tell(self, what: Batch | None) -> None:
        """Have it draw a batch, or end."""
        self._said.clear()
        try:
            with self._pulse.listening():
                self._line.send(what)
        except OSError:
            logger.debug("the process that draws is gone")  # which `hear` finds too

    def hear(
        self,
        given_up: Callable[[], bool],
        jobs: Collection[str] = (),
        cancelled: Collection[str] = (),
        watched: Collection[str] = (),
    ) -> object:
        """Return what the process says next, None where it is gone or `given_up`.

        Args:
            given_up: says whether nobody waits for it any more.
            jobs: that it draws.
            cancelled: jobs that it need not draw any more, which it learns meanwhile.
            watched: jobs that need previews, likewise.
        """
        with self._pulse.listening():
            while not given_up():
                try:
                    for job in jobs:
                        self._say(Cancelled(job), job in cancelled)
                        self._say(Watched(job), job in watched)
                    if self._line.poll(BEAT):
                        return self._line.recv()
                except (EOFError, OSError):
                    return None
                if not self.alive and not self._line.poll():
                    return None
        return None

    def _say(self, word: Word, holds: bool) -> None:
        """Have it know, once."""
        if holds and word not in self._said:
            self._line.send(word)
            self._said.add(word)

    def dismiss(self, kill: bool) -> None:
        """End it, after what it is drawing or at once."""
        if kill:
            self.kill()
        else:
            self.tell(None)
        self._process.join(10)
        if self.alive:
            self.kill()
            self._process.join()
        self._pulse.end()
        self._line.close()
