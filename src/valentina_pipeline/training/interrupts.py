"""Stop training on a signal, after a checkpoint."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class TrainingInterrupted(KeyboardInterrupt):
    """A signal stopped the run; a checkpoint was written first."""


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """Set an event on the first Ctrl-C or SIGTERM, so that the step finishes; a second one stops at once."""
    stop_requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop_requested  # only the main thread can handle signals
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def request_stop(number: int, frame: object) -> None:
        stop_requested.set()
        restore_handlers()

    def restore_handlers() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in before:
        signal.signal(number, request_stop)
    try:
        yield stop_requested
    finally:
        restore_handlers()
