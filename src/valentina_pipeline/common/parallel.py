"""Parallel map in processes of this machine, or on a Ray cluster if one is configured.

Results come in the order of the items and are the same on every backend. If a worker process crashes or times
out, only its item fails.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Backend = Literal["processes", "ray"]

PREFETCH_PER_WORKER = 4
"""Queued items per worker process: enough to keep it busy, few enough to limit memory."""

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM", "MKL_NUM_THREADS")
"""Thread variables of worker processes, set to 1, because each has one core."""


@dataclass(frozen=True)
class WorkerFailure:
    """Replaces the result of an item whose worker process failed, with the reason."""

    why: str


def parallel_map(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    backend: Backend | None = None,
    workers: int | None = None,
    seconds: float = 300.0,
) -> Iterator[Result | WorkerFailure]:
    """Yield `work(item)` for each item, in order; re-raise an exception of `work`.

    Args:
        work: module-level function, so that worker processes can import it.
        items: items, read only a little ahead of the results.
        backend: None is Ray if RAY_ADDRESS is set, else processes.
        workers: number of processes; None is VALENTINA_WORKERS or the number of cores. Ray ignores it.
        seconds: time limit of one item, after which its worker process is killed.
    """
    if backend == "ray" or (backend is None and os.environ.get("RAY_ADDRESS")):
        return _on_ray(work, items, seconds)
    return _in_processes(work, items, workers or worker_count(), seconds)


def worker_count() -> int:
    """Return the number of worker processes."""
    return int(os.environ.get("VALENTINA_WORKERS", 0)) or len(os.sched_getaffinity(0))


def _in_processes(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int, seconds: float
) -> Iterator[Result | WorkerFailure]:
    from multiprocessing import get_context
    from multiprocessing.forkserver import ensure_running

    from pebble import ProcessPool

    # workers are forked from a small process without threads, because a fork of this one could hang
    context: Any = get_context("forkserver")
    # the workers' parent imports their modules, so that a worker starts quickly
    context.set_forkserver_preload([getattr(work, "func", work).__module__])
    with _environment(dict.fromkeys(ONE_THREAD, "1")):
        ensure_running()
    # `work` is sent once to each worker process, and then only items
    with ProcessPool(workers, initializer=_set_work, initargs=[work], context=context) as pool:
        waiting: deque[Any] = deque()
        try:
            for item in items:
                waiting.append(pool.schedule(_run_work, args=[item], timeout=seconds))
                if len(waiting) >= PREFETCH_PER_WORKER * workers:
                    yield _process_result(waiting.popleft(), seconds)
            while waiting:
                yield _process_result(waiting.popleft(), seconds)
        finally:
            for future in waiting:  # the caller stopped early
                future.cancel()


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


_work: Callable[[Any], Any] | None = None


def _set_work(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work


def _run_work(item: Any) -> Any:
    assert _work is not None
    return _work(item)


def _process_result(future: Any, seconds: float) -> Any:
    from pebble import ProcessExpired

    try:
        return future.result()
    except TimeoutError:
        return WorkerFailure(f"it took longer than {seconds:g} s")
    except ProcessExpired as err:
        return WorkerFailure(f"its process crashed (exit code {err.exitcode})")


def _on_ray(
    work: Callable[[Item], Result], items: Iterable[Item], seconds: float
) -> Iterator[Result | WorkerFailure]:
    import ray
    from ray.exceptions import GetTimeoutError, RayTaskError, WorkerCrashedError

    if not ray.is_initialized():
        ray.init(address="auto", log_to_driver=False)
    remote, work_reference = ray.remote(max_retries=0)(_call), ray.put(work)
    max_waiting = PREFETCH_PER_WORKER * max(1, int(ray.cluster_resources().get("CPU", 1)))

    def result(reference: Any) -> Any:
        try:
            return ray.get(reference, timeout=seconds)
        except GetTimeoutError:
            ray.cancel(reference, force=True)
            return WorkerFailure(f"it took longer than {seconds:g} s")
        except WorkerCrashedError:
            return WorkerFailure("its process crashed")
        except RayTaskError as err:
            raise err.as_instanceof_cause() from err

    waiting: deque[Any] = deque()
    for item in items:
        waiting.append(remote.remote(work_reference, item))
        if len(waiting) >= max_waiting:
            yield result(waiting.popleft())
    while waiting:
        yield result(waiting.popleft())


def _call(work: Callable[[Any], Any], item: Any) -> Any:
    return work(item)
