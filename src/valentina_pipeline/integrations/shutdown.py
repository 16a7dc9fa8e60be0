"""How a process ends that is asked to."""

import signal
import sys
import threading


def end_in_order() -> None:
    """Have SIGTERM end this process as Ctrl-C does: blocks are left, and temporary folders removed.

    By itself it ends a process at once, and what was to be done at the end is not.
    """
    if threading.current_thread() is threading.main_thread():  # others may set no signals
        signal.signal(signal.SIGTERM, _end)


def _end(number: int, _frame: object) -> None:
    sys.exit(128 + number)
