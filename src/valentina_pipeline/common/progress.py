"""Progress bar and logged rate for long work on images."""

import logging
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

logger = logging.getLogger(__name__)


def track_progress(items: Iterable[Item], what: str, total: int, done: int = 0) -> Iterator[Item]:
    """Yield the items with a progress bar of rate and remaining time; log the rate at the end.

    Args:
        items: items still to process, one per image.
        what: name of the work, for the bar and the log.
        total: number of images, already processed ones included.
        done: number of images already processed.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

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
            progress.update(bar, advance=1, description=f"{rate:.1f} images/s")
    if count:
        seconds = time.perf_counter() - began
        logger.info("%s: %d images in %.1f s, %.1f per second", what, count, seconds, count / seconds)
