"""Orderly shutdown of a process on SIGTERM."""

import signal
import sys
import threading


def end_in_order() -> None:
    """Exit on SIGTERM as on Ctrl-C: leave the open blocks and remove temporary folders.

    By default SIGTERM kills the process at once, without any cleanup.
    """
    if threading.current_thread() is threading.main_thread():  # other threads cannot set signal handlers
        signal.signal(signal.SIGTERM, _exit)


def _exit(number: int, _frame: object) -> None:
    sys.exit(128 + number)
