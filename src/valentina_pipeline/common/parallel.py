"""One function over many items: in processes of this machine, or on a Ray cluster where one is configured.

Results come in the order of the items, whatever finishes first, and are the same on every backend. A worker
that dies, or takes too long, loses its item and nothing else.
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
"""Items in waiting for each worker: enough that none idles, few enough that memory stays flat."""

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENCV_FOR_THREADS_NUM", "MKL_NUM_THREADS")
"""Environment of workers: each has one core, and libraries that start more threads would fight over it."""


@dataclass(frozen=True)
class WorkerFailure:
    """In place of an item's result: what became of its worker."""

    why: str


def parallel_map(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    backend: Backend | None = None,
    workers: int | None = None,
    seconds: float = 300.0,
) -> Iterator[Result | WorkerFailure]:
    """Yield `work(item)` for each item, in their order; an exception of `work` is raised here.

    Args:
        work: a function of a module, so that workers find it.
        items: read only a little ahead of what is yielded.
        backend: None takes Ray where RAY_ADDRESS says which cluster, else processes.
        workers: processes; None takes VALENTINA_WORKERS, or as many as there are cores. Ray knows its own.
        seconds: for one item; then its worker is ended.
    """
    if backend == "ray" or (backend is None and os.environ.get("RAY_ADDRESS")):
        return _on_ray(work, items, seconds)
    return _in_processes(work, items, workers or worker_count(), seconds)


def worker_count() -> int:
    """Return how many processes work side by side."""
    return int(os.environ.get("VALENTINA_WORKERS", 0)) or len(os.sched_getaffinity(0))


def _in_processes(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int, seconds: float
) -> Iterator[Result | WorkerFailure]:
    from multiprocessing import get_context
    from multiprocessing.forkserver import ensure_running

    from pebble import ProcessPool

    # forked from a small process that has no threads: a fork of this one could hang
    context: Any = get_context("forkserver")
    # the parent of the workers imports what they need, so that starting one costs next to nothing
    context.set_forkserver_preload([getattr(work, "func", work).__module__])
    with _environment(dict.fromkeys(ONE_THREAD, "1")):
        ensure_running()
    # the work travels once to each worker, and then only items
    with ProcessPool(workers, initializer=_remember, initargs=[work], context=context) as pool:
        waiting: deque[Any] = deque()
        try:
            for item in items:
                waiting.append(pool.schedule(_do, args=[item], timeout=seconds))
                if len(waiting) >= PREFETCH_PER_WORKER * workers:
                    yield _of_process(waiting.popleft(), seconds)
            while waiting:
                yield _of_process(waiting.popleft(), seconds)
        finally:
            for future in waiting:  # nobody wants the rest any more
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


def _remember(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work


def _do(item: Any) -> Any:
    assert _work is not None
    return _work(item)


def _of_process(future: Any, seconds: float) -> Any:
    from pebble import ProcessExpired

    try:
        return future.result()
    except TimeoutError:
        return WorkerFailure(f"it took longer than {seconds:g} s")
    except ProcessExpired as err:
        return WorkerFailure(f"its process died (exit code {err.exitcode})")


def _on_ray(
    work: Callable[[Item], Result], items: Iterable[Item], seconds: float
) -> Iterator[Result | WorkerFailure]:
    import ray
    from ray.exceptions import GetTimeoutError, RayTaskError, WorkerCrashedError

    if not ray.is_initialized():
        ray.init(address="auto", log_to_driver=False)
    remote, sent = ray.remote(max_retries=0)(_done), ray.put(work)
    ahead = PREFETCH_PER_WORKER * max(1, int(ray.cluster_resources().get("CPU", 1)))

    def result(reference: Any) -> Any:
        try:
            return ray.get(reference, timeout=seconds)
        except GetTimeoutError:
            ray.cancel(reference, force=True)
            return WorkerFailure(f"it took longer than {seconds:g} s")
        except WorkerCrashedError:
            return WorkerFailure("its process died")
        except RayTaskError as err:
            raise err.as_instanceof_cause() from err

    waiting: deque[Any] = deque()
    for item in items:
        waiting.append(remote.remote(sent, item))
        if len(waiting) >= ahead:
            yield result(waiting.popleft())
    while waiting:
        yield result(waiting.popleft())


def _done(work: Callable[[Any], Any], item: Any) -> Any:
    return work(item)
