"""A bar for long work over pictures, and in the log how fast it went."""

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")

logger = logging.getLogger(__name__)


def track_progress(items: Iterable[Item], what: str, total: int, done: int = 0) -> Iterator[Item]:
    """Yield the items, one a picture, with a bar that shows rate and time left; log the rate at their end.

    Args:
        items: what is still to be worked on.
        what: is done to them.
        total: pictures, those done before included.
        done: before.
    """
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, transient=True) as progress:
        bar = progress.add_task("", total=total, completed=done)
        began = time.perf_counter()
        count = 0
        for item in items:
            yield item
            count += 1
            rate = count / (time.perf_counter() - began)
            progress.update(bar, advance=1, description=f"{rate:.1f} pictures/s")
    if count:
        seconds = time.perf_counter() - began
        logger.info("%s: %d pictures in %.1f s, %.1f a second", what, count, seconds, count / seconds)
