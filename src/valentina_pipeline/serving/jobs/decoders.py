"""Decoding of request images in separate processes, two at a time; a crash fails only its request."""

import multiprocessing
import resource
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from valentina_pipeline.integrations.bounded import ConcurrencyLimit
from valentina_pipeline.serving.inference.prompt_notation import InvalidRequestError

if TYPE_CHECKING:
    from pebble import ProcessPool

Result = TypeVar("Result")

NUM_PROCESSES = 2
MAX_WAITING, MAX_WAITING_PER_OWNER = 16, 4
"""Requests with images that are decoded or waiting: in all, and of one owner."""

TIMEOUT_SECONDS = 30.0
"""Time for the images of one request; then their process is killed."""

MAX_MEMORY_BYTES = 2 << 30
"""Memory of one process."""


class Decoders:
    """Runs functions on untrusted files in separate processes, which start with the first file."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pool: ProcessPool | None = None
        self._limit = ConcurrencyLimit(
            MAX_WAITING, MAX_WAITING_PER_OWNER, "requests with images are waiting to be decoded"
        )

    def run(self, owner: str, field: str, work: Callable[..., Result], *args: Any) -> Result:
        """Return the result of `work`, a module-level function, in a decoder process.

        Raises:
            HTTPException: too many requests are waiting.
            InvalidRequestError: about `field`, where the process crashed or timed out.
        """
        from pebble import ProcessExpired

        with self._limit.taken(owner):
            future = self._active_pool().schedule(work, args=list(args), timeout=TIMEOUT_SECONDS)
            try:
                return future.result()
            except TimeoutError as err:
                raise InvalidRequestError(
                    field, f"decoding took longer than {TIMEOUT_SECONDS:.0f} s"
                ) from err
            except (ProcessExpired, MemoryError) as err:
                raise InvalidRequestError(
                    field, "decoding took too much memory or crashed the decoder"
                ) from err

    def close(self) -> None:
        """Stop the processes; the next file starts new ones."""
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
                self._pool = ProcessPool(NUM_PROCESSES, initializer=_limit_memory, context=context)
            return self._pool


def _limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
