"""Source images and their reading: remote ones are prefetched by several threads."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from valentina_pipeline.image.io.decode import brief


@dataclass(frozen=True)
class SourceImage:
    """An image file before decoding.

    Attributes:
        name: file name relative to its source.
        content: reads the file, at most one byte more than `max_bytes`; picklable.
        attributes: known traits: trait -> word.
        version: identifies the content, for example by path, size and time; "" if unknown.
        remote: reading waits for the network.
        caption: written by a person in a sidecar file; "" if there is none.
        mask: loss mask from a sidecar file, or None.
    """

    name: str
    content: Callable[[], bytes]
    attributes: Mapping[str, str]
    version: str = ""
    remote: bool = False
    caption: str = ""
    mask: "SourceImage | None" = None


@contextmanager
def prefetch(source_images: Iterable[SourceImage], at_once: int = 16) -> Iterator[Iterator[SourceImage]]:
    """Yield the source images in order; download remote ones ahead into files, `at_once` at a time.

    The files exist as long as the block: workers may read them after the last image was yielded. A failed
    download raises its error again when the content is read.
    """
    with TemporaryDirectory(prefix="fetched-") as folder, ThreadPoolExecutor(at_once) as threads:
        yield _read_ahead(source_images, Path(folder), threads, 2 * at_once)


def _read_ahead(
    source_images: Iterable[SourceImage], folder: Path, threads: ThreadPoolExecutor, max_pending: int
) -> Iterator[SourceImage]:
    pending: deque[Future[SourceImage]] = deque()
    for number, source in enumerate(source_images):
        pending.append(threads.submit(_download, source, folder / str(number)))
        if len(pending) >= max_pending or not source.remote:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _download(source: SourceImage, file: Path) -> SourceImage:
    if not source.remote:
        return source
    try:
        file.write_bytes(source.content())
    except OSError as err:
        return replace(source, content=partial(_raise_error, brief(err)))
    return replace(source, content=partial(_read_and_delete, file))


def _raise_error(message: str) -> bytes:
    raise OSError(message)


def _read_and_delete(file: Path) -> bytes:
    content = file.read_bytes()
    file.unlink()
    return content
