"""Waiting for what happens elsewhere."""

import time
from collections.abc import Callable


def until(what: Callable[[], bool], seconds: float = 600) -> None:
    """Wait until `what` returns True, for `seconds` at most: only what never happens takes as long."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)
