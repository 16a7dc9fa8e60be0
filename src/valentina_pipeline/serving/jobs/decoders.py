"""Where pictures that came with a request are decoded: processes of which each may die, two at a time."""

import multiprocessing
import resource
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from valentina_pipeline.integrations.bounded import ConcurrencyLimit
from valentina_pipeline.serving.inference.prompt_notation import InvalidRequestError

if TYPE_CHECKING:
    from pebble import ProcessPool

Found = TypeVar("Found")

PROCESSES = 2
MOST_WAITING, MOST_WAITING_EACH = 16, 4
"""Requests with pictures that are decoded or wait for it: of all, and of one owner."""

SECONDS = 30.0
"""For one request's pictures; then their process is ended."""

MEMORY = 2 << 30
"""Bytes that one of the processes may take."""


class Decoders:
    """Runs functions on files of strangers in separate processes, which begin with the first file."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ProcessPool | None = None
        self._places = ConcurrencyLimit(
            MOST_WAITING, MOST_WAITING_EACH, "requests with pictures wait for being read"
        )

    def run(self, owner: str, field: str, work: Callable[..., Found], *given: Any) -> Found:
        """Return what `work`, a function of a module, finds in pictures.

        Raises:
            HTTPException: too many others wait.
            InvalidRequestError: on `field`, where the process died or took too long.
        """
        from pebble import ProcessExpired

        with self._places.taken(owner):
            future = self._active_pool().schedule(work, args=list(given), timeout=SECONDS)
            try:
                return future.result()
            except TimeoutError as err:
                raise InvalidRequestError(field, f"reading it took longer than {SECONDS:.0f} s") from err
            except (ProcessExpired, MemoryError) as err:
                raise InvalidRequestError(
                    field, "reading it took too much memory, or broke what reads it"
                ) from err

    def close(self) -> None:
        """End the processes; the next file begins new ones."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.stop()
            pool.join()

    def _active_pool(self) -> "ProcessPool":
        from pebble import ProcessPool

        with self._lock:
            if self._pool is None:
                context: Any = multiprocessing.get_context(
                    "spawn"
                )  # a fork would copy locks that threads hold
                self._pool = ProcessPool(PROCESSES, initializer=_confine, context=context)
            return self._pool


def _confine() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
