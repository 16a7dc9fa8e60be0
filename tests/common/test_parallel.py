import os
import signal
import time
from collections.abc import Iterator

import pytest

from valentina_pipeline.common.parallel import WorkerFailure, parallel_map


def doubled(item: int) -> int:
    """Return twice the item; kill, wait or fail where it is 13, 14 or 15."""
    if item == 13:
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == 14:
        time.sleep(60)
    if item == 15:
        raise ValueError("fifteen")
    time.sleep(0.02 if item % 2 else 0)
    return 2 * item


def test_results_come_in_the_order_of_the_items() -> None:
    assert list(parallel_map(doubled, range(10), workers=3)) == [2 * item for item in range(10)]


def test_a_worker_that_dies_loses_its_item_and_nothing_else() -> None:
    before, lost, *after = parallel_map(doubled, [1, 13, 2, 3, 4, 5], workers=2)
    assert (before, after) == (2, [4, 6, 8, 10])
    assert lost == WorkerFailure("its process crashed (exit code -11)")


def test_an_item_that_takes_too_long_is_lost() -> None:
    one, lost = parallel_map(doubled, [1, 14], workers=1, seconds=0.5)
    assert (one, lost) == (2, WorkerFailure("it took longer than 0.5 s"))


def test_an_exception_of_the_work_is_raised_where_its_result_would_be() -> None:
    results = parallel_map(doubled, [1, 15, 2], workers=2)
    assert next(results) == 2
    with pytest.raises(ValueError, match="fifteen"):
        next(results)


def test_items_are_read_only_a_little_ahead() -> None:
    read = []

    def items() -> Iterator[int]:
        for item in range(1000):
            read.append(item)
            yield item

    results = parallel_map(doubled, items(), workers=2)
    assert next(results) == 0
    assert len(read) < 20
    results.close()  # type: ignore[attr-defined]


def test_as_many_processes_as_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    from valentina_pipeline.common.parallel import worker_count

    monkeypatch.setenv("VALENTINA_WORKERS", "5")
    assert worker_count() == 5
    monkeypatch.delenv("VALENTINA_WORKERS")
    assert worker_count() == len(os.sched_getaffinity(0))
